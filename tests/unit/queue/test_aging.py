"""Mail that is ready and not tried: late, and over its time."""

from mta.model import TOLD_DELAY, Options
from mta.queue import _arena
from mta.queue.aging import EVERY
from tests.kit.queue import NOW, World

HOUR = 3600.0


def waiting(**retry: float) -> World:
    """A world without couriers: what comes stays ready."""
    world = World(expiry=5 * HOUR, delay_warning=HOUR, **retry)
    world.couriers.alive.clear()
    return world


def look(world: World, clock: list[float], now: float) -> None:
    clock[0] = now
    for _ in range(100):
        world.manager.advance(now)


def test_what_is_ready_for_too_long_goes_back(clock: list[float]) -> None:
    world = waiting()
    for number in range(1, 1001):
        world.arrive(number, b"a@x.example")
    look(world, clock, NOW + 5 * HOUR)
    assert world.failed == []
    look(world, clock, NOW + 5 * HOUR + 6 * EVERY)
    assert len(world.failed) == 1000
    assert world.failed[0][1].failures[0].reply.enhanced == "5.4.7"
    assert world.manager.messages == 0


def test_its_sender_hears_once_that_it_waits(clock: list[float]) -> None:
    world = waiting()
    world.arrive(1, b"a@x.example")
    look(world, clock, NOW + HOUR)
    assert world.told_to_wait == []
    for minutes in range(5, 30):
        look(world, clock, NOW + HOUR + minutes * 60)
    assert world.told_to_wait == [0]
    assert world.states(_arena.READY) == [1]
    assert world.manager.arena.marks(0) & _arena.TOLD_DELAY == TOLD_DELAY


def test_without_warnings_there_are_none(clock: list[float]) -> None:
    world = World(expiry=5 * HOUR, delay_warning=0.0)
    world.couriers.alive.clear()
    world.arrive(1, b"a@x.example")
    look(world, clock, NOW + 4 * HOUR)
    assert world.told_to_wait == []


def test_what_is_held_or_put_off_stays(clock: list[float]) -> None:
    world = waiting()
    world.arrive(1, b"a@x.example")
    world.arrive(2, b"a@x.example", options=Options(hold_until=int((NOW + 5 * HOUR) * 1000)))
    world.manager.settling.record(world.manager.by_hand.hold_idle(0))
    look(world, clock, NOW + 6 * HOUR)
    assert world.failed == []
    assert world.states(_arena.HELD, _arena.READY) == [1, 1]
    look(world, clock, NOW + 10 * HOUR + 7 * EVERY)
    assert len(world.failed) == 1, "its age counts from the time that its sender had set"


def test_a_look_at_a_million_that_are_young_is_short(clock: list[float]) -> None:
    world = waiting()
    arena = world.manager.arena
    for number in range(300_000):
        slot = arena.add(int(world.manager.clock() * 1000 - 1_704_067_200_000) << 19 | number, 8, 0, 0)
        arena.push(world.manager.places.resolving, slot, _arena.READY)
    assert arena.old(0, 10, 1 << _arena.READY, 0, 0) == ([], 200_000)
    look(world, clock, NOW + EVERY)
    assert world.told_to_wait == world.failed == []
