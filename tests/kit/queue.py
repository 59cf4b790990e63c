"""A queue manager between a fake store and fake couriers, for tests of what it decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mta.config.settings import Delivery, NextHop, Retry, Route, Seconds, Shape
from mta.model import (
    Arrivals,
    Change,
    Draft,
    Envelope,
    Glance,
    IdSource,
    Job,
    MessageId,
    Options,
    Outcome,
    Position,
    Queued,
    Recipient,
    Reply,
    Result,
    Results,
    Status,
    Stored,
    StoreError,
    lane_of,
    part_domains,
    wants_of,
)
from mta.net.seats import SeatTable
from mta.observe.counters import Table
from mta.queue import _arena
from mta.queue.audit import Doer
from mta.queue.couriers import Courier
from mta.queue.deeds import Order
from mta.queue.egress import Egress
from mta.queue.manager import QueueManager, Teller
from mta.queue.operator import Operator
from mta.queue.outcome import Verdict
from mta.queue.routing import Router
from mta.queue.sites import SiteQueue

LATER, NO = Reply(451, "4.3.0", "later"), Reply(550, "5.1.1", "no such user")
UNTRIED = (Outcome(Status.UNTRIED, Reply(0, "", "")),)
NOW = 1_795_000_000.0
TIME = [NOW]  # what the queue managers of this process take for the time
FIRST = IdSource(1).next(int(NOW * 1000))  # ids carry their time: these messages came just now


class FakeStore:
    """Remembers changes; gives envelopes by reference."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.begun: list[Change] = []
        self.told: list[Callable[[], None]] = []
        self.beginning: list[Callable[[StoreError | None], None]] = []
        self.slow = False  # what begins is durable when a test says so
        self.envelopes: dict[int, Envelope] = {}
        self.content = b""
        self.refusing: StoreError | None = None
        self.put_down: list[tuple[Draft, object]] = []  # notices that are not on disk yet

    def record_soon(self, changes: Sequence[Change], told: Callable[[], None] | None = None) -> None:
        self.changes.extend(changes)
        if told is not None:
            self.told.append(told)

    def begin(self, begun: Sequence[Change], told: Callable[[StoreError | None], None]) -> None:
        self.begun.extend(begun)
        if self.slow:
            self.beginning.append(told)
        else:
            told(None)

    def settle(self) -> None:
        """All that was recorded is durable."""
        told, self.told = self.told, []
        for call in told:
            call()

    async def record(self, changes: Sequence[Change]) -> None:
        self.changes.extend(changes)

    def envelope(self, ref: int) -> Envelope:
        return self.envelopes[ref]

    def read(self, ref: int) -> Stored:
        if ref not in self.envelopes:
            raise StoreError("damaged")
        return Stored(MessageId(FIRST + ref // 8), self.envelopes[ref], self.content, "", 0, len(self.content) or 20)

    async def glances(self, refs: Sequence[int]) -> list[Glance | None]:
        return [self._glance(ref) for ref in refs]

    def _glance(self, ref: int) -> Glance | None:
        try:
            stored = self.read(ref)
        except StoreError:
            return None
        return Glance(stored.id, stored.envelope, stored.size)

    def claim(self, news: Arrivals | Position) -> Sequence[Queued]:
        return ()

    def put(self, draft: Draft, token: object) -> None:
        self.put_down.append((draft, token))


class FakeCouriers:
    """Two couriers that take whatever they are given."""

    def __init__(self, arena: _arena.Arena) -> None:
        self.by_worker = {worker: Courier(worker, arena.new_list()) for worker in (2, 3)}
        self.alive = [2, 3]
        self.given: list[tuple[int, Job]] = []

    def give(
        self,
        worker: int,
        queue: SiteQueue,
        taken: Sequence[tuple[int, int, int, int, int]],
        seats: Sequence[int],
        pending: dict[int, tuple[int, ...]],
    ) -> None:
        jobs = zip(taken, seats, strict=True)
        self.given += [(worker, Job(*job, seat, pending.get(job[0], ()))) for job, seat in jobs]


class World:
    """A queue manager whose next hop is one SMTP site, and what it did."""

    def __init__(
        self,
        *,
        opened: bool = True,
        seats: SeatTable | None = None,
        teller: Teller | None = None,
        egress: Egress | None = None,
        shapes: Sequence[Shape] = (),
        delivery: Delivery = Delivery(),  # noqa: B008 (frozen)
        routes: Mapping[str, str] = MappingProxyType({}),
        **retry: Any,
    ) -> None:
        self.store = FakeStore()
        self.seats = seats or SeatTable(None, 2, "")
        self.counters = Table(1).row(0)
        self.failed: list[tuple[int, Verdict]] = []
        self.told_late: list[tuple[int, int]] = []
        self.told_to_wait: list[int] = []
        self.unheard_of: list[int] = []
        hops = {**routes, "*": "hop.example"}
        self.manager = QueueManager(
            store=self.store,  # type: ignore[arg-type]
            router=Router(
                (),
                [Route(domain=d, next_hop=NextHop(kind="smtp", host=h, port=25)) for d, h in hops.items()],
                hostname="me",
                connections=20,
                port=25,
            ),
            retry=Retry(**{"first": Seconds(60.0), "jitter": 0.0} | retry),
            resolver=None,  # type: ignore[arg-type]
            maillog=lambda *_: None,  # type: ignore[arg-type]
            counters=self.counters,
            couriers=lambda manager: FakeCouriers(manager.arena),  # type: ignore[arg-type,return-value]
            seats=self.seats,
            teller=teller or self,
            clock=lambda: TIME[0],
            random=lambda: 0.5,
            egress=egress,
            shapes=shapes,
            delivery=delivery,
        )
        self.couriers: FakeCouriers = self.manager.couriers  # type: ignore[assignment]
        if opened:
            self.manager.open()

    # ---- the manager's Teller

    def settled(self, manager: QueueManager, slot: int, verdict: Verdict) -> None:
        self.failed.append((manager.arena.part(slot), verdict))
        if verdict.failures or not verdict.deferred:
            manager.settling.record(manager.finish(slot))
        else:
            manager.settling.record(manager.settling.defer(slot, verdict, NOW))

    def late(self, manager: QueueManager, slot: int, deliver_by: int) -> None:
        self.told_late.append((manager.arena.part(slot), deliver_by))

    def waits(self, manager: QueueManager, slot: int) -> None:
        manager.arena.mark(slot, _arena.TOLD_DELAY)
        self.told_to_wait.append(manager.arena.part(slot))

    def unheard(self, manager: QueueManager, slot: int) -> None:
        self.unheard_of.append(manager.arena.part(slot))

    def arrive(
        self,
        number: int,
        *to: bytes | Recipient,
        changes: tuple[Change, ...] = (),
        sender: bytes = b"s@x",
        options: Options | None = None,
    ) -> None:
        recipients = tuple(Recipient(r) if isinstance(r, bytes) else r for r in to)
        envelope = Envelope(sender=sender, recipients=recipients, options=options)
        self.store.envelopes[number * 8] = envelope
        domains = tuple(part_domains(recipients))
        self.manager.admission.admit(
            Queued(
                id=FIRST + number,
                ref=number * 8,
                size=1,
                domains=domains,
                changes=changes,
                wants=wants_of(envelope),
                lane=lane_of(envelope),
            )
        )
        self.manager.dispatch()

    def result(self, given: tuple[int, Job], *outcomes: Outcome, worker: int | None = None) -> None:
        job = given[1]
        results = Results((Result(job.slot, job.id, job.part, outcomes, job.seat),))
        self.manager.settling.came(given[0] if worker is None else worker, results)
        self.manager.dispatch()

    def states(self, *states: int) -> list[int]:
        return [self.manager.arena.count(state) for state in states]


class MemoryAudit:
    """Remembers operations as `mta.queue.audit` does, and forgets them."""

    def __init__(self) -> None:
        self.operations: list[dict[str, object]] = []

    async def begin(self, doer: Doer, verb: str, words: Sequence[str], arguments: Mapping[str, object]) -> int:
        self.operations.append({"doer": doer, "verb": verb, "words": list(words), **arguments})
        return len(self.operations)

    def end(self, number: int, messages: int, result: str) -> None:
        self.operations[number - 1] |= {"messages": messages, "result": result}

    async def settle(self) -> None:
        pass

    async def log(self, limit: int) -> list[dict[str, object]]:
        return self.operations[::-1][: limit or None]

    async def verb(self, number: int) -> str | None:
        return str(self.operations[number - 1]["verb"]) if 0 < number <= len(self.operations) else None


class Hand:
    """An operator at a queue manager; what he does is on disk at once."""

    def __init__(self, manager: QueueManager, store: FakeStore) -> None:
        self.audit = MemoryAudit()
        self.operator = Operator(manager, dict, self.audit)  # type: ignore[arg-type]
        self._store = store

    async def do(self, verb: str, *words: str, **more: object) -> dict[str, object]:
        dry_run, most = bool(more.pop("dry_run", False)), int(str(more.pop("most", 0)))
        order = Order(Doer(0, "ann"), verb, words, more, dry_run, most)
        task = asyncio.ensure_future(self.operator.act(order))
        while not task.done():
            self._store.settle()
            await asyncio.sleep(0)
        return await task
