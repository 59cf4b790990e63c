"""The databases of the history: one that is written, and closed ones, each a stretch of time.

    state_dir/history/000001732701234567.db     named by the time in milliseconds when it was begun

Small stretches make everything cheap: what is too old is a file to delete, what is damaged costs one stretch, and a
file that is still without indexes is looked through in tenths of a second.

Invariants
- One process writes (`Archive`); any number may read (`readers`), whether it runs or not.
- The newest file knows how far the log was read; a new one is told so before anything is added to it.
- A damaged file is moved aside (`*.damaged`, the last one is kept) and told of. The stretch is then read again from the
  log as far as that exists: the newest by itself, for the positions are those of the file before it; one in the middle
  by whoever asks `gaps`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from mta.config.settings import History
from mta.history.partition import Partition, Positions
from mta.history.steps import Arrival, Digest
from mta.model import id_time_ms, parse_id

_FEWEST: Final = 8  # files in which a whole history is
_LARGEST: Final = 128 << 20  # octets of one
_DAY: Final = 86400_000
_NEAR: Final = 3  # files in which an arrival is looked for


@dataclass(frozen=True, slots=True)
class Gap:
    """A file that was damaged, and what of the log belongs in it."""

    path: Path
    starts: dict[bytes, int]
    ends: dict[bytes, int]


def folder_of(state_dir: Path) -> Path:
    return state_dir / "history"


def files(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob("*.db") if path.stem.isdecimal())


def began(path: Path) -> int:
    return int(path.stem)


class Archive:
    """See the module. `say` tells an operator what cannot be seen otherwise. Times in milliseconds."""

    def __init__(self, folder: Path, settings: History, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._keep = int(settings.keep * 1000)
        self._size = settings.size
        self._largest = min(_LARGEST, settings.size // _FEWEST)
        self._stretch = min(_DAY, self._keep // _FEWEST)
        self._say = say
        self._current: Partition | None = None
        self._older: dict[Path, Partition] = {}
        self._checked: set[Path] = set()
        self.gaps: list[Gap] = []
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def close(self) -> None:
        for partition in (*self._older.values(), self._current):
            if partition is not None:
                partition.disconnect()
        self._older.clear()
        self._current = None

    # ---- writing

    def positions(self) -> Positions:
        """How far each file of the log is in here."""
        newest = self._newest()
        return newest.positions() if newest is not None else {}

    def add(self, found: Digest, positions: Mapping[bytes, tuple[int, int]], now: int) -> None:
        """Take in a piece of the log. sqlite3.Error: nothing of it was taken."""
        found.explain(self._arrival)
        partition = self._newest() or self._begin(now, {})
        partition.add(found, positions)

    def turn(self, now: int) -> None:
        """Between pieces: begin a new file when the present one has enough, delete what is too old or too much."""
        current = self._newest()
        if current is not None and current.path is not None:
            old = now - began(current.path) >= self._stretch and current.rows()
            if old or current.octets() >= self._largest:
                self._roll(current, now)
        self._forget(now)

    def _roll(self, current: Partition, now: int) -> None:
        assert current.path is not None
        current.close()
        positions = {n: (p, at) for n, (p, at) in current.positions().items() if at > now - 2 * self._keep}
        current.disconnect()
        self._checked.add(current.path)
        self._current = None
        self._begin(now, positions)

    def _begin(self, now: int, positions: Positions) -> Partition:
        existing = files(self._folder)
        number = max(now, began(existing[-1]) + 1) if existing else now  # whatever the clock did
        path = self._folder / f"{number:018d}.db"
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        partition = Partition(fresh, create=True)
        partition.begin(positions)
        partition.disconnect()
        os.rename(fresh, path)  # INVARIANT: a file of this name is whole, wherever a kill struck
        self._current = Partition(path)
        self._checked.add(path)
        return self._current

    def _forget(self, now: int) -> None:
        """INVARIANT: the history never grows beyond its size, whatever it was told to keep."""
        existing = files(self._folder)
        sizes = {path: _octets(path) for path in existing}
        for path, after in pairwise(existing):
            # Nothing in a file is newer than the beginning of the next one, but for the order in which logs were read.
            if began(after) < now - self._keep or sum(sizes.values()) > self._size:
                self._drop(path)
                del sizes[path]

    def _drop(self, path: Path) -> None:
        partition = self._older.pop(path, None)
        if partition is not None:
            partition.disconnect()
        for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            name.unlink(missing_ok=True)

    # ---- looking

    def _newest(self) -> Partition | None:
        while self._current is None:
            existing = files(self._folder)
            if not existing:
                return None
            self._current = self._opened(existing[-1])
        return self._current

    def _opened(self, path: Path) -> Partition | None:
        """None: it is damaged, and out of the way now."""
        try:
            partition = Partition(path)
            if path not in self._checked:
                partition.check()
                self._checked.add(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # not damaged, but out of reach: locked, no memory, no descriptors
            self.damaged(path, error)
            return None
        return partition

    def _arrival(self, name: str) -> Arrival | None:
        """Of a message that came before this piece: it was written down soon after that."""
        current = self._newest()
        if current is not None and (arrival := current.arrival(name)) is not None:
            return arrival
        existing = files(self._folder)
        at = max(0, bisect_right([began(path) for path in existing], id_time_ms(parse_id(name))) - 1)
        for path in existing[at : at + _NEAR]:
            if current is not None and path == current.path:
                continue
            partition = self._older.get(path) or self._opened(path)
            if partition is not None:
                self._older[path] = partition
                if (arrival := partition.arrival(name)) is not None:
                    return arrival
        return None

    def check_one(self) -> None:
        """Look through one file that was not looked through in this life."""
        for path in files(self._folder)[:-1]:
            if path not in self._checked:
                partition = self._opened(path)
                if partition is not None:
                    if partition.mark_of("closed") is None:
                        partition.close()  # its writer was killed meanwhile
                    partition.disconnect()
                return

    def damaged(self, path: Path, error: Exception) -> None:
        """Move a file aside."""
        every = files(self._folder)
        before, after = [one for one in every if one < path], [one for one in every if one > path]
        aside = path.with_suffix(".damaged")
        for old in self._folder.glob("*.damaged"):
            old.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
        self._drop(path)
        if self._current is not None and self._current.path == path:
            self._current.disconnect()
            self._current = None
        self._say(f"history: {path} is damaged ({error}): it is {aside.name} now, and is made anew from the mail log")
        if after:
            starts = _told_by(before[-1], _ends) if before else {}
            self.gaps.append(Gap(path, starts, _told_by(after[0], Partition.starts)))

    def damaged_current(self, error: Exception) -> None:
        if self._current is not None and self._current.path is not None:
            self.damaged(self._current.path, error)


def _told_by(path: Path, look: Callable[[Partition], dict[bytes, int]]) -> dict[bytes, int]:
    """What a neighbour of a damaged file knows; nothing where that is damaged too."""
    with contextlib.suppress(sqlite3.Error):
        partition = Partition(path, readonly=True)
        try:
            return look(partition)
        finally:
            partition.disconnect()
    return {}


def _ends(partition: Partition) -> dict[bytes, int]:
    return {name: position for name, (position, _) in partition.positions().items()}


def _octets(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
