"""Mail for domains of this server ends in Maildirs."""

from __future__ import annotations

import email
import re
from pathlib import Path

from tests.kit.server import Server
from tests.kit.talk import Talk

TEXT = b"Subject: first\r\nFrom: <ann@far.test>\r\n\r\nHello.\r\n.dot\r\n..two\r\n\r\nlast\xe9\r\n"


def test_a_letter(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        message_id = server.send("ann@far.test", ["bob@home.test"], TEXT)
        (letter,) = server.wait_letters("bob")
        server.wait_empty()
    lines = letter.split(b"\n")
    assert lines[0] == b"Return-Path: <ann@far.test>"
    assert lines[1] == b"Delivered-To: bob@home.test"
    assert letter.endswith(b"\n" + TEXT.replace(b"\r\n", b"\n"))
    received = email.message_from_bytes(letter)["Received"]
    assert re.search(
        r"from client\.test .*\[127\.0\.0\.1\].* by mx\.test .*with ESMTP id " + message_id, _flat(received)
    )


def test_two_domains_keep_apart(tmp_path: Path) -> None:
    domains = dict.fromkeys(("home.test", "second.test"), f"maildir:{tmp_path}/mail/{{domain}}/{{local}}")
    with Server(tmp_path, domains=domains) as server:
        server.send("ann@far.test", ["bob@home.test", "bob@second.test", "eve@second.test"], TEXT)
        assert len(server.wait_letters("bob")) == 1
        assert b"Delivered-To: bob@second.test\n" in server.wait_letters("bob", domain="second.test")[0]
        assert b"Delivered-To: eve@second.test\n" in server.wait_letters("eve", domain="second.test")[0]
        server.wait_empty()
        assert len(server.letters("bob")) == 1


def test_a_hundred_users(tmp_path: Path) -> None:
    users = [f"user{number:02d}" for number in range(100)]
    with Server(tmp_path) as server:
        with server.talk() as talk:
            talk.hello()
            for turn in range(2):
                for user in users:
                    _send(talk, user, turn)
        server.wait_empty()
        for user in users:
            letters = server.letters(user)
            assert sorted(_subject(letter) for letter in letters) == [f"{user} {turn}" for turn in range(2)]


def test_one_message_to_a_hundred_users(tmp_path: Path) -> None:
    users = [f"user{number:02d}" for number in range(100)]
    with Server(tmp_path) as server:
        server.send("ann@far.test", [f"{user}@home.test" for user in users], TEXT)
        server.wait_empty()
        for user in users:
            (letter,) = server.letters(user)
            assert letter.split(b"\n")[1] == f"Delivered-To: {user}@home.test".encode()


def test_an_address_cannot_lead_out_of_the_mail_directory(tmp_path: Path) -> None:
    """Whatever becomes of such mail, no file appears but below the mailbox's own domain."""
    hostile = [b"../../escaped", b'"../escaped"', b'"a/../../escaped"', b'".."', b'"new/../../x"', b"%2e%2e"]
    with Server(tmp_path) as server:
        with server.talk() as talk:
            talk.hello()
            for local in hostile:
                if talk.ask(b"MAIL FROM:<ann@far.test>").startswith("250") and not talk.ask(
                    b"RCPT TO:<" + local + b"@home.test>"
                ).startswith("250"):
                    talk.expect("RSET", "250")
                    continue
                talk.expect("DATA", "354")
                talk.expect(b"text\r\n.", "250")
        server.send("ann@far.test", ["last@home.test"], TEXT)
        server.wait_letters("last")
        server.wait_empty()
    strangers = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name in ("new", "tmp", "cur")]
    domain = tmp_path / "mail/home.test"
    assert all(path.parents[2] == domain for path in strangers)


def _send(talk: Talk, user: str, turn: int) -> None:
    talk.mail("ann@far.test", [f"{user}@home.test"], f"Subject: {user} {turn}\r\n\r\nx\r\n".encode())


def _subject(letter: bytes) -> str:
    return str(email.message_from_bytes(letter)["Subject"])


def _flat(header: str) -> str:
    return re.sub(r"\s+", " ", header)
