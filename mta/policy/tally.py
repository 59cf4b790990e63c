"""How much each address asks of a listener, over all receivers: connections at once, and rates.

Each receiver writes rows of its own and reads those of all (`mta.policy.rows`), so counts are exact without locks. What
a receiver that died had open is forgotten with it: its successor has another life number, and what is open is only
counted under the life that opened it. A row with something open is never taken from its owner.

Rates are counts in windows that all processes begin at the same time: how many in this window, and of the one before
that share which a window's length from now back still covers. A word of a row holds one rate: 24 bits number of the
window, 20 bits the count before, 20 bits the count now.

`now` is in seconds of a clock that all processes share.
"""

from __future__ import annotations

from typing import Final

from mta.config.settings import Rate
from mta.policy.rows import LAST, SharedRows

CONNECTIONS: Final = 3  # words of a row; 2 is what is open, under which life
MESSAGES: Final = 4
RECIPIENTS: Final = 5
ERRORS: Final = 6
_OPEN: Final = 2
_WORDS: Final = 8

_COUNT_BITS: Final = 20
_MOST: Final = (1 << _COUNT_BITS) - 1
_WINDOWS: Final = 1 << 24
_OPEN_BITS: Final = 32
_OPEN_MASK: Final = (1 << _OPEN_BITS) - 1


class TallyTable:
    """The memory for all receivers; made before the first fork."""

    def __init__(self, receivers: int) -> None:
        self.rows = SharedRows(_WORDS, shards=receivers)
        self.lives = SharedRows(_WORDS, sets=1, shards=receivers)  # one row each: the number of its life

    def born(self, receiver: int) -> Tally:
        """The view of a receiver (from 0) that begins a new life."""
        row = self.lives.claim(1, receiver)
        self.lives.cells[row + _OPEN] = self.lives.cells[row + _OPEN] + 1 & _OPEN_MASK
        return Tally(self, receiver)

    def life(self, receiver: int) -> int:
        row = self.lives.find(1, receiver)
        return self.lives.cells[row + _OPEN] if row >= 0 else 0


class Tally:
    """What one receiver counts, and sees of the others."""

    def __init__(self, table: TallyTable, receiver: int) -> None:
        self._table = table
        self._rows = table.rows
        self._cells = table.rows.cells
        self._receiver = receiver
        self._life = table.life(receiver) << _OPEN_BITS
        self.tag = table.rows.tag

    # ---- what is open

    def enter(self, tag: int, now: int) -> int:
        """One more is open; the row to give to `leave`."""
        row = self._rows.claim(tag, self._receiver, self._busy)
        if row >= 0:
            cells = self._cells
            cells[row + _OPEN] = self._life | self._open(row, self._life) + 1
            cells[row + LAST] = now
        return row

    def leave(self, row: int) -> None:
        if row >= 0:
            self._cells[row + _OPEN] -= 1

    def present(self, tag: int) -> int:
        """How many are open in all receivers."""
        count = 0
        for receiver in range(self._rows.shards):
            row = self._rows.find(tag, receiver)
            if row >= 0:
                life = self._life if receiver == self._receiver else self._table.life(receiver) << _OPEN_BITS
                count += self._open(row, life)
        return count

    def _open(self, row: int, life: int) -> int:
        word = self._cells[row + _OPEN]
        return word & _OPEN_MASK if word & ~_OPEN_MASK == life else 0

    def _busy(self, row: int) -> bool:
        return self._open(row, self._life) > 0

    # ---- rates

    def add(self, tag: int, kind: int, rate: Rate, now: int, amount: int = 1) -> None:
        row = self._rows.claim(tag, self._receiver, self._busy)
        if row < 0:
            return  # eight addresses at once in one set, all with connections: one of them goes uncounted for a while
        window = now // rate.seconds % _WINDOWS
        before, count = _counts(self._cells[row + kind], window)
        self._cells[row + kind] = window << 2 * _COUNT_BITS | before << _COUNT_BITS | min(count + amount, _MOST)
        self._cells[row + LAST] = now

    def recent(self, tag: int, kind: int, rate: Rate, now: int) -> int:
        """How many there were in the last `rate.seconds`, about."""
        window = now // rate.seconds % _WINDOWS
        before = count = 0
        for receiver in range(self._rows.shards):
            row = self._rows.find(tag, receiver)
            if row >= 0:
                earlier, here = _counts(self._cells[row + kind], window)
                before += earlier
                count += here
        return count + before * (rate.seconds - now % rate.seconds) // rate.seconds


def _counts(word: int, window: int) -> tuple[int, int]:
    """The counts of the window before this one, and of this one."""
    age = (window - (word >> 2 * _COUNT_BITS)) % _WINDOWS
    if age == 0:
        return word >> _COUNT_BITS & _MOST, word & _MOST
    return (word & _MOST, 0) if age == 1 else (0, 0)
