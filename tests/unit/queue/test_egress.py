"""Which source mail leaves from, and that each has a queue of its own at each site."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from mta.config import settings
from mta.model import ANYWHERE, Hop, IdSource, Options, Queued, Source
from mta.queue.egress import Egress
from mta.queue.routing import Router
from mta.queue.sites import SiteQueue
from tests.kit.queue import FIRST, World

ONE = settings.Source(name="one", ipv4="192.0.2.1", ehlo="one.test")
TWO = settings.Source(name="two", ipv4="192.0.2.2", weight=3, pools=("default", "fast"))
SIX = settings.Source(name="six", ipv6="2001:db8::1", pools=("fast",))
ALL = Egress([ONE, TWO, SIX])
SOURCES = IdSource(1)
IDS = [SOURCES.next(1_800_000_000_000 + n // 3) for n in range(40_000)]


def shares(egress: Egress, pool: str, without: tuple[str, ...] = ()) -> dict[str, float]:
    found = Counter(egress.choose(pool, key, without).name for key in IDS)
    return {name: count / len(IDS) for name, count in found.items()}


@pytest.mark.parametrize(
    ("pool", "without", "expected"),
    [
        ("", (), {"one": 0.25, "two": 0.75}),
        ("default", (), {"one": 0.25, "two": 0.75}),
        ("no more", (), {"one": 0.25, "two": 0.75}),
        ("fast", (), {"two": 0.75, "six": 0.25}),
        ("six", (), {"six": 1.0}),
        ("fast", ("two",), {"six": 1.0}),
        ("fast", ("two", "six"), {"two": 0.75, "six": 0.25}),
        ("fast", ("one",), {"two": 0.75, "six": 0.25}),
    ],
)
def test_a_pool_is_shared_by_weight(pool: str, without: tuple[str, ...], expected: dict[str, float]) -> None:
    assert shares(ALL, pool, without) == pytest.approx(expected, abs=0.01)


def test_a_message_keeps_its_source() -> None:
    again = Egress([ONE, TWO, SIX])
    assert all(ALL.choose("fast", key) == again.choose("fast", key) for key in IDS[:500])
    assert ALL.choose("one", 1) == Source(name="one", ipv4="192.0.2.1", ehlo="one.test")


def test_mail_of_no_pool_leaves_from_anywhere_where_there_is_no_default() -> None:
    only = Egress([SIX])
    assert only.choose("", 1) is ANYWHERE
    assert only.choose("fast", 1).name == "six"
    assert (only.members("fast"), only.members("?")) == (["six"], [])


def queues(world: World) -> dict[int, SiteQueue]:
    """The queue of each message, by its number."""
    arena, sites = world.manager.arena, world.manager.sites
    rows, _ = arena.rows(0, 1000)
    return {row[1] - FIRST: sites.by_number[arena.site(row[0])] for row in rows}


def test_each_source_has_a_queue_at_each_site() -> None:
    world = World(egress=ALL)
    for n in range(1, 41):
        world.arrive(n, b"a@x.example", options=Options(pool="fast") if n % 2 else None)
    found = queues(world)
    assert {found[n].source.name for n in range(1, 41, 2)} == {"two", "six"}
    assert {found[n].source.name for n in range(2, 41, 2)} == {"one", "two"}
    assert {queue.site.name for queue in found.values()} == {"smtp:hop.example:25"}
    assert len({queue.number for queue in found.values()}) == 3
    assert all(found[n].source == ALL.choose("fast" if n % 2 else "", FIRST + n) for n in found)


def test_recovery_finds_the_same_source() -> None:
    world = World(egress=ALL)
    message = Queued(id=FIRST + 7, ref=56, size=1, domains=(b"x.example",), lane=("", "six"))
    world.manager.admission.admit(message)
    assert queues(world)[7].source.name == "six"


def test_without_sources_there_is_one_queue() -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=Options(pool="gone"))
    assert queues(world)[1].source is ANYWHERE
    assert world.manager.sites.get_from(queues(world)[1].site, ANYWHERE) is queues(world)[1]


class Names:
    """A resolver that knows one host."""

    async def mx(self, domain: str) -> tuple[Hop, ...]:
        return (Hop(10, "mx.x.example"),)


def test_mail_for_mx_hosts_has_a_source_from_the_first_on() -> None:
    async def main() -> list[SiteQueue]:
        world = World(egress=ALL)
        world.manager.places._resolver = Names()  # type: ignore[assignment]
        world.manager.places._router = Router((), (), hostname="me", connections=20, port=25)
        world.arrive(1, b"a@x.example", options=Options(pool="six"))
        await next(iter(world.manager.places._lookups.values())).task
        world.arrive(2, b"a@x.example", options=Options(pool="six"))
        return list(queues(world).values())

    first, second = asyncio.run(main())
    assert first is second
    assert first.source.name == "six"
