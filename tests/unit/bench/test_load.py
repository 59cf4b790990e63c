"""The load generator into the sink: both count the same, however the mail is sent."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from bench.load import Plan, Tally, drive, text_of
from bench.sink import Counter, Session

WAYS = [(True, False), (True, True), (False, False), (False, True)]


class Refusing(asyncio.Protocol):
    """Greets, then hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"220 peer.test\r\n")  # type: ignore[attr-defined]
        transport.close()


async def loaded(plan: Plan) -> tuple[Tally, int]:
    loop = asyncio.get_running_loop()
    counter = Counter(loop)
    server = await loop.create_server(lambda: Session(counter), "127.0.0.1", 0)
    plan.port = server.sockets[0].getsockname()[1]
    try:
        return await drive(plan), counter.count
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(("reuse", "pipelined"), WAYS)
@pytest.mark.parametrize("sessions", [1, 3, 20])
def test_every_message_arrives_once(reuse: bool, pipelined: bool, sessions: int) -> None:
    plan = Plan(0, 10, sessions=sessions, size=2000, reuse=reuse, pipelined=pipelined, users=4)
    tally, count = uvloop.run(loaded(plan))
    assert (tally.accepted, tally.lost, tally.errors) == (10, 0, [])
    assert count == 10
    assert 0 < tally.p50_ms <= tally.p99_ms


def test_a_large_message_in_many_reads() -> None:
    tally, count = uvloop.run(loaded(Plan(0, 3, size=500_000)))
    assert (tally.accepted, count) == (3, 3)


def test_a_server_that_hangs_up_ends_the_run_with_an_error() -> None:
    async def refused() -> Tally:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Refusing, "127.0.0.1", 0)
        try:
            return await drive(Plan(server.sockets[0].getsockname()[1], 10))
        finally:
            server.close()

    tally = uvloop.run(refused())
    assert tally.accepted == 0
    assert "closed the connection" in tally.errors[0]


@pytest.mark.parametrize("size", [200, 1000, 4096, 100_000])
def test_a_text_has_the_size_asked_for(size: int) -> None:
    text = text_of(size)
    assert text.endswith(b"\r\n.\r\n")
    assert abs(len(text) - size) <= 3
    assert max(len(line) for line in text.split(b"\r\n")) <= 78
