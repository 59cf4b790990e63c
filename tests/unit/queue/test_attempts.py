"""Attempts whose result nobody told: what the seats and the store say of them, and what becomes of the delivery."""

from __future__ import annotations

import pytest

from mta.model import Change, Job, Outcome, Reply, Status, StoreError
from mta.net.seats import DELIVERED, DOTTED, FREE, GIVEN, MIXED, SeatTable
from mta.observe.counters import INDEX
from mta.queue import _arena
from mta.queue.snapshot import Housekeeping
from tests.kit.queue import FIRST, LATER, NOW, UNTRIED, World

TAKEN = Outcome(Status.DELIVERED, Reply(250, "", "ok"), "hop")
AMBIGUOUS = INDEX["messages_ambiguous"]
WAIT = 300  # the default of ambiguous_wait


def seated(count: int = 1, **options: object) -> tuple[World, list[tuple[int, Job]]]:
    """A world that has given out so many deliveries, all to courier 2."""
    world = World(**options)  # type: ignore[arg-type]
    world.couriers.alive[:] = [2]
    for number in range(1, count + 1):
        world.arrive(number, b"a@x.example")
    return world, world.couriers.given[:]


def note(world: World, given: tuple[int, Job], state: int) -> None:
    """What the courier does to the seat."""
    world.seats.rows[0].states[given[1].seat] = state


def in_use(world: World) -> list[int]:
    return [state for row in world.seats.rows for *_, state in row.used()]


def reborn(world: World, worker: int = 2) -> None:
    """The courier died, and its successor says Hello."""
    courier = world.couriers.by_worker[worker]
    courier.life += 1
    if worker not in world.couriers.alive:
        world.couriers.alive.append(worker)
    world.manager.attempts.courier_said(courier, True, set())
    world.manager.dispatch()


def successor(world: World, *changes: Change, alive: tuple[int, ...] = (2, 3), seats: SeatTable | None = None) -> World:
    """The next queue manager, not open yet: the seats are what is left of the one before, and these changes."""
    after = World(opened=False, seats=seats or world.seats)
    after.couriers.alive[:] = alive
    after.store.envelopes = world.store.envelopes
    for change in changes:
        after.arrive(change.id - FIRST, b"a@x.example", changes=(change,))
    return after


# ---- as long as nobody dies


def test_nothing_is_given_out_before_that_is_durable() -> None:
    world = World()
    world.store.slow = True
    world.arrive(1, b"a@x.example")
    world.arrive(2, b"a@x.example")
    assert world.couriers.given == []
    assert [(c.kind, c.id - FIRST, c.ref, c.attempts) for c in world.store.begun] == [("begun", 1, 8, 0)]
    world.store.beginning.pop()(None)
    assert [job.id - FIRST for _, job in world.couriers.given] == [1]
    assert [c.id - FIRST for c in world.store.begun] == [1, 2], "what came meanwhile goes next"
    world.store.beginning.pop()(None)
    assert [job.id - FIRST for _, job in world.couriers.given] == [1, 2]


def test_a_seat_is_free_when_the_end_is_durable_and_not_before() -> None:
    world, (first, second) = seated(2)
    assert in_use(world) == [GIVEN, GIVEN]
    world.result(first)
    world.result(second, Outcome(Status.DEFERRED, LATER, "hop"))
    assert len(in_use(world)) == 2
    world.store.settle()
    assert in_use(world) == []


def test_what_comes_back_untried_has_not_begun_any_more() -> None:
    world, (given,) = seated()
    world.result(given, *UNTRIED)
    assert [(c.kind, c.attempts) for c in world.store.changes] == [("waiting", 0)]
    assert in_use(world) == [GIVEN, GIVEN], "the seat that it had, and the one that it has"
    world.store.settle()
    assert in_use(world) == [GIVEN]


