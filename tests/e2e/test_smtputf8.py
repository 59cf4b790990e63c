"""Addresses beyond ASCII (RFC 6531): into a Maildir, into the queue, into the log, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.recorder import Recorder
from tests.kit.server import Server
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

BOOKS = "xn--bcher-kva.test"
TEXT = "Subject: Grüße\r\n\r\nhallo\r\n".encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("smtputf8")
    domains = {"bücher.test": f"maildir:{folder}/mail/{{domain}}/{{local}}"}
    with Server(folder, domains=domains, relay={"networks": ["127.0.0.2/32"]}, routes={"*": "hold:"}) as made:
        yield made


def send(talk: Talk, sender: str, recipient: str) -> str:
    """The id of a message from one to one."""
    talk.expect(f"MAIL FROM:<{sender}> SMTPUTF8 BODY=8BITMIME".encode(), "250 2.1.0")
    talk.expect(f"RCPT TO:<{recipient}>".encode(), "250 2.1.5")
    talk.expect("DATA", "354")
    talk.socket.sendall(TEXT + b".\r\n")
    found = re.match(r"250 2\.0\.0 queued as (\w+)", talk.reply())
    assert found
    return found[1]


def letters(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("new/*"))]


def test_a_maildir_for_all_ways_to_write_an_address(server: Server) -> None:
    recipients = ["Éva@bücher.test", f"éva@{BOOKS}", "e\u0301va@BÜCHER.test", '"éva"@bu\u0308cher.test']
    with server.talk() as talk:
        assert "250-SMTPUTF8\r\n" in talk.hello()
        for recipient in recipients:
            send(talk, "ölaf@straße.example", recipient)
    maildir = server.folder / "mail" / BOOKS / "éva"
    found = wait_for(lambda: len(got := letters(maildir)) == len(recipients) and got, what="the letters")
    assert {re.search(rb"\tby mx\.\w+ with (\w+) id", text)[1] for text in found} == {b"UTF8SMTP"}
    assert all("Return-Path: <ölaf@xn--strae-oqa.example>\n".encode() in text for text in found)
    assert any(f"\tfor <Éva@{BOOKS}>;".encode() in text for text in found)
    assert [path.name for path in maildir.parent.iterdir()] == ["éva"]


def test_the_queue_and_the_log_know_such_addresses(server: Server) -> None:
    with Talk(server.port, source="127.0.0.2") as talk:
        talk.hello()
        name = send(talk, "用户@例え.test", "δοκιμή@παράδειγμα.test")
    domain = "xn--hxajbheg2az3al.test"
    wait_for(lambda: server.count(f"id={name}"), what="the message in the queue")
    (row,) = server.rows(f"id={name}")
    assert row["sender"] == "用户@xn--r8jz45g.test"
    assert row["recipients"] == [f"δοκιμή@{domain}"]
    assert server.count(f"domain={domain}") == server.count("recipient=δοκιμή@*") == server.count("sender=用户@*") == 1
    line = next(line for line in server.log.read_text("utf-8").splitlines() if f"{name} received" in line)
    assert f"from=<用户@xn--r8jz45g.test> to=<δοκιμή@{domain}>" in line


def test_what_cannot_be_is_refused_at_once(server: Server) -> None:
    with server.talk() as talk:
        talk.hello()
        talk.expect("MAIL FROM:<é@x.test>".encode(), "553 5.6.7 ")
        talk.expect("MAIL FROM:<a@€.test> SMTPUTF8".encode(), "553 5.1.8 ")
        talk.expect(b"MAIL FROM:<\xe9@x.test> SMTPUTF8", "501 5.1.7 ")
        talk.expect("MAIL FROM:<a@x.test>", "250 ")
        talk.expect("RCPT TO:<éva@bücher.test>".encode(), "553 5.6.7 ")
        talk.expect("RSET", "250 ")
        talk.expect("MAIL FROM:<a@x.test> SMTPUTF8", "250 ")
        talk.expect("RCPT TO:<éva@bücher.example>".encode(), "550 5.7.1 ")  # that is no relay either
        talk.expect("RCPT TO:<éva@€.test>".encode(), "553 5.1.2 ")
        talk.expect("RCPT TO:<é\u200dva@bücher.test>".encode(), "550 5.1.1 ")  # no mailbox can be called so
        talk.expect(f"RCPT TO:<{'é' * 32}@bücher.test>".encode(), "250 ")
        talk.expect(f"RCPT TO:<{'é' * 33}@bücher.test>".encode(), "501 5.1.3 ")


def test_whom_the_next_host_cannot_serve_goes_back_alone(tmp_path: Path) -> None:
    with Recorder() as recorder, Server(tmp_path, routes={"far.test": recorder.next_hop}) as server:
        with server.talk() as talk:
            talk.hello()
            talk.expect("MAIL FROM:<ann@home.test> SMTPUTF8", "250")
            for local in ("bob", "grün", "eve"):
                talk.expect(f"RCPT TO:<{local}@far.test>".encode(), "250")
            talk.expect("DATA", "354")
            talk.expect("Subject: plain\r\n\r\nx\r\n.", "250")
        recorder.wait(1)
        (notice,) = server.wait_letters("ann")
        server.wait_empty()
    asked = [command for command in recorder.commands if command.startswith(b"RCPT")]
    assert asked == [b"RCPT TO:<bob@far.test>\r\n", b"RCPT TO:<eve@far.test>\r\n"]
    assert b"Status: 5.6.7" in notice
    assert b"bob@far.test" not in notice
    assert server.log.read_text().count(" delivered to=<") >= 2
