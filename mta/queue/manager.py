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

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mta.config.settings import Retry
from mta.model import (
    Arrivals,
    Change,
    LookupFailure,
    MessageId,
    Position,
    Queued,
    Ref,
    Resolver,
    Result,
    Results,
    Store,
    id_text,
    id_time_ms,
    part_domains,
    part_members,
)
from mta.net.link import BATCH
from mta.observe.counters import INDEX
from mta.observe.maillog import MailLog, printable
from mta.queue import _arena
from mta.queue._arena import Arena
from mta.queue.couriers import Courier, Couriers
from mta.queue.outcome import Verdict, judge
from mta.queue.reasons import Reasons
from mta.queue.retry import is_expired, wait_after
from mta.queue.routing import Lookup, Router
from mta.queue.sites import SiteQueue, SiteTable

TICKS = 8  # of the arena in a second
_ROUTE_SECONDS = 60.0  # how long an MX route is taken without asking the resolver's cache
_MOST_UNTRIED = 3  # times a delivery may come back untried before it waits a moment
_HELD_BY_ROUTE = "held: the route for this domain is hold:"
HELD_BY_HAND = "held by an operator"
AMBIGUOUS = "the process that delivered it died: it may or may not have been sent, and is tried again"
_AFTER_DEATH = 1.0  # seconds before what a dead courier had in hand is tried again
_ROUTES_KEPT = 200_000
_SNAPSHOT_SLICE = 1000


@dataclass(slots=True)
class Extras:
    """What few deliveries have, kept beside the arena by slot number."""

    pending: dict[int, tuple[int, ...]] = field(default_factory=dict)  # recipients left, where not all are
    done: dict[int, tuple[int, ...]] = field(default_factory=dict)  # recipients finished
    untried: dict[int, int] = field(default_factory=dict)
    doomed: set[int] = field(default_factory=set)  # deleted while a courier has it
    to_hold: set[int] = field(default_factory=set)  # to be held when a courier gives it back

    def forget(self, slot: int) -> None:
        self.pending.pop(slot, None)
        self.done.pop(slot, None)
        self.untried.pop(slot, None)
        self.doomed.discard(slot)
        self.to_hold.discard(slot)