def test_recipients_that_are_finished_are_in_what_begins(clock: list[float]) -> None:
    world = World()
    world.arrive(1, b"a@x.example", b"b@x.example")
    world.result(
        world.couriers.given[0],
        Outcome(Status.DELIVERED, Reply(250, "", "ok"), "hop", (0,)),
        Outcome(Status.DEFERRED, LATER, "hop", (1,)),
    )
    clock[0] = NOW + 61
    world.manager.advance(clock[0])
    assert [(c.done, c.attempts) for c in world.store.begun] == [((), 0), ((0,), 1)]


def test_a_store_that_cannot_note_the_beginning_stops_deliveries_for_a_moment(clock: list[float]) -> None:
    world = World()
    world.store.slow = True
    for number in (1, 2, 3):
        world.arrive(number, b"a@x.example")
    world.store.beginning.pop()(StoreError("no room", full=True))
    assert world.couriers.given == []
    assert world.states(_arena.READY, _arena.ACTIVE) == [3, 0]
    assert in_use(world) == []
    assert world.store.changes == [], "the store has enough to do"
    world.store.slow = False
    world.manager.advance(NOW + 0.5)
    assert world.couriers.given == []
    clock[0] = NOW + 1.1
    world.manager.advance(clock[0])
    assert [job.id - FIRST for _, job in world.couriers.given] == [1, 2, 3]
    assert all(n == 3 or n == 0 for n in world.manager.sites.by_number[1].in_flight.values())


def test_a_manager_that_stops_gives_out_nothing_more() -> None:
    world = World()
    world.store.slow = True
    world.arrive(1, b"a@x.example")
    world.manager.close()
    world.store.beginning.pop()(None)
    assert world.couriers.given == []
    assert world.states(_arena.ACTIVE) == [0]
    assert [c.kind for c in world.store.changes] == ["waiting"]


def test_more_jobs_than_seats_are_given_out_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for vacant in world.manager.attempts._vacant.values():
        del vacant[1:]
    for number in range(1, 6):
        world.arrive(number, b"a@x.example")
    assert sorted(job.seat for _, job in world.couriers.given) == [0, 0, 0, 16383, 16383]
    for given in world.couriers.given[:]:
        world.result(given)
    assert len(world.store.changes) == 5


# ---- a courier dies


def test_what_never_reached_its_dot_goes_out_again_at_once() -> None:
    world, (given,) = seated()
    reborn(world)
    assert world.counters[AMBIGUOUS] == 0
    assert [job.id for _, job in world.couriers.given] == [given[1].id] * 2
    assert [c.kind for c in world.store.changes] == ["waiting"]
    world.store.settle()
    assert in_use(world) == [GIVEN]


@pytest.mark.parametrize("state", [DOTTED, MIXED])
def test_what_may_have_been_taken_is_marked_and_waits(state: int, clock: list[float]) -> None:
    world, (given,) = seated()
    note(world, given, state)
    reborn(world)
    assert world.counters[AMBIGUOUS] == 1
    (change,) = world.store.changes
    assert (change.kind, change.attempts, change.due) == ("ambiguous", 1, NOW + WAIT)
    assert "may or may not" in change.why
    assert world.manager.extras.ambiguous == {given[1].slot}
    world.store.settle()
    assert in_use(world) == []
    clock[0] = NOW + WAIT - 1
    world.manager.advance(clock[0])
    assert len(world.couriers.given) == 1
    clock[0] = NOW + WAIT + 1
    world.manager.advance(clock[0])
    assert len(world.couriers.given) == 2
    assert world.manager.extras.ambiguous == set(), "it is being sent again"


def test_what_was_taken_is_finished() -> None:
    world, given = seated(2)
    note(world, given[0], DELIVERED)
    reborn(world)
    assert [(c.kind, c.id) for c in world.store.changes] == [("finished", given[0][1].id), ("waiting", given[1][1].id)]
    assert world.counters[INDEX["deliveries_done"]] == 1
    assert world.counters[AMBIGUOUS] == 0
    assert len(world.couriers.given) == 3
    assert world.unheard_of == [0], "its sender may want to hear of it"


