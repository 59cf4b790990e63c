"""Turns at a site that takes less than there is: tenants by their weights, classes within them, and nobody starves."""

from __future__ import annotations

from collections import Counter

from mta.model import Options
from tests.sim.hosts import Crowded
from tests.sim.world import World, world

HOST = "mx.busy.example"
RATE = 80.0  # messages a second that it takes: eight at once, a tenth of a second each
ONE = 0.1 + 0.02  # seconds of one message, and of the disk


def busy() -> dict[str, Crowded]:
    return {HOST: Crowded(connecting=0.05, working=8 / RATE, most=8)}


def fill(it: World, tenant: str, count: int, *, priority: int = 0) -> list[int]:
    return it.mails(count, "busy.example", options=Options(tenant=tenant, priority=priority))


def shares(it: World, since: float) -> Counter[str]:
    """Deliveries of each tenant since a time."""
    found: Counter[str] = Counter()
    for (message_id, _), moment in it.taken_at.items():
        options = it.sent[message_id].options
        if moment >= since and options is not None:
            found[options.tenant] += 1
    return found


def test_tenants_share_by_their_weights() -> None:
    with world(busy(), weights={"small": 1, "middle": 2, "large": 5}) as it:
        it.run(1)
        for tenant in ("large", "small", "middle"):  # all at once: who is first has no more for it
            fill(it, tenant, 4000)
        it.run(10)
        it.run(60)
        found = shares(it, 10)
        whole = sum(found.values())
        for tenant, part in (("small", 1), ("middle", 2), ("large", 5)):
            assert abs(found[tenant] / whole - part / 8) < 0.01, found


def test_who_comes_with_little_does_not_wait_behind_who_has_much() -> None:
    with world(busy()) as it:
        it.run(1)
        fill(it, "newsletter", 50_000)
        it.run(30)
        in_hand = it.states()["ACTIVE"]
        few = fill(it, "person", 20)
        it.run(34)
        delays = it.delays(few)
        assert len(delays) == 20
        assert delays[-1] <= (in_hand + 2 * 20) / RATE + 3 * ONE, "each second turn, behind what couriers have in hand"


def test_urgent_mail_passes_a_backlog_in_the_time_of_one_message() -> None:
    with world(busy()) as it:
        it.run(1)
        it.mails(100_000, "busy.example")
        it.run(30)
        for second in range(31, 41):
            urgent = it.mails(1, "busy.example", options=Options(priority=4))
            it.run(second)
            assert it.delays(urgent)[0] <= 2 * ONE


def test_a_flood_of_urgent_mail_starves_nobody() -> None:
    """Neither patient mail of the same tenant, nor the mail of others."""
    with world(busy()) as it:
        it.run(1)
        fill(it, "loud", 2000, priority=5)
        patient = fill(it, "loud", 100, priority=-5)
        others = fill(it, "quiet", 3000)
        for second in range(2, 52):
            fill(it, "loud", int(RATE), priority=5)
            it.run(second)
        assert shares(it, 21)["quiet"] >= 0.9 * 30 * RATE / 2
        assert len(it.delays(others)) > len(it.delays(patient)) >= 30 * RATE / 2 / 24 * 0.9, "each 17th turn, at least"


def test_everything_ends_whatever_its_class() -> None:
    with world(busy(), weights={"b": 3}) as it:
        it.run(1)
        for tenant in ("", "a", "b"):
            for priority in (-9, 0, 9):
                fill(it, tenant, 200, priority=priority)
        it.run(60)
        it.settled()
