"""Hold times, deadlines and priorities that senders ask for; and how old mail is that was held."""

from __future__ import annotations

import asyncio
import json

import pytest

from mta.model import TOLD_DELAY, TOLD_LATE, Change, Options, Outcome, Status, StoreError
from mta.queue import _arena
from mta.queue.snapshot import Housekeeping
from tests.kit.queue import FIRST, LATER, NOW, Hand, World

MS = int(NOW * 1000)
HOUR = 3600
HELD = Options(hold_until=MS + HOUR * 1000)
DEFERRED = Outcome(Status.DEFERRED, LATER, "hop")


def operate(world: World, verb: str, *words: str) -> int:
    done = asyncio.run(Hand(world.manager, world.store).do(verb, *words))
    return int(str(done["messages"]))


# ---- FUTURERELEASE


def test_what_is_held_by_its_sender_waits_and_says_why(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", b"b@y.example", options=HELD)
    world.arrive(2, b"a@x.example")
    assert [job.id - FIRST for _, job in world.couriers.given] == [2]
    assert world.states(_arena.DEFERRED) == [2]
    (row, _) = asyncio.run(_rows(world, "state=deferred"))
    assert row["reason"] == "held until Wed, 18 Nov 2026 12:06:40 +0000, as its sender asked (RFC 4865)"
    assert row["next"] == pytest.approx(NOW + HOUR, abs=0.3)
    assert world.store.changes == [], "the envelope says it"
    clock[0] = NOW + HOUR - 1
    world.manager.advance(clock[0])
    assert len(world.couriers.given) == 1
    clock[0] = NOW + HOUR + 1
    world.manager.advance(clock[0])
    assert [job.id - FIRST for _, job in world.couriers.given] == [2, 1, 1]


async def _rows(world: World, *words: str) -> list[dict[str, object]]:
    listed = Hand(world.manager, world.store).operator.listing(words, 0)
    return [json.loads(row) async for batch in listed for row in batch]


def test_a_hold_time_that_is_past_is_none(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=Options(hold_until=MS - 1))
    assert len(world.couriers.given) == 1


def test_a_hold_time_beyond_the_timer_wheel_is_far_ahead_too(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=Options(hold_until=MS + 200 * 365 * 86_400_000))
    world.manager.advance(NOW + 86_400)
    assert world.couriers.given == []
    (change,) = Housekeeping(world.manager).relocate({8: 80})[1]
    again = World()
    again.arrive(1, b"a@x.example", options=Options(hold_until=MS + 200 * 365 * 86_400_000), changes=(change,))
    assert again.manager.arena.marks(0) & _arena.EMBARGOED


def test_age_counts_from_the_release(clock: list[float]) -> None:
    world = World(expiry=7200.0, delay_warning=0.0)
    world.arrive(1, b"a@x.example", options=HELD)
    clock[0] = NOW + HOUR + 1
    world.manager.advance(clock[0])
    clock[0] = NOW + 2.5 * HOUR
    world.result(world.couriers.given[0], DEFERRED)
    assert world.failed == []
    assert world.states(_arena.DEFERRED) == [1]
    clock[0] = NOW + 3 * HOUR + 1
    world.manager.advance(clock[0])
    world.result(world.couriers.given[1], DEFERRED)
    ((_, verdict),) = world.failed
    assert verdict.failures[0].reply.enhanced == "5.4.7"


def test_an_embargo_survives_a_restart_however_it_is_written_down(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=HELD)
    world.arrive(2, b"a@x.example", b"b@y.example", options=HELD)
    recovered = list(Housekeeping(world.manager).snapshot())
    _, changes = Housekeeping(world.manager).relocate({8: 80})
    assert [(c.kind, c.attempts) for c in changes] == [("waiting", 0)]
    again = World(opened=False)
    again.store.envelopes = world.store.envelopes | {80: world.store.envelopes[8]}
    for queued in recovered:
        again.manager.admission.admit(queued)
    again.manager.open()
    assert again.couriers.given == []
    marks = [again.manager.arena.marks(slot) for slot in range(3)]
    assert marks == [_arena.TIMED | _arena.EMBARGOED] * 3
    # And without a checkpoint, from the log alone.
    plain = World()
    plain.arrive(1, b"a@x.example", options=HELD)
    assert plain.couriers.given == []


def test_verbs_for_many_leave_an_embargo_alone(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=HELD)
    assert operate(world, "retry", "all") == 0
    assert operate(world, "retry", "state=deferred", "or", "id=7ZZZZZZZZZZZ") == 0
    assert world.couriers.given == []
    name = str(asyncio.run(_rows(world, "all"))[0]["id"])
    assert operate(world, "retry", f"id={name}") == 1
    assert len(world.couriers.given) == 1
    assert world.store.changes[0].due == 0, "on record: it is not held again after a restart"
    (change,) = world.store.changes[:1]
    again = World()
    again.arrive(1, b"a@x.example", options=HELD, changes=(change,))
    again.manager.advance(NOW + 1)
    assert len(again.couriers.given) == 1


def test_release_after_a_hold_by_hand_waits_for_the_senders_time_again(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=HELD)
    assert operate(world, "hold", "all") == 1
    assert world.states(_arena.HELD) == [1]
    assert operate(world, "release", "all") == 1
    assert world.couriers.given == []
    assert world.states(_arena.DEFERRED) == [1]
    assert world.manager.arena.marks(0) & _arena.EMBARGOED
    operate(world, "hold", "all")
    name = str(asyncio.run(_rows(world, "all"))[0]["id"])
    assert operate(world, "release", f"id={name}") == 1
    assert len(world.couriers.given) == 1


# ---- delay warnings


def test_a_deferral_after_the_time_for_it_warns_once(clock: list[float]) -> None:
    world = World(delay_warning=100.0)
    world.arrive(1, b"a@x.example")
    world.result(world.couriers.given[0], DEFERRED)
    assert world.failed == []
    clock[0] = NOW + 101
    world.manager.advance(clock[0])
    world.result(world.couriers.given[1], DEFERRED)
    ((_, verdict),) = world.failed
    assert verdict.warn
    assert not verdict.failures
    world.manager.arena.mark(world.couriers.given[1][1].slot, TOLD_DELAY)  # as the notifier does
    clock[0] = NOW + 301
    world.manager.advance(clock[0])
    world.result(world.couriers.given[2], DEFERRED)
    assert len(world.failed) == 1
    assert world.store.changes[-1].told == TOLD_DELAY


def test_without_a_time_nobody_is_warned(clock: list[float]) -> None:
    world = World(delay_warning=0.0)
    world.arrive(1, b"a@x.example")
    clock[0] = NOW + 86400
    world.result(world.couriers.given[0], DEFERRED)
    assert world.failed == []


@pytest.mark.parametrize("done", [(), (1,)])
def test_who_was_warned_is_not_warned_again_after_a_restart(clock: list[float], done: tuple[int, ...]) -> None:
    world = World(delay_warning=100.0)
    told = Change(ref=8, id=FIRST + 1, part=0, kind="waiting", attempts=4, due=int(NOW), done=done, told=TOLD_DELAY)
    world.arrive(1, b"a@x.example", b"b@x.example", changes=(told,))
    clock[0] = NOW + 500
    world.manager.advance(clock[0])
    world.result(world.couriers.given[0], DEFERRED)
    assert world.failed == []
    assert world.store.changes[-1].told == TOLD_DELAY
    (queued,) = Housekeeping(world.manager).snapshot()
    assert queued.changes[0].told == TOLD_DELAY


# ---- DELIVERBY


def test_what_must_be_there_in_time_goes_back_when_it_is_late(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=Options(deliver_by=MS + 100_000, by_return=True))
    world.result(world.couriers.given[0], DEFERRED)
    clock[0] = NOW + 62
    world.manager.advance(clock[0])
    clock[0] = NOW + 101
    world.manager.advance(clock[0])
    assert world.failed == [], "a courier has it: it may be delivered yet"
    world.result(world.couriers.given[1], DEFERRED)
    clock[0] = NOW + 103
    world.manager.advance(clock[0])
    ((_, verdict),) = world.failed
    (group,) = verdict.failures
    assert group.reply.enhanced == "5.4.7"
    assert "the time that its sender had set; the last answer was: 451 4.3.0 later" in group.reply.text
    assert world.store.changes[-1].kind == "finished"


def test_what_should_be_there_in_time_goes_on_and_its_sender_is_told_once(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=Options(deliver_by=MS + 10_000))
    world.result(world.couriers.given[0], DEFERRED)
    for seconds in (9, 11, 12):
        clock[0] = NOW + seconds
        world.manager.advance(clock[0])
    assert world.told_late == [(0, int(NOW) + 10)]
    assert world.states(_arena.DEFERRED) == [1]
    world.manager.arena.mark(0, TOLD_LATE)
    world.manager.wishes.told_late(0)
    assert (world.store.changes[-1].kind, world.store.changes[-1].told) == ("waiting", TOLD_LATE)
    again = World()
    again.arrive(1, b"a@x.example", options=Options(deliver_by=MS + 10_000), changes=(world.store.changes[-1],))
    again.manager.advance(NOW + 30)
    assert again.told_late == []


def test_a_deadline_of_mail_that_is_gone_does_no_harm(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", options=Options(deliver_by=MS + 10_000, by_return=True))
    world.result(world.couriers.given[0])
    world.arrive(2, b"a@x.example")
    clock[0] = NOW + 11
    world.manager.advance(clock[0])
    assert world.failed == []
    assert world.manager.messages == 1


def test_deadlines_of_mail_that_is_gone_do_not_gather(clock: list[float]) -> None:
    world = World()
    world.arrive(0, b"a@x.example", options=Options(deliver_by=MS + 10_000))
    world.result(world.couriers.given.pop(), DEFERRED)
    for number in range(1, 5000):
        world.arrive(number, b"a@x.example", options=Options(deliver_by=MS + 10**12))
        world.result(world.couriers.given.pop())
    assert len(world.manager.wishes._deadlines) <= 1100
    clock[0] = NOW + 11
    world.manager.advance(clock[0])
    assert world.told_late == [(0, int(NOW) + 10)]


def test_held_mail_is_not_returned_before_it_is_released(clock: list[float]) -> None:
    world = World()
    world.couriers.alive.clear()
    world.arrive(1, b"a@x.example", options=Options(deliver_by=MS + 10_000, by_return=True))
    operate(world, "hold", "all")
    clock[0] = NOW + 11
    world.manager.advance(clock[0])
    assert world.failed == []
    operate(world, "release", "all")
    world.manager.advance(clock[0])
    assert len(world.failed) == 1


def test_a_deadline_that_passed_while_the_server_was_down(clock: list[float]) -> None:
    world = World(opened=False)
    world.arrive(1, b"a@x.example", options=Options(deliver_by=MS - 5000, by_return=True))
    world.manager.open()
    assert len(world.failed) == 1
    assert world.couriers.given == []


# ---- MT-PRIORITY


def test_urgent_mail_overtakes(clock: list[float]) -> None:
    world = World()
    world.couriers.alive.clear()
    for number, priority in enumerate((0, -3, 4)):
        world.arrive(number, b"a@x.example", options=Options(priority=priority))
    world.couriers.alive.append(2)
    world.manager.attempts.courier_said(world.couriers.by_worker[2], True, set())
    world.manager.dispatch()
    assert [job.id - FIRST for _, job in world.couriers.given] == [2, 0, 1]


# ---- damage


def test_an_envelope_that_cannot_be_read_is_sent_like_others(clock: list[float]) -> None:
    world = World()
    real = world.store.envelope

    def damaged(ref: int) -> object:
        raise StoreError("damaged")

    world.store.envelope = damaged  # type: ignore[method-assign,assignment]
    world.arrive(1, b"a@x.example", options=HELD)
    world.store.envelope = real  # type: ignore[method-assign]
    assert len(world.couriers.given) == 1
