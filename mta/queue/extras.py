"""What few deliveries have, kept beside the arena by slot number.

Invariant: a slot that is freed is forgotten here.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Extras:
    """Empty for most queues, so that asking costs next to nothing."""

    pending: dict[int, tuple[int, ...]] = field(default_factory=dict)  # recipients left, where not all are
    done: dict[int, tuple[int, ...]] = field(default_factory=dict)  # recipients finished
    untried: dict[int, int] = field(default_factory=dict)
    doomed: set[int] = field(default_factory=set)  # deleted while a courier has it
    to_hold: dict[int, str] = field(default_factory=dict)  # to be held when a courier gives it back, and why
    ambiguous: set[int] = field(default_factory=set)  # deferred, and an attempt may have delivered it
    rerouted: dict[int, str] = field(default_factory=dict)  # where an operator sent it, as he wrote it
    begun: set[int] = field(default_factory=set)  # as recovery knows it, until the seats are read

    def forget(self, slot: int) -> None:
        self.pending.pop(slot, None)
        self.done.pop(slot, None)
        self.untried.pop(slot, None)
        self.doomed.discard(slot)
        self.to_hold.pop(slot, None)
        self.rerouted.pop(slot, None)
        self.ambiguous.discard(slot)
        self.begun.discard(slot)
