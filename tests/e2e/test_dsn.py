"""What a client asks to hear of its mail (RFC 3461), and what comes back."""

from __future__ import annotations

import email
import email.utils
import os
import re
import signal
import smtplib
import time
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from tests.kit.server import Server
from tests.kit.sink import ScriptedServer, Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: important\r\nX-Mark: 4711\r\n\r\nthe body\r\n"
SENDER = "ann@home.test"
SOON = {"first": "0.2s", "jitter": 0.0, "factor": 1.0, "expiry": "1h", "ambiguous_wait": "0.2s"}


def give(server: Server, recipients: Sequence[tuple[str, str]], text: bytes = TEXT, options: Sequence[str] = ()) -> str:
    """One message with parameters, by smtplib; its id."""
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.command_encoding = "utf-8"
        client.ehlo()
        assert client.mail(SENDER, options)[0] == 250
        for address, parameters in recipients:
            assert client.rcpt(address, parameters.split())[0] == 250
        code, reply = client.data(text)
    assert code == 250
    found = re.search(rb"queued as (\w+)", reply)
    assert found is not None
    name = found[1].decode("ascii")
    server.sent(name)
    return name


def report(letter: bytes) -> tuple[Message, list[dict[str, str]], Message]:
    """A notice: the whole, the fields for the message and for each recipient, and what it brings back."""
    message = email.message_from_bytes(letter)
    assert message.get_content_type() == "multipart/report"
    parts: Any = message.get_payload()
    _, status, original = parts
    return message, [dict(block.items()) for block in status.get_payload()], original


def actions(letters: Sequence[bytes]) -> list[tuple[str, str]]:
    return sorted((b["Final-Recipient"][8:], b["Action"]) for letter in letters for b in report(letter)[1][1:])


def test_each_recipient_is_told_as_was_asked(tmp_path: Path) -> None:
    replies = {name: ["550 5.1.1 nobody"] for name in ("f0@a.test", "f1@a.test", "f2@a.test", "f3@a.test")}
    with Sink(replies) as sink, Server(tmp_path, routes={"a.test": sink.next_hop}) as server:
        asked = [
            ("f0@a.test", ""),
            ("f1@a.test", "NOTIFY=NEVER"),
            ("f2@a.test", "NOTIFY=FAILURE,DELAY ORCPT=rfc822;F+2B2@a.test"),
            ("f3@a.test", "NOTIFY=SUCCESS"),
            ("r1@a.test", "NOTIFY=SUCCESS"),
            ("r2@a.test", ""),
            ("bob@home.test", "NOTIFY=SUCCESS,FAILURE"),
            ("eve@home.test", "NOTIFY=DELAY"),
        ]
        give(server, asked, options=["ENVID=QQ+2B1", "RET=HDRS"])
        letters = server.wait_letters("ann", 2)
        server.wait_empty()
        assert len(server.letters("ann")) == 2, "one for each destination"
        counters = server.status()["counters"]
    assert (counters["bounces_made"], counters["successes_told"]) == (1, 2)
    assert actions(letters) == [
        ("bob@home.test", "delivered"),
        ("f0@a.test", "failed"),
        ("f2@a.test", "failed"),
        ("r1@a.test", "relayed"),
    ]
    for letter in letters:
        _, (about, *blocks), original = report(letter)
        assert about["Original-Envelope-Id"] == "QQ+1"
        assert original.get_content_type() == "text/rfc822-headers"
        assert b"the body" not in letter
        for block in blocks:
            meant = block.get("Original-Recipient")
            assert meant == ("rfc822; F+2@a.test" if "f2@" in block["Final-Recipient"] else None)


def test_the_whole_message_comes_back(tmp_path: Path) -> None:
    text = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n".encode()
    with Sink({"bob@a.test": ["550 5.1.1 nobody"]}) as sink:
        routes = {"a.test": sink.next_hop}
        with Server(tmp_path, routes=routes, notices={"return_size": "20K"}) as server:
            give(server, [("bob@a.test", "")], text, ["RET=FULL", "BODY=8BITMIME"])
            (letter,) = server.wait_letters("ann")
            give(server, [("bob@a.test", "")], text + b"x\r\n" * 10_000, ["RET=FULL", "BODY=8BITMIME"])
            large = next(found for found in server.wait_letters("ann", 2) if found != letter)
            server.wait_empty()
    message, _, original = report(letter)
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert original.get_content_type() == "message/rfc822"
    assert text.replace(b"\r\n", b"\n") in letter
    assert report(large)[2].get_content_type() == "text/rfc822-headers"
    assert large.isascii()


