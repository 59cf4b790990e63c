"""The queue manager between a fake store and fake couriers: what becomes of a delivery, and what is recorded of it."""

import pytest

from mta.config.settings import Retry
from mta.model import (
    Change,
    Job,
    Outcome,
    Reply,
    Status,
)
from mta.queue import _arena, snapshot
from mta.queue.snapshot import Housekeeping
from tests.kit.queue import FIRST, LATER, NO, NOW, UNTRIED, World


def test_a_delivered_message_is_finished_and_gone() -> None:
    world = World()
    world.arrive(7, b"a@x.example")
    (given,) = world.couriers.given
    assert given[1].id == FIRST + 7
    world.result(given)
    assert world.store.changes == [Change(ref=56, id=FIRST + 7, part=0, kind="finished")]
    assert world.manager.messages == len(world.manager.arena) == 0
    assert all(n == 0 for queue in world.manager.sites.by_number for n in queue.in_flight.values())


def test_couriers_share_the_work_and_have_no_more_than_the_window() -> None:
    world = World()
    for number in range(1, 500):
        world.arrive(number, b"a@x.example")
    window = world.manager.sites.by_number[1].windows[2]
    assert [sum(w == worker for w, _ in world.couriers.given) for worker in (2, 3)] == [window, window]
    world.result(world.couriers.given[0])
    assert len(world.couriers.given) == 2 * window + 1


def test_who_has_not_said_hello_gets_nothing_until_then() -> None:
    world = World()
    world.couriers.alive.clear()
    world.arrive(1, b"a@x.example")
    assert world.couriers.given == []
    world.couriers.alive.append(3)
    world.manager.attempts.courier_said(world.couriers.by_worker[3], True, set())
    world.manager.dispatch()
    assert [worker for worker, _ in world.couriers.given] == [3]