def test_without_a_seat_nobody_knows() -> None:
    world = World()
    world.couriers.alive[:] = [2]
    world.manager.attempts._vacant[2].clear()
    world.arrive(1, b"a@x.example")
    reborn(world)
    assert [c.kind for c in world.store.changes] == ["ambiguous"]


def test_what_was_to_be_held_or_deleted_is() -> None:
    world, given = seated(3)
    world.manager.by_hand.hold(given[0][1].slot)
    world.manager.by_hand.hold(given[1][1].slot)
    world.manager.by_hand.delete(given[2][1].slot)
    note(world, given[1], DOTTED)
    note(world, given[2], DOTTED)
    reborn(world)
    assert [c.kind for c in world.store.changes] == ["held", "held"]
    assert world.states(_arena.HELD, _arena.DEFERRED) == [2, 0]
    assert world.manager.messages == 2
    world.store.settle()
    assert in_use(world) == []


def test_what_was_on_its_way_to_a_courier_that_died_is_not_sent_to_its_successor_twice() -> None:
    world = World()
    world.couriers.alive[:] = [2]
    world.store.slow = True
    world.arrive(1, b"a@x.example")
    reborn(world)
    assert world.couriers.given == []
    world.store.beginning.pop()(None)
    world.store.beginning.pop()(None)
    assert len(world.couriers.given) == 1


def test_an_answer_that_never_came_waits_as_long(clock: list[float]) -> None:
    world, (given,) = seated()
    world.result(given, Outcome(Status.UNKNOWN, Reply(0, "4.4.2", "result unknown"), "hop"))
    (change,) = world.store.changes
    assert (change.kind, change.due, change.why) == ("ambiguous", NOW + WAIT, "4.4.2 result unknown")
    assert world.counters[AMBIGUOUS] == 1


# ---- the queue manager dies


def begun(given: tuple[int, Job]) -> Change:
    job = given[1]
    return Change(ref=job.ref, id=job.id, part=job.part, kind="begun", attempts=job.attempts)


def test_a_successor_reads_the_seats() -> None:
    world, given = seated(4)
    for one, state in zip(given, (GIVEN, DOTTED, DELIVERED, DOTTED), strict=True):
        note(world, one, state)
    after = successor(world, *map(begun, given))
    after.manager.attempts.courier_said(after.couriers.by_worker[2], True, {(FIRST + 4, 0)})
    assert after.couriers.given == []
    after.manager.open()
    assert [(c.id - FIRST, c.kind) for c in after.store.changes] == [(1, "waiting"), (2, "ambiguous"), (3, "finished")]
    assert [job.id - FIRST for _, job in after.couriers.given] == [1]
    assert after.states(_arena.ACTIVE, _arena.DEFERRED) == [2, 1]
    # The slot is another now, the seat is not.
    after.result((2, Job(900, FIRST + 4, 32, 0, 0, given[3][1].seat)))
    assert after.store.changes[-1].kind == "finished"
    after.store.settle()
    assert in_use(after) == [GIVEN]


def test_results_that_wait_in_the_link_are_read_first() -> None:
    world, given = seated(2)
    note(world, given[0], DELIVERED)
    after = successor(world, *map(begun, given))
    after.result(given[0])
    after.result(given[1], Outcome(Status.DEFERRED, LATER, "hop"))
    after.manager.attempts.courier_said(after.couriers.by_worker[2], True, set())
    after.manager.open()
    assert [(c.id - FIRST, c.kind) for c in after.store.changes] == [(1, "finished"), (2, "waiting")]
    assert after.couriers.given == []
    assert after.counters[AMBIGUOUS] == 0
    after.store.settle()
    assert in_use(after) == []


