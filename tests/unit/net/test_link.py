"""Links: whole records in order, no blocking, a full peer is told of."""

import asyncio

from mta.model import Arrival, Arrivals, Bye, LinkRecord, Position
from mta.net.link import Link, socket_pair


def test_records_arrive_whole_and_in_order() -> None:
    async def scenario() -> list[LinkRecord]:
        loop = asyncio.get_running_loop()
        a, b = socket_pair()
        got: list[LinkRecord] = []
        done = loop.create_future()

        def receive(record: LinkRecord) -> None:
            got.append(record)
            if isinstance(record, Bye):
                done.set_result(None)

        left, right = Link(a, loop, lambda _: None), Link(b, loop, receive)
        left.send(Arrivals(1, (Arrival(1, 2, 3, 4, (b"x.example",)),)))
        left.send(Position(1, 99))
        left.send(Bye(7))
        await asyncio.wait_for(done, 5)
        left.close(), right.close(), a.close(), b.close()
        return got

    assert asyncio.run(scenario()) == [
        Arrivals(1, (Arrival(1, 2, 3, 4, (b"x.example",)),)),
        Position(1, 99),
        Bye(7),
    ]


def test_a_peer_that_does_not_read_never_blocks_and_misses_nothing_that_was_kept() -> None:
    async def scenario() -> tuple[int, list[int]]:
        loop = asyncio.get_running_loop()
        a, b = socket_pair()
        left = Link(a, loop, lambda _: None)
        sent = 0
        while left.try_send(Position(1, sent)):
            sent += 1
        kept = range(sent, sent + 100)
        for ref in kept:
            left.send(Position(1, ref))
        assert not left.try_send(Position(1, 0)), "must not overtake what is kept"
        assert left.backlog == 100
        got: list[int] = []
        done = loop.create_future()

        def receive(record: LinkRecord) -> None:
            assert isinstance(record, Position)
            got.append(record.ref)
            if record.ref == kept[-1]:
                done.set_result(None)

        right = Link(b, loop, receive)
        await asyncio.wait_for(done, 10)
        left.close(), right.close(), a.close(), b.close()
        return sent, got

    sent, got = asyncio.run(scenario())
    assert sent > 1000
    assert got == list(range(sent + 100))


def test_records_sent_while_nobody_was_there_wait_for_the_successor() -> None:
    async def scenario() -> list[LinkRecord]:
        loop = asyncio.get_running_loop()
        a, b = socket_pair()
        left = Link(a, loop, lambda _: None)
        left.send(Position(1, 5))
        got: list[LinkRecord] = []
        arrived = loop.create_future()
        drained: list[int] = []

        def receive(record: LinkRecord) -> None:
            got.append(record)
            arrived.set_result(None)

        right = Link(b, loop, receive, lambda: drained.append(len(got)))
        await asyncio.wait_for(arrived, 5)
        assert drained == [1]
        left.close(), right.close(), a.close(), b.close()
        return got

    assert asyncio.run(scenario()) == [Position(1, 5)]


def test_the_end_of_a_peer_with_unread_packets_is_an_end_like_any_other() -> None:
    """Both ends close when the supervisor dies; what the other side had not read makes the kernel say "reset"."""

    async def scenario() -> list[dict[str, object]]:
        loop = asyncio.get_running_loop()
        faults: list[dict[str, object]] = []
        loop.set_exception_handler(lambda _, context: faults.append(context))
        a, b = socket_pair()
        drained = asyncio.Event()
        left = Link(a, loop, lambda _: None, drained.set)
        assert left.try_send(Position(1, 1))
        b.close()
        await asyncio.wait_for(drained.wait(), 5)
        left.close(), a.close()
        return faults

    assert not asyncio.run(scenario())
