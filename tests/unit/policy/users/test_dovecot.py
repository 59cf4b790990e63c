"""Dovecot as a judge of passwords: the real one, and one that misbehaves."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.policy.users.accounts import Unavailable, User
from mta.policy.users.dovecot import DovecotJudge
from tests.kit.dovecot import dovecot


def test_a_real_dovecot() -> None:
    async def go(socket: Path) -> None:
        judge = DovecotJudge(socket)
        assert await judge.judge("alice@x.test", "pass wörd", "192.0.2.1") == User("alice@x.test")
        assert await judge.judge("alice@x.test", "wrong", "2001:db8::1") is None
        assert await judge.judge("nobody@x.test", "pass wörd", "") is None
        many = await asyncio.gather(*(judge.judge("bob", word, "") for word in ["b", "c"] * 20))
        assert many == [User("bob"), None] * 20
        await judge.close()

    with dovecot({"alice@x.test": "pass wörd", "bob": "b"}) as socket:
        asyncio.run(go(socket))


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mta-") as folder:
        yield Path(folder, "auth")


HELLO = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\tx\nDONE\n"


@pytest.mark.parametrize(
    ("hello", "answer"),
    [
        (b"", b""),
        (b"VERSION\t2\t0\nDONE\n", b""),
        (b"VERSION\t1\t2\nMECH\tCRAM-MD5\nDONE\n", b""),
        (b"x" * 40_000, b""),
        (HELLO, b""),
        (HELLO, b"FAIL\t1\tuser=a\ttemp\n"),
        (HELLO, b"FAIL\t1\tcode=temp_fail\n"),
        (HELLO, b"OK\n"),
        (HELLO, b"y" * 40_000),
    ],
)
def test_what_is_no_verdict(socket: Path, hello: bytes, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(hello)
        if hello is HELLO:
            while not (await reader.readline()).startswith(b"AUTH\t"):
                pass
            writer.write(answer)
        writer.close()

    async def go() -> None:
        judge = DovecotJudge(socket)
        with pytest.raises(Unavailable):
            await judge.judge("alice", "x", "")
        server = await asyncio.start_unix_server(serve, socket)
        for _ in range(2):  # each on a connection of its own
            with pytest.raises(Unavailable):
                await judge.judge("alice", "x", "")
        server.close()
        await judge.close()

    asyncio.run(go())


def test_the_protocol(socket: Path) -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        while line := await reader.readline():
            heard.append(line)
            if line.startswith(b"AUTH"):
                number = line.split(b"\t")[1]
                writer.write(b"CONT\t%b\t\nOK\t999\tuser=x\nFAIL\t%b\tuser=a\n" % (number, number))
        writer.close()

    async def go() -> None:
        server = await asyncio.start_unix_server(serve, socket)
        judge = DovecotJudge(socket)
        assert await judge.judge("a", "b", "192.0.2.1") is None
        assert await judge.judge("a", "b", "") is None
        await judge.close()
        server.close()

    asyncio.run(go())
    assert heard == [
        b"VERSION\t1\t2\n",
        b"CPID\t%d\n" % os.getpid(),
        b"AUTH\t1\tPLAIN\tservice=smtp\tsecured\trip=192.0.2.1\tresp=AGEAYg==\n",
        b"AUTH\t2\tPLAIN\tservice=smtp\tsecured\tresp=AGEAYg==\n",
    ]
