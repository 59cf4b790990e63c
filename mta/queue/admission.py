"""Messages enter the queue: new ones, and those that recovery brings back in the state that the log tells.

Invariants
- A message has one slot for each part that is not finished, and nobody else adds slots.
- Nothing is decided here about recovered attempts: `mta.queue.attempts` accounts for these when the queue opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta.model import WANTS_TIME, Arrivals, Change, Options, Position, Queued
from mta.queue import _arena

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager


class Admission:
    """See the module."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._arena = manager.arena
        self._places = manager.places

    def arrived(self, news: Arrivals | Position) -> None:
        """A receiver told of messages, or that some may have been missed."""
        for queued in self._manager.store.claim(news):
            self.admit(queued)

    def admit(self, queued: Queued) -> None:
        """A message enters the queue, new or recovered."""
        manager = self._manager
        manager.messages += 1
        if len(queued.domains) == 1 and len(queued.changes) < 2 and not queued.wants & WANTS_TIME:
            self._admit_single(queued)
            return
        wishes = manager.wishes
        options = wishes.read(queued.ref) if queued.wants & WANTS_TIME else None
        changes = {c.part: c for c in queued.changes} if queued.changes else {}
        if len(queued.domains) > 1:
            manager.parts[queued.id] = len(queued.domains) - sum(c.kind == "finished" for c in changes.values())
        for part, domain in enumerate(queued.domains):
            change = changes.get(part)
            if change is not None and change.kind == "finished":
                continue
            slot = self._arena.add(queued.id, queued.ref, self._places.domain(domain), part)
            if queued.wants or queued.lane is not None:
                self._class(slot, queued)
            if options is not None:
                wishes.arm(slot, options)
            if change is not None:
                self._restore(slot, change, options)
            elif options is None or not wishes.embargo(slot, options):
                self._places.route(slot)

    def _admit_single(self, queued: Queued) -> None:
        """Nearly all messages; a million of them after a restart."""
        domain = self._places.domain(queued.domains[0])
        plain = not queued.wants and queued.lane is None
        change = queued.changes[0] if queued.changes else None
        if change is not None and change.kind == "waiting" and not change.done and not change.to:
            manager = self._manager
            due, why = manager.tick(change.due), manager.reasons.number(change.why)
            slot = self._arena.restore(queued.id, queued.ref, domain, 0, change.attempts, why, due, change.told)
            if not plain:
                self._class(slot, queued)
            return
        slot = self._arena.add(queued.id, queued.ref, domain, 0)
        if not plain:
            self._class(slot, queued)
        if change is None:
            self._places.route(slot)
        else:
            self._restore(slot, change)

    def _class(self, slot: int, queued: Queued) -> None:
        """Whose it is, and how urgent; before it is in a line."""
        if queued.lane is not None:
            self._arena.assign(slot, *self._manager.lanes.numbers(queued.lane))
        self._arena.mark(slot, queued.wants << 2)

    def _restore(self, slot: int, change: Change, options: Options | None = None) -> None:
        arena, manager = self._arena, self._manager
        arena.mark(slot, change.told)
        arena.set_attempts(slot, change.attempts)
        arena.set_why(slot, manager.reasons.number(change.why))
        if change.done:
            manager.note_done(slot, change.done)
        if change.to:
            manager.extras.rerouted[slot] = change.to
        if change.kind == "held":
            if change.due:
                arena.schedule(slot, manager.tick(change.due))  # kept for who takes the hold back
            arena.push(self._places.held, slot, _arena.HELD)
        elif change.kind == "begun":
            manager.attempts.restored(slot)
        elif options is None or not manager.wishes.embargo(slot, options, change):
            if change.kind == "ambiguous":
                manager.extras.ambiguous.add(slot)
            arena.schedule(slot, manager.tick(change.due))
