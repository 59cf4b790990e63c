"""What the store asks of the queue for its housekeeping: everything unfinished, for a checkpoint, and new references.

Invariant: what is told of a delivery is what its newest change in the log says, or newer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mta.model import Change, Lane, Queued, Ref, part_domains
from mta.queue import _arena
from mta.queue.attempts import UNJOURNALLED
from mta.queue.wishes import wants

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

_SLICE = 1000  # deliveries between two of which others may be changed


class Housekeeping:
    """The deliveries of one queue manager, as the store wants them."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager

    def relocate(self, moves: dict[int, int]) -> tuple[set[int], list[Change]]:
        """Messages have new references: which were taken over, by the old one, and the present state of their parts."""
        arena = self._manager.arena
        old = {new: ref for ref, new in moves.items()}
        slots, _ = arena.relocate(moves)
        changes = [self._present(slot) for slot in slots if self._has_news(slot)]
        return {old[arena.ref(slot)] for slot in slots}, changes

    def snapshot(self) -> Iterator[Queued]:
        """Everything unfinished, as the store wants it for a checkpoint.

        The queue may change between two items: what is missed by that is in the log behind the checkpoint.
        """
        arena = self._manager.arena
        several: set[int] = set()
        rerouted = self._manager.extras.rerouted
        cursor = 0
        while cursor >= 0:
            rows, cursor = arena.rows(cursor, _SLICE)
            # The whole slice before the first yield: afterwards its slots may be gone.
            batch: list[Queued] = []
            for slot, message_id, ref, domain, part, state, attempts, due, why, marks in rows:
                if slot in self._manager.extras.doomed:
                    continue
                if message_id in self._manager.parts:
                    several.add(message_id)
                    continue
                domains = (self._manager.domains[domain],)
                lane = self._lane(slot)
                if not (attempts or why or marks & _arena.TOLD or slot in rerouted or self._has_begun(slot)):
                    asked = wants(marks)
                    batch.append(Queued(id=message_id, ref=ref, size=0, domains=domains, wants=asked, lane=lane))
                elif state != _arena.DEFERRED or slot in self._manager.extras.ambiguous or slot in rerouted:
                    batch.append(self._queued([slot], domains))
                else:
                    change = Change(
                        ref=ref,
                        id=message_id,
                        part=part,
                        kind="waiting",
                        attempts=attempts,
                        due=math.ceil(self._manager.seconds(due)),
                        done=self._manager.extras.done.get(slot, ()),
                        why=self._manager.reasons.text(why),
                        told=marks & _arena.TOLD,
                    )
                    batch.append(
                        Queued(
                            id=message_id,
                            ref=ref,
                            size=0,
                            domains=domains,
                            changes=(change,),
                            wants=wants(marks),
                            lane=lane,
                        )
                    )
            yield from batch
        for message_id, members in self._members(several).items():
            left = [slot for slot, part in members if arena.holds(slot, message_id, part)]
            if left:
                envelope = self._manager.store.envelope(Ref(arena.ref(left[0])))
                yield self._queued(left, tuple(part_domains(envelope.recipients)))

    def _members(self, message_ids: set[int]) -> dict[int, list[tuple[int, int]]]:
        """Slot and part of all that is unfinished of some messages.

        INVARIANT: looked for in one go, behind the scan. A message that came during it may have a part in a slot that
        was empty when the scan went by, and what is not found counts as finished.
        """
        members: dict[int, list[tuple[int, int]]] = {}
        if message_ids:
            for (message_id, part), slot in self._manager.arena.locate(message_ids).items():
                if slot not in self._manager.extras.doomed:
                    members.setdefault(message_id, []).append((slot, part))
        return members

    def _queued(self, slots: list[int], domains: tuple[bytes, ...]) -> Queued:
        """One message from the slots of its unfinished parts; its other parts are finished. The size is not told."""
        arena = self._manager.arena
        first = slots[0]
        changes = [self._present(slot) for slot in slots if self._has_news(slot)]
        open_parts = {arena.part(slot) for slot in slots}
        changes += [
            Change(ref=arena.ref(first), id=arena.id(first), part=part, kind="finished")
            for part in range(len(domains))
            if part not in open_parts
        ]
        return Queued(
            id=arena.id(first),
            ref=arena.ref(first),
            size=0,
            domains=domains,
            changes=tuple(changes),
            wants=wants(arena.marks(first)),
            lane=self._lane(first),
        )

    def _lane(self, slot: int) -> Lane | None:
        return self._manager.lanes.lane(*self._manager.arena.lane(slot))

    def _has_news(self, slot: int) -> bool:
        """Whether there is more to tell of a delivery than that it arrived."""
        arena = self._manager.arena
        told = arena.marks(slot) & _arena.TOLD
        news = arena.attempts(slot) or arena.why(slot) or told or slot in self._manager.extras.rerouted
        return bool(news) or self._has_begun(slot)

    def _has_begun(self, slot: int) -> bool:
        """Whether the store says so; what is idle came back, and its notice or change is on the way."""
        if self._manager.arena.state(slot) not in (_arena.ACTIVE, _arena.IDLE):
            return slot in self._manager.extras.begun
        return self._manager.sites.by_number[self._manager.arena.site(slot)].site.kind not in UNJOURNALLED

    def _present(self, slot: int) -> Change:
        """The state of a delivery."""
        arena = self._manager.arena
        if self._has_begun(slot):
            return self._manager.change(slot, "begun")
        if arena.state(slot) == _arena.HELD:
            return self._manager.by_hand.held(slot)
        due = self._manager.seconds(arena.due(slot)) if arena.state(slot) == _arena.DEFERRED else 0.0
        return self._manager.change(slot, "waiting", due)
