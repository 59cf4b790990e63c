"""The queue manager as it is, in a world of which everything is known: hosts, senders, and what time it is.

Real are the manager with all its parts, the couriers' table, notices, routing and the operator's verbs. Simulated are
the time, the disk, the name servers, the couriers and the hosts that they call.

What a world checks of itself (`settled`): each recipient was taken by a host once, or is in one notice, and never
both; every part is finished once; nothing is left over in the arena, the seats or the counts in flight.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from mta.config.settings import Notices, Retry, Seconds
from mta.model import (
    Draft,
    Envelope,
    Hop,
    IdSource,
    LookupFailure,
    Options,
    Recipient,
    Reply,
    domain_of,
    part_domains,
)
from mta.net.seats import SeatTable
from mta.observe.counters import Table
from mta.queue import _arena, couriers
from mta.queue.couriers import Couriers
from mta.queue.manager import QueueManager
from mta.queue.notices import Notifier
from mta.queue.operator import Operator
from mta.queue.routing import Router
from tests.kit.queue import MemoryAudit
from tests.sim.courier import MemoryLink, SimCourier, Surroundings, Wire
from tests.sim.hosts import Host
from tests.sim.loop import TimeLoop
from tests.sim.store import MemoryStore

BEGAN = 1_795_000_000.0  # seconds since the epoch at which every world begins
DAY = 86400.0
HOUR = 3600.0
_STATES = ("READY", "ACTIVE", "DEFERRED", "HELD", "RESOLVING", "IDLE")
_WORKERS = (2, 3)
_AGAIN = LookupFailure(Reply(0, "4.4.3", "the name servers do not answer"), permanent=False)


class Names:
    """The name servers: a domain has one host, mx.DOMAIN, unless `mx` says otherwise. `dark`: spans without answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mx: Mapping[str, Sequence[str]]) -> None:
        self._loop = loop
        self._mx = mx
        self.dark: dict[str, tuple[float, float]] = {}
        self.asked: Counter[str] = Counter()

    async def mx(self, domain: str) -> tuple[Hop, ...]:
        self.asked[domain] += 1
        await asyncio.sleep(0.02)
        begin, end = self.dark.get(domain, (0.0, 0.0))
        if begin <= self._loop.time() < end:
            raise _AGAIN
        return tuple(Hop(10, host) for host in self._mx.get(domain, (f"mx.{domain}",)))

    async def addresses(self, host: str) -> tuple[str, ...]:
        return ("192.0.2.1",)


