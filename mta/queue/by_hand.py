"""What a person, or a deadline in his stead, does to one delivery: hold, release, retry, reroute, bounce, delete, ...

Each returns the change that makes it durable; the caller records it (`mta.queue.operator`, in batches).

Invariant: what a courier has in hand is never touched: it is noted, and done when it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mta.model import Change, Reply
from mta.queue import _arena
from mta.queue.outcome import Verdict, judge

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

HELD_BY_HAND = "held by an operator"
_BEFORE = "; before that: "


class ByHand:
    """See the module."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._arena = manager.arena

    def hold(self, slot: int, by: str = HELD_BY_HAND) -> Change | None:
        """Keep a delivery until it is released; one that is active is held when it comes back."""
        if self._arena.state(slot) == _arena.ACTIVE:
            self._manager.extras.to_hold[slot] = by
            return None
        return self.hold_idle(slot, by)

    def hold_idle(self, slot: int, by: str = "") -> Change:
        """Keep a delivery that no courier has until it is released. Without `by` the reason stays as it is."""
        manager = self._manager
        if by:
            before = manager.reasons.text(self._arena.why(slot))
            text = f"{by}{_BEFORE}{before}" if before else by
            self._arena.set_why(slot, manager.reasons.number(text))
        manager.extras.ambiguous.discard(slot)
        manager.extras.begun.discard(slot)
        self._arena.push(manager.places.held, slot, _arena.HELD)
        return self.held(slot)

    def held(self, slot: int) -> Change:
        """The state of a held delivery: when it would have been tried again is kept, for who takes the hold back."""
        due = self._arena.due(slot)
        return self._manager.change(slot, "held", self._manager.seconds(due) if due else 0.0)

    def unhold(self, slot: int) -> Change | None:
        """Take a hold back: the delivery waits for what it waited for. One that a courier has is not held then."""
        arena, manager = self._arena, self._manager
        if manager.extras.to_hold.pop(slot, None) is not None or arena.state(slot) != _arena.HELD:
            return None
        before = manager.reasons.text(arena.why(slot)).partition(_BEFORE)[2]
        due = arena.due(slot)
        arena.set_why(slot, manager.reasons.number(before))
        if due > manager.tick(manager.clock()) and not arena.marks(slot) & _arena.TIMED:
            arena.schedule(slot, due)
            return manager.change(slot, "waiting", manager.seconds(due))
        return self.release(slot)

    def reroute(self, slot: int, hop: str) -> Change:
        """Send a delivery another way, at once if it is not held; "" is the way of the rules."""
        manager = self._manager
        if hop:
            manager.extras.rerouted[slot] = hop
        else:
            manager.extras.rerouted.pop(slot, None)
        if self._arena.state(slot) == _arena.HELD:
            return self.held(slot)
        return self.retry_now(slot)

    def drop(self, slot: int, recipients: Iterable[int]) -> Change:
        """Take some recipients out of a delivery that is not active; the last ones take it with them."""
        manager = self._manager
        if set(manager.left(slot)) <= set(recipients):
            return self.delete(slot)
        manager.note_done(slot, recipients)
        if self._arena.state(slot) == _arena.HELD:
            return self.held(slot)
        return manager.change(slot, "waiting", manager.seconds(self._arena.due(slot)))

    def retry_now(self, slot: int) -> Change:
        """Make a delivery that waits ready, whatever it waits for."""
        manager = self._manager
        manager.extras.ambiguous.discard(slot)
        self._arena.detach(slot)
        change = manager.change(slot, "waiting")
        manager.wishes.released(slot)
        manager.places.route(slot, afresh=True)
        if site := self._arena.site(slot):
            manager.regulator.probe(manager.sites.by_number[site])
        return change

    def release(self, slot: int) -> Change:
        """Let a held delivery go its way; before the time that its sender has set it waits for that again."""
        arena, manager = self._arena, self._manager
        options = manager.wishes.read(arena.ref(slot)) if arena.marks(slot) & _arena.TIMED else None
        if options is None or not manager.wishes.embargo(slot, options):
            return self.retry_now(slot)
        manager.wishes.released(slot)
        return manager.change(slot, "waiting", manager.seconds(arena.due(slot)))

    def give_up(
        self, slot: int, cause: str = "given up by the postmaster", recipients: Sequence[int] | None = None
    ) -> None:
        """Return a delivery that is not active to its sender, whatever time it has left."""
        manager = self._manager
        last = manager.regulator.why(slot) or manager.reasons.text(self._arena.why(slot))
        reply = Reply(0, "", last or "it was not tried yet")
        self._return(slot, judge(deferred=reply).expired(cause), recipients)

    def bounce(self, slot: int, reason: str, recipients: Sequence[int] | None = None) -> None:
        """Return a delivery that is not active to its sender, as if a host had refused it for a reason."""
        self._return(slot, judge(failed=Reply(550, "5.7.1", reason)), recipients)

    def _return(self, slot: int, verdict: Verdict, recipients: Sequence[int] | None) -> None:
        """All of a delivery, or some of its recipients; the others stay where they are."""
        arena, manager = self._arena, self._manager
        back = arena.state(slot)
        waiting = () if recipients is None else tuple(set(manager.left(slot)).difference(recipients))
        arena.detach(slot)
        if recipients is not None and waiting:
            groups = tuple(replace(group, recipients=tuple(recipients)) for group in verdict.failures)
            verdict = replace(verdict, failures=groups, waiting=waiting, back=back)
        else:
            manager.extras.ambiguous.discard(slot)
        manager.teller.settled(manager, slot, verdict)

    def put_back(self, slot: int, state: int) -> Change:
        """An idle delivery, some recipients of which were returned, waits again as it did in this state."""
        arena, manager = self._arena, self._manager
        if state == _arena.HELD:
            return self.hold_idle(slot)
        if state == _arena.DEFERRED:
            arena.schedule(slot, arena.due(slot))
            return manager.change(slot, "waiting", manager.seconds(arena.due(slot)))
        change = manager.change(slot, "waiting")
        manager.places.route(slot)
        return change

    def delete(self, slot: int) -> Change:
        """Take a delivery out of the queue without a notice; an active one ends when its attempt does.

        An active one is on record as finished at once, so that it stays deleted whatever dies meanwhile; its
        segment may then be used again, and a courier that has not read the text yet reports that it cannot.
        """
        manager = self._manager
        if self._arena.state(slot) == _arena.ACTIVE:
            manager.extras.doomed.add(slot)
            return manager.finished(slot)
        return manager.finish(slot)