class QueueManager:
    """See the module. `notify` composes and stores a notice for failed recipients, then finishes the delivery."""

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
        notify: Callable[[QueueManager, int, Verdict], None],
    ) -> None:
        self.store = store
        self.retry = retry
        self.maillog = maillog
        self.counters = counters
        self._router = router
        self._resolver = resolver
        self._notify = notify
        self._base = time.time() - 1.0
        self.arena = Arena(0)
        self.held = self.arena.new_list()
        self.resolving = self.arena.new_list()
        self.reasons = Reasons()
        self.extras = Extras()
        self.couriers = couriers(self)
        self.sites = SiteTable(self.arena, list(self.couriers.by_worker))
        self.domains: list[bytes] = []
        self._domain_numbers: dict[bytes, int] = {}
        self._routes: dict[int, tuple[SiteQueue, float]] = {}
        self._lookups: dict[int, asyncio.Task[None]] = {}
        self._parts: dict[int, int] = {}  # unfinished parts of messages with several
        self._dirty: set[SiteQueue] = set()
        self._open = False  # recovered: decisions may be made and deliveries given out
        self._unrouted: list[int] = []
        self.messages = 0

    # ---- time

    def tick(self, seconds: float) -> int:
        return max(0, int((seconds - self._base) * TICKS + 0.999))

    def seconds(self, tick: int) -> float:
        return self._base + tick / TICKS

    def advance(self, now: float) -> None:
        """Make ready what is due."""
        for slot in self.arena.advance(int((now - self._base) * TICKS)):
            self._route(slot)
        self.dispatch()

    # ---- in

    def open(self) -> None:
        """Recovery is done: route what waits for that, begin to dispatch."""
        self._open = True
        while (slot := self.arena.pop(self.resolving)) >= 0:
            self._unrouted.append(slot)
        for slot in self._unrouted:
            self._route(slot)
        self._unrouted.clear()
        self.dispatch()

    def close(self) -> None:
        """No more dispatch: the server stops."""
        self._open = False
        for task in self._lookups.values():
            task.cancel()

    def arrived(self, news: Arrivals | Position) -> None:
        """A receiver told of messages, or that some may have been missed."""
        for queued in self.store.claim(news):
            self.admit(queued)

    def admit(self, queued: Queued) -> None:
        """A message enters the queue, new or recovered."""
        self.messages += 1
        if len(queued.domains) == 1 and len(queued.changes) < 2:
            self._admit_single(queued)
            return
        changes = {c.part: c for c in queued.changes} if queued.changes else {}
        if len(queued.domains) > 1:
            self._parts[queued.id] = len(queued.domains) - sum(c.kind == "finished" for c in changes.values())
        for part, domain in enumerate(queued.domains):
            change = changes.get(part)
            if change is not None and change.kind == "finished":
                continue
            slot = self.arena.add(queued.id, queued.ref, self._domain(domain), part)
            if change is None:
                self._route(slot)
            else:
                self._restore(slot, change)

    def _admit_single(self, queued: Queued) -> None:
        """Nearly all messages; a million of them after a restart."""
        domain = self._domain(queued.domains[0])
        if not queued.changes:
            self._route(self.arena.add(queued.id, queued.ref, domain, 0))
            return
        change = queued.changes[0]
        if change.kind == "waiting" and not change.done:
            due, why = self.tick(change.due), self.reasons.number(change.why)
            self.arena.restore(queued.id, queued.ref, domain, 0, change.attempts, why, due)
        else:
            self._restore(self.arena.add(queued.id, queued.ref, domain, 0), change)

    def _restore(self, slot: int, change: Change) -> None:
        arena = self.arena
        arena.set_attempts(slot, change.attempts)
        arena.set_why(slot, self.reasons.number(change.why))
        if change.done:
            self.note_done(slot, change.done)
        if change.kind == "held":
            arena.push(self.held, slot, _arena.HELD)
        else:
            arena.schedule(slot, self.tick(change.due))

    def _domain(self, domain: bytes) -> int:
        number = self._domain_numbers.get(domain)
        if number is None:
            number = self._domain_numbers[domain] = len(self.domains)
            self.domains.append(domain)
        return number

    # ---- routing

    def _route(self, slot: int) -> None:
        """Put an idle slot where it waits next: a ready list, the held list, or for an answer from DNS."""
        number = self.arena.domain(slot)
        known = self._routes.get(number)
        if known is not None and known[1] > time.time():
            self._enqueue(slot, known[0])
            return
        if not self._open:
            # A failure would be settled, which recovery must not see half-way: decided when the queue is open.
            self.arena.push(self.resolving, slot, _arena.RESOLVING)
            return
        try:
            decision = self._router.decide(self.domains[number])
        except LookupFailure as failure:
            self._no_route(slot, failure)
            return
        if isinstance(decision, Lookup):
            self._await_route(slot, number, decision.domain)
        else:
            queue = self.sites.get(decision)
            self._keep_route(number, queue, float("inf"))
            self._enqueue(slot, queue)

    def _keep_route(self, number: int, queue: SiteQueue, until: float) -> None:
        if len(self._routes) > _ROUTES_KEPT:
            self._routes.clear()
        self._routes[number] = queue, until

    def _enqueue(self, slot: int, queue: SiteQueue, *, front: bool = False) -> None:
        arena = self.arena
        arena.set_site(slot, queue.number)
        if queue.site.kind == "hold":
            arena.set_why(slot, self.reasons.number(_HELD_BY_ROUTE))
            arena.push(self.held, slot, _arena.HELD)
        else:
            arena.push(queue.ready, slot, _arena.READY, front)
            self._dirty.add(queue)

    def _await_route(self, slot: int, number: int, domain: str) -> None:
        self.arena.push(self.resolving, slot, _arena.RESOLVING)
        if number not in self._lookups:
            self._lookups[number] = asyncio.get_running_loop().create_task(self._look_up(number, domain))

    async def _look_up(self, number: int, domain: str) -> None:
        failure: LookupFailure | None = None
        try:
            queue = self.sites.get(self._router.by_mx(domain, await self._resolver.mx(domain)))
            self._keep_route(number, queue, time.time() + _ROUTE_SECONDS)
        except LookupFailure as error:
            failure = error
        finally:
            del self._lookups[number]
        for slot in self._waiting_for(number):
            self.arena.detach(slot)
            if failure is not None:
                self._no_route(slot, failure)
            else:
                self._enqueue(slot, queue)
        self.dispatch()

    def _waiting_for(self, number: int) -> list[int]:
        found: list[int] = []
        cursor = 0
        while cursor >= 0:
            slots, cursor = self.arena.scan(cursor, 10_000, 1 << _arena.RESOLVING)
            found.extend(slot for slot in slots if self.arena.domain(slot) == number)
        return found

    def _no_route(self, slot: int, failure: LookupFailure) -> None:
        """DNS says that this domain has no place, or none that can be found now."""
        if failure.permanent:
            self.settle(slot, judge(failed=failure.reply))
        else:
            self.settle(slot, judge(deferred=failure.reply))

    # ---- out

    def dispatch(self) -> None:
        """Give couriers what they have room for."""
        if not self._open or not self._dirty or not self.couriers.alive:
            return
        dirty, self._dirty = self._dirty, set()
        for queue in dirty:
            self._dispatch_site(queue)

    def _dispatch_site(self, queue: SiteQueue) -> None:
        arena = self.arena
        couriers = self.couriers
        while arena.length(queue.ready):
            worker, room = queue.freest(couriers.alive)
            if room <= 0:
                return  # results will bring us back
            taken = arena.take(queue.ready, min(room, BATCH), couriers.by_worker[worker].active)
            queue.in_flight[worker] += len(taken)
            couriers.give(worker, queue, taken, self.extras.pending)

    # ---- results

    def came(self, worker: int, results: Results) -> None:
        """A courier's results: most are "delivered" and nothing else."""
        arena = self.arena
        changes: list[Change] = []
        strangers: list[Result] = []
        for result in results.results:
            slot = result.slot
            if not arena.holds(slot, result.id, result.part) or arena.state(slot) != _arena.ACTIVE:
                strangers.append(result)
                continue
            self._take_back(worker, slot)
            if result.outcomes or slot in self.extras.doomed:
                self._apply(slot, result)
            else:
                changes.append(self.finish(slot))
        if changes:
            self.store.record_soon(changes)
        if strangers:
            self._from_earlier_life(worker, strangers)

    def _take_back(self, worker: int, slot: int) -> None:
        """An active slot is not with its courier any more."""
        queue = self.sites.by_number[self.arena.site(slot)]
        queue.in_flight[worker] -= 1
        self._dirty.add(queue)

    def _from_earlier_life(self, worker: int, results: Sequence[Result]) -> None:
        """Results of jobs that our predecessor gave out: the slots are others, the deliveries the same."""
        found = self.arena.locate({r.id for r in results})
        for result in results:
            slot = found.get((result.id, result.part))
            if slot is None or not self.arena.holds(slot, result.id, result.part):
                continue  # finished already
            if self.arena.state(slot) == _arena.ACTIVE:
                self._take_back(worker, slot)
            self._apply(slot, result)

    def _apply(self, slot: int, result: Result) -> None:
        """What a result means for its delivery."""
        self.arena.detach(slot)
        if slot in self.extras.doomed:
            self.free(slot)  # its end is on record since it was deleted
            return
        if not result.outcomes:
            self.store.record_soon([self.finish(slot)])
            return
        verdict = judge(outcomes=result.outcomes)
        if verdict.untried:
            self._again(slot)
        else:
            self.settle(slot, verdict)

    def _again(self, slot: int) -> None:
        """Given back without an attempt: ready again, but not in a tight circle."""
        if self._hold_now(slot):
            return
        times = self.extras.untried.get(slot, 0) + 1
        self.extras.untried[slot] = times
        if times > _MOST_UNTRIED:
            self.extras.untried[slot] = 0
            self.arena.schedule(slot, self.tick(time.time() + 1.0))
        elif self.arena.site(slot):
            self._enqueue(slot, self.sites.by_number[self.arena.site(slot)], front=True)
        else:
            self._route(slot)  # an earlier life gave it out; here it has no site yet

    def settle(self, slot: int, verdict: Verdict) -> None:
        """An attempt ended with deferrals or failures; the slot is idle."""
        now = time.time()
        arrived = self.arrival(slot)
        if verdict.deferred and is_expired(self.retry, arrived, now):
            verdict = verdict.expired()
            self.log(slot, "expired", f'reason="{printable(str(verdict.failures[0].reply))}"')
        if verdict.failures:
            self._notify(self, slot, verdict)
            return
        change = self.defer(slot, verdict, now) if verdict.deferred else self.finish(slot)
        if change is not None:
            self.store.record_soon([change])

    def defer(self, slot: int, verdict: Verdict, now: float) -> Change | None:
        """Wait for the next attempt, or in the held list if an operator wants that; the change to record."""
        arena = self.arena
        attempts = min(arena.attempts(slot) + 1, 65535)
        arena.set_attempts(slot, attempts)
        arena.set_why(slot, self._reason(str(verdict.reply)))
        if verdict.delivered:
            self.note_done(slot, verdict.delivered)
        if slot in self.extras.to_hold:
            self.extras.to_hold.discard(slot)
            return self.hold(slot)
        # Random here spreads load and is no secret.
        due = now + wait_after(self.retry, attempts, random.random())
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

    def arrival(self, slot: int) -> float:
        """When the message was accepted, in seconds."""
        return id_time_ms(MessageId(self.arena.id(slot))) / 1000

    def change(self, slot: int, kind: Literal["waiting", "held"], due: float = 0.0) -> Change:
        """The present state of a delivery, to be made durable."""
        arena = self.arena
        return Change(
            ref=arena.ref(slot),
            id=arena.id(slot),
            part=arena.part(slot),
            kind=kind,
            attempts=arena.attempts(slot),
            due=math.ceil(due),
            done=self.extras.done.get(slot, ()),
            why=self.reasons.text(arena.why(slot)),
        )

    def log(self, slot: int, event: str, fields: str) -> None:
        self.maillog(id_text(self.arena.id(slot)), event, fields)

    # ---- by hand

    def hold(self, slot: int, *, keep_reason: bool = False) -> Change | None:
        """Keep a delivery until it is released; one that is active is held when it comes back."""
        if self.arena.state(slot) == _arena.ACTIVE:
            self.extras.to_hold.add(slot)
            return None
        if not keep_reason:
            self.arena.set_why(slot, self.reasons.number(HELD_BY_HAND))
        self.arena.push(self.held, slot, _arena.HELD)
        return self.change(slot, "held")

    def _hold_now(self, slot: int) -> bool:
        if slot not in self.extras.to_hold:
            return False
        self.extras.to_hold.discard(slot)
        change = self.hold(slot)
        if change is not None:
            self.store.record_soon([change])
        return True

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
        self.arena.detach(slot)
        self._routes.pop(self.arena.domain(slot), None)
        self._route(slot)
        return self.change(slot, "waiting")

    def delete(self, slot: int) -> Change:
        """Take a delivery out of the queue without a notice; an active one ends when its attempt does.

        An active one is on record as finished at once, so that it stays deleted whatever dies meanwhile; its
        segment may then be used again, and a courier that has not read the text yet reports that it cannot.
        """
        if self.arena.state(slot) == _arena.ACTIVE:
            self.extras.doomed.add(slot)
            return self._finished(slot)
        return self.finish(slot)

    # ---- couriers that come and go

    def courier_began(self, courier: Courier, again: bool) -> None:
        """A courier said Hello. If it had an earlier life, what that had in hand is tried again, and counted."""
        self._dirty.update(self.sites.by_number[1:])
        if not again:
            return
        self.sites.forget_courier(courier.worker)
        while (slot := self.arena.pop(courier.active)) >= 0:
            self.counters[INDEX["messages_ambiguous"]] += 1
            if slot in self.extras.doomed:
                self.free(slot)
            elif not self._hold_now(slot):
                self.arena.set_why(slot, self.reasons.number(AMBIGUOUS))
                self.arena.schedule(slot, self.tick(time.time() + _AFTER_DEATH))

    def courier_is_busy(self, courier: Courier, busy: Sequence[tuple[int, int]]) -> None:
        """Deliveries that it was given by an earlier life of the queue manager, and still has in hand."""
        found = self.arena.locate({message_id for message_id, _ in busy})
        for delivery in busy:
            slot = found.get(delivery)
            if slot is not None and self.arena.state(slot) != _arena.ACTIVE:
                self.arena.push(courier.active, slot, _arena.ACTIVE)
                self.sites.by_number[self.arena.site(slot)].in_flight[courier.worker] += 1

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
        if self._parts:
            left = self._parts.get(message_id)
            if left is not None:
                if left > 1:
                    self._parts[message_id] = left - 1
                    return
                del self._parts[message_id]
        self.messages -= 1

    def count(self, states: int, domains: bytes | None, cursor: int, several: set[int]) -> tuple[int, int]:
        """Messages with one part that are chosen from a slot on, and the next slot; others go to `several`."""
        count, ids, cursor = self.arena.tally(cursor, states, domains, self._parts)
        several.update(ids)
        return count, cursor

    # ---- for the store's own housekeeping

    def relocate(self, moves: dict[int, int]) -> tuple[set[int], list[Change]]:
        """Messages have new references: which were taken over, by the old one, and the present state of their parts."""
        arena = self.arena
        old = {new: ref for ref, new in moves.items()}
        slots, _ = arena.relocate(moves)
        changes = [self._snapshot_change(slot) for slot in slots if arena.attempts(slot) or arena.why(slot)]
        return {old[arena.ref(slot)] for slot in slots}, changes

    def snapshot(self) -> Iterator[Queued]:
        """Everything unfinished, as the store wants it for a checkpoint.

        The queue may change between two items: what is missed by that is in the log behind the checkpoint.
        """
        arena = self.arena
        several: dict[int, list[tuple[int, int]]] = {}
        cursor = 0
        while cursor >= 0:
            rows, cursor = arena.rows(cursor, _SNAPSHOT_SLICE)
            # The whole slice before the first yield: afterwards its slots may be gone.
            batch: list[Queued] = []
            for slot, message_id, ref, domain, part, state, attempts, due, why in rows:
                if slot in self.extras.doomed:
                    continue
                if message_id in self._parts:
                    several.setdefault(message_id, []).append((slot, part))
                    continue
                domains = (self.domains[domain],)
                if not attempts and not why:
                    batch.append(Queued(id=message_id, ref=ref, size=0, domains=domains))
                elif state != _arena.DEFERRED:
                    batch.append(self._queued([slot], domains))
                else:
                    change = Change(
                        ref=ref,
                        id=message_id,
                        part=part,
                        kind="waiting",
                        attempts=attempts,
                        due=math.ceil(self._base + due / TICKS),
                        done=self.extras.done.get(slot, ()),
                        why=self.reasons.text(why),
                    )
                    batch.append(Queued(id=message_id, ref=ref, size=0, domains=domains, changes=(change,)))
            yield from batch
        for message_id, members in several.items():
            left = [slot for slot, part in members if arena.holds(slot, message_id, part)]
            if left:
                envelope = self.store.envelope(Ref(arena.ref(left[0])))
                yield self._queued(left, tuple(part_domains(envelope.recipients)))

    def _queued(self, slots: list[int], domains: tuple[bytes, ...]) -> Queued:
        """One message from the slots of its unfinished parts; its other parts are finished. The size is not told."""
        arena = self.arena
        first = slots[0]
        changes = [self._snapshot_change(slot) for slot in slots if arena.attempts(slot) or arena.why(slot)]
        open_parts = {arena.part(slot) for slot in slots}
        changes += [
            Change(ref=arena.ref(first), id=arena.id(first), part=part, kind="finished")
            for part in range(len(domains))
            if part not in open_parts
        ]
        return Queued(id=arena.id(first), ref=arena.ref(first), size=0, domains=domains, changes=tuple(changes))

    def _snapshot_change(self, slot: int) -> Change:
        arena = self.arena
        if arena.state(slot) == _arena.HELD:
            return self.change(slot, "held")
        due = self.seconds(arena.due(slot)) if arena.state(slot) == _arena.DEFERRED else 0.0
        return self.change(slot, "waiting", due)
