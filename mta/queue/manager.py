"""The queue: deliveries from arrival to their last outcome.

A delivery (a message and one recipient domain) is a slot of the arena. Its way: admitted, routed to a site, ready,
active with a courier, and then gone, or deferred until a time and round again. Held deliveries wait for an operator.

Invariants
- A slot is freed only when its part is finished, and then a `finished` change is on its way to the store.
- A delivery is active with at most one courier; a result for a slot that holds another message is looked up by its id,
  and dropped if there is no such delivery any more.
- Nothing is dispatched before recovery is done and the couriers had time to say what they have in hand.

Failure: what the store cannot write it tries again itself; a record that cannot be read defers its delivery.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from mta.config.settings import Retry
from mta.model import (
    Arrivals,
    Change,
    Kind,
    LookupFailure,
    MessageId,
    Options,
    Position,
    Queued,
    Ref,
    Reply,
    Resolver,
    Result,
    Results,
    Store,
    id_text,
    id_time_ms,
    part_members,
)
from mta.net.seats import SeatTable
from mta.observe.counters import INDEX
from mta.observe.maillog import MailLog, quoted
from mta.queue import _arena
from mta.queue._arena import Arena
from mta.queue.attempts import Attempts
from mta.queue.couriers import Couriers
from mta.queue.outcome import Verdict, judge
from mta.queue.places import Places
from mta.queue.reasons import Reasons
from mta.queue.retry import is_expired, is_slow, wait_after
from mta.queue.routing import Router
from mta.queue.sites import SiteTable
from mta.queue.wishes import Wishes

TICKS = 8  # of the arena in a second
_MOST_UNTRIED = 3  # times a delivery may come back untried before it waits a moment
HELD_BY_HAND = "held by an operator"


@dataclass(slots=True)
class Extras:
    """What few deliveries have, kept beside the arena by slot number."""

    pending: dict[int, tuple[int, ...]] = field(default_factory=dict)  # recipients left, where not all are
    done: dict[int, tuple[int, ...]] = field(default_factory=dict)  # recipients finished
    untried: dict[int, int] = field(default_factory=dict)
    doomed: set[int] = field(default_factory=set)  # deleted while a courier has it
    to_hold: set[int] = field(default_factory=set)  # to be held when a courier gives it back
    ambiguous: set[int] = field(default_factory=set)  # deferred, and an attempt may have delivered it
    begun: set[int] = field(default_factory=set)  # as recovery knows it, until the seats are read

    def forget(self, slot: int) -> None:
        self.pending.pop(slot, None)
        self.done.pop(slot, None)
        self.untried.pop(slot, None)
        self.doomed.discard(slot)
        self.to_hold.discard(slot)
        self.ambiguous.discard(slot)
        self.begun.discard(slot)


class Teller(Protocol):
    """Tells senders what becomes of their mail."""

    def settled(self, manager: QueueManager, slot: int, verdict: Verdict) -> None:
        """Store the notices that a verdict calls for, then let the (idle) delivery go on or end."""

    def late(self, manager: QueueManager, slot: int, deliver_by: int) -> None:
        """Tell that the sender's own time, in seconds, is past; the delivery stays where it is."""

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
    ) -> None:
        self.store = store
        self.retry = retry
        self.maillog = maillog
        self.counters = counters
        self.teller = teller
        self._base = time.time() - 1.0
        self.arena = Arena(0)
        self.reasons = Reasons()
        self.extras = Extras()
        self.couriers = couriers(self)
        self.sites = SiteTable(self.arena, list(self.couriers.by_worker))
        self.places = Places(
            arena=self.arena,
            sites=self.sites,
            reasons=self.reasons,
            router=router,
            resolver=resolver,
            failed=self._no_route,
            routed=self.dispatch,
        )
        self.domains = self.places.domains
        self.attempts = Attempts(self, self.couriers, seats)
        self.wishes = Wishes(self)
        self.parts: dict[int, int] = {}  # unfinished parts of messages with several, by id
        self.messages = 0

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
        self.dispatch()

    def dispatch(self) -> None:
        """Give couriers what they have room for."""
        self.attempts.dispatch()

    # ---- in

    def open(self) -> None:
        """Recovery is done: route what waits for that, begin to dispatch."""
        self.attempts.open()
        self.places.open()
        self.wishes.advance(time.time())
        self.dispatch()

    def close(self) -> None:
        """No more dispatch: the server stops."""
        self.attempts.close()
        self.places.close()

    def arrived(self, news: Arrivals | Position) -> None:
        """A receiver told of messages, or that some may have been missed."""
        for queued in self.store.claim(news):
            self.admit(queued)

    def admit(self, queued: Queued) -> None:
        """A message enters the queue, new or recovered."""
        self.messages += 1
        if len(queued.domains) == 1 and len(queued.changes) < 2 and not queued.wants:
            self._admit_single(queued)
            return
        options = self.wishes.read(queued.ref) if queued.wants else None
        changes = {c.part: c for c in queued.changes} if queued.changes else {}
        if len(queued.domains) > 1:
            self.parts[queued.id] = len(queued.domains) - sum(c.kind == "finished" for c in changes.values())
        for part, domain in enumerate(queued.domains):
            change = changes.get(part)
            if change is not None and change.kind == "finished":
                continue
            slot = self.arena.add(queued.id, queued.ref, self.places.domain(domain), part)
            if options is not None:
                self.wishes.enter(slot, queued.wants, options)
            if change is not None:
                self._restore(slot, change, options)
            elif options is None or not self.wishes.embargo(slot, options):
                self.places.route(slot)

    def _admit_single(self, queued: Queued) -> None:
        """Nearly all messages; a million of them after a restart."""
        domain = self.places.domain(queued.domains[0])
        if not queued.changes:
            self.places.route(self.arena.add(queued.id, queued.ref, domain, 0))
            return
        change = queued.changes[0]
        if change.kind == "waiting" and not change.done:
            due, why = self.tick(change.due), self.reasons.number(change.why)
            self.arena.restore(queued.id, queued.ref, domain, 0, change.attempts, why, due, change.told)
        else:
            self._restore(self.arena.add(queued.id, queued.ref, domain, 0), change)

    def _restore(self, slot: int, change: Change, options: Options | None = None) -> None:
        arena = self.arena
        arena.mark(slot, change.told)
        arena.set_attempts(slot, change.attempts)
        arena.set_why(slot, self.reasons.number(change.why))
        if change.done:
            self.note_done(slot, change.done)
        if change.kind == "held":
            arena.push(self.places.held, slot, _arena.HELD)
        elif change.kind == "begun":
            self.attempts.restored(slot)
        elif options is None or not self.wishes.embargo(slot, options, change):
            if change.kind == "ambiguous":
                self.extras.ambiguous.add(slot)
            arena.schedule(slot, self.tick(change.due))

    def _no_route(self, slot: int, failure: LookupFailure) -> None:
        """DNS says that this domain has no place, or none that can be found now."""
        if failure.permanent:
            self.settle(slot, judge(failed=failure.reply))
        else:
            self.settle(slot, judge(deferred=failure.reply))

    # ---- results

    def came(self, worker: int, results: Results) -> None:
        """A courier's results: most are "delivered" and nothing else."""
        arena = self.arena
        changes: list[Change] = []
        seats: list[int] = []
        strangers: list[Result] = []
        for result in results.results:
            slot = result.slot
            if not arena.holds(slot, result.id, result.part) or arena.state(slot) != _arena.ACTIVE:
                strangers.append(result)
                continue
            self.take_back(worker, slot)
            if result.outcomes or slot in self.extras.doomed:
                self._apply(worker, slot, result)
            else:
                changes.append(self.finish(slot))
                seats.append(result.seat)
        if changes:
            self.store.record_soon(changes, partial(self.attempts.free, worker, seats))
        if strangers:
            self._from_earlier_life(worker, strangers)

    def take_back(self, worker: int, slot: int) -> None:
        """An active slot is not with its courier any more."""
        queue = self.sites.by_number[self.arena.site(slot)]
        queue.in_flight[worker] -= 1
        self.places.dirty.add(queue)

    def _from_earlier_life(self, worker: int, results: Sequence[Result]) -> None:
        """Results of jobs that our predecessor gave out: the slots are others, the deliveries the same."""
        found = self.arena.locate({r.id for r in results})
        for result in results:
            slot = found.get((result.id, result.part))
            if slot is None or not self.arena.holds(slot, result.id, result.part):
                continue  # finished already
            if self.arena.state(slot) == _arena.ACTIVE:
                self.take_back(worker, slot)
            self._apply(worker, slot, result)

    def _apply(self, worker: int, slot: int, result: Result) -> None:
        """What a result means for its delivery."""
        self.arena.detach(slot)
        self.attempts.settling[result.id, result.part] = worker, result.seat
        if slot in self.extras.doomed:
            self.end_doomed(slot)
            return
        if not result.outcomes:
            self.record(self.finish(slot))
            return
        verdict = judge(outcomes=result.outcomes)
        if verdict.untried:
            self.again(slot)
        else:
            self.settle(slot, verdict)

    def record(self, change: Change) -> None:
        """Make the change that settles a delivery durable; its seat is free then."""
        place = self.attempts.settling.pop((change.id, change.part), None)
        if place is None:
            self.store.record_soon([change])
        else:
            self.store.record_soon([change], partial(self.attempts.free, place[0], (place[1],)))

    def end_doomed(self, slot: int) -> None:
        """A delivery that was deleted while it was active came back: its end is on record since then."""
        place = self.attempts.settling.pop((self.arena.id(slot), self.arena.part(slot)), None)
        if place is not None:
            self.attempts.free(place[0], (place[1],))
        self.free(slot)

    def again(self, slot: int) -> None:
        """Given back without an attempt: ready again, but not in a tight circle."""
        if slot in self.extras.to_hold:
            self.extras.to_hold.discard(slot)
            self.record(self.hold_idle(slot))
            return
        self.record(self.change(slot, "waiting"))  # it had begun
        times = self.extras.untried.get(slot, 0) + 1
        self.extras.untried[slot] = times
        if times > _MOST_UNTRIED:
            self.extras.untried[slot] = 0
            self.arena.schedule(slot, self.tick(time.time() + 1.0))
        elif self.arena.site(slot):
            self.places.enqueue(slot, self.sites.by_number[self.arena.site(slot)], front=True)
        else:
            self.places.route(slot)  # an earlier life gave it out; here it has no site yet

    def settle(self, slot: int, verdict: Verdict) -> None:
        """An attempt ended with deferrals or failures; the slot is idle."""
        now = time.time()
        if verdict.deferred:
            verdict = self._aged(slot, verdict, now)
        if verdict.failures or verdict.successes or verdict.warn:
            self.teller.settled(self, slot, verdict)
            return
        self.record(self.defer(slot, verdict, now) if verdict.deferred else self.finish(slot))

    def _aged(self, slot: int, verdict: Verdict, now: float) -> Verdict:
        """What a deferral is for mail that is old already."""
        marks = self.arena.marks(slot)
        began = self.wishes.began(slot) if marks & _arena.TIMED else self.arrival(slot)
        if is_expired(self.retry, began, now):
            verdict = verdict.expired()
            self.log(slot, "expired", f"reason={quoted(str(verdict.failures[-1].reply))}")
        elif not marks & _arena.TOLD_DELAY and is_slow(self.retry, began, now):
            verdict = replace(verdict, warn=True)
        return verdict

    def defer(self, slot: int, verdict: Verdict, now: float) -> Change:
        """Wait for the next attempt, or in the held list if an operator wants that; the change to record."""
        arena = self.arena
        attempts = min(arena.attempts(slot) + 1, 65535)
        arena.set_attempts(slot, attempts)
        arena.set_why(slot, self._reason(str(verdict.reply)))
        if verdict.delivered:
            self.note_done(slot, verdict.delivered)
        if slot in self.extras.to_hold:
            self.extras.to_hold.discard(slot)
            return self.hold_idle(slot)
        # Random here spreads load and is no secret.
        due = now + wait_after(self.retry, attempts, random.random())
        if verdict.unknown:
            due = max(due, now + self.retry.ambiguous_wait)
            self.extras.ambiguous.add(slot)
            self.counters[INDEX["messages_ambiguous"]] += 1
        arena.schedule(slot, self.tick(due))
        return self.change(slot, "waiting", due)

    def _reason(self, text: str) -> int:
        if self.reasons.full:
            used: set[int] = set()
            cursor = 0
            while cursor >= 0:
                slots, cursor = self.arena.scan(cursor, 100_000, 0xFF)
                used.update(map(self.arena.why, slots))
            self.reasons.sweep(used)
        return self.reasons.number(text)

    def note_done(self, slot: int, done: Iterable[int]) -> None:
        """Recipients are finished for good: later attempts leave them out."""
        extras = self.extras
        finished = tuple(sorted({*extras.done.get(slot, ()), *done}))
        extras.done[slot] = finished
        extras.pending[slot] = tuple(i for i in self.members(slot) if i not in set(finished))

    def members(self, slot: int) -> list[int]:
        """Indexes of all recipients of the delivery's part, finished ones included; reads the spool."""
        envelope = self.store.envelope(Ref(self.arena.ref(slot)))
        return part_members(envelope.recipients, self.arena.part(slot))

    def left(self, slot: int) -> list[int]:
        """Indexes of the recipients that are not finished."""
        pending = self.extras.pending.get(slot)
        return list(pending) if pending is not None else self.members(slot)

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
        )

    def log(self, slot: int, event: str, fields: str) -> None:
        self.maillog(id_text(self.arena.id(slot)), event, fields)

    # ---- by hand

    def hold(self, slot: int) -> Change | None:
        """Keep a delivery until it is released; one that is active is held when it comes back."""
        if self.arena.state(slot) == _arena.ACTIVE:
            self.extras.to_hold.add(slot)
            return None
        return self.hold_idle(slot)

    def hold_idle(self, slot: int, *, keep_reason: bool = False) -> Change:
        """Keep a delivery that no courier has until it is released."""
        if not keep_reason:
            self.arena.set_why(slot, self.reasons.number(HELD_BY_HAND))
        self.extras.ambiguous.discard(slot)
        self.extras.begun.discard(slot)
        self.arena.push(self.places.held, slot, _arena.HELD)
        return self.change(slot, "held")

    def drop(self, slot: int, recipients: Iterable[int]) -> Change:
        """Take some recipients out of a delivery that is not active; the last ones take it with them."""
        if set(self.left(slot)) <= set(recipients):
            return self.delete(slot)
        self.note_done(slot, recipients)
        arena = self.arena
        if arena.state(slot) == _arena.HELD:
            return self.change(slot, "held")
        return self.change(slot, "waiting", self.seconds(arena.due(slot)))

    def retry_now(self, slot: int) -> Change:
        """Make a delivery that waits ready, whatever it waits for."""
        self.extras.ambiguous.discard(slot)
        self.arena.detach(slot)
        change = self.change(slot, "waiting")
        self.wishes.released(slot)
        self.places.route(slot, afresh=True)
        return change

    def release(self, slot: int) -> Change:
        """Let a held delivery go its way; before the time that its sender has set it waits for that again."""
        options = self.wishes.read(self.arena.ref(slot)) if self.arena.marks(slot) & _arena.TIMED else None
        if options is None or not self.wishes.embargo(slot, options):
            return self.retry_now(slot)
        self.wishes.released(slot)
        return self.change(slot, "waiting", self.seconds(self.arena.due(slot)))

    def give_up(self, slot: int, cause: str = "given up by the postmaster") -> None:
        """Return a delivery that is not active to its sender, whatever time it has left."""
        self.arena.detach(slot)
        self.extras.ambiguous.discard(slot)
        last = self.reasons.text(self.arena.why(slot))
        reply = Reply(0, "", last or "it was not tried yet")
        self.teller.settled(self, slot, judge(deferred=reply).expired(cause))

    def delete(self, slot: int) -> Change:
        """Take a delivery out of the queue without a notice; an active one ends when its attempt does.

        An active one is on record as finished at once, so that it stays deleted whatever dies meanwhile; its
        segment may then be used again, and a courier that has not read the text yet reports that it cannot.
        """
        if self.arena.state(slot) == _arena.ACTIVE:
            self.extras.doomed.add(slot)
            return self._finished(slot)
        return self.finish(slot)

    # ---- the end of a delivery

    def _finished(self, slot: int) -> Change:
        arena = self.arena
        return Change(ref=arena.ref(slot), id=arena.id(slot), part=arena.part(slot), kind="finished")

    def finish(self, slot: int) -> Change:
        """Free the slot; the change that makes the end durable."""
        change = self._finished(slot)
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

    def count(self, states: int, domains: bytes | None, cursor: int, several: set[int]) -> tuple[int, int]:
        """Messages with one part that are chosen from a slot on, and the next slot; others go to `several`."""
        count, ids, cursor = self.arena.tally(cursor, states, domains, self.parts)
        several.update(ids)
        return count, cursor
