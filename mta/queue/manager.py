"""The queue: deliveries from arrival to their last outcome.

A delivery (a message and one recipient domain) is a slot of the arena. Its way: admitted (`admission`), routed to a
site (`places`), ready, active with a courier (`attempts`), and then gone, or deferred until a time and round again
(`settling`). Held deliveries wait for an operator (`by_hand`). Here are the parts put together, and what all of them
ask of a delivery.

Invariants
- A slot is freed only when its part is finished, and then a `finished` change is on its way to the store.
- A delivery is active with at most one courier.
- Nothing is dispatched before recovery is done and the couriers had time to say what they have in hand.
- The only time here is that of `clock`, and the only chance that of `random`: a test may set both.

Failure: what the store cannot write it tries again itself; a record that cannot be read defers its delivery.
"""

from __future__ import annotations

import math
import random as chance
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from mta.config.settings import Delivery, Retry, Shape
from mta.mail.replyclass import ReplyClass
from mta.model import Change, Kind, MessageId, Ref, Resolver, Store, id_text, id_time_ms, part_members
from mta.net.seats import SeatTable
from mta.observe.maillog import MailLog
from mta.queue import _arena
from mta.queue._arena import Arena
from mta.queue.admission import Admission
from mta.queue.aging import Aging
from mta.queue.attempts import Attempts
from mta.queue.by_hand import ByHand
from mta.queue.couriers import Couriers
from mta.queue.egress import Egress
from mta.queue.extras import Extras
from mta.queue.lanes import Lanes
from mta.queue.learned import Learned
from mta.queue.outcome import Verdict
from mta.queue.places import Places
from mta.queue.quarantine import quarantine_of
from mta.queue.reasons import Reasons
from mta.queue.regulator import Regulator
from mta.queue.retry import Plan, Schedule
from mta.queue.routing import Router
from mta.queue.settling import Settling
from mta.queue.sites import SiteTable
from mta.queue.suppression import Suppression
from mta.queue.waits import Waits
from mta.queue.wishes import Wishes

TICKS = 8  # of the arena in a second
_NO_WEIGHTS: Mapping[str, int] = MappingProxyType({})


class Teller(Protocol):
    """Tells senders what becomes of their mail."""

    def settled(self, manager: QueueManager, slot: int, verdict: Verdict) -> None:
        """Store the notices that a verdict calls for, then let the (idle) delivery go on or end."""

    def late(self, manager: QueueManager, slot: int, deliver_by: int) -> None:
        """Tell that the sender's own time, in seconds, is past; the delivery stays where it is."""

    def waits(self, manager: QueueManager, slot: int) -> None:
        """Tell that it takes long, where that is to be told; the delivery stays where it is, and counts as told."""

    def unheard(self, manager: QueueManager, slot: int) -> None:
        """Tell a success that its courier could not report."""


