"""Limits that are learned: as many connections as a site takes, fewer when it slows down, one probe when it is dead."""

from __future__ import annotations

import pytest

from mta.config.settings import Delivery
from tests.sim.hosts import Crowded, Dead, Flapping, Host, Metered, Slowing
from tests.sim.world import HOUR, World, world


def counts(host: Host) -> tuple[int, int, int]:
    return host.accepted, host.transactions + host.connects, host.refused


def limit(it: World) -> int:
    """Connections that the only site may have."""
    return it.manager.sites.by_number[1].limits.connections


@pytest.mark.parametrize("seconds", [0.05, 0.5])
@pytest.mark.parametrize("most", [2, 8])
def test_a_site_that_takes_a_number_is_given_that(most: int, seconds: float) -> None:
    """8 +- 1 of 8 within a minute, 95 % of what it can take, and no more than 1 % of attempts refused."""
    host = Crowded(connecting=0.05, working=seconds, most=most)
    with world({"mx.busy.example": host}) as it:
        it.run(1)
        it.mails(int(130 * most / seconds), "busy.example")
        it.run(61)
        before = counts(host)
        for second in range(62, 122):
            it.run(second)
            assert abs(limit(it) - most) <= max(1, most // 8)
        accepted, attempts, refused = (b - a for a, b in zip(before, counts(host), strict=True))
        assert accepted >= 0.95 * 60 * most / seconds
        assert refused <= 0.01 * attempts
        assert host.refused <= 10 + 0.01 * (host.transactions + host.connects), "from the beginning"


def test_one_that_slows_down_is_followed_within_ten_seconds() -> None:
    host = Slowing(connecting=0.05, working=0.1, at=60, until=90, then=3.0)
    with world({"mx.slow.example": host}) as it:
        it.run(1)
        it.mails(40_000, "slow.example")
        it.run(59)
        usual = limit(it)
        it.run(70)
        assert limit(it) <= usual / 2
        it.run(90)
        before = host.accepted
        it.run(100)
        assert limit(it) >= 0.9 * usual, "and back"
        it.run(110)
        assert host.accepted - before >= 0.5 * 20 * usual / 0.1


def test_a_site_that_takes_a_number_in_a_minute_is_given_about_that() -> None:
    host = Metered(connecting=0.05, working=0.05, each_minute=120)
    with world({"mx.paid.example": host}, step=0.25) as it:
        it.run(1)
        it.mails(6000, "paid.example")
        it.run(600)
        accepted, sent = host.accepted, host.transactions
        it.run(1800)
        assert host.accepted - accepted >= 0.9 * 20 * 120
        assert host.accepted - accepted >= 0.85 * (host.transactions - sent), "it is not asked in vain all the time"


def test_a_dead_site_costs_a_probe_now_and_then() -> None:
    host = Dead()
    with world({"mx.dead.example": host}, step=1.0) as it:
        it.run(1)
        for minute in range(120):
            it.mails(100, "dead.example")
            it.run(60 * (minute + 1))
        assert host.connects <= 12 + 2 * HOUR / Delivery().probe_cap


def test_what_waits_for_a_site_goes_when_it_is_back() -> None:
    """All of it, soon after the next probe, and as fast as the site takes it."""
    host = Dead(until=HOUR)
    with world({"mx.sick.example": host}) as it:
        it.run(1)
        it.mails(5000, "sick.example")
        it.run(HOUR)
        assert host.connects <= 15
        it.run(HOUR + Delivery().probe_cap * 1.3)
        assert host.accepted >= 4900, "but for those few whose own attempts had failed"


def test_one_that_comes_and_goes_is_used_while_it_is_there() -> None:
    host = Flapping(up=900, down=900)
    with world({"mx.flap.example": host}, step=0.5) as it:
        it.run(1)
        for minute in range(60):
            it.mails(60, "flap.example")
            it.run(60 * (minute + 1))
        assert host.accepted >= 0.95 * 45 * 60
        assert host.refused <= 20
