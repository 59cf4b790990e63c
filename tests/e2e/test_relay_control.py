"""Who may send where."""

from __future__ import annotations

from pathlib import Path

from tests.kit.server import Server
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

FOREIGN = [
    "bob@far.test",
    "bob%far.test@far.test",
    "@home.test:bob@far.test",
    '"bob@far.test"@other.test',
    "bob@sub.home.test",
    "bob@[127.0.0.1]",
    "bob@home.test.",
]


def test_a_foreign_client_cannot_relay(tmp_path: Path) -> None:
    with Server(tmp_path, relay={"networks": ["192.0.2.0/24"]}, routes={"*": "hold:"}) as server:
        with server.talk() as talk:
            talk.hello()
            talk.expect("MAIL FROM:<ann@home.test>", "250")
            talk.expect(f"RCPT TO:<{FOREIGN[0]}>", "550 5.7.1 ")
            for path in FOREIGN:
                talk.expect(f"RCPT TO:<{path}>", "5")
            talk.expect("RCPT TO:<bob@home.test>", "250")
            talk.expect("DATA", "354")
            talk.expect("x\r\n.", "250")
        server.wait_letters("bob")
        wait_for(lambda: server.count() == 0, what="an empty queue: nothing was taken for anyone else")


def test_a_network_may_relay(tmp_path: Path) -> None:
    with Server(tmp_path, relay={"networks": ["127.0.0.2/32"]}, routes={"*": "hold:"}) as server:
        for source, code in (("127.0.0.2", "250"), ("127.0.0.1", "550 5.7.1 ")):
            with Talk(server.port, source=source) as talk:
                talk.hello()
                talk.expect("MAIL FROM:<ann@home.test>", "250")
                talk.expect("RCPT TO:<bob@far.test>", code)


def test_postmaster_is_always_at_home(tmp_path: Path) -> None:
    """RFC 5321 §4.5.1: reserved, without a domain, in any case."""
    with Server(tmp_path, relay={"networks": []}) as server, server.talk() as talk:
        talk.hello()
        talk.expect("MAIL FROM:<>", "250")
        talk.expect("RCPT TO:<PostMaster>", "250")
