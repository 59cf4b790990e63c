"""Who may send where. The paths are those of tests/kit/relaying.py; a next hop for every domain shows what leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.protocol.paths import parse_path
from tests.kit.recorder import Recorder
from tests.kit.relaying import AT_HOME, BEHIND, OWN, REFUSED
from tests.kit.server import Server
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for


def parsed(path: bytes) -> bool:
    """Whether all of it is a path."""
    found = parse_path(b"<%b>" % path)
    return found is not None and found[1] == len(path) + 2


@pytest.fixture
def catch_all() -> Iterator[Recorder]:
    """Whatever leaves comes here."""
    with Recorder() as recorder:
        yield recorder


def closed_server(folder: Path, catch_all: Recorder) -> Server:
    """Trusts 127.0.0.2 alone."""
    domains = {OWN: f"maildir:{folder}/mail/{{domain}}/{{local}}", BEHIND: catch_all.next_hop}
    return Server(
        folder,
        relay={"networks": ["127.0.0.2/32"]},
        domains=domains,
        routes={"*": catch_all.next_hop},
        limits={"errors": 10_000},
    )


SENDERS = (b"", b"ann@home.test", b"bob@far.test", b"@home.test:bob@far.test")


def test_nothing_leaves_for_a_stranger(tmp_path: Path, catch_all: Recorder) -> None:
    with closed_server(tmp_path, catch_all) as server:
        for sender in SENDERS:
            with server.talk() as talk:
                talk.hello()
                talk.expect(b"MAIL FROM:<%b>" % sender, "250")
                for path in REFUSED:
                    reply = talk.ask(b"RCPT TO:<%b>" % path)
                    assert (reply[0], reply[4:6]) == ("5", "5."), (path, reply)
                talk.expect("DATA", "554 5.5.1")
                for path in AT_HOME:
                    talk.expect(b"RCPT TO:<%b>" % path, "250")
                talk.expect("DATA", "354")
                talk.expect("x\r\n.", "250")
        for name in set(AT_HOME.values()):
            server.wait_letters(name, len(SENDERS) * list(AT_HOME.values()).count(name))
        wait_for(lambda: server.count() == 0, what="an empty queue: nothing was taken for anyone else")
    assert not catch_all.connections


def test_what_a_stranger_may_not_a_friend_may(tmp_path: Path, catch_all: Recorder) -> None:
    """Else the test above could not fail."""
    foreign = [path for path in REFUSED if path.endswith(b"@far.test") and parsed(path)]
    assert len(foreign) >= 10
    with closed_server(tmp_path, catch_all) as server, Talk(server.port, source="127.0.0.2") as talk:
        talk.hello()
        talk.expect("MAIL FROM:<ann@home.test>", "250")
        for path in foreign:
            talk.expect(b"RCPT TO:<%b>" % path, "250")
        talk.expect("DATA", "354")
        talk.expect("x\r\n.", "250")
        catch_all.wait(1)
    asked = [command for command in catch_all.commands if command.startswith(b"RCPT")]
    assert len(asked) == len(foreign)
    assert not [command for command in asked if not command.endswith(b"@far.test>\r\n")]  # routes are dropped


def test_a_host_behind_is_not_told_to_relay(tmp_path: Path, catch_all: Recorder) -> None:
    """It may trust this server; so strangers' mail for it has no second address in the local part."""
    with closed_server(tmp_path, catch_all) as server, server.talk() as talk:
        talk.hello()
        talk.expect("MAIL FROM:<ann@far.test>", "250")
        talk.expect("RCPT TO:<bob%far.test@behind.test>", "550 5.7.1 ")
        talk.expect("RCPT TO:<bob+tag=x@behind.test>", "250")
        talk.expect("DATA", "354")
        talk.expect("x\r\n.", "250")
        catch_all.wait(1)


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