class World:
    """See the module. Times are seconds since the world began."""

    def __init__(
        self,
        hosts: Mapping[str, Host],
        *,
        seed: int = 1,
        step: float = 0.125,
        mx: Mapping[str, Sequence[str]] | None = None,
        connections: int = 20,
        weights: Mapping[str, int] | None = None,
        **retry: float,
    ) -> None:
        self.loop = TimeLoop()
        self.random = random.Random(seed)
        self.hosts = hosts
        self.step = step
        self.names = Names(self.loop, mx or {})
        self.store = MemoryStore(self.loop, self._noticed)
        self.taken: Counter[tuple[int, int]] = Counter()  # by id and recipient
        self.taken_at: dict[tuple[int, int], float] = {}
        self.told: Counter[tuple[int, str]] = Counter()  # failures in notices that are durable, by id and address
        self.doubtful: set[tuple[int, int]] = set()  # what was on the wire, or half told, when somebody died
        self.events: Counter[str] = Counter()
        self.sent: dict[int, Envelope] = {}
        self.sent_at: dict[int, float] = {}
        self.refs: dict[int, int] = {}
        self._ids = IdSource(1)
        self._lives = 1
        self.seats = SeatTable(None, len(_WORKERS), "")
        self.retry = Retry(**{name: Seconds(value) for name, value in retry.items()})
        self._connections = connections
        self._weights = weights or {}
        self.wires = {worker: Wire(self.loop) for worker in _WORKERS}
        around = Surroundings(self.loop, hosts, self.store, self._taken, self._doubt, self.random.random)
        self._around = around
        self.couriers = {w: SimCourier(around, w, 1, self.wires[w], self.seats.rows[w - 2]) for w in _WORKERS}
        self.manager: QueueManager
        self.operator: Operator
        self._begin()

    def _begin(self) -> None:
        """A life of the queue manager."""
        notifier = Notifier(Notices(), "sim.example", 0, self.loop)
        self.store.committed = notifier.committed
        self.manager = QueueManager(
            store=self.store,  # type: ignore[arg-type]
            router=Router((), (), hostname="sim.example", connections=self._connections, port=25),
            retry=self.retry,
            resolver=self.names,
            maillog=self._log,  # type: ignore[arg-type]
            counters=Table(1).row(0),
            couriers=self._courier_table,
            seats=self.seats,
            teller=notifier,
            clock=self.clock,
            random=self.random.random,
            weights=self._weights,
        )
        notifier.attach(self.manager, self._ids.next(int(self.clock() * 1000)))
        self.operator = Operator(self.manager, dict, MemoryAudit())  # type: ignore[arg-type]

    def _courier_table(self, manager: QueueManager) -> Couriers:
        return Couriers(
            list(self.wires.items()),  # type: ignore[arg-type]
            self.loop,
            manager.arena,
            self._lives,
            results=manager.settling.came,
            drained=manager.dispatch,
            began=lambda courier, new, busy: manager.attempts.courier_said(courier, new, busy),
            traffic=lambda worker, traffic: manager.regulator.heard(worker, traffic),
        )

    def clock(self) -> float:
        return BEGAN + self.loop.time()

    # ---- what happens in it

    def mail(
        self,
        *to: str,
        at: float | None = None,
        sender: str = "sender@here.example",
        options: Options | None = None,
    ) -> None:
        """A message comes, now or at a time."""
        envelope = Envelope(
            sender=sender.encode(), recipients=tuple(Recipient(a.encode()) for a in to), options=options
        )
        if at is None:
            self.loop.go(self._come([envelope]))
        else:
            self.loop.call_at(at, self._arrive, [envelope])

    def mails(self, count: int, domain: str, *, options: Options | None = None, prefix: str = "user") -> list[int]:
        """Many at once, one recipient each; their ids."""
        recipients = [(Recipient(f"{prefix}{n}@{domain}".encode()),) for n in range(count)]
        sender = b"sender@here.example"
        return self.loop.go(self._come([Envelope(sender=sender, recipients=r, options=options) for r in recipients]))

    async def _come(self, envelopes: Sequence[Envelope]) -> list[int]:
        return self._arrive(envelopes)

    def _arrive(self, envelopes: Sequence[Envelope]) -> list[int]:
        now = self.loop.time()
        ids = []
        for envelope in envelopes:
            message_id = self._ids.next(int((BEGAN + now) * 1000))
            self.sent[message_id] = envelope
            self.sent_at[message_id] = now
            queued = self.store.keep(message_id, envelope)
            self.refs[message_id] = queued.ref
            self.manager.admission.admit(queued)
            ids.append(message_id)
        self.manager.dispatch()
        return ids

    def run(self, until: float) -> None:
        """Let time pass."""
        with patch.object(couriers, "Link", MemoryLink):
            self.loop.go(self._run(until))

    async def _run(self, until: float) -> None:
        if not self.manager.attempts.opened:
            await self._recover()
        while self.loop.time() < until - 1e-9:
            await asyncio.sleep(min(self.step, until - self.loop.time()))
            self.manager.advance(self.manager.clock())

    async def _recover(self) -> None:
        for queued in self.store.recover():
            self.manager.admission.admit(queued)
        await self.manager.couriers.greet(2.0)
        self.manager.open()

    def crash(self) -> None:
        """The queue manager dies, and a new one begins with the next `run`."""
        self.store.crash()
        for message_id, envelope in self.sent.items():
            for index, recipient in enumerate(envelope.recipients):
                # Told, and that it is finished is not on record: it is tried, and told, again.
                if self.told[message_id, recipient.address.decode()] and not self._is_done(message_id, index):
                    self.doubtful.add((message_id, index))
        self.manager.close()
        for wire in self.wires.values():
            wire.queue = None
        self._lives += 1
        self._begin()

    def kill(self, worker: int) -> None:
        """A courier dies, and another takes its place."""
        old = self.couriers[worker]
        old.kill()
        self.couriers[worker] = SimCourier(
            self._around, worker, old.life + 1, self.wires[worker], self.seats.rows[worker - 2]
        )

    def _is_done(self, message_id: int, index: int) -> bool:
        ref, envelope = self.refs[message_id], self.sent[message_id]
        changes = self.store.states(ref)
        part = part_domains(envelope.recipients).index(domain_of(envelope.recipients[index].address))
        change = changes[part] if changes else None
        return not changes or (change is not None and (change.kind == "finished" or index in change.done))

    def close(self) -> None:
        self.manager.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    # ---- what is known of it

    def delays(self, ids: Sequence[int]) -> list[float]:
        """Seconds from arrival until taken by a host, sorted, of messages with one recipient that were."""
        return sorted(self.taken_at[i, 0] - self.sent_at[i] for i in ids if (i, 0) in self.taken_at)

    def states(self) -> dict[str, int]:
        arena = self.manager.arena
        return {name: n for name in _STATES if (n := arena.count(getattr(_arena, name)))}

    def settled(self) -> None:
        """Nothing is left, and every recipient has one end."""
        assert self.states() == {}
        assert len(self.manager.arena) == 0
        assert self.manager.messages == 0
        assert not self.manager.parts
        assert self.store.unfinished == 0
        assert not any(any(q.in_flight.values()) for q in self.manager.sites.by_number), "in flight"
        assert [used for row in self.seats.rows for used in row.used()] == []
        for message_id, envelope in self.sent.items():
            for index, recipient in enumerate(envelope.recipients):
                taken, told = self.taken[message_id, index], self.told[message_id, recipient.address.decode()]
                if (message_id, index) in self.doubtful:
                    assert taken + told >= bool(envelope.sender), (recipient, "lost")
                elif envelope.sender:
                    assert taken + told == 1, (recipient, taken, told)
                else:
                    assert taken <= 1, (recipient, taken)
                    assert not told, "nobody is told of a notice"

    def _taken(self, message_id: int, index: int) -> None:
        self.taken[message_id, index] += 1
        self.taken_at[message_id, index] = self.loop.time()

    def _doubt(self, message_id: int, index: int) -> None:
        self.doubtful.add((message_id, index))

    def _noticed(self, draft: Draft) -> None:
        assert isinstance(draft.body, bytes)
        original = re.findall(rb"X-Id: (\d+)", draft.body)
        for address in re.findall(rb"Final-Recipient: rfc822; ?(\S+)\r\nAction: failed\r\n", draft.body):
            self.told[int(original[0]), address.decode()] += 1

    def _log(self, message_id: str, event: str, fields: str) -> None:
        self.events[event] += 1


@contextmanager
def world(hosts: Mapping[str, Host], **options: Any) -> Iterator[World]:
    """A world that is taken down in good order."""
    it = World(hosts, **options)
    try:
        yield it
    finally:
        it.close()
