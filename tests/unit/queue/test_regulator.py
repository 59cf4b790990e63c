"""How fast mail goes to each site: between what couriers tell and what they are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mta.config.settings import CoolDown, Delivery, Rate, Seconds, Shape
from mta.model import Outcome, Reply, SiteNews, SiteTraffic, Status, Traffic, Trouble
from mta.queue import _arena
from mta.queue.limits import NEVER
from tests.kit import queue as kit
from tests.kit.queue import NOW, World

REFUSED = Reply(0, "4.4.1", "cannot connect to hop.example: Connection refused")
GREY = Reply(450, "4.2.0", "greylisted, come again")
FULL = Reply(451, "4.3.2", "system not accepting messages")
FAST = Reply(451, "4.7.1", "you send too many messages, slow down")


@pytest.fixture(autouse=True)
def _time() -> Iterator[None]:
    kit.TIME[0] = NOW
    yield
    kit.TIME[0] = NOW


def later(world: World, seconds: float) -> None:
    kit.TIME[0] += seconds
    world.manager.advance(kit.TIME[0])


def deferred(world: World, reply: Reply, index: int = -1) -> None:
    world.result(world.couriers.given[index], Outcome(Status.DEFERRED, reply))


def world_with(*shapes: Shape, delivery: Delivery | None = None, count: int = 0) -> World:
    world = World(shapes=shapes, delivery=delivery or Delivery())
    for number in range(1, count + 1):
        world.arrive(number, b"a@x.example")
    return world


def test_a_site_that_cannot_be_reached_gets_one_probe_at_a_time() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    deferred(world, REFUSED)
    for number in range(2, 500):
        world.arrive(number, b"a@x.example")
    assert len(world.couriers.given) == 1
    later(world, 59.0)
    assert len(world.couriers.given) == 1
    later(world, 2.0)
    assert len(world.couriers.given) == 2
    deferred(world, REFUSED)
    later(world, 119.0)
    assert len(world.couriers.given) == 2
    later(world, 2.0)
    assert len(world.couriers.given) == 3
    state = world.manager.regulator.state(world.manager.sites.by_number[1])
    assert state.limits.failures == 2
    assert state.sentence.endswith("one message is on its way there as a probe")
    world.result(world.couriers.given[-1])  # taken
    assert len(world.couriers.given) > 10
    assert not world.manager.sites.by_number[1].limits.gated


def test_a_probe_that_is_refused_for_good_shows_that_the_site_lives() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    deferred(world, REFUSED)
    for number in range(2, 20):
        world.arrive(number, b"a@x.example")
    later(world, 61.0)
    world.result(world.couriers.given[-1], Outcome(Status.FAILED, Reply(550, "5.1.1", "no such user")))
    assert not world.manager.sites.by_number[1].limits.gated
    assert len(world.couriers.given) > 10


def test_probes_are_no_rarer_than_the_settings_say() -> None:
    world = world_with(delivery=Delivery(probe_cap=Seconds(90.0)), count=1)
    deferred(world, REFUSED)
    for number in range(2, 20):
        world.arrive(number, b"a@x.example")
    for probe in range(2, 8):
        later(world, 92.0)
        assert len(world.couriers.given) == probe
        deferred(world, REFUSED)


def test_a_hundred_thousand_for_a_dead_site_hold_nobody_up() -> None:
    world = World(routes={"dead.example": "dead.hop.example"})
    world.arrive(1, b"a@dead.example")
    deferred(world, REFUSED)
    for number in range(2, 2000):
        world.arrive(number, b"a@dead.example")
    given = len(world.couriers.given)
    world.arrive(5000, b"a@x.example")
    assert len(world.couriers.given) == given + 1
    assert not world.manager.places.dirty


def test_greylisting_is_a_sign_of_life() -> None:
    world = World()
    for number in range(1, 30):
        world.arrive(number, b"a@x.example")
        deferred(world, GREY)
    assert len(world.couriers.given) == 29
    assert not world.manager.sites.by_number[1].limits.gated


def test_a_site_that_refuses_everything_is_down() -> None:
    world = World()
    for number in range(1, 9):
        world.arrive(number, b"a@x.example")
        if len(world.couriers.given) == number:
            deferred(world, FULL)
    assert len(world.couriers.given) == 5
    assert world.manager.sites.by_number[1].limits.state(NOW).gate == "down"


def test_a_reply_that_tells_of_a_rate_slows_the_site() -> None:
    world = world_with(count=10)
    before = world.manager.sites.by_number[1].limits.connections
    deferred(world, FAST, 0)
    state = world.manager.sites.by_number[1].limits.state(NOW)
    assert state.connections == before // 2
    assert state.rate_learned


def test_a_mailbox_that_gets_too_much_does_not() -> None:
    world = world_with(count=1)
    deferred(world, Reply(450, "4.2.1", "The user you are trying to contact is receiving mail too quickly"))
    state = world.manager.sites.by_number[1].limits.state(NOW)
    assert (state.connections, state.rate) == (20, "")


def test_a_rule_answers_a_reply_with_a_pause() -> None:
    world = world_with(Shape(cool_down=(CoolDown("451 4.7.1", 600.0),), where="a.toml:7"), count=1)
    deferred(world, FAST)
    world.arrive(2, b"a@x.example")
    assert len(world.couriers.given) == 1
    sentence = world.manager.regulator.sentence(world.manager.sites.by_number[1])
    assert "(a.toml:7: 451 4.7.1 = pause 600s)" in sentence
    assert "10m" in sentence
    later(world, 599.0)
    assert len(world.couriers.given) == 1  # not even the first one, which is due again
    later(world, 1.1)
    assert len(world.couriers.given) == 3


def test_a_rate_is_kept() -> None:
    world = world_with(Shape(rate=Rate(60, 60)), count=200)
    given = len(world.couriers.given)
    assert 1 <= given <= 2
    for _ in range(80):
        later(world, 0.125)
    assert 10 <= len(world.couriers.given) - given <= 11


def test_an_operator_pauses_and_resumes() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    (queue,) = world.manager.regulator.sites("*hop.example*")
    world.manager.regulator.pause(queue, NEVER, "maintenance", "ann")
    world.arrive(2, b"a@x.example")
    later(world, 86400.0)
    assert len(world.couriers.given) == 1
    world.manager.by_hand.retry_now(world.manager.arena.find(kit.FIRST + 2)[0])
    world.manager.dispatch()
    assert len(world.couriers.given) == 1
    assert "by ann" in world.manager.regulator.sentence(queue)
    world.manager.regulator.resume(queue, "ann")
    world.manager.dispatch()
    assert len(world.couriers.given) == 2
    world.manager.regulator.pause(queue, kit.TIME[0] + 60, "lunch", "ann")
    world.arrive(3, b"a@x.example")
    later(world, 61.0)
    assert len(world.couriers.given) == 3


def test_who_retries_mail_of_a_dead_site_probes_it_now() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    deferred(world, REFUSED)
    world.manager.by_hand.retry_now(world.manager.arena.find(kit.FIRST + 1)[0])
    world.manager.dispatch()
    assert len(world.couriers.given) == 2


def traffic(site: int, *troubles: Trouble, **more: object) -> Traffic:
    told: dict[str, object] = {"taken": 0, "answered": 0, "seconds": 0.25, "busy": 4, "open": 4, **more}
    return Traffic((SiteTraffic(site=site, troubles=troubles, **told),))  # type: ignore[arg-type]


def test_shares_add_up_and_changes_are_told_at_once() -> None:
    world = world_with(Shape(connections_start=5, connections_ceiling=20), count=40)
    queue, regulator = world.manager.sites.by_number[1], world.manager.regulator
    assert sorted(queue.shares.values()) == [2, 3]
    told: list[tuple[int, SiteNews]] = []
    for worker, courier in world.couriers.by_worker.items():
        queue.told[worker] = queue.descriptions[worker]
        courier.link = Recorder(worker, told)  # type: ignore[assignment]
    regulator.heard(2, traffic(1, taken=40, answered=40, limited=True))
    assert sum(queue.shares.values()) == 10
    assert {worker: news.site.connections for worker, news in told} == queue.shares
    told.clear()
    regulator.heard(3, traffic(1, open=4))
    assert not told
    regulator.heard(2, traffic(1, Trouble("refused", Reply(421, "4.7.0", "too many"), "hop", 3), open=3))
    assert sum(queue.shares.values()) == 7  # three there, and four of the other courier


CROWD = Reply(421, "4.7.0", "too many connections from you")


def test_who_finds_no_room_beside_another_courier_is_no_proof_of_death() -> None:
    world = world_with(count=40)
    queue, regulator = world.manager.sites.by_number[1], world.manager.regulator
    regulator.heard(2, traffic(1, taken=8, answered=8, busy=8, open=8))
    regulator.heard(3, traffic(1, Trouble("unreachable", CROWD), busy=0, open=0))
    assert queue.limits.connections == 10
    regulator.heard(3, traffic(1, Trouble("unreachable", CROWD), busy=0, open=0))
    assert queue.limits.connections == 8
    assert queue.limits.down is None
    (mine,) = [given for given in world.couriers.given if given[0] == 3][:1]
    world.result(mine, Outcome(Status.DEFERRED, CROWD))
    assert world.manager.arena.attempts(mine[1].slot) == 0  # that was none
    assert world.manager.arena.state(mine[1].slot) == _arena.ACTIVE


def test_a_site_that_turns_all_away_is_down() -> None:
    world = world_with(count=3)
    world.manager.regulator.heard(2, traffic(1, Trouble("unreachable", CROWD), busy=0, open=0))
    deferred(world, CROWD)
    assert world.manager.sites.by_number[1].limits.state(NOW).gate == "down"
    deferred(world, CROWD, 0)
    assert world.manager.sites.by_number[1].limits.state(NOW).gate == "down"


def test_a_courier_without_a_share_gets_nothing() -> None:
    world = world_with(Shape(connections=1), count=200)
    assert len({worker for worker, _ in world.couriers.given}) == 1


def test_traffic_of_sites_that_are_not_known_is_passed_over() -> None:
    world = World()
    world.manager.regulator.heard(2, traffic(7, taken=1))
    world.manager.regulator.heard(2, traffic(0, taken=1))


def test_mail_in_a_ready_list_tells_what_its_site_waits_for() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    deferred(world, REFUSED)
    world.arrive(2, b"a@x.example")
    (slot,) = world.manager.arena.find(kit.FIRST + 2)
    assert world.manager.arena.state(slot) == _arena.READY
    assert "the site is down" in world.manager.regulator.why(slot)


class Recorder:
    """A link that keeps what is sent."""

    def __init__(self, worker: int, told: list[tuple[int, SiteNews]]) -> None:
        self._worker = worker
        self._told = told

    def send(self, record: SiteNews) -> None:
        self._told.append((self._worker, record))
