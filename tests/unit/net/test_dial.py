"""Outbound connections: names, literals, unix sockets, and every way to fail."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from mta.model import ANYWHERE, Reply, Source
from mta.net.dial import DialFailure, Target, connect, literal, reachable, targets
from tests.kit.courier import FakeResolver, run


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("mx.example.net", ""),
        ("192.0.2", ""),
        ("[mx.example.net]", ""),
    ],
)
def test_literals(host: str, address: str) -> None:
    assert literal(host) == address


def resolve(host: str, port: int, resolver: FakeResolver) -> list[Target] | DialFailure:
    kept: list[list[Target] | DialFailure] = []

    async def main() -> None:
        kept.append(await targets(host, port, resolver))

    run(main())
    return kept[0]


def test_addresses_in_the_resolvers_order() -> None:
    found = resolve("mx", 25, FakeResolver({"mx": ("2001:db8::1", "192.0.2.1")}))
    assert found == [Target("mx", "2001:db8::1", 25), Target("mx", "192.0.2.1", 25)]
    assert str(found[0]) == "mx[2001:db8::1]:25"


def test_no_more_than_a_few_addresses() -> None:
    found = resolve("mx", 25, FakeResolver({"mx": tuple(f"192.0.2.{i}" for i in range(100))}))
    assert isinstance(found, list)
    assert len(found) == 8


def test_literal_needs_no_resolver() -> None:
    assert resolve("[192.0.2.1]", 25, FakeResolver()) == [Target("[192.0.2.1]", "192.0.2.1", 25)]


@pytest.mark.parametrize("path", ["/run/lmtp.sock", "var/lmtp.sock"])
def test_paths(path: str) -> None:
    assert resolve(path, 0, FakeResolver()) == [Target(path, path, 0)]
    assert resolve(path, 24, FakeResolver()) == [Target(path, path, 0)]


def test_missing_and_unanswered_names() -> None:
    missing = resolve("nowhere", 25, FakeResolver())
    assert isinstance(missing, DialFailure)
    assert (missing.permanent, missing.reply.enhanced, missing.hop) == (True, "5.4.4", "nowhere")
    unanswered = resolve("mx", 25, FakeResolver({"mx": None}))
    assert isinstance(unanswered, DialFailure)
    assert (unanswered.permanent, unanswered.reply.enhanced) == (False, "4.4.3")


def test_connects(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            sock = await connect(Target("mx", "127.0.0.1", port), 5)
            assert isinstance(sock, socket.socket)
            assert sock.getpeername() == ("127.0.0.1", port)
            assert not sock.getblocking()
            assert not sock.get_inheritable()
            sock.close()
        with socket.socket(socket.AF_UNIX) as server:
            path = str(tmp_path / "s")
            server.bind(path)
            server.listen()
            sock = await connect(Target(path, path, 0), 5)
            assert isinstance(sock, socket.socket)
            sock.close()

    run(main())


def test_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    async def main() -> None:
        failure = await connect(Target("mx", "127.0.0.1", port), 5)
        text = f"cannot connect to mx[127.0.0.1]:{port}: Connection refused"
        assert failure == DialFailure(Reply(0, "4.4.1", text), False, f"mx[127.0.0.1]:{port}")

    run(main())


@pytest.mark.parametrize(("name", "why"), [("none", "No such file or directory"), ("x" * 200, "too long")])
def test_unix_socket_that_is_not_there(tmp_path: Path, name: str, why: str) -> None:
    async def main() -> None:
        failure = await connect(Target("", str(tmp_path / name), 0), 5)
        assert isinstance(failure, DialFailure)
        assert failure.reply.enhanced == "4.4.1"
        assert why in failure.reply.text

    run(main())


def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        # A listener whose queue is full answers nobody.
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            target = Target("mx", "127.0.0.1", server.getsockname()[1])
            held = []
            while True:
                got = await connect(target, 0.1)
                if isinstance(got, DialFailure):
                    break
                held.append(got)
            assert got.reply.text == f"cannot connect to {target}: no answer within 0.1 s"
            for sock in held:
                sock.close()

    run(main())


def test_out_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    async def main() -> None:
        monkeypatch.setattr("mta.net.dial._socket", none_left)
        failure = await connect(Target("mx", "127.0.0.1", 25), 5)
        assert isinstance(failure, DialFailure)
        assert failure.reply.text.endswith("Too many open files")
        await asyncio.sleep(0)

    run(main())


# ---- sources

FOUR, SIX = Target("mx", "192.0.2.1", 25), Target("mx", "2001:db8::1", 25)
BOTH = Source(name="both", ipv4="127.0.0.2", ipv6="::1")


@pytest.mark.parametrize(
    ("source", "found", "left"),
    [
        (ANYWHERE, [SIX, FOUR], [SIX, FOUR]),
        (Source(name="named", ehlo="x.test"), [SIX, FOUR], [SIX, FOUR]),
        (BOTH, [SIX, FOUR], [SIX, FOUR]),
        (Source(name="old", ipv4="192.0.2.9"), [SIX, FOUR], [FOUR]),
        (Source(name="new", ipv6="::1"), [SIX, FOUR], [SIX]),
        (Source(name="new", ipv6="::1"), [Target("/x", "/x", 0)], [Target("/x", "/x", 0)]),
    ],
)
def test_a_source_reaches_what_it_has_addresses_for(source: Source, found: list[Target], left: list[Target]) -> None:
    assert reachable(found, source) == left


def test_a_source_that_reaches_nothing_says_so() -> None:
    failure = reachable([SIX], Source(name="old", ipv4="192.0.2.9"))
    assert isinstance(failure, DialFailure)
    assert not failure.permanent
    assert str(failure.reply) == "4.3.5 source old has an IPv4 address only, and mx none but IPv6 ones"


@pytest.mark.parametrize(("host", "own"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
def test_a_connection_comes_from_its_source(host: str, own: str) -> None:
    async def main() -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as server:
            server.bind((host, 0))
            server.listen()
            sock = await connect(Target("mx", host, server.getsockname()[1]), 5, BOTH)
            assert isinstance(sock, socket.socket)
            with sock, server.accept()[0] as accepted:
                assert accepted.getpeername()[0] == own

    run(main())


def test_an_address_of_another_machine_is_told_and_the_mail_waits() -> None:
    async def main() -> None:
        failure = await connect(Target("mx", "127.0.0.1", 9), 5, Source(name="out", ipv4="192.0.2.77"))
        assert isinstance(failure, DialFailure)
        assert not failure.permanent
        said = "4.3.5 source out cannot be used: this machine has no address 192.0.2.77"
        assert str(failure.reply) == said

    run(main())
