"""Results of attempts, and what they mean for their deliveries: finished, failed, deferred, held, tried again at once.

Invariants
- A result counts for the delivery that is active in its slot. One whose slot holds another message is looked up by its
  id, and dropped if there is no such delivery any more.
- What settles a delivery is recorded once, and its seat is free when that is durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mta.mail.replyclass import classify
from mta.model import Change, LookupFailure, Result, Results
from mta.observe.counters import INDEX
from mta.observe.maillog import quoted
from mta.queue import _arena
from mta.queue.outcome import Verdict, judge
from mta.queue.retry import is_expired, is_slow

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

_MOST_UNTRIED = 3  # times a delivery may come back untried before it waits a moment
_MOMENT = 1.0


class Settling:
    """See the module."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._arena = manager.arena

    def came(self, worker: int, results: Results) -> None:
        """A courier's results: most are "delivered" and nothing else."""
        arena, manager = self._arena, self._manager
        doomed, attempts = manager.extras.doomed, manager.attempts
        changes: list[Change] = []
        seats: list[int] = []
        strangers: list[Result] = []
        for result in results.results:
            slot = result.slot
            if not arena.holds(slot, result.id, result.part) or arena.state(slot) != _arena.ACTIVE:
                strangers.append(result)
                continue
            queue = attempts.take_back(worker, slot)
            if result.outcomes or slot in doomed:
                self._apply(worker, slot, result)
            else:
                changes.append(manager.finish(slot))
                seats.append(result.seat)
                if queue.limits.gated:
                    manager.regulator.delivered(queue)
        if changes:
            manager.store.record_soon(changes, partial(attempts.free, worker, seats))
        if strangers:
            self._from_earlier_life(worker, strangers)

    def _from_earlier_life(self, worker: int, results: Sequence[Result]) -> None:
        """Results of jobs that our predecessor gave out: the slots are others, the deliveries the same."""
        found = self._arena.locate({r.id for r in results})
        for result in results:
            slot = found.get((result.id, result.part))
            if slot is None or not self._arena.holds(slot, result.id, result.part):
                continue  # finished already
            if self._arena.state(slot) == _arena.ACTIVE:
                self._manager.attempts.take_back(worker, slot)
            self._apply(worker, slot, result)

    def _apply(self, worker: int, slot: int, result: Result) -> None:
        """What a result means for its delivery."""
        manager = self._manager
        self._arena.detach(slot)
        manager.attempts.settling[result.id, result.part] = worker, result.seat
        if slot in manager.extras.doomed:
            self.end_doomed(slot)
            return
        if not result.outcomes:
            self.record(manager.finish(slot))
            return
        verdict = judge(outcomes=result.outcomes)
        if verdict.untried:
            self.again(slot)
            return
        if site := self._arena.site(slot):
            queue = manager.sites.by_number[site]
            if manager.regulator.crowded_out(worker, queue, verdict):
                self.again(slot)
                return
            manager.regulator.judged(queue, verdict)
            if manager.quarantine is not None:
                verdict = manager.quarantine.turned(slot, queue, verdict)
        self.settle(slot, verdict)

    def no_route(self, slot: int, failure: LookupFailure) -> None:
        """DNS says that this domain has no place, or none that can be found now."""
        if failure.permanent:
            self.settle(slot, judge(failed=failure.reply))
        else:
            self.settle(slot, judge(deferred=failure.reply))

    def record(self, change: Change) -> None:
        """Make the change that settles a delivery durable; its seat is free then."""
        manager = self._manager
        place = manager.attempts.settling.pop((change.id, change.part), None)
        if place is None:
            manager.store.record_soon([change])
        else:
            manager.store.record_soon([change], partial(manager.attempts.free, place[0], (place[1],)))

    def end_doomed(self, slot: int) -> None:
        """A delivery that was deleted while it was active came back: its end is on record since then."""
        manager = self._manager
        place = manager.attempts.settling.pop((self._arena.id(slot), self._arena.part(slot)), None)
        if place is not None:
            manager.attempts.free(place[0], (place[1],))
        manager.free(slot)

    def again(self, slot: int) -> None:
        """Given back without an attempt: ready again, but not in a tight circle."""
        manager = self._manager
        extras = manager.extras
        if slot in extras.to_hold:
            self.record(manager.by_hand.hold_idle(slot, extras.to_hold.pop(slot)))
            return
        self.record(manager.change(slot, "waiting"))  # it had begun
        times = extras.untried.get(slot, 0) + 1
        extras.untried[slot] = times
        if times > _MOST_UNTRIED:
            extras.untried[slot] = 0
            self._arena.schedule(slot, manager.tick(manager.clock() + _MOMENT))
        elif self._arena.site(slot):
            manager.places.enqueue(slot, manager.sites.by_number[self._arena.site(slot)], front=True)
        else:
            manager.places.route(slot)  # an earlier life gave it out; here it has no site yet

    def settle(self, slot: int, verdict: Verdict) -> None:
        """An attempt ended with deferrals or failures; the slot is idle."""
        manager = self._manager
        now = manager.clock()
        if verdict.deferred:
            verdict = self._aged(slot, verdict, now)
        if verdict.failures or verdict.successes or verdict.warn:
            manager.teller.settled(manager, slot, verdict)
            return
        if verdict.untried:
            self.again(slot)  # what is left goes another way
            return
        self.record(self.defer(slot, verdict, now) if verdict.deferred else manager.finish(slot))

    def _aged(self, slot: int, verdict: Verdict, now: float) -> Verdict:
        """What a deferral is for mail that is old already."""
        manager = self._manager
        marks = self._arena.marks(slot)
        began = manager.wishes.began(slot) if marks & _arena.TIMED else manager.arrival(slot)
        plan = manager.plan(slot, classify(verdict.reply))
        if is_expired(plan, began, now):
            verdict = verdict.expired()
            manager.log(slot, "expired", f"reason={quoted(str(verdict.failures[-1].reply))}")
        elif not marks & _arena.TOLD_DELAY and is_slow(plan, began, now):
            verdict = replace(verdict, warn=True)
        return verdict

    def defer(self, slot: int, verdict: Verdict, now: float) -> Change:
        """Wait for the next attempt, or in the held list if an operator wants that; the change to record."""
        arena, manager = self._arena, self._manager
        extras = manager.extras
        attempts = min(arena.attempts(slot) + 1, 65535)
        arena.set_attempts(slot, attempts)
        arena.set_why(slot, self._reason(str(verdict.reply)))
        if verdict.delivered:
            manager.note_done(slot, verdict.delivered)
        if slot in extras.to_hold:
            return manager.by_hand.hold_idle(slot, extras.to_hold.pop(slot))
        plan = manager.plan(slot, classify(verdict.reply))
        due = now + manager.schedule.wait(plan, attempts, verdict.reply, manager.random())
        end = manager.wishes.began(slot) + plan.expiry
        if now < end < due:
            due = end  # the last attempt is made when its time is over: it goes back then, as its sender was told
        if verdict.unknown:
            due = max(due, now + manager.retry.ambiguous_wait)
            extras.ambiguous.add(slot)
            manager.counters[INDEX["messages_ambiguous"]] += 1
        arena.schedule(slot, manager.tick(due))
        return manager.change(slot, "waiting", due)

    def _reason(self, text: str) -> int:
        reasons = self._manager.reasons
        if reasons.full:
            used: set[int] = set()
            cursor = 0
            while cursor >= 0:
                slots, cursor = self._arena.scan(cursor, 100_000, 0xFF)
                used.update(map(self._arena.why, slots))
            reasons.sweep(used)
        return reasons.number(text)
