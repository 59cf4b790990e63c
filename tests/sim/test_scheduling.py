"""What the queue promises, one promise a world."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from mta.model import Options, Reply
from mta.queue import _arena
from tests.sim.hosts import Answers, Dead, Host
from tests.sim.world import HOUR, world


@dataclass(slots=True)
class Never(Host):
    """Defers everything, and notes when."""

    asked: list[float] = field(default_factory=list)

    def transact(self, now: float, addresses: Sequence[bytes]) -> Answers:
        self.asked.append(now)
        return 0.0, [Reply(450, "4.2.0", "not today")] * len(addresses)


# ---- retries


def test_retries_follow_the_schedule() -> None:
    host = Never()
    with world({"mx.no.example": host}, first=60, factor=2, cap=1800, jitter=0.1, expiry=12 * HOUR, step=1.0) as it:
        it.mail("a@no.example", at=10)
        it.run(13 * HOUR)
        it.settled()
    seen = host.asked
    gaps = [b - a for a, b in itertools.pairwise(seen)]
    assert seen[-1] == pytest.approx(seen[0] + 12 * HOUR, abs=2), "the last attempt is when its time is over"
    gaps.pop()
    wanted = [min(1800, 60 * 2**n) for n in range(len(gaps))]
    assert all(0.9 * w - 1 <= g <= 1.1 * w + 1 for g, w in zip(gaps, wanted, strict=True)), gaps
    assert len({round(g) for g in gaps[6:]}) > 5, "they are spread"


# ---- dead sites


def test_a_hundred_thousand_for_a_dead_site_delay_nobody_else() -> None:
    hosts = {"mx.dead.example": Dead(), "mx.fine.example": Host()}
    with world(hosts) as it:
        it.run(1)
        it.mails(100_000, "dead.example")
        fresh: list[int] = []
        for second in range(2, 120, 2):
            fresh += it.mails(10, "fine.example")
            it.run(second)
        delays = it.delays(fresh)
        assert len(delays) == len(fresh)
        assert delays[len(delays) * 99 // 100] <= 1.0


def test_all_mail_for_a_dead_site_goes_back_in_time() -> None:
    """Also what was never tried, because the site was known to be dead."""
    with world({"mx.dead.example": Dead()}, step=1.0, expiry=6 * HOUR, delay_warning=2 * HOUR) as it:
        it.run(1)
        it.mails(2000, "dead.example", options=Options(user="somebody"))
        it.run(1.9 * HOUR)
        assert it.events["notified"] == it.events["bounced"] == 0
        it.run(6.2 * HOUR)
        assert (it.events["notified"], it.events["bounced"]) == (2000, 2000)
        it.run(7 * HOUR)
        it.settled()


# ---- what a long queue costs


def test_a_lookup_does_not_search_the_queue() -> None:
    """2 ms each with 500,000 deliveries, when it did."""

    def seconds(held: int) -> float:
        with world({}) as it:
            it.run(1)
            arena = it.manager.arena
            for number in range(held):
                arena.push(it.manager.places.held, arena.add(number + 1, 8, 0, 0), _arena.HELD)
            for number in range(500):
                it.mail(f"a@d{number}.example", at=2 + number / 100)
            began = time.process_time()
            it.run(10)
            assert len(it.taken) == 500
            return time.process_time() - began

    assert seconds(500_000) < 4 * seconds(1000) + 0.2