def test_a_notice_with_eight_bits_is_declared_so(tmp_path: Path) -> None:
    hop = {"EHLO": b"250-peer\r\n250 8BITMIME\r\n", "RCPT": [b"550 5.1.1 nobody\r\n", b"250 ok\r\n"]}
    with ScriptedServer(hop) as peer, Server(tmp_path, domains={}, routes={"*": peer.next_hop}) as server:
        give(server, [("bob@a.test", "")], "Subject: x\r\n\r\nGrüße\r\n".encode(), ["RET=FULL", "BODY=8BITMIME"])
        server.wait_empty()
        (notice,) = peer.messages
        assert "Grüße".encode() in notice.text
        assert any(re.match("MAIL FROM:<>.* BODY=8BITMIME", line) for line in peer.heard)


def test_a_delay_is_told_once_whatever_dies(tmp_path: Path) -> None:
    busy = {"bob@a.test": ["450 4.2.0 busy"], "eve@a.test": ["450 4.2.0 busy"]}
    retry = {**SOON, "delay_warning": "0.1s"}
    with Sink(busy) as sink, Server(tmp_path, routes={"a.test": sink.next_hop}, retry=retry) as server:
        name = give(server, [("bob@a.test", "NOTIFY=DELAY"), ("eve@a.test", "")])
        (letter,) = server.wait_letters("ann")
        shown = wait_for(lambda: _told(server, name), 20, "the warning on record")
        assert shown["told"] == ["delayed"]
        assert [r.get("notify") for r in shown["recipients"]] == [["delay"], None]
        server.kill()
        server.start()
        attempts = server.wait_part(name, "deferred")["attempts"]
        assert attempts >= 1
        server.wait_for_log(f"{name} deferred")
        wait_for(lambda: server.wait_part(name, "deferred")["attempts"] >= attempts + 2, 20, "two more attempts")
        # The notice may have been in hand at the kill and lie there twice; a second warning has another id.
        assert len({email.message_from_bytes(found)["Message-ID"] for found in server.letters("ann")}) == 1
        assert "its sender was told that it is delayed" in server.ctl("queue", "show", name)
    message, (_, block), original = report(letter)
    assert message["Subject"] == "Your message is delayed"
    assert (block["Action"], block["Status"]) == ("delayed", "4.2.0")
    assert block["Final-Recipient"] == "rfc822; bob@a.test"
    left = email.utils.parsedate_to_datetime(block["Will-Retry-Until"]).timestamp() - time.time()
    assert 3000 < left < 3600
    assert original["X-Mark"] is None
    assert "X-Mark: 4711" in original.as_string()


def _told(server: Server, name: str) -> dict[str, Any] | None:
    for part in (server.show(name) or {"parts": []})["parts"]:
        if part["told"]:
            return dict(part)
    return None


@pytest.mark.parametrize("who", ["courier", pytest.param("queue", marks=pytest.mark.slow)])
def test_a_success_is_told_though_a_process_dies(tmp_path: Path, who: str) -> None:
    with Server(tmp_path, retry=SOON) as server:
        pid = server.children()[who][0]
        names = [give(server, [(f"bob{n}@home.test", "NOTIFY=SUCCESS")]) for n in range(10)]
        os.kill(pid, signal.SIGKILL)
        assert len(names) == 10
        expected = {f"bob{n}@home.test" for n in range(10)}
        # A notice that was in hand may lie there twice.
        wait_for(lambda: {to for to, _ in actions(server.letters("ann"))} == expected, 20, "a notice for each")
        server.wait_empty()


def test_success_is_told_by_the_next_host_that_can(tmp_path: Path) -> None:
    hop = {"EHLO": b"250-peer\r\n250 DSN\r\n"}
    with ScriptedServer(hop) as peer, Server(tmp_path, routes={"a.test": peer.next_hop}) as server:
        give(server, [("bob@a.test", "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@a.test")], options=["ENVID=x1", "RET=FULL"])
        server.wait_empty()
        assert server.status()["counters"]["successes_told"] == 0
        assert server.letters("ann") == []
        heard = "\n".join(peer.heard)
    assert re.search(r"MAIL FROM:<ann@home.test>.* RET=FULL ENVID=x1", heard)
    assert re.search(r"RCPT TO:<bob@a.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@a.test", heard)


def test_utf8_comes_back_as_utf8(tmp_path: Path) -> None:
    hop = {"EHLO": b"250-peer\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n", "RCPT": b"550 5.1.1 nobody\r\n"}
    with ScriptedServer(hop) as peer, Server(tmp_path, routes={"a.test": peer.next_hop}) as server:
        give(server, [("josé@a.test", "")], "Subject: Grüße\r\n\r\nx\r\n".encode(), ["SMTPUTF8", "BODY=8BITMIME"])
        (letter,) = server.wait_letters("ann")
        server.wait_empty()
    message = email.message_from_bytes(letter)
    assert message.get_param("report-type") == "global-delivery-status"
    assert "Final-Recipient: utf-8; josé@a.test" in letter.decode()
    assert "Subject: Grüße" in letter.decode()
