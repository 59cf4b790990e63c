"""A host that blames our address hears from another one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mta.config import settings
from mta.config.settings import RetryRule, Seconds
from mta.model import MessageId, Outcome, Reply, Status, id_text
from mta.queue import _arena
from mta.queue.egress import Egress
from mta.queue.operator import Operator
from tests.kit.queue import FIRST, NO, NOW, World
from tests.unit.queue.test_notices import DONE, MX, Office

ONE = settings.Source(name="one", ipv4="192.0.2.1")
TWO = settings.Source(name="two", ipv4="192.0.2.2")
LONE = settings.Source(name="lone", ipv4="192.0.2.3", pools=())
RULE = RetryRule(classes=("reputation",), quarantine=Seconds(3600.0), where="f:9")
BLAMED = Reply(554, "5.7.1", "your IP is on our block list")
REFUSED = Outcome(Status.FAILED, BLAMED, MX)
PUT_OFF = Outcome(Status.DEFERRED, Reply(450, "4.7.25", "cannot find your hostname"), MX)


def world(kind: type[World] = World, *, sources: tuple[settings.Source, ...] = (ONE, TWO), **more: Any) -> Any:
    return kind(egress=Egress(sources), rule=(RULE,), **more)


def source(of: World, given: int = -1) -> str:
    """Where the last job, or another one, leaves from."""
    number = of.manager.arena.site(of.couriers.given[given][1].slot)
    return of.manager.sites.by_number[number].source.name


@pytest.mark.parametrize("outcome", [REFUSED, PUT_OFF])
def test_another_source_is_tried_at_once(outcome: Outcome) -> None:
    queue = world()
    queue.arrive(1, b"a@x.example")
    first = source(queue)
    queue.result(queue.couriers.given[0], outcome)
    assert len(queue.couriers.given) == 2
    assert {first, source(queue)} == {"one", "two"}
    assert queue.failed == []
    assert queue.couriers.given[1][1].attempts == 0


def test_when_all_have_been_refused_it_counts() -> None:
    queue = world()
    queue.arrive(1, b"a@x.example")
    queue.result(queue.couriers.given[0], REFUSED)
    queue.result(queue.couriers.given[1], REFUSED)
    ((_, verdict),) = queue.failed
    assert verdict.failures[0].reply == BLAMED
    assert len(queue.couriers.given) == 2


def test_a_pool_of_one_has_nothing_to_turn_to() -> None:
    queue = world(sources=(ONE, LONE))
    queue.arrive(1, b"a@x.example")
    queue.result(queue.couriers.given[0], REFUSED)
    assert len(queue.failed) == 1
    assert queue.manager.quarantine is not None
    assert queue.manager.quarantine.at("smtp:hop.example:25") == frozenset()


def test_further_mail_for_the_site_leaves_from_the_other(clock: list[float]) -> None:
    queue = world()
    queue.arrive(1, b"a@x.example")
    bad = source(queue)
    queue.result(queue.couriers.given[0], REFUSED)
    for n in range(2, 42):
        queue.arrive(n, b"a@x.example")
    assert all(source(queue, n) != bad for n in range(1, len(queue.couriers.given)))
    assert queue.manager.quarantine.until("smtp:hop.example:25", bad) == NOW + 3600
    clock[0] = NOW + 3600
    assert queue.manager.quarantine.at("smtp:hop.example:25") == frozenset()


def test_what_waits_there_moves_on() -> None:
    queue = world()
    queue.couriers.alive.clear()  # nobody takes anything: all of it waits for its turn
    for n in range(1, 61):
        queue.arrive(n, b"a@x.example")
    arena, sites = queue.manager.arena, queue.manager.sites
    waiting = {q.source.name: arena.length(q.ready) for q in sites.by_number if q.source.name}
    assert min(waiting.values()) > 10
    queue.couriers.alive.append(2)
    queue.manager.dispatch()
    for given in list(queue.couriers.given):
        if source(queue, queue.couriers.given.index(given)) == "one":
            queue.result(given, REFUSED)
            break
    queue.couriers.alive.clear()
    queue.manager.advance(NOW)
    assert {q.source.name: arena.length(q.ready) for q in sites.by_number if q.source.name}["one"] == 0


def test_only_those_who_were_refused_for_it(clock: list[float]) -> None:
    office = world(Office)
    office.arrive(1, b"a@x.example", b"b@x.example", b"c@x.example")
    outcomes = [
        Outcome(Status.DELIVERED, DONE.reply, MX, (0,)),
        Outcome(Status.FAILED, NO, MX, (1,)),
        Outcome(Status.FAILED, BLAMED, MX, (2,)),
    ]
    office.result(office.couriers.given[0], *outcomes)
    assert office.actions() == [[("rfc822; b@x.example", "failed")]]
    assert len(office.couriers.given) == 1  # until the notice is on disk
    office.durable()
    office.manager.dispatch()
    assert office.couriers.given[1][1].pending == (2,)
    assert any(" quarantined source=" in line and 'rule="f:9"' in line for line in office.lines)
    office.result(office.couriers.given[1], DONE)
    assert [c.kind for c in office.store.changes][-1] == "finished"


def test_delivered_ones_are_not_sent_again() -> None:
    queue = world(Office)
    queue.arrive(1, b"a@x.example", b"b@x.example")
    outcomes = [Outcome(Status.DELIVERED, DONE.reply, MX, (0,)), Outcome(Status.FAILED, BLAMED, MX, (1,))]
    queue.result(queue.couriers.given[0], *outcomes)
    queue.manager.dispatch()
    assert queue.drafts() == []
    assert queue.couriers.given[-1][1].pending == (1,)


@pytest.mark.parametrize("reply", [NO, Reply(554, "5.7.1", "spam message rejected"), Reply(0, "5.4.4", "your IP")])
def test_other_replies_count_as_ever(reply: Reply) -> None:
    queue = world()
    queue.arrive(1, b"a@x.example")
    queue.result(queue.couriers.given[0], Outcome(Status.FAILED, reply, MX))
    assert len(queue.failed) == 1


def test_without_such_a_rule_there_is_none() -> None:
    assert World(egress=Egress([ONE, TWO])).manager.quarantine is None
    assert World(rule=(RULE,)).manager.quarantine is None


def test_one_that_is_unknown_is_not_sent_again() -> None:
    queue = world()
    queue.arrive(1, b"a@x.example")
    queue.result(queue.couriers.given[0], Outcome(Status.UNKNOWN, Reply(0, "4.4.2", "result unknown"), MX))
    assert queue.states(_arena.DEFERRED) == [1]
    assert len(queue.couriers.given) == 1


def test_explain_tells_who_stays_away() -> None:
    queue = world()
    queue.arrive(1, b"a@x.example")
    bad = source(queue)
    queue.result(queue.couriers.given[0], REFUSED)
    (row,) = asyncio.run(explained(queue))
    told = {branch["label"]: branch["text"] for branch in row["tree"]}
    assert told["quarantine"] == f"{bad} for 1h"
    assert told["source"].startswith({"one": "two", "two": "one"}[bad])


async def explained(queue: World) -> list[dict[str, Any]]:
    """The parts of the first message, as `mta queue explain` has them."""
    operator = Operator(queue.manager, dict, None)  # type: ignore[arg-type]  # nothing is done by hand here
    found: Any = await operator.explain(id_text(MessageId(FIRST + 1)))
    return list(found["parts"])
