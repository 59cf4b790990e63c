"""The verbs on many deliveries: what each does, and what it leaves alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mta.model import Options, Outcome, Status
from mta.queue import _arena
from mta.queue.audit import Audit, Doer
from mta.queue.deeds import TooMany
from mta.queue.snapshot import Housekeeping
from tests.kit.queue import FIRST, LATER, NOW, Hand, World

LATE = Outcome(Status.DEFERRED, LATER)


@pytest.fixture
def world() -> World:
    """1 and 2: deferred; 3: with a courier; 4: deferred, two people of one domain; 5: two domains, deferred."""
    world = World()
    for number, to in ((1, [b"a@one.test"]), (2, [b"b@two.test"]), (4, [b"d@two.test", b"e@two.test"])):
        world.arrive(number, *to)
        world.result(world.couriers.given[-1], LATE)
    world.arrive(5, b"f@one.test", b"g@two.test")
    for given in world.couriers.given[-2:]:
        world.result(given, LATE)
    world.arrive(3, b"c@three.test")
    world.store.changes.clear()
    return world


def hand(world: World) -> Hand:
    return Hand(world.manager, world.store)


def do(by: Hand, verb: str, *words: str, **more: object) -> dict[str, object]:
    return asyncio.run(by.do(verb, *words, **more))


def whys(world: World) -> dict[int, str]:
    arena = world.manager.arena
    slots, _ = arena.scan(0, 100, 0xFF)
    return {arena.id(s) - FIRST: world.manager.reasons.text(arena.why(s)) for s in slots}


def test_a_hold_says_whose_it_is_and_is_taken_back(world: World, clock: list[float]) -> None:
    by = hand(world)
    assert do(by, "hold", "domain=two.test") == {"messages": 3, "operation": 1}
    assert whys(world)[2] == "held by ann (hold 1); before that: 451 4.3.0 later"
    assert world.states(_arena.HELD) == [3]
    held = [c for c in world.store.changes if c.kind == "held"]
    assert len(held) == 3
    assert all(c.due > NOW for c in held), "for who takes it back"
    assert do(by, "hold", "id=" + _id(1))["operation"] == 2
    clock[0] += 10
    assert do(by, "undo", operation=1) == {"messages": 3, "operation": 3}
    assert whys(world)[2] == "451 4.3.0 later"
    assert world.states(_arena.HELD, _arena.DEFERRED) == [1, 4], "it waits for the same time as before"
    clock[0] += 3600
    assert do(by, "undo", operation=2)["messages"] == 1
    assert world.states(_arena.HELD) == [0]
    assert [c.kind for c in world.store.changes if c.id == FIRST + 1][-1] == "waiting"


def test_what_a_courier_has_is_held_when_it_comes_back_unless_that_is_undone(world: World) -> None:
    by = hand(world)
    assert do(by, "hold", "id=" + _id(3))["messages"] == 1
    assert do(by, "undo", operation=1)["messages"] == 1
    world.result(world.couriers.given[-1], LATE)
    assert world.states(_arena.HELD, _arena.ACTIVE) == [0, 0]
    world.arrive(6, b"c@three.test")
    do(by, "hold", "state=active")
    world.result(world.couriers.given[-1], LATE)
    assert whys(world)[6] == "held by ann (hold 3); before that: 451 4.3.0 later"


@pytest.mark.parametrize(
    ("operation", "text"),
    [(9, "there was no operation 9"), (1, "was retry, which cannot"), ("x", "must be the number")],
)
def test_what_cannot_be_undone(world: World, operation: object, text: str) -> None:
    by = hand(world)
    do(by, "retry", "domain=two.test")
    with pytest.raises(ValueError, match=text):
        do(by, "undo", operation=operation)


def test_a_dry_run_touches_nothing(world: World) -> None:
    by = hand(world)
    told = do(by, "delete", "domain=two.test", dry_run=True)
    assert (told["messages"], told["operation"]) == (3, 0)
    sample = told["sample"]
    assert isinstance(sample, list)
    assert [row["domain"] for row in sample] == ["two.test"] * 3
    assert by.audit.operations == world.store.changes == []
    with pytest.raises(TooMany, match="it is 3 messages"):
        do(by, "delete", "domain=two.test", most=2)
    assert by.audit.operations == world.store.changes == []
    assert do(by, "delete", "domain=nowhere.test") == {"messages": 0, "operation": 0}
    assert do(by, "delete", "domain=two.test", most=3)["messages"] == 3
    assert by.audit.operations == [
        {"doer": Doer(0, "ann"), "verb": "delete", "words": ["domain=two.test"], "messages": 3, "result": "done"}
    ]


def test_a_bounce_is_what_the_sender_reads(world: World) -> None:
    by = hand(world)
    assert do(by, "bounce", "domain=one.test", reason="the list is closed")["messages"] == 2
    verdicts = [verdict for _, verdict in world.failed]
    assert [str(v.failures[0].reply) for v in verdicts] == ["550 5.7.1 the list is closed"] * 2
    assert len([c for c in world.store.changes if c.kind == "finished"]) == 2
    with pytest.raises(ValueError, match="a line of at most"):
        do(by, "bounce", "all", reason="two\nlines")


def test_some_recipients_are_returned_and_the_others_wait_as_they_did(world: World) -> None:
    by = hand(world)
    assert do(by, "expire", "recipient=e@*")["messages"] == 1
    ((_, verdict),) = world.failed
    assert (verdict.failures[0].recipients, verdict.waiting, verdict.back) == ((1,), (0,), _arena.DEFERRED)


def test_another_way(world: World) -> None:
    by = hand(world)
    before = len(world.couriers.given)
    assert do(by, "reroute", "domain=two.test", to="smtp:other.test:2525")["messages"] == 3
    given = world.couriers.given[before:]
    assert len(given) == 3
    arena = world.manager.arena
    assert {world.manager.site_name(arena.site(job.slot)) for _, job in given} == {"smtp:other.test:2525"}
    assert all(change.to == "smtp:other.test:2525" for change in world.store.begun[-3:]), "a crash keeps it"
    world.result(given[0], LATE)
    assert world.store.changes[-1].to == "smtp:other.test:2525"
    world.manager.advance(NOW + 100_000)
    again = [job for job in world.couriers.given if job[1].id == given[0][1].id][-1]
    assert again[1].attempts == 2
    assert world.manager.site_name(arena.site(again[1].slot)) == "smtp:other.test:2525"
    world.result(again, LATE)
    assert do(by, "reroute", "attempts>2 domain=two.test", to="rules")["messages"] == 1
    assert world.manager.site_name(arena.site(world.couriers.given[-1][1].slot)) == "smtp:hop.example:25"
    assert world.store.begun[-1].to == ""


@pytest.mark.parametrize("hop", ["", "mx", "maildir:/x/{local}", "smtp:", "nowhere", "pipe:x"])
def test_no_other_way(world: World, hop: str) -> None:
    with pytest.raises(ValueError):
        do(hand(world), "reroute", "all", to=hop)
    assert world.store.changes == []


def test_held_mail_that_is_rerouted_stays_held_and_remembers(world: World) -> None:
    by = hand(world)
    do(by, "hold", "id=" + _id(1))
    do(by, "reroute", "id=" + _id(1), to="smtp:other.test")
    assert world.states(_arena.HELD) == [1]
    assert (world.store.changes[-1].kind, world.store.changes[-1].to) == ("held", "smtp:other.test")
    (queued,) = [q for q in Housekeeping(world.manager).snapshot() if q.id == FIRST + 1]
    assert queued.changes[0].to == "smtp:other.test"
    again = World()
    again.store.envelopes = world.store.envelopes
    again.manager.admission.admit(queued)
    do(hand(again), "release", "all")
    assert again.manager.site_name(again.manager.arena.site(again.couriers.given[-1][1].slot)) == "smtp:other.test:25"


def test_an_embargo_is_left_alone(world: World) -> None:
    world.arrive(7, b"x@two.test", options=Options(hold_until=int((NOW + 3600) * 1000)))
    assert do(hand(world), "reroute", "domain=two.test", to="hold:")["messages"] == 3
    assert do(hand(world), "reroute", "id=" + _id(7), to="hold:")["messages"] == 1


def _id(number: int) -> str:
    from mta.model import id_text

    return id_text(FIRST + number)


# ---- the audit


def test_operations_are_kept(tmp_path: Path) -> None:
    async def life(verbs: list[str]) -> tuple[list[int], list[dict[str, object]]]:
        audit = Audit(tmp_path / "operations.sqlite")
        numbers = [await audit.begin(Doer(7, "ann"), verb, ["state=held", "x"], {"to": "y"}) for verb in verbs]
        audit.end(numbers[0], 12, "done")
        rows = await audit.log(0)
        assert await audit.verb(numbers[0]) == verbs[0]
        assert await audit.verb(99) is None
        assert len(await audit.log(1)) == 1
        audit.close()
        return numbers, rows

    first, rows = asyncio.run(life(["hold", "delete"]))
    assert first == [1, 2]
    assert [(r["number"], r["verb"], r["messages"], r["result"]) for r in rows] == [
        (2, "delete", 0, ""),
        (1, "hold", 12, "done"),
    ]
    assert rows[1]["filter"] == "state=held x"
    assert rows[1]["arguments"] == {"to": "y"}
    assert (rows[0]["ended"], rows[0]["user"], rows[0]["uid"]) == (None, "ann", 7)
    second, rows = asyncio.run(life(["retry"]))
    assert second == [3], "numbers go on"
    assert len(rows) == 3
