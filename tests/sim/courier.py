"""A courier that delivers to simulated hosts: the manners of `mta.deliver.pool` without a socket.

It hears and says the records of a link. A site's jobs wait for its connections: one is opened at once, more while jobs
wait and the site's share allows; one that is refused beside others is a reason not to grow for a while, and when there
is none at all everything that waits is deferred together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from mta.model import (
    LINK_VERSION,
    Hello,
    Job,
    Jobs,
    LinkRecord,
    Outcome,
    Reply,
    Result,
    Results,
    Site,
    SiteNews,
    Status,
    part_members,
)
from tests.sim.hosts import Host
from tests.sim.store import MemoryStore

_GROWTH_PAUSE = 5.0
_PATIENCE = 0.02
_IDLE = 30.0  # seconds after which a connection without work is closed
_NO_HOST = Host()


class MemoryLink:
    """The queue manager's end of the link to a courier."""

    def __init__(
        self,
        courier: SimCourier,
        loop: asyncio.AbstractEventLoop,
        receive: Callable[[LinkRecord], None],
        drained: Callable[[], None],
    ) -> None:
        self._courier = courier
        self._loop = loop
        self._receive = receive
        self._drained = drained
        self._box: list[LinkRecord] = []
        courier.say = self.post

    def send(self, record: LinkRecord) -> None:
        self._loop.call_soon(self._courier.hear, record)

    def post(self, record: LinkRecord) -> None:
        """From the courier; what comes at one time is read in one go."""
        if not self._box:
            self._loop.call_soon(self._read)
        self._box.append(record)

    def close(self) -> None:
        return

    def _read(self) -> None:
        box, self._box = self._box, []
        for record in box:
            self._receive(record)
        self._drained()


class SimCourier:
    """See the module. `delivered` hears of each recipient that a host took."""

    def __init__(
        self,
        worker: int,
        loop: asyncio.AbstractEventLoop,
        hosts: Mapping[str, Host],
        store: MemoryStore,
        delivered: Callable[[int, int], None],
    ) -> None:
        self.worker = worker
        self.loop = loop
        self.hosts = hosts
        self.store = store
        self.delivered = delivered
        self.say: Callable[[LinkRecord], None]
        self._pools: dict[int, _Pool] = {}
        self._results: list[Result] = []

    def hear(self, record: LinkRecord) -> None:
        if isinstance(record, Hello):
            self.say(Hello(LINK_VERSION, "courier", self.worker, 1))
        elif isinstance(record, SiteNews):
            known = self._pools.get(record.number)
            if known is None:
                self._pools[record.number] = _Pool(self, record.site)
            else:
                known.update(record.site)
        elif isinstance(record, Jobs):
            self._pools[record.site].add(record.jobs)

    def settle(self, job: Job, *outcomes: Outcome) -> None:
        """A job is over; results that come together are told together."""
        if not self._results:
            self.loop.call_soon(self._tell)
        self._results.append(Result(job.slot, job.id, job.part, outcomes, job.seat))

    def _tell(self) -> None:
        results, self._results = self._results, []
        self.say(Results(tuple(results)))


class _Pool:
    """One site."""

    def __init__(self, courier: SimCourier, site: Site) -> None:
        self._courier = courier
        self._loop = courier.loop
        self._site = site
        self._waiting: deque[Job] = deque()
        self._idle: list[asyncio.TimerHandle] = []  # the ends of connections without work
        self._connections = 0
        self._opening = 0
        self._no_growth_before = 0.0
        self._asked = False
        self._host = next((courier.hosts[hop.host] for hop in site.hops if hop.host in courier.hosts), _NO_HOST)

    def update(self, site: Site) -> None:
        self._site = site
        self._dispatch()

    def add(self, jobs: tuple[Job, ...]) -> None:
        self._waiting.extend(jobs)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting and self._idle:
            self._idle.pop().cancel()
            self._work()
        if not self._waiting or self._opening:
            return
        if not self._connections:
            self._open()
        elif self._connections < self._site.connections and not self._asked:
            # More are opened while jobs wait, but not in the same moment.
            self._asked = True
            wait = max(_PATIENCE, self._no_growth_before - self._loop.time())
            self._loop.call_later(wait, self._grow)

    def _grow(self) -> None:
        self._asked = False
        room = self._site.connections - self._connections - self._opening
        if self._loop.time() < self._no_growth_before:
            self._dispatch()
            return
        if self._connections:
            for _ in range(min(room, max(1, self._connections), len(self._waiting))):
                self._open()

    def _open(self) -> None:
        self._opening += 1
        seconds, refusal = self._host.call(self._loop.time())
        self._loop.call_later(seconds, self._opened, refusal)

    def _opened(self, refusal: Reply | None) -> None:
        self._opening -= 1
        if refusal is None:
            self._connections += 1
            self._work()
            self._dispatch()
        elif self._connections or self._opening:
            self._no_growth_before = self._loop.time() + _GROWTH_PAUSE
        else:
            outcome = Outcome(Status.DEFERRED, refusal, "host")
            while self._waiting:
                self._courier.settle(self._waiting.popleft(), outcome)

    def _work(self) -> None:
        """A connection is free."""
        if self._connections > self._site.connections:
            self._close()
        elif self._waiting:
            job = self._waiting.popleft()
            recipients = self._courier.store.envelope(job.ref).recipients  # type: ignore[arg-type]
            members = job.pending or tuple(part_members(recipients, job.part))
            seconds, replies = self._host.send(self._loop.time(), [recipients[i].address for i in members])
            self._loop.call_later(seconds, self._sent, job, members, replies)
        else:
            self._idle.append(self._loop.call_later(_IDLE, self._expire))

    def _sent(self, job: Job, members: tuple[int, ...], replies: list[Reply]) -> None:
        groups: dict[Reply, list[int]] = {}
        for index, reply in zip(members, replies, strict=True):
            groups.setdefault(reply, []).append(index)
            if reply.code < 300:
                self._courier.delivered(job.id, index)
        if all(reply.code < 300 for reply in groups):
            self._courier.settle(job)
        else:
            self._courier.settle(job, *(Outcome(_status(r), r, "host", tuple(who)) for r, who in groups.items()))
        self._work()

    def _expire(self) -> None:
        self._idle.pop(0)
        self._close()

    def _close(self) -> None:
        self._connections -= 1
        self._host.open -= 1


def _status(reply: Reply) -> Status:
    if reply.code < 300:
        return Status.DELIVERED
    return Status.DEFERRED if reply.code < 500 else Status.FAILED
