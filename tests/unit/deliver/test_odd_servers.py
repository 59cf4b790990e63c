"""Servers that do what no server should, over sockets: what they get, and what the courier learns of them.

What is a matter of octets alone is in tests/client_dialogs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mta.deliver.manners import BELIEVED, Lesson, Manner, Manners
from mta.model import Status
from tests.kit.courier import run, smtp_site, until, verdicts
from tests.kit.peer import CLOSE, Answer, Peer
from tests.unit.deliver.test_pool import deliver, rig

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
EHLO = b"250-odd.example\r\n250 PIPELINING\r\n"


class Raw:
    """A server that is one function."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self.connections = 0
        self._open = 0

    async def __aenter__(self) -> Raw:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await until(lambda: not self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open += 1
        try:
            await self._handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= 1
            writer.close()


def noted(lines: list[str]) -> list[str]:
    return [line.split(" without=")[1].split(" ")[0] for line in lines if " - fallback " in line]


# ---- EHLO


def test_closing_at_ehlo_is_answered_by_helo(tmp_path: Path) -> None:
    peer = Peer({"EHLO": CLOSE})

    async def main() -> None:
        async with rig(tmp_path, peer, idle_timeout=0.05) as (r, pool):
            pool.add(r.mail())
            (result,) = await r.settled(1)
            assert result.outcomes == ()
            await until(lambda: pool.unused)
            pool.add(r.mail())
            await r.settled(2)
            assert noted(r.lines()) == ["EHLO"]

    run(main())
    assert peer.heard.count("EHLO me.example") == 1
    assert peer.heard.count("HELO me.example") == 2
    assert peer.connections == 3


def test_helo_is_not_said_where_tls_is_required(tmp_path: Path) -> None:
    peer = Peer({"EHLO": CLOSE})
    results, r = deliver(tmp_path, peer, tls="require")
    assert verdicts(results[0]) == [(Status.DEFERRED, 0, "4.4.2", ())]
    assert peer.heard == ["EHLO me.example"]
    assert noted(r.lines()) == []


def test_closing_at_helo_too_defers(tmp_path: Path) -> None:
    results, _ = deliver(tmp_path, Peer({"EHLO": CLOSE, "HELO": CLOSE}))
    assert verdicts(results[0]) == [(Status.DEFERRED, 0, "4.4.2", ())]


def test_lmtp_has_nothing_to_fall_back_to(tmp_path: Path) -> None:
    peer = Peer({"LHLO": CLOSE}, lmtp=True)

    async def main() -> None:
        await peer.start()
        site = smtp_site((0, "127.0.0.1"), port=peer.port)
        from msgspec import structs

        async with rig(tmp_path, site=structs.replace(site, kind="lmtp")) as (r, pool):
            pool.add(r.mail())
            (result,) = await r.settled(1)
            assert [o.status for o in result.outcomes] == [Status.DEFERRED]
        await peer.stop()

    run(main())
    assert peer.connections <= 2


# ---- a PIPELINING that is none


def lockstep_only(swallow: str) -> Handler:
    """Offers PIPELINING; of several commands in one packet it answers the first, and then does what `swallow` says."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 odd\r\n")
        await reader.readline()
        writer.write(EHLO)
        in_text = False
        while True:
            packet = await reader.read(65536)
            if not packet:
                return
            if in_text:
                in_text = not packet.endswith(b"\r\n.\r\n")
                if not in_text:
                    writer.write(b"250 taken\r\n")
                continue
            first, _, rest = packet.partition(b"\r\n")
            if rest and swallow == "close":
                return
            in_text = first.upper() == b"DATA"
            if first.upper() == b"QUIT":
                writer.write(b"221 bye\r\n")
                return
            writer.write(b"354 go\r\n" if in_text else b"250 ok\r\n")
            if rest and swallow == "one-reply":
                writer.write(b"250 ok\r\n250 ok\r\n")  # DATA answered like the rest
            if rest and swallow == "errors":
                writer.write(b"503 bad sequence\r\n" * 1 + b"garbage\r\n")

    return handle


@pytest.mark.parametrize("swallow", ["close", "silence", "one-reply", "errors"])
def test_a_server_that_cannot_pipeline_is_spoken_to_line_by_line(tmp_path: Path, swallow: str) -> None:
    async def main() -> None:
        async with Raw(lockstep_only(swallow)) as server:
            site = smtp_site((0, "127.0.0.1"), port=server.port, connections=1)
            async with rig(tmp_path, site=site, command_timeout=0.4, idle_timeout=0.1) as (r, pool):
                pool.add(r.mail(3))
                results = await r.settled(3)
                assert all(result.outcomes == () for result in results)
                await until(lambda: pool.unused)
                used = server.connections
                pool.add(r.mail(1))
                await r.settled(4)
                assert server.connections == used + 1
                assert noted(r.lines()) == ["PIPELINING"]

    run(main())


def test_replies_out_of_step_bounce_nobody(tmp_path: Path) -> None:
    """A reply too many in front: what was meant for one recipient would be read as another's."""
    script: dict[str, Answer] = {
        "MAIL": b"250 ok\r\n250 and again\r\n",
        "RCPT": lambda line: b"550 5.1.1 no such user\r\n" if "b@" in line else b"250 ok\r\n",
    }
    peer = Peer(script)

    async def main() -> None:
        async with rig(tmp_path, peer) as (r, pool):
            pool.add([r.job(r.reader.put(b"a@x", [b"b@y", b"c@y"], b"hi\r\n"))])
            (result,) = await r.settled(1)
            assert verdicts(result) == [(Status.DEFERRED, 0, "4.5.0", ())]

    run(main())
    assert peer.messages == []


# ---- slow ones


def drips(octets: bytes, pause: float) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in range(len(octets)):
            if writer.is_closing():
                return
            writer.write(octets[at : at + 1])
            await writer.drain()
            await asyncio.sleep(pause)

    return handle


def test_a_greeting_that_drips_for_ever_is_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with Raw(drips(b"220-" + b"x" * 100_000, 0.01)) as server:
            async with rig(tmp_path, site=smtp_site((0, "127.0.0.1"), port=server.port), connect_timeout=0.3) as (
                r,
                pool,
            ):
                pool.add(r.mail())
                (result,) = await r.settled(1)
                ((status, _, enhanced, _),) = verdicts(result)
                assert (status, enhanced) == (Status.DEFERRED, "4.4.2")
                assert "no greeting within" in result.outcomes[0].reply.text

    run(main())


def test_a_greeting_of_slow_lines_is_heard_to_its_end(tmp_path: Path) -> None:
    peer = Peer({"greeting": b"220-odd\r\n" * 50 + b"220 welcome\r\n"})
    results, _ = deliver(tmp_path, peer)
    assert results[0].outcomes == ()


@pytest.mark.parametrize("bye", [CLOSE, b"", b"500 what?\r\n", b"221-a\r\n"])
def test_any_answer_to_quit_will_do(tmp_path: Path, bye: bytes) -> None:
    peer = Peer({"QUIT": bye or b"\r\n"})

    async def main() -> None:
        async with rig(tmp_path, peer, idle_timeout=0.05) as (r, pool):
            pool.add(r.mail())
            (result,) = await r.settled(1)
            assert result.outcomes == ()
            await until(lambda: pool.unused)

    run(main())


# ---- what is remembered


def test_lessons_are_forgotten_after_a_time() -> None:
    now = 0.0
    manners = Manners(lambda: now)
    assert manners.of("a") == Manner()
    manners.learn("a", Lesson.TLS)
    now = 100.0
    manners.learn("a", Lesson.EHLO)
    assert manners.of("a") == Manner(starttls=False, esmtp=False)
    assert manners.of("b") == Manner()
    now = BELIEVED + 1
    assert manners.of("a") == Manner(esmtp=False)
    now = BELIEVED + 101
    assert manners.of("a") == Manner()


def test_lessons_are_bounded() -> None:
    manners = Manners(lambda: 0.0)
    for n in range(10_001):
        manners.learn(f"host{n}", Lesson.PIPELINING)
    assert manners.of("host0").pipelining
    assert not manners.of("host1").pipelining
    assert not manners.of("host10000").pipelining
