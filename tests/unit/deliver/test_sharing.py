"""A pool keeps to what it is given, and tells what its site did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mta.deliver.pool import Pool
from mta.model import ANYWHERE, SiteTraffic, Status
from tests.kit.courier import Rig, run, smtp_site, until, verdicts
from tests.kit.peer import HANG, Peer
from tests.kit.sink import refused_port

NUMBER = 7
TOO_MANY = b"421 4.7.0 too many connections from you\r\n"


@asynccontextmanager
async def rig(tmp_path: Path, peer: Peer | None, port: int = 0, **site: Any) -> AsyncIterator[tuple[Rig, Pool]]:
    if peer is not None:
        await peer.start()
        port = peer.port
    r = Rig(tmp_path)
    pool = Pool(r.desk, smtp_site((0, "127.0.0.1"), port=port, **site))
    r.desk.traffic.numbers["smtp", "site", ANYWHERE.name] = NUMBER
    r.sinks.append(pool)
    yield r, pool
    pool.stop()
    pool.abandon()
    if peer is not None:
        await peer.stop()


def told(r: Rig) -> list[SiteTraffic]:
    return [one for packet in r.traffic for one in packet.sites]


def troubles(r: Rig) -> list[tuple[str, int, int]]:
    return [(t.kind, t.reply.code, t.alive) for one in told(r) for t in one.troubles]


def test_what_was_taken_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, Peer({"RCPT": [b"250 ok\r\n", b"450 4.2.0 busy\r\n", b"250 ok\r\n"]})) as (r, pool):
            pool.add(r.mail(3))
            await r.settled(3)
            await until(lambda: sum(one.answered for one in told(r)) == 3)
            assert sum(one.taken for one in told(r)) == 2
            assert {one.site for one in told(r)} == {NUMBER}
            assert not troubles(r)

    run(main())


def test_a_host_that_answers_nothing_is_told_of_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, Peer({"MAIL": [b"250 ok\r\n", HANG]})) as (r, pool):
            pool.add(r.mail(2))
            await until(lambda: len([one for one in told(r) if one.busy == 1 and not one.answered]) >= 2)

    run(main())


def test_a_site_that_cannot_be_reached(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, None, refused_port()) as (r, pool):
            pool.add(r.mail(3))
            await r.settled(3)
            assert troubles(r) == [("unreachable", 0, 0)]

    run(main())


def test_one_connection_too_many(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer({"greeting": [b"220 hi\r\n", TOO_MANY], "MAIL": [b"250 ok\r\n", HANG]})
        async with rig(tmp_path, peer) as (r, pool):
            pool.add(r.mail(3))
            await until(lambda: bool(troubles(r)))
            assert troubles(r)[0] == ("refused", 421, 1)
            assert [result for result in r.results if result.outcomes] == []

    run(main())


def test_mail_of_a_connection_that_was_one_too_many_goes_by_another(tmp_path: Path) -> None:
    async def main() -> None:
        count = 0

        def mail(line: str) -> bytes:
            nonlocal count
            count += 1
            return TOO_MANY if peer.open > 1 else b"250 ok\r\n"

        peer = Peer({"MAIL": mail})
        async with rig(tmp_path, peer) as (r, pool):
            pool.add(r.mail(1))
            await r.settled(1)
            pool._open(1)  # as growth does
            await until(lambda: peer.open == 2)
            pool.add(r.mail(20))
            await r.settled(21)
            assert all(not result.outcomes for result in r.results)

    run(main())


def test_a_connection_that_breaks_under_its_mail(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, Peer({".": b"<close>"})) as (r, pool):
            pool.add(r.mail(1))
            await r.settled(1)
            assert troubles(r) == [("cut", 0, 0)]

    run(main())


@pytest.mark.parametrize("text", ["4.4.2 idle for too long", "4.7.0 enough messages in this session"])
def test_some_421_tell_nothing_of_connections(tmp_path: Path, text: str) -> None:
    async def main() -> None:
        peer = Peer({"MAIL": [b"250 ok\r\n", f"421 {text}\r\n".encode(), b"250 ok\r\n"]})
        async with rig(tmp_path, peer) as (r, pool):
            pool.add(r.mail(1))
            await r.settled(1)
            pool.add(r.mail(1))
            await r.settled(2)
            assert not troubles(r)
            assert peer.connections == 2

    run(main())


def test_a_smaller_share_closes_what_is_too_much(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        async with rig(tmp_path, peer) as (r, pool):
            pool.add(r.mail(1))
            await r.settled(1)
            pool._open(3)
            await until(lambda: peer.open == 4 and len(pool._idle) == 4)
            pool.update(msgspec.structs.replace(pool.site, connections=1))
            await until(lambda: peer.open == 1)
            pool.add(r.mail(30))
            await r.settled(31)
            assert peer.most == 4
            pool.update(msgspec.structs.replace(pool.site, connections=0))
            await until(lambda: peer.open == 0)
            pool.add(r.mail(1))
            await r.settled(32)
            assert verdicts(r.results[-1])[0][0] is Status.UNTRIED

    run(main())


def test_messages_on_a_connection_are_counted(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        async with rig(tmp_path, peer, messages_per_connection=3, connections=1) as (r, pool):
            pool.add(r.mail(10))
            await r.settled(10)
            carried = [sum(m.connection == n for m in peer.messages) for n in range(1, peer.connections + 1)]
            assert carried == [3, 3, 3, 1]
            assert peer.most == 1

    run(main())


def test_many_recipients_go_in_pieces(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer({"RCPT": [b"250 ok\r\n", b"550 5.1.1 no\r\n", b"250 ok\r\n"]})
        async with rig(tmp_path, peer, recipients_per_message=2) as (r, pool):
            ref = r.reader.put(b"a@x", [b"r%d@y" % n for n in range(5)], b"hi\r\n")
            pool.add([r.job(ref), *r.mail(1)])
            await r.settled(2)
            pieces = [m.recipients for m in peer.messages if m.recipients != ["b@example.net"]]
            assert pieces == [["r0@y"], ["r2@y", "r3@y"], ["r4@y"]]
            (result,) = [one for one in r.results if one.slot == ref + 100]
            reached = {i: o.status for o in result.outcomes for i in o.recipients}
            assert reached == {0: Status.DELIVERED, 1: Status.FAILED, **dict.fromkeys((2, 3, 4), Status.DELIVERED)}
            assert sum(" delivered " in line for line in r.lines()) == 5
            assert sum(" failed " in line for line in r.lines()) == 1

    run(main())


def test_what_was_delivered_in_pieces_is_not_sent_again(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer({"MAIL": [b"250 ok\r\n", b"250 ok\r\n", b"421 4.3.2 going down\r\n"]})
        async with rig(tmp_path, peer, recipients_per_message=1) as (r, pool):
            ref = r.reader.put(b"a@x", [b"r%d@y" % n for n in range(5)], b"hi\r\n")
            pool.add([r.job(ref)])
            (result,) = await r.settled(1)
            reached = {i: o.status for o in result.outcomes for i in o.recipients}
            assert reached == {
                **dict.fromkeys((0, 1), Status.DELIVERED),
                **dict.fromkeys((2, 3, 4), Status.DEFERRED),
            }

    run(main())


def test_pieces_that_wait_when_the_courier_stops(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer({"MAIL": [b"250 ok\r\n", HANG]})
        async with rig(tmp_path, peer, recipients_per_message=1) as (r, pool):
            ref = r.reader.put(b"a@x", [b"r%d@y" % n for n in range(3)], b"hi\r\n")
            pool.add([r.job(ref)])
            await until(lambda: len(peer.messages) == 1 and "MAIL" in peer.heard[-1])
            pool.stop()
            pool.abandon()
            (result,) = await r.settled(1)
            reached = {i: o.status for o in result.outcomes for i in o.recipients}
            assert reached == {0: Status.DELIVERED, 1: Status.DEFERRED, 2: Status.DEFERRED}

    run(main())
