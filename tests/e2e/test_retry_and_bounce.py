"""4xx is tried again, 5xx and expiry go back to the sender, a null reverse-path never does."""

from __future__ import annotations

import email
import email.message
import re
from pathlib import Path
from typing import Any

import pytest

from tests.kit.server import Server
from tests.kit.sink import ScriptedServer, Sink, refused_port

TEXT = b"Subject: important\r\nX-Mark: 4711\r\n\r\nhello\r\n"
SENDER = "ann@home.test"
SOON = {"first": "0.2s", "jitter": 0.0, "factor": 1.0, "expiry": "1h", "ambiguous_wait": "0.2s"}


def notice(letter: bytes) -> tuple[email.message.Message, list[dict[str, str]]]:
    """A DSN taken apart: the whole, and the fields of each recipient (RFC 3464 §2.3)."""
    message = email.message_from_bytes(letter)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    parts: Any = message.get_payload()
    human, status, original = parts
    assert human.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert original.get_content_type() in ("message/rfc822", "text/rfc822-headers")
    assert "X-Mark: 4711" in original.as_string()
    blocks: Any = status.get_payload()
    assert "Reporting-MTA" in blocks[0]
    return message, [dict(block.items()) for block in blocks[1:]]


def test_a_4xx_is_tried_again(tmp_path: Path) -> None:
    busy = {"bob@a.test": ["450 4.2.0 busy", "450 4.2.0 busy", ""]}
    with Sink(busy) as sink, Server(tmp_path, routes={"*": sink.next_hop}, retry=SOON) as server:
        message_id = server.send(SENDER, ["bob@a.test"], TEXT)
        (got,) = sink.wait(1)
        server.wait_empty()
        log = server.log.read_text()
        assert got.content.endswith(TEXT)
        assert log.count(f"{message_id} deferred") == 2
        assert server.letters("ann") == []


@pytest.mark.parametrize("where", ["senders", "texts"])
def test_a_4xx_at_any_step_is_tried_again(tmp_path: Path, where: str) -> None:
    scripts: dict[str, Any] = {
        "senders": {SENDER: ["451 4.3.0 not now", ""]},
        "texts": {"bob@a.test": ["452 4.3.1 no room", ""]},
    }
    with Sink(**{where: scripts[where]}) as sink, Server(tmp_path, routes={"*": sink.next_hop}, retry=SOON) as server:
        server.send(SENDER, ["bob@a.test"], TEXT)
        sink.wait(1)
        server.wait_empty()
        assert server.letters("ann") == []


def test_what_waits_says_why(tmp_path: Path) -> None:
    busy = {"bob@a.test": ["450 4.2.0 the mailbox is busy"]}
    with Sink(busy) as sink, Server(tmp_path, routes={"*": sink.next_hop}) as server:
        message_id = server.send(SENDER, ["bob@a.test"], TEXT)
        part = server.wait_part(message_id, "deferred")
        assert "450 4.2.0 the mailbox is busy" in part["reason"]
        assert part["attempts"] == 1
        assert part["next"] is not None


@pytest.mark.parametrize("where", ["recipients", "senders", "texts"])
def test_a_5xx_goes_back_to_the_sender(tmp_path: Path, where: str) -> None:
    scripts: dict[str, Any] = {
        "recipients": {"bob@a.test": ["550 5.1.1 nobody of that name"]},
        "senders": {SENDER: ["550 5.7.1 nobody of that name"]},
        "texts": {"bob@a.test": ["554 5.6.0 nobody of that name"]},
    }
    with Sink(**{where: scripts[where]}) as sink, Server(tmp_path, routes={"a.test": sink.next_hop}) as server:
        server.send(SENDER, ["bob@a.test"], TEXT)
        (letter,) = server.wait_letters("ann")
        server.wait_empty()
        assert sink.got == []
    assert letter.startswith(b"Return-Path: <>\n")
    message, (fields,) = notice(letter)
    assert message["To"] is not None
    assert SENDER in message["To"]
    assert fields["Action"] == "failed"
    assert fields["Status"].startswith("5.")
    assert re.search(r"rfc822; *bob@a\.test", fields["Final-Recipient"])
    assert "nobody of that name" in fields["Diagnostic-Code"]


