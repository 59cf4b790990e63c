"""What a sender asks of the queue for one message: when it may go (RFC 4865), by when it must be there (RFC 2852).

The envelope says it. The mark TIMED of a slot tells that it does, so that no other envelope is read; arrivals and
recovered messages bring the same news in `wants` (`mta.model.wants_of`).

    hold_until    the delivery is deferred until then, under embargo: verbs for many messages leave it alone. Its time
                  until expiry begins then.
    deliver_by    a deadline. When it is past, a delivery that no courier has goes back to its sender (by-mode R), or
                  its sender is told once and it goes on (N). Held mail keeps its place, until somebody releases it.

Invariants
- Nothing here is recorded but that a sender was told: after a restart the envelope says the same.
- A deadline whose slot holds another delivery by then is dropped. There are never many more of those whose deliveries
  are gone than of others, however far ahead they lie.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from mta.mail.replyclass import classify_text
from mta.mail.trace import date_text
from mta.model import Change, Options, Ref, StoreError
from mta.observe.maillog import quoted
from mta.queue import _arena

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

_AGAIN = 1.0  # seconds until a deadline is looked at again whose delivery is in hand just now
_FARTHEST = 4 * 366 * 86400  # seconds ahead: half of what the timer wheel of the arena can tell from the past
_FEW = 1024  # deadlines that are not worth a look at all of them
_IN_HAND = (_arena.ACTIVE, _arena.IDLE)


def wants(marks: int) -> int:
    """The bits WANTS_... that are in the marks of a slot."""
    return marks >> 2 & 7


def embargo_text(until_ms: int) -> str:
    """Why a delivery waits that its sender has put off."""
    return f"held until {date_text(until_ms // 1000)}, as its sender asked (RFC 4865)"


class Wishes:
    """Those of all messages in one queue."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._arena = manager.arena
        self._deadlines: list[tuple[float, int, int, int]] = []  # a heap: seconds, slot, id, part
        self._most = _FEW  # of them, before those are taken out whose deliveries are gone

    # ---- in

    def read(self, ref: int) -> Options | None:
        """The options of a message; None where it has none, or cannot be read: then it is sent like others."""
        try:
            return self._manager.store.envelope(Ref(ref)).options
        except StoreError:
            return None

    def embargo(self, slot: int, options: Options, change: Change | None = None) -> bool:
        """Let a delivery wait for the time that its sender set, if that is ahead and nobody let it go meanwhile."""
        hold = options.hold_until
        # Who let it go had recorded no time.
        if hold <= self._manager.clock() * 1000 or (change is not None and (change.attempts or not change.due)):
            return False
        manager = self._manager
        until = min(hold / 1000, self._manager.clock() + _FARTHEST)
        self._arena.embargo(slot, manager.tick(until), manager.reasons.number(embargo_text(hold)))
        return True

    # ---- times

    def began(self, slot: int) -> float:
        """From when on its age counts, in seconds: the arrival, or the end of the embargo."""
        arrived = self._manager.arrival(slot)
        if not self._arena.marks(slot) & _arena.TIMED:
            return arrived
        options = self.read(self._arena.ref(slot))
        return max(arrived, options.hold_until / 1000) if options is not None else arrived

    def ends(self, slot: int) -> float:
        """When it is given up, in seconds."""
        manager = self._manager
        blame = classify_text(manager.reasons.text(self._arena.why(slot)))
        end = self.began(slot) + manager.plan(slot, blame).expiry
        if self._arena.marks(slot) & _arena.TIMED:
            options = self.read(self._arena.ref(slot))
            if options is not None and options.deliver_by and options.by_return:
                end = min(end, options.deliver_by / 1000)
        return end

    # ---- deadlines

    def released(self, slot: int) -> None:
        """A delivery is no more held: its deadline counts again."""
        if self._arena.marks(slot) & _arena.TIMED and (options := self.read(self._arena.ref(slot))) is not None:
            self.arm(slot, options)

    def advance(self, now: float) -> None:
        """See to the deadlines that are past."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            _, slot, message_id, part = heapq.heappop(deadlines)
            if self._arena.holds(slot, message_id, part):
                self._late(slot, now)

    def arm(self, slot: int, options: Options) -> None:
        """A delivery with such wishes is in this slot from now on, or its deadline counts again."""
        if options.deliver_by:
            self._push(options.deliver_by / 1000, slot)

    def _push(self, when: float, slot: int) -> None:
        heapq.heappush(self._deadlines, (when, slot, self._arena.id(slot), self._arena.part(slot)))
        if len(self._deadlines) > self._most:
            self._deadlines[:] = [deadline for deadline in self._deadlines if self._arena.holds(*deadline[1:])]
            heapq.heapify(self._deadlines)
            self._most = max(_FEW, 2 * len(self._deadlines))

    def _late(self, slot: int, now: float) -> None:
        state = self._arena.state(slot)
        if state in _IN_HAND:
            self._push(now + _AGAIN, slot)
            return
        options = self.read(self._arena.ref(slot)) if state != _arena.HELD else None
        if options is None:
            return
        if options.by_return:
            cause = f"not delivered by {date_text(options.deliver_by // 1000)}, the time that its sender had set"
            self._manager.log(slot, "expired", f"reason={quoted(cause)}")
            self._manager.by_hand.give_up(slot, cause)
        elif not self._arena.marks(slot) & _arena.TOLD_LATE:
            self._manager.teller.late(self._manager, slot, options.deliver_by // 1000)

    def told_late(self, slot: int) -> None:
        """The notice is on disk: make durable that the sender has it. What is in hand says so with its next change."""
        manager, state = self._manager, self._arena.state(slot)
        if state == _arena.HELD:
            manager.settling.record(manager.by_hand.held(slot))
        elif state not in _IN_HAND:
            due = manager.seconds(self._arena.due(slot)) if state == _arena.DEFERRED else 0.0
            manager.settling.record(manager.change(slot, "waiting", due))