def test_a_deferral_waits_is_recorded_and_comes_back(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    world.result(world.couriers.given[0], Outcome(Status.DEFERRED, LATER, "hop"))
    (change,) = world.store.changes
    assert (change.kind, change.attempts, change.due, change.why) == ("waiting", 1, NOW + 60, "451 4.3.0 later")
    world.manager.advance(NOW + 59)
    assert len(world.couriers.given) == 1
    clock[0] = NOW + 61
    world.manager.advance(clock[0])
    assert world.couriers.given[1][1].attempts == 1


def test_only_who_is_left_is_tried_again(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", b"b@x.example", b"c@x.example")
    world.result(
        world.couriers.given[0],
        Outcome(Status.DELIVERED, Reply(250, "", "ok"), "hop", (0, 2)),
        Outcome(Status.DEFERRED, LATER, "hop", (1,)),
    )
    assert world.store.changes[-1].done == (0, 2)
    world.manager.advance(NOW + 100)
    assert world.couriers.given[1][1].pending == (1,)
    world.result(world.couriers.given[1])
    assert world.store.changes[-1].kind == "finished"


def test_an_explicit_delivered_is_an_end_too() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    world.result(world.couriers.given[0], Outcome(Status.DELIVERED, Reply(250, "", "ok"), "hop"))
    assert world.store.changes[-1].kind == "finished"
    assert world.manager.messages == 0


def test_the_last_part_ends_the_message() -> None:
    world = World()
    world.arrive(1, b"a@x.example", b"b@y.example")
    world.result(world.couriers.given[0])
    assert world.manager.messages == 1
    world.result(world.couriers.given[1])
    assert world.manager.messages == 0
    assert sorted(c.part for c in world.store.changes) == [0, 1]


def test_what_comes_back_untried_goes_out_at_once_but_not_in_circles() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    for attempt in range(4):
        assert len(world.couriers.given) == attempt + 1
        world.result(world.couriers.given[-1], *UNTRIED)
    assert len(world.couriers.given) == 4
    assert world.states(_arena.DEFERRED) == [1]
    assert [(c.kind, c.attempts) for c in world.store.changes] == [("waiting", 0)] * 4, "it has not begun any more"


def test_nothing_is_decided_before_the_queue_is_open() -> None:
    world = World(opened=False)
    world.arrive(1, b"a@x.example")
    world.arrive(2, b"a@[not.an.address]")
    assert world.couriers.given == []
    world.manager.open()
    assert [job.id - FIRST for _, job in world.couriers.given] == [1, 2]


def test_a_restarted_manager_leaves_busy_deliveries_to_their_courier() -> None:
    world = World(opened=False)
    for number in (1, 2, 3):
        world.arrive(number, b"a@x.example", b"b@y.example")
    world.manager.attempts.courier_said(world.couriers.by_worker[3], True, {(FIRST + 2, 0), (FIRST + 2, 1)})
    world.manager.open()
    assert {job.id - FIRST for _, job in world.couriers.given} == {1, 3}
    # Results with the slots of the earlier life, the second part first: one delivered, one refused.
    stale = (3, Job(900, FIRST + 2, 16, 1, 0)), (3, Job(901, FIRST + 2, 16, 0, 0))
    world.result(stale[0])
    world.result(stale[1], Outcome(Status.FAILED, NO, "hop"))
    assert [c.part for c in world.store.changes if c.id == FIRST + 2] == [1, 0]
    assert [part for part, _ in world.failed] == [0]


def test_busy_deliveries_that_come_back_untried_are_routed() -> None:
    world = World(opened=False)
    world.arrive(1, b"a@x.example")
    world.manager.attempts.courier_said(world.couriers.by_worker[2], True, {(FIRST + 1, 0)})
    world.manager.open()
    assert world.couriers.given == []
    world.result((2, Job(900, FIRST + 1, 8, 0, 0)), *UNTRIED)
    assert [job.id - FIRST for _, job in world.couriers.given] == [1]
    assert world.states(_arena.HELD) == [0]


def test_recovered_states() -> None:
    world = World(opened=False)
    held = Change(ref=8, id=FIRST + 1, part=0, kind="held", attempts=2, why="by hand")
    waiting = Change(
        ref=16, id=FIRST + 2, part=1, kind="waiting", attempts=3, due=int(NOW) + 500, done=(1,), why="busy"
    )
    over = Change(ref=16, id=FIRST + 2, part=0, kind="finished")
    world.arrive(1, b"a@x.example", changes=(held,))
    world.arrive(2, b"a@x.example", b"b@y.example", b"c@y.example", changes=(over, waiting))
    world.manager.open()
    assert world.couriers.given == []
    assert world.states(_arena.HELD, _arena.DEFERRED) == [1, 1]
    world.manager.advance(NOW + 501)
    ((_, job),) = world.couriers.given
    assert (job.id - FIRST, job.part, job.attempts, job.pending) == (2, 1, 3, (2,))


def test_hold_and_delete_while_a_courier_has_it() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    world.arrive(2, b"a@x.example")
    slots = [job.slot for _, job in world.couriers.given]
    assert world.manager.by_hand.hold(slots[0]) is None
    assert world.manager.by_hand.delete(slots[1]).kind == "finished"
    world.result(world.couriers.given[0], Outcome(Status.DEFERRED, LATER, "hop"))
    world.result(world.couriers.given[1])
    assert world.states(_arena.HELD) == [1]
    assert [c.kind for c in world.store.changes] == ["held"], "the end of the deleted one is recorded once, by delete"
    assert world.manager.messages == 1


def test_mail_that_waited_too_long_fails_with_the_last_words(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    clock[0] = world.manager.arrival(world.couriers.given[0][1].slot) + Retry().expiry + 1
    world.result(world.couriers.given[0], Outcome(Status.DEFERRED, LATER, "hop"))
    ((_, verdict),) = world.failed
    assert verdict.failures[0].reply.enhanced == "5.4.7"
    assert "451 4.3.0 later" in verdict.failures[0].reply.text


def test_the_last_attempt_is_when_the_time_is_over(clock: list[float]) -> None:
    """So that mail goes back when its sender was told that it would, not up to a whole wait later."""
    world = World(expiry=100.0)
    world.arrive(1, b"a@x.example")
    for moment in (NOW, NOW + 61, NOW + 100):
        clock[0] = moment + 0.2
        world.manager.advance(clock[0])
        world.result(world.couriers.given[-1], Outcome(Status.DEFERRED, LATER, "hop"))
    ((_, verdict),) = world.failed
    assert verdict.failures[0].reply.enhanced == "5.4.7"
    assert len(world.couriers.given) == 3


def test_a_snapshot_bears_that_deliveries_end_meanwhile() -> None:
    world = World()
    for number in range(1, 50):
        world.arrive(number, b"a@x.example", b"b@y.example")
    seen = []
    for queued in Housekeeping(world.manager).snapshot():
        seen.append(queued.id)
        for given in world.couriers.given[-4:]:
            world.result(given)
        del world.couriers.given[-4:]
    assert len(seen) == len(set(seen))


def test_a_snapshot_has_all_parts_of_what_comes_while_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part may get a slot that was empty when the snapshot went by: it is not finished for that."""
    monkeypatch.setattr(snapshot, "_SLICE", 1)
    world = World()
    for number in (1, 2, 3):
        world.arrive(number, b"a@x.example")
    taken = Housekeeping(world.manager).snapshot()
    next(taken)
    world.result(world.couriers.given[0])
    world.arrive(9, b"a@x.example", b"b@y.example")
    assert world.manager.arena.locate({FIRST + 9}).keys() == {(FIRST + 9, 0), (FIRST + 9, 1)}
    (queued,) = [queued for queued in taken if queued.id == FIRST + 9]
    assert [change.kind for change in queued.changes if change.kind == "finished"] == []


def test_a_message_moves_with_its_state_unless_it_is_in_hand(clock: list[float]) -> None:
    world = World()
    waiting = Change(ref=8, id=FIRST + 1, part=1, kind="waiting", attempts=2, due=int(NOW) + 60, why="451 later")
    over = Change(ref=8, id=FIRST + 1, part=0, kind="finished")
    world.arrive(1, b"a@one.example", b"b@two.example", changes=(over, waiting))
    world.arrive(2, b"a@one.example")
    assert world.states(_arena.ACTIVE, _arena.DEFERRED) == [1, 1]
    moved, changes = Housekeeping(world.manager).relocate({8: 800, 16: 1600})
    assert moved == {8}
    assert changes == [
        Change(ref=800, id=FIRST + 1, part=1, kind="waiting", attempts=2, due=int(NOW) + 60, why="451 later")
    ]
    world.store.envelopes[800] = world.store.envelopes[8]
    assert sorted(q.ref for q in Housekeeping(world.manager).snapshot()) == [16, 800]
