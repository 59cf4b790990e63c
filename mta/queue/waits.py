"""How long mail waits for its first attempt, by class: percentiles of the last minutes, from the counts of the arena.

Counted is the time from acceptance until a courier is given a delivery for the first time; not what its sender has put
off. The counts are kept in buckets, four for each doubling: a figure is true to a fifth of itself.

Pure but for the counts that it reads: the time is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from mta.queue._arena import Arena

CLASSES: Final = ("urgent", "normal", "bulk")
_EVERY: Final = 60.0  # seconds between two looks
_LOOKS: Final = 10  # that are kept

Counts = Sequence[int]


def longest(bucket: int) -> float:
    """Seconds: the longest wait that is counted there."""
    if bucket < 8:
        return bucket / 1000
    octave, rest = divmod(bucket - 4, 4)
    return (((rest + 5) << octave) - 1) / 1000


def percentile(counts: Counts, share: float) -> float:
    """Seconds within which this share of those that were counted had their turn; 0.0 for none."""
    wanted = share * sum(counts)
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return longest(bucket)
    return 0.0


class Waits:
    """Those of one queue."""

    def __init__(self, arena: Arena, now: float) -> None:
        self._arena = arena
        self._looks: deque[tuple[float, list[list[int]]]] = deque([(now, self._counts())], maxlen=_LOOKS)

    def look(self, now: float) -> None:
        """Called from time to time."""
        if now - self._looks[-1][0] >= _EVERY:
            self._looks.append((now, self._counts()))

    def report(self, now: float) -> dict[str, dict[str, float]]:
        """For each class that had any mail: how many began lately, in how many seconds, and in what time."""
        since, before = self._looks[0]
        report: dict[str, dict[str, float]] = {}
        for name, old, new in zip(CLASSES, before, self._counts(), strict=True):
            if not any(new):
                continue
            lately = [b - a for a, b in zip(old, new, strict=True)]
            report[name] = {
                "begun": sum(new),
                "lately": sum(lately),
                "seconds": round(now - since, 1),
                "p50": percentile(lately, 0.5),
                "p99": percentile(lately, 0.99),
            }
        return report

    def _counts(self) -> list[list[int]]:
        return [self._arena.waits(rank) for rank in range(len(CLASSES))]
