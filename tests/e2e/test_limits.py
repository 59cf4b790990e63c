"""Time-outs and sizes: what a session may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.server import Server
from tests.kit.waiting import wait_for

SHORT = {"greeting_timeout": "0.5s", "command_timeout": "0.5s", "data_timeout": "0.5s"}


@pytest.mark.parametrize("until", ["greeting", "EHLO", "MAIL", "DATA"])
def test_silence_ends_a_session(tmp_path: Path, until: str) -> None:
    with Server(tmp_path, limits=SHORT) as server, server.talk() as talk:
        if until == "greeting":
            assert talk.reply().startswith("220")
        else:
            talk.hello()
        if until in ("MAIL", "DATA"):
            talk.expect("MAIL FROM:<a@x.test>", "250")
        if until == "DATA":
            talk.expect("RCPT TO:<b@home.test>", "250")
            talk.expect("DATA", "354")
            talk.socket.sendall(b"a line, and then silence\r\n")
        assert talk.reply().startswith("421 4.4.2")
        assert talk.closed()
        assert server.count() == 0


def test_a_size_that_is_told_is_refused_at_once(tmp_path: Path) -> None:
    with Server(tmp_path, limits={"message_size": "10K"}) as server, server.talk() as talk:
        assert "SIZE 10240" in talk.hello()
        talk.expect("MAIL FROM:<a@x.test> SIZE=10241", "552 5.3.4")
        talk.expect("MAIL FROM:<a@x.test> SIZE=10240", "250")


def test_a_size_that_is_not_told_is_refused_at_the_end(tmp_path: Path) -> None:
    with Server(tmp_path, limits={"message_size": "10K"}) as server:
        with server.talk() as talk:
            talk.hello()
            talk.expect("MAIL FROM:<a@x.test>", "250")
            talk.expect("RCPT TO:<b@home.test>", "250")
            talk.expect("DATA", "354")
            talk.socket.sendall(b"x" * 998 + b"\r\n")
            talk.expect((b"y" * 998 + b"\r\n") * 12 + b".", "552 5.3.4")
            talk.mail("a@x.test", ["b@home.test"], b"short\r\n")
        assert len(server.wait_letters("b")) == 1
        server.wait_empty()
        assert len(server.letters("b")) == 1


def test_too_many_recipients(tmp_path: Path) -> None:
    with Server(tmp_path, limits={"recipients": 3}) as server, server.talk() as talk:
        talk.hello()
        talk.expect("MAIL FROM:<a@x.test>", "250")
        for number in range(3):
            talk.expect(f"RCPT TO:<u{number}@home.test>", "250")
        talk.expect("RCPT TO:<one-more@home.test>", "452 4.5.3")
        talk.expect("DATA", "354")
        talk.expect("x\r\n.", "250")
        server.wait_letters("u2")


def test_a_full_disk_refuses_mail_and_goes_on_delivering(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        server.send("a@x.test", ["b@home.test", "b@far.test"], b"before\r\n")
        server.wait_letters("b")
        server.configure(
            spool={"segment_size": "4M", "min_free": "100000G"}, route=[{"domain": "*", "next_hop": "discard:"}]
        )
        server.stop()
        server.start()
        with server.talk() as talk:
            talk.hello()
            reply = talk.ask("MAIL FROM:<a@x.test>")
            assert reply.startswith("452 4.3.1"), reply
            talk.expect("NOOP", "250")
        server.ctl("queue", "release", "all")
        server.wait_empty()


def test_a_thousand_messages_over_one_connection(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        with server.talk() as talk:
            talk.hello()
            for _ in range(1000):
                talk.mail("a@x.test", ["b@y.test"], b"x\r\n")
        wait_for(lambda: server.count() == 1000, what="a thousand queued messages")


def test_parallel_large_messages(tmp_path: Path) -> None:
    """Texts that are written while they arrive: several at once, one of them given up half way."""
    text = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 13_000
    with Server(tmp_path) as server:
        talks = [server.talk() for _ in range(5)]
        for talk in talks:
            talk.hello()
            talk.expect("MAIL FROM:<a@x.test>", "250")
            talk.expect("RCPT TO:<b@home.test>", "250")
            talk.expect("DATA", "354")
        for start in range(0, len(text), 100_000):
            for talk in talks[: 4 if start > 300_000 else 5]:
                talk.socket.sendall(text[start : start + 100_000])
        talks[4].socket.close()
        for talk in talks[:4]:
            talk.socket.sendall(b".\r\n")
        assert all(talk.reply().startswith("250") for talk in talks[:4])
        for talk in talks:
            talk.socket.close()
        letters = server.wait_letters("b", 4)
        assert all(letter.endswith(text.replace(b"\r\n", b"\n")) for letter in letters)
        server.wait_empty()
        assert len(server.letters("b")) == 4
