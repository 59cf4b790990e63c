"""Mail that waits for its turn grows old too: behind a site that is down, paused, or given little at a time.

An attempt that fails finds out that mail is late or has had its time (`mta.queue.settling`). What is ready, and is not
tried for days, has no such attempt: all that is ready is looked through once a minute, in slices.

Invariants
- The sender hears of a delay once, and gets back what is older than its time, whether it was ever tried or not.
- What is held stays; so does what a courier has in hand, which comes back.
- A slice looks at some hundred thousand slots at most, without Python for those that are young: under a millisecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta.mail.replyclass import classify_text
from mta.model import first_id_at
from mta.observe.maillog import quoted
from mta.queue import _arena
from mta.queue.retry import is_expired, is_slow

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

EVERY = 60.0  # seconds between two looks, or a tenth of the shortest time that counts
_GRACE = 300.0  # seconds, or such a tenth, for the attempt that is made when a time is over, or just before
_SLICE = 64  # deliveries that are told of, or given back, in one go
_READY = 1 << _arena.READY


class Aging:
    """See the module."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._next = 0.0
        self._cursor = 0
        self._expiry, self._warning = manager.schedule.shortest
        self._every = min(EVERY, self._expiry / 10, self._warning / 10 or EVERY)
        self._grace = min(_GRACE, self._expiry / 10)

    def advance(self, now: float) -> None:
        """Look at the next slice, when it is time."""
        if now < self._next:
            return
        manager = self._manager
        if not self._cursor and not manager.arena.count(_arena.READY):
            self._next = now + self._every
            return
        self._next = now + self._every
        now -= self._grace
        expired = first_id_at(int((now - self._expiry) * 1000))
        late = max(expired, first_id_at(int((now - self._warning) * 1000))) if self._warning else expired
        slots, self._cursor = manager.arena.old(self._cursor, _SLICE, _READY, expired, late)
        for slot in slots:
            self._look(slot, now)
        if self._cursor < 0:
            self._cursor = 0
        else:
            self._next = 0.0

    def _look(self, slot: int, now: float) -> None:
        """`now` is a moment ago."""
        manager, arena = self._manager, self._manager.arena
        last = manager.reasons.text(arena.why(slot))
        plan, began = manager.plan(slot, classify_text(last)), manager.wishes.began(slot)
        if is_expired(plan, began, now):
            cause = "not delivered in the time allowed"
            manager.log(slot, "expired", f"reason={quoted(cause)}")
            manager.by_hand.give_up(slot, cause)
        elif not arena.marks(slot) & _arena.TOLD_DELAY and is_slow(plan, began, now):
            manager.teller.waits(manager, slot)