class QueueManager:
    """See the module."""

    def __init__(
        self,
        *,
        store: Store,
        router: Router,
        retry: Retry,
        resolver: Resolver,
        maillog: MailLog,
        counters: memoryview,
        couriers: Callable[[QueueManager], Couriers],
        seats: SeatTable,
        teller: Teller,
        suppression: Suppression | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = chance.random,
        weights: Mapping[str, int] = _NO_WEIGHTS,
        shapes: Sequence[Shape] = (),
        delivery: Delivery = Delivery(),  # noqa: B008 (frozen)
        egress: Egress | None = None,
        learned: Learned | None = None,
    ) -> None:
        self.store = store
        self.retry, self.schedule = retry, Schedule(retry)
        self.maillog = maillog
        self.counters = counters
        self.teller = teller
        self.clock = clock
        self.random = random  # in [0, 1): it spreads load, and is no secret
        self._base = clock() - 1.0
        self.arena = Arena(0)
        self.lanes = Lanes(self.arena, weights, egress)
        self.reasons = Reasons()
        self.extras = Extras()
        self.settling = Settling(self)
        self.couriers = couriers(self)
        self.regulator = Regulator(self, shapes, delivery, learned or Learned(None, clock))
        self.sites = SiteTable(self.arena, list(self.couriers.by_worker), self.regulator.limits)
        self.places = Places(
            arena=self.arena,
            sites=self.sites,
            reasons=self.reasons,
            router=router,
            resolver=resolver,
            clock=clock,
            failed=self.settling.no_route,
            routed=self.dispatch,
            met=self.regulator.met,
            source_of=None if egress is None else self.lanes.source_of,
        )
        self.domains = self.places.domains
        self.places.rerouted = self.extras.rerouted
        self.attempts = Attempts(self, self.couriers, seats)
        self.wishes = Wishes(self)
        self.aging = Aging(self)
        self.waits = Waits(self.arena, clock())
        self.admission = Admission(self)
        self.by_hand = ByHand(self)
        self.parts: dict[int, int] = {}  # unfinished parts of messages with several, by id
        self.messages = 0
        self.suppression, self.quarantine = suppression, quarantine_of(self)

    # ---- time

    def tick(self, seconds: float) -> int:
        return max(0, int((seconds - self._base) * TICKS + 0.999))

    def seconds(self, tick: int) -> float:
        return self._base + tick / TICKS

    def advance(self, now: float) -> None:
        """Make ready what is due."""
        for slot in self.arena.advance(int((now - self._base) * TICKS)):
            self.extras.ambiguous.discard(slot)
            self.places.route(slot)
        self.wishes.advance(now)
        self.waits.look(now)
        self.regulator.advance(now)
        if self.suppression is not None:
            self.suppression.advance(now)
        if self.quarantine is not None:
            self.quarantine.advance()
        self.dispatch()
        self.aging.advance(now)

    def dispatch(self) -> None:
        """Give couriers what they have room for."""
        self.attempts.dispatch()

    def open(self) -> None:
        """Recovery is done: route what waits for that, begin to dispatch."""
        self.attempts.open()
        self.places.open()
        self.wishes.advance(self.clock())
        self.dispatch()

    def close(self) -> None:
        """No more dispatch: the server stops."""
        self.attempts.close()
        self.places.close()

    # ---- one delivery

    def members(self, slot: int) -> list[int]:
        """Indexes of all recipients of the delivery's part, finished ones included; reads the spool."""
        envelope = self.store.envelope(Ref(self.arena.ref(slot)))
        return part_members(envelope.recipients, self.arena.part(slot))

    def left(self, slot: int) -> list[int]:
        """Indexes of the recipients that are not finished."""
        pending = self.extras.pending.get(slot)
        return list(pending) if pending is not None else self.members(slot)

    def note_done(self, slot: int, done: Iterable[int]) -> None:
        """Recipients are finished for good: later attempts leave them out."""
        extras = self.extras
        finished = tuple(sorted({*extras.done.get(slot, ()), *done}))
        extras.done[slot] = finished
        extras.pending[slot] = tuple(i for i in self.members(slot) if i not in set(finished))

    def plan(self, slot: int, blame: ReplyClass) -> Plan:
        """The times of a delivery whose last attempt ended with a reply of this class."""
        arena = self.arena
        tenant = self.lanes.tenants[arena.lane(slot)[0]]
        return self.schedule.plan(self.domains[arena.domain(slot)], self.site_name(arena.site(slot)), tenant, blame)

    def site_name(self, number: int) -> str:
        """Nothing for 0: no site yet."""
        return self.sites.by_number[number].site.name if number else ""

    def arrival(self, slot: int) -> float:
        """When the message was accepted, in seconds."""
        return id_time_ms(MessageId(self.arena.id(slot))) / 1000

    def change(self, slot: int, kind: Kind, due: float = 0.0) -> Change:
        """The present state of a delivery, to be made durable."""
        arena = self.arena
        if kind == "waiting" and slot in self.extras.ambiguous:
            kind = "ambiguous"
        return Change(
            ref=arena.ref(slot),
            id=arena.id(slot),
            part=arena.part(slot),
            kind=kind,
            attempts=arena.attempts(slot),
            due=math.ceil(due),
            done=self.extras.done.get(slot, ()),
            why=self.reasons.text(arena.why(slot)),
            told=arena.marks(slot) & _arena.TOLD,
            to=self.extras.rerouted.get(slot, ""),
        )

    def log(self, slot: int, event: str, fields: str) -> None:
        self.maillog(id_text(self.arena.id(slot)), event, fields)

    # ---- the end of a delivery

    def finished(self, slot: int) -> Change:
        """That it is over, to be made durable."""
        arena = self.arena
        return Change(ref=arena.ref(slot), id=arena.id(slot), part=arena.part(slot), kind="finished")

    def finish(self, slot: int) -> Change:
        """Free the slot; the change that makes the end durable."""
        change = self.finished(slot)
        self.free(slot)
        return change

    def free(self, slot: int) -> None:
        message_id = self.arena.id(slot)
        self.arena.remove(slot)
        self.extras.forget(slot)
        if self.parts:
            left = self.parts.get(message_id)
            if left is not None:
                if left > 1:
                    self.parts[message_id] = left - 1
                    return
                del self.parts[message_id]
        self.messages -= 1
