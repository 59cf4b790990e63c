"""What the queue manager's own work costs a delivery: admitted, ready, taken, given out, come back, finished.

No store and no link: both are there and do nothing. `extra_info` has microseconds a delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mta.config.settings import NextHop, Retry, Route
from mta.model import Change, Job, Lane, Queued, Result, Results, StoreError
from mta.net.seats import SeatTable
from mta.observe.counters import Table
from mta.queue.couriers import Courier, Taken
from mta.queue.manager import QueueManager
from mta.queue.routing import Router
from mta.queue.sites import SiteQueue
from tests.kit.queue import FIRST

BATCH = 64  # deliveries
ROUNDS = 5000  # each short, so that the best of them had the processor for itself
BAR = 5.0  # microseconds a delivery


class QuickStore:
    """All is durable at once, nothing is kept."""

    refusing = None

    def __init__(self) -> None:
        self.finished = 0

    def record_soon(self, changes: Sequence[Change], told: Callable[[], None] | None = None) -> None:
        self.finished += len(changes)
        if told is not None:
            told()

    def begin(self, begun: Sequence[Change], told: Callable[[StoreError | None], None]) -> None:
        told(None)


class Bed:
    """A manager with one courier, whose jobs are taken back in batches as they would come from the link."""

    def __init__(self, sites: int, tenants: int = 0) -> None:
        self.lanes: list[Lane | None] = [(f"tenant{n}", "") for n in range(tenants)] or [None]
        self.store = QuickStore()
        self.given: list[Job] = []
        self.by_worker: dict[int, Courier] = {}
        self.alive = [2]
        hops = [NextHop(kind="smtp", host=f"hop{n}.example", port=25) for n in range(sites)]
        self.domains = [(b"d%d.example" % n,) for n in range(sites)]
        routes = tuple(Route(domain=f"d{n}.example", next_hop=hop) for n, hop in enumerate(hops))
        self.manager = QueueManager(
            store=self.store,  # type: ignore[arg-type]
            router=Router((), routes, hostname="me", connections=20, port=25),
            retry=Retry(),
            resolver=None,  # type: ignore[arg-type]
            maillog=lambda *_: None,  # type: ignore[arg-type]
            counters=Table(1).row(0),
            couriers=self._couriers,  # type: ignore[arg-type]
            seats=SeatTable(None, 1, ""),
            teller=None,  # type: ignore[arg-type]
        )
        self.manager.open()
        self.number = 0

    def _couriers(self, manager: QueueManager) -> Bed:
        self.by_worker[2] = Courier(2, manager.arena.new_list())
        return self

    def give(
        self,
        worker: int,
        queue: SiteQueue,
        taken: Sequence[Taken],
        seats: Sequence[int],
        pending: dict[int, tuple[int, ...]],
    ) -> None:
        self.given += [Job(*job, seat) for job, seat in zip(taken, seats, strict=True)]

    def arrivals(self, count: int) -> list[Queued]:
        first, domains, lanes = FIRST + self.number, self.domains, self.lanes
        self.number += count
        return [
            Queued(id=first + n, ref=n * 8, size=1, domains=domains[n % len(domains)], lane=lanes[n % len(lanes)])
            for n in range(count)
        ]

    def turn(self, batch: list[Queued]) -> None:
        manager, given = self.manager, self.given
        for queued in batch:
            manager.admission.admit(queued)
        manager.dispatch()
        while given:
            results = Results(tuple([Result(job.slot, job.id, job.part, (), job.seat) for job in given]))
            given.clear()
            manager.settling.came(2, results)
            manager.dispatch()


@pytest.mark.parametrize(("sites", "tenants"), [(1, 0), (64, 0), (1, 16)])
def test_a_delivery_through_the_manager(benchmark: BenchmarkFixture, sites: int, tenants: int) -> None:
    """In batches of 64: all to one site, each to another one, and to one site from tenants in turn."""
    bed = Bed(sites, tenants)
    benchmark.pedantic(bed.turn, setup=lambda: ((bed.arrivals(BATCH),), {}), rounds=ROUNDS, warmup_rounds=10)
    assert bed.store.finished == bed.number
    assert bed.manager.messages == 0
    if benchmark.stats is not None:
        each = benchmark.stats.stats.min / BATCH * 1e6
        benchmark.extra_info["microseconds_a_delivery"] = round(each, 2)
        assert each <= BAR
