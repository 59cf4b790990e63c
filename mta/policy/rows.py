"""Rows of numbers found by name, in memory that all processes of a server share, and that never grows.

Made before the first fork, as the counters are. A row is found by a keyed hash of its name, in a set of eight; in a
full set the row that was quiet for longest gives way. Nobody outside knows the key: nobody can fill a set on purpose.

A table has one shard or several. Where counts must be exact each process writes a shard of its own and reads all:
then no lock is needed. Where several write one shard two writes at the same instant may count as one.

Words of a row: 0 is the tag (0: empty row), 1 the last second in which it was of use; the others are the owner's.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from typing import Final

TAG: Final = 0
LAST: Final = 1
_WAYS: Final = 8


class SharedRows:
    """`words` of 64 bits in a row; of the memory only what is used is ever there."""

    def __init__(self, words: int, *, sets: int = 8192, shards: int = 1) -> None:
        self.shards = shards
        self._sets = sets
        self._step = _WAYS * words
        self._words = words
        self._shard = sets * _WAYS * words
        self.cells = memoryview(mmap.mmap(-1, shards * self._shard * 8)).cast("Q")
        self._key = os.urandom(16)

    def tag(self, name: str) -> int:
        digest = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "little") or 1

    def find(self, tag: int, shard: int = 0) -> int:
        """The first cell of this row; -1 where there is none."""
        cells = self.cells
        first = shard * self._shard + tag % self._sets * self._step
        for row in range(first, first + self._step, self._words):
            if cells[row] == tag:
                return row
        return -1

    def claim(self, tag: int, shard: int = 0, busy: Callable[[int], bool] | None = None) -> int:
        """The row of this tag, taken from another if need be, all zero when it is new. -1: all others are `busy`."""
        row = self.find(tag, shard)
        if row >= 0:
            return row
        cells = self.cells
        first = shard * self._shard + tag % self._sets * self._step
        rows = [r for r in range(first, first + self._step, self._words) if busy is None or not busy(r)]
        if not rows:
            return -1
        row = min(rows, key=lambda r: (cells[r] != 0, cells[r + LAST]))
        for cell in range(row + 1, row + self._words):
            cells[cell] = 0
        cells[row] = tag
        return row
