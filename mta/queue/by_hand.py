"""What a person, or a deadline in his stead, does to one delivery: hold, release, retry, give up, delete.

Each returns the change that makes it durable; the caller records it (`mta.queue.operator`, in batches).

Invariant: what a courier has in hand is never touched: it is noted, and done when it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mta.model import Change, Reply
from mta.queue import _arena
from mta.queue.outcome import judge

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

HELD_BY_HAND = "held by an operator"


class ByHand:
    """See the module."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._arena = manager.arena

    def hold(self, slot: int) -> Change | None:
        """Keep a delivery until it is released; one that is active is held when it comes back."""
        if self._arena.state(slot) == _arena.ACTIVE:
            self._manager.extras.to_hold.add(slot)
            return None
        return self.hold_idle(slot)

    def hold_idle(self, slot: int, *, keep_reason: bool = False) -> Change:
        """Keep a delivery that no courier has until it is released."""
        manager = self._manager
        if not keep_reason:
            self._arena.set_why(slot, manager.reasons.number(HELD_BY_HAND))
        manager.extras.ambiguous.discard(slot)
        manager.extras.begun.discard(slot)
        self._arena.push(manager.places.held, slot, _arena.HELD)
        return manager.change(slot, "held")

    def drop(self, slot: int, recipients: Iterable[int]) -> Change:
        """Take some recipients out of a delivery that is not active; the last ones take it with them."""
        manager = self._manager
        if set(manager.left(slot)) <= set(recipients):
            return self.delete(slot)
        manager.note_done(slot, recipients)
        if self._arena.state(slot) == _arena.HELD:
            return manager.change(slot, "held")
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

    def give_up(self, slot: int, cause: str = "given up by the postmaster") -> None:
        """Return a delivery that is not active to its sender, whatever time it has left."""
        manager = self._manager
        manager.extras.ambiguous.discard(slot)
        last = manager.regulator.why(slot) or manager.reasons.text(self._arena.why(slot))
        reply = Reply(0, "", last or "it was not tried yet")
        self._arena.detach(slot)
        manager.teller.settled(manager, slot, judge(deferred=reply).expired(cause))

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
