"""A courier that delivers to simulated hosts: the manners of `mta.deliver.pool` without a socket.

It hears and says the records of a link, and notes in its seats how far each job came. A site's jobs wait for its
connections: one is opened at once, more while jobs wait and the site's share allows; one that is refused beside others
is a reason not to grow for a while, and when there is none at all everything that waits is deferred together.

A courier may be killed: what it had on the wire may have been taken or not, what it has not told is never told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mta.deliver.traffic import Collector, Key, Tally, key_of
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
    Source,
    Status,
    part_members,
)
from mta.net.seats import DELIVERED, DOTTED, GIVEN, MIXED, Row
from tests.sim.hosts import LOST, Host
from tests.sim.store import MemoryStore

_GROWTH_PAUSE = 5.0
_PATIENCE = 0.02
_IDLE = 30.0  # seconds after which a connection without work is closed
_FLUSH_AFTER = 0.005
_UNTRIED = Outcome(Status.UNTRIED, Reply(0, "", ""))
_EVERY_HOST = Host()  # what is not described is fine


@dataclass(slots=True)
class Wire:
    """A link between two processes: what is in it outlives both. `courier` and `queue` are who reads."""

    loop: asyncio.AbstractEventLoop
    courier: Callable[[LinkRecord], None] | None = None
    queue: MemoryLink | None = None
    box: list[LinkRecord] = field(default_factory=list)

    def to_courier(self, record: LinkRecord) -> None:
        self.loop.call_soon(self._hear, record)

    def to_queue(self, record: LinkRecord) -> None:
        if not self.box:
            self.loop.call_soon(self.read)
        self.box.append(record)

    def read(self) -> None:
        """What came at one time is read in one go."""
        if self.queue is not None:
            box, self.box = self.box, []
            self.queue.read(box)

    def _hear(self, record: LinkRecord) -> None:
        if self.courier is not None:
            self.courier(record)


class MemoryLink:
    """The queue manager's end of a wire; see mta.net.link."""

    def __init__(
        self,
        wire: Wire,
        loop: asyncio.AbstractEventLoop,
        receive: Callable[[LinkRecord], None],
        drained: Callable[[], None],
    ) -> None:
        self._wire = wire
        self._receive = receive
        self._drained = drained
        wire.queue = self
        loop.call_soon(wire.read)

    def send(self, record: LinkRecord) -> None:
        self._wire.to_courier(record)

    def close(self) -> None:
        self._wire.queue = None

    def read(self, records: list[LinkRecord]) -> None:
        for record in records:
            self._receive(record)
        self._drained()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all couriers of a world share. `taken` hears of each recipient that a host took, `doubt` of each of whom
    nobody will know; `chance` says whether a message whose courier was killed had been taken."""

    loop: asyncio.AbstractEventLoop
    hosts: Mapping[str, Host]
    store: MemoryStore
    taken: Callable[[int, int], None]
    doubt: Callable[[int, int], None]
    chance: Callable[[], float]


class SimCourier:
    """One life of one courier."""

    def __init__(self, around: Surroundings, worker: int, life: int, wire: Wire, seats: Row) -> None:
        self.around = around
        self.worker = worker
        self.life = life
        self.states = seats.states
        self.alive = True
        self._wire = wire
        self._pools: dict[Key, _Pool] = {}
        self._by_number: dict[int, _Pool] = {}
        self._results: list[tuple[Job, Result]] = []
        self.traffic = Collector(around.loop, self._say)
        wire.courier = self.hear
        self._hello()

    def hear(self, record: LinkRecord) -> None:
        if isinstance(record, Hello):
            self.traffic.numbers.clear()
            self._hello()
        elif isinstance(record, SiteNews):
            key = key_of(record.site, record.source)
            self.traffic.numbers[key] = record.number
            if (pool := self._pools.get(key)) is None:
                pool = self._pools[key] = _Pool(self, record.site, record.source)
            else:
                pool.update(record.site)
            self._by_number[record.number] = pool
        elif isinstance(record, Jobs) and record.life in (0, self.life):
            self._by_number[record.site].add(record.jobs)

    def kill(self) -> None:
        self.alive = False
        self._wire.courier = None
        for pool in self._pools.values():
            pool.drop()
        for job, result in self._results:
            if self.states[job.seat] == MIXED:
                for outcome in result.outcomes:
                    for index in outcome.recipients:
                        self.around.doubt(job.id, index)

    def later(self, seconds: float, call: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        return self.around.loop.call_later(seconds, self._if_alive, call, *args)

    def settle(self, job: Job, *outcomes: Outcome) -> None:
        """A job is over; results that come together are told together."""
        statuses = {outcome.status for outcome in outcomes} or {Status.DELIVERED}
        mixed = MIXED if Status.DELIVERED in statuses else GIVEN
        self.states[job.seat] = DELIVERED if statuses == {Status.DELIVERED} else mixed
        if not self._results:
            self.later(_FLUSH_AFTER, self._tell)
        self._results.append((job, Result(job.slot, job.id, job.part, outcomes, job.seat)))

    # ---- inside

    def _hello(self) -> None:
        self._tell()
        busy = tuple((job.id, job.part) for pool in self._pools.values() for job in pool.busy())
        self._say(Hello(LINK_VERSION, "courier", self.worker, self.life, busy))

    def _tell(self) -> None:
        if self._results:
            results, self._results = self._results, []
            self._say(Results(tuple(result for _, result in results)))

    def _say(self, record: LinkRecord) -> None:
        if self.alive:
            self._wire.to_queue(record)

    def _if_alive(self, call: Callable[..., None], *args: object) -> None:
        if self.alive:
            call(*args)


class _Pool:
    """One site."""

    def __init__(self, courier: SimCourier, site: Site, source: Source) -> None:
        self.source = source
        self._courier = courier
        self._loop = courier.around.loop
        self.site = site
        self._waiting: deque[Job] = deque()
        self._on_wire: dict[Job, tuple[tuple[int, ...], list[Reply]]] = {}
        self._idle: list[asyncio.TimerHandle] = []  # the ends of connections without work
        self._connections = 0
        self._opening = 0
        self._granted = 0  # of these, those that the host takes
        self._most = 0  # until `_most_until` the host has no room for more than so many
        self._most_until = 0.0
        self._asked = False
        self._tally = Tally(courier.traffic, self)
        hosts = courier.around.hosts
        self._host = next((hosts[hop.host] for hop in site.hops if hop.host in hosts), _EVERY_HOST)

    def update(self, site: Site) -> None:
        self.site = site
        self._most_until = 0.0
        while self._idle and self._connections > site.connections:
            self._idle.pop().cancel()
            self._close()
        if not site.connections:
            self._give_back()
        self._dispatch()

    @property
    def apart(self) -> bool:
        return False

    @property
    def busy_connections(self) -> int:
        return self._connections - len(self._idle)

    @property
    def open_connections(self) -> int:
        return self._connections

    def _give_back(self) -> None:
        while self._waiting:
            self._courier.settle(self._waiting.popleft(), _UNTRIED)

    def add(self, jobs: tuple[Job, ...]) -> None:
        urgent = [job for job in jobs if job.urgent]
        self._waiting.extend(job for job in jobs if not job.urgent)
        place = next((n for n, job in enumerate(self._waiting) if not job.urgent), len(self._waiting))
        for n, job in enumerate(urgent):
            self._waiting.insert(place + n, job)
        if self.site.connections:
            self._dispatch()
        else:
            self._give_back()

    def busy(self) -> Iterator[Job]:
        yield from self._waiting
        yield from self._on_wire

    def drop(self) -> None:
        """The courier was killed."""
        around = self._courier.around
        self._host.open -= self._connections + self._granted
        self._connections = 0
        self._idle.clear()
        for job, (members, replies) in self._on_wire.items():
            taken = around.chance() < 0.5
            for index, reply in zip(members, replies, strict=True):
                around.doubt(job.id, index)
                if taken and reply.code < 300:
                    around.taken(job.id, index)

    # ---- inside

    def _dispatch(self) -> None:
        while self._waiting and self._idle:
            self._idle.pop().cancel()
            self._work()
        if not self._waiting or self._opening:
            return
        if not self._connections:
            self._open()
        elif not self._asked:
            # More are opened while jobs wait, but not in the same moment.
            self._asked = True
            self._courier.later(_PATIENCE, self._grow)

    def _grow(self) -> None:
        self._asked = False
        if not self._connections or not self._waiting:
            return
        most = self.site.connections
        self._tally.limited = self._tally.limited or self._connections >= most
        if self._loop.time() < self._most_until:
            most = min(most, self._most)
        room = most - self._connections - self._opening
        for _ in range(min(room, self._connections, len(self._waiting))):
            self._open()

    def _open(self) -> None:
        self._opening += 1
        seconds, refusal = self._host.call(self._loop.time())
        self._granted += refusal is None
        self._courier.later(seconds, self._opened, refusal)

    def _opened(self, refusal: Reply | None) -> None:
        self._opening -= 1
        if refusal is None:
            self._granted -= 1
            self._connections += 1
            self._tally.mark()
            self._work()
            self._dispatch()
        elif self._connections or self._opening:
            self._most = max(1, self._connections)
            self._most_until = self._loop.time() + _GROWTH_PAUSE
            if self._connections:
                self._tally.trouble("refused", refusal, "host", self._connections + self._opening)
        else:
            self._tally.trouble("unreachable", refusal, "host", 0)
            outcome = Outcome(Status.DEFERRED, refusal, "host")
            while self._waiting:
                self._courier.settle(self._waiting.popleft(), outcome)

    def _work(self) -> None:
        """A connection is free."""
        if self._connections > self.site.connections:
            self._close()
        elif self._waiting:
            self._send(self._waiting.popleft())
        else:
            self._idle.append(self._courier.later(_IDLE, self._expire))

    def _send(self, job: Job) -> None:
        recipients = self._courier.around.store.envelope(job.ref).recipients  # type: ignore[arg-type]
        members = job.pending or tuple(part_members(recipients, job.part))
        seconds, replies = self._host.send(self._loop.time(), [recipients[i].address for i in members])
        self._on_wire[job] = members, replies
        self._tally.begin()
        self._tally.limited |= bool(self._waiting) and self._connections >= self.site.connections
        self._courier.states[job.seat] = DOTTED
        self._courier.later(seconds, self._sent, job)

    def _sent(self, job: Job) -> None:
        members, replies = self._on_wire.pop(job)
        if replies[0] == LOST:
            self._close()
            self._tally.trouble("cut", LOST, "host", self._connections)
            self._courier.settle(job, Outcome(Status.DEFERRED, LOST, "host"))
            self._dispatch()
            return
        groups: dict[Reply, list[int]] = {}
        for index, reply in zip(members, replies, strict=True):
            groups.setdefault(reply, []).append(index)
            if reply.code < 300:
                self._courier.around.taken(job.id, index)
        if all(reply.code < 300 for reply in groups):
            self._tally.took()
            self._courier.settle(job)
        else:
            self._tally.heard()
            self._courier.settle(job, *(Outcome(_status(r), r, "host", tuple(who)) for r, who in groups.items()))
        self._work()

    def _expire(self) -> None:
        self._idle.pop(0)
        self._close()

    def _close(self) -> None:
        self._connections -= 1
        self._host.open -= 1
        self._tally.mark()


def _status(reply: Reply) -> Status:
    if reply.code < 300:
        return Status.DELIVERED
    return Status.DEFERRED if reply.code < 500 else Status.FAILED
