"""The couriers as the queue manager knows them: links, lives, what each has in hand.

Invariant: the active list of a courier holds just the deliveries that were given to its present life (or that it said
it has in hand) and whose result has not come.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence, Set

from mta.model import BUSY_IN_ONE_HELLO, LINK_VERSION, Bye, Hello, Job, Jobs, LinkRecord, Results, SiteNews, Traffic
from mta.net.link import Link
from mta.queue._arena import URGENT, Arena
from mta.queue.sites import SiteQueue

Taken = tuple[int, int, int, int, int]  # slot, id, ref, part, attempts


class Courier:
    """One courier. `life` is 0 until it said Hello; `active` is its list in the arena."""

    def __init__(self, worker: int, active: int) -> None:
        self.worker = worker
        self.active = active
        self.life = 0
        self.busy: set[tuple[int, int]] = set()  # told in Hellos whose last has not come
        self.link: Link


class Couriers:
    """All of them. The callbacks: results came; traffic was told of; a courier said Hello, for the first time in a
    life or again, with the (id, part) of what it has in hand.

    The links are read from `greet` on: what couriers told an earlier life of the queue manager waits in them until
    the queue is recovered. `alive` are the workers that have said Hello: only these are given anything.
    """

    def __init__(
        self,
        ends: Sequence[tuple[int, socket.socket]],
        loop: asyncio.AbstractEventLoop,
        arena: Arena,
        life: int,
        *,
        results: Callable[[int, Results], None],
        drained: Callable[[], None],
        began: Callable[[Courier, bool, Set[tuple[int, int]]], None],
        traffic: Callable[[int, Traffic], None],
    ) -> None:
        self._ends = ends
        self._loop = loop
        self._arena = arena
        self._life = life
        self._results = results
        self._drained = drained
        self._began = began
        self._traffic = traffic
        self._news = asyncio.Event()
        self.by_worker = {worker: Courier(worker, arena.new_list()) for worker, _ in ends}
        self.alive: list[int] = []

    async def greet(self, patience: float) -> None:
        """Read the links, say Hello, and wait until all have answered or the patience is at its end."""
        for worker, end in self._ends:
            courier = self.by_worker[worker]
            courier.link = Link(end, self._loop, self._receiver(courier), self._drained)
            courier.link.send(Hello(LINK_VERSION, "queue", 0, self._life))
        await self.until(lambda: len(self.alive) == len(self.by_worker), patience)

    def give(
        self,
        worker: int,
        queue: SiteQueue,
        taken: Sequence[Taken],
        seats: Sequence[int],
        pending: dict[int, tuple[int, ...]],
    ) -> None:
        """Hand deliveries of a site to a courier; it is told of the site first."""
        link = self.by_worker[worker].link
        site = queue.descriptions[worker]
        if queue.told.get(worker) is not site:
            queue.told[worker] = site
            link.send(SiteNews(queue.number, site, queue.source))
        if self._arena.met_urgent:
            urgent = [bool(self._arena.marks(job[0]) & URGENT) for job in taken]
            jobs = tuple([Job(*j, s, pending.get(j[0], ()), u) for j, s, u in zip(taken, seats, urgent, strict=True)])
        elif pending:
            jobs = tuple([Job(*job, seat, pending.get(job[0], ())) for job, seat in zip(taken, seats, strict=True)])
        else:
            jobs = tuple([Job(*job, seat) for job, seat in zip(taken, seats, strict=True)])
        link.send(Jobs(queue.number, jobs, self.by_worker[worker].life))

    def close(self) -> None:
        for courier in self.by_worker.values():
            courier.link.close()

    def _receiver(self, courier: Courier) -> Callable[[LinkRecord], None]:
        def receive(record: LinkRecord) -> None:
            if isinstance(record, Results):
                self._results(courier.worker, record)
            elif isinstance(record, Traffic):
                self._traffic(courier.worker, record)
            elif isinstance(record, Hello):
                self._greeted(courier, record)
            elif isinstance(record, Bye) and courier.worker in self.alive:
                self.alive.remove(courier.worker)
            self._news.set()

        return receive

    def _greeted(self, courier: Courier, hello: Hello) -> None:
        if hello.version != LINK_VERSION:
            raise RuntimeError(f"courier {courier.worker} speaks link version {hello.version}, not {LINK_VERSION}")
        courier.busy.update(hello.busy)
        if len(hello.busy) >= BUSY_IN_ONE_HELLO:
            return  # more of it comes
        busy, courier.busy = courier.busy, set()
        new = courier.life != hello.life
        courier.life = hello.life
        if new and courier.worker not in self.alive:
            self.alive.append(courier.worker)
        self._began(courier, new, busy)

    async def until(self, met: Callable[[], bool], patience: float) -> None:
        """Wait for something that couriers tell, so many seconds at most."""
        try:
            async with asyncio.timeout(patience):
                while not met():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return  # a courier that is silent is taken as it is; its Hello or its results may still come