def test_each_recipient_has_its_own_fate(tmp_path: Path) -> None:
    replies = {"no@a.test": ["550 5.1.1 nobody"], "later@a.test": ["450 4.2.0 busy", "450 4.2.0 busy", ""]}
    with Sink(replies) as sink, Server(tmp_path, routes={"*": sink.next_hop}, retry=SOON) as server:
        server.send(SENDER, ["yes@a.test", "no@a.test", "later@a.test"], TEXT)
        sink.wait(2)
        (letter,) = server.wait_letters("ann")
        server.wait_empty()
        assert [got.recipients for got in sink.got] == [("yes@a.test",), ("later@a.test",)]
        assert len(server.letters("ann")) == 1
    (fields,) = notice(letter)[1]
    assert "no@a.test" in fields["Final-Recipient"]


def test_what_is_too_old_goes_back(tmp_path: Path) -> None:
    busy = {"bob@a.test": ["450 4.2.0 busy for ever"]}
    retry = {**SOON, "expiry": "1s"}
    with Sink(busy) as sink, Server(tmp_path, routes={"a.test": sink.next_hop}, retry=retry) as server:
        server.send(SENDER, ["bob@a.test"], TEXT)
        (letter,) = server.wait_letters("ann")
        server.wait_empty()
    message, (fields,) = notice(letter)
    assert fields["Action"] == "failed"
    assert fields["Status"].startswith("4.") or fields["Status"] == "5.4.7"
    assert "busy for ever" in message.as_string().partition("Reporting-MTA")[0]


@pytest.mark.parametrize("reply", ["550 5.1.1 nobody", "450 4.2.0 busy"])
def test_a_null_reverse_path_gets_no_notice(tmp_path: Path, reply: str) -> None:
    retry = {**SOON, "expiry": "0.5s"}
    with (
        Sink({"bob@a.test": [reply]}) as sink,
        Server(tmp_path, routes={"a.test": sink.next_hop}, retry=retry) as server,
    ):
        server.send("", ["bob@a.test"], TEXT)
        server.wait_empty()
        assert server.status()["counters"]["bounces_made"] == 0
        assert not server.maildirs.exists()
        assert sink.got == []


def test_a_notice_that_cannot_be_delivered_ends(tmp_path: Path) -> None:
    """No notice about a notice: both addresses are refused, and the queue still empties."""
    no = {"bob@a.test": ["550 5.1.1 nobody"], "ann@a.test": ["550 5.1.1 nobody either"]}
    with Sink(no) as sink, Server(tmp_path, routes={"a.test": sink.next_hop}) as server:
        server.send("ann@a.test", ["bob@a.test"], TEXT)
        server.wait_empty()
        assert server.status()["counters"]["bounces_made"] == 1


def test_a_refused_connection_is_tried_again(tmp_path: Path) -> None:
    port = refused_port()
    with Server(tmp_path, routes={"*": f"smtp:127.0.0.1:{port}"}, retry=SOON) as server:
        message_id = server.send(SENDER, ["bob@a.test"], TEXT)
        assert "refused" in server.wait_part(message_id, "deferred")["reason"].lower()
        with Sink(port=port) as sink:
            sink.wait(1)
            server.wait_empty()


@pytest.mark.parametrize(
    "script",
    [
        {"greeting": [b"421 4.3.2 closing\r\n", b"220 peer.example\r\n"]},
        {"greeting": [b"554 5.3.2 not today\r\n", b"220 peer.example\r\n"]},
        {"greeting": [b"<close>", b"220 peer.example\r\n"]},
        {"greeting": [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 peer.example\r\n"]},
        {"MAIL": [b"<close>", b"250 ok\r\n"]},
        {"DATA": [b"421 4.3.2 closing\r\n", b"354 go\r\n"]},
        {".": [b"<close>", b"250 ok\r\n"]},
    ],
    ids=["421 at once", "554 at once", "closes at once", "HTTP", "closes at MAIL", "421 at DATA", "closes at the dot"],
)
def test_an_odd_peer_gets_the_mail_in_the_end(tmp_path: Path, script: dict[str, Any]) -> None:
    with ScriptedServer(script) as peer, Server(tmp_path, routes={"*": peer.next_hop}, retry=SOON) as server:
        server.send("", ["bob@a.test"], TEXT)
        server.wait_empty()
        assert peer.messages[-1].text.endswith(TEXT)