def test_a_seat_of_an_attempt_whose_result_is_on_record_means_nothing() -> None:
    """It died between the commit of the change and the freeing of the seat."""
    world, given = seated(2)
    for one in given:
        note(world, one, MIXED)
    later = [
        Change(ref=one[1].ref, id=one[1].id, part=0, kind="waiting", attempts=1, due=int(NOW) + 60) for one in given
    ]
    after = successor(world, later[0])  # the other one was finished
    after.manager.open()
    assert after.store.changes == []
    assert after.states(_arena.DEFERRED) == [1]
    assert in_use(after) == []


def test_a_courier_that_says_nothing_keeps_what_it_has_until_it_speaks() -> None:
    world, given = seated(3)
    note(world, given[1], DOTTED)
    after = successor(world, *map(begun, given), alive=(3,))
    after.manager.open()
    assert after.couriers.given == []
    assert after.states(_arena.ACTIVE) == [3]
    after.couriers.alive.append(2)
    after.manager.attempts.courier_said(after.couriers.by_worker[2], True, {(FIRST + 3, 0)})
    after.manager.dispatch()
    assert [(c.id - FIRST, c.kind) for c in after.store.changes] == [(1, "waiting"), (2, "ambiguous")]
    assert [job.id - FIRST for _, job in after.couriers.given] == [1]
    assert after.manager.sites.by_number[1].in_flight == {2: 0, 3: 1}, "the third one was not routed in this life"


def test_seats_filled_before_the_store_knew_of_it_mean_nothing() -> None:
    world = World()
    world.store.slow = True
    world.arrive(1, b"a@x.example")
    assert in_use(world) == [GIVEN]
    after = successor(world)
    after.arrive(1, b"a@x.example")
    after.manager.open()
    assert after.store.changes == []
    assert [job.id - FIRST for _, job in after.couriers.given] == [1]


# ---- everything dies


def test_after_the_machine_the_store_alone_speaks(clock: list[float]) -> None:
    world, given = seated(2)
    note(world, given[0], DELIVERED)
    after = successor(world, *map(begun, given), seats=SeatTable(None, 2, ""))
    after.manager.open()
    assert [(c.kind, c.attempts) for c in after.store.changes] == [("ambiguous", 1)] * 2
    assert after.counters[AMBIGUOUS] == 2
    again = successor(after, *after.store.changes, seats=SeatTable(None, 2, ""))
    again.manager.open()
    assert len(again.manager.extras.ambiguous) == 2
    assert again.counters[AMBIGUOUS] == 0, "they are counted once"


def test_a_start_with_fewer_couriers_reads_the_seats_of_all() -> None:
    world = World(seats=SeatTable(None, 3, ""))
    world.couriers.alive[:] = [2]
    world.arrive(1, b"a@x.example")
    (given,) = world.couriers.given
    first, _, third = world.seats.rows
    third.fill([(0, given[1].id, 8, 0, 0)], [7])
    third.states[7] = DELIVERED
    first.states[given[1].seat] = FREE
    after = successor(world, begun(given))
    after.manager.open()
    assert [c.kind for c in after.store.changes] == ["finished"]
    after.store.settle()
    assert in_use(after) == []


def test_an_operator_who_holds_it_before_the_seats_are_read_is_obeyed() -> None:
    world, (given,) = seated()
    note(world, given, DOTTED)
    after = successor(world, begun(given))
    (slot,) = after.manager.arena.find(given[1].id)
    assert after.manager.by_hand.hold(slot) is not None
    after.manager.open()
    assert after.states(_arena.HELD, _arena.DEFERRED) == [1, 0]
    assert in_use(after) == []


# ---- checkpoints


def test_a_checkpoint_knows_what_has_begun_and_what_is_ambiguous() -> None:
    world, given = seated(3)
    note(world, given[0], DOTTED)
    world.couriers.alive[:] = [3]
    reborn(world)
    kinds = {queued.id - FIRST: [c.kind for c in queued.changes] for queued in Housekeeping(world.manager).snapshot()}
    assert kinds == {1: ["ambiguous"], 2: ["begun"], 3: ["begun"]}
