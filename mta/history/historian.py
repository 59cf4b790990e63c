"""Reads the mail log into the archive, in turns, as far as there is something to read.

Invariant: nothing here harms mail. A disk that is full, a log that cannot be read, a damaged database are told once and
tried again at the next turn.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mta.config.settings import History
from mta.history.archive import Archive, Gap
from mta.history.partition import Partition
from mta.history.sources import Block, SourceError, Sources
from mta.history.steps import Digest, digest


class Historian:
    """Of one server. `room` tells whether the disk has room for more than mail."""

    def __init__(
        self,
        log: Path,
        folder: Path,
        settings: History,
        *,
        say: Callable[[str], None],
        room: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._keep = settings.keep
        self._say = say
        self._room = room
        self._clock = clock
        self._problem: Exception | None = None
        self._told: str | None = None
        self._archive = Archive(folder, settings, say)
        self._sources = Sources(log)

    def close(self) -> None:
        self._sources.close()
        self._archive.close()

    def turn(self) -> int:
        """Read what is new; the number of pieces."""
        pieces, self._problem = 0, None
        try:
            self._archive.turn(self._now())
            if not self._room():
                raise OSError("too little disk is free: nothing is added before there is more")
            pieces = self._read()
            self._fill_gaps()
            if not pieces:
                self._archive.check_one()
        except (OSError, sqlite3.OperationalError) as error:
            self._problem = error
        except sqlite3.DatabaseError as error:
            self._archive.damaged_current(error)
        self._tell()
        return pieces

    def _read(self) -> int:
        pieces = 0
        marks = self._archive.positions()
        positions = {name: position for name, (position, _) in marks.items()}
        for block in self._lines(self._sources, positions, self._clock() - self._keep):
            found = digested(block, self._now() - int(self._keep * 1000))
            self._archive.add(found, {block.name: (block.end, found.last or self._now())}, self._now())
            positions[block.name] = block.end
            pieces += 1
            self._archive.turn(self._now())
        return pieces

    def _fill_gaps(self) -> None:
        """Read once more what was in files that were damaged."""
        while self._archive.gaps:
            gap = self._archive.gaps[0]
            self._fill(gap)
            self._archive.gaps.pop(0)

    def _fill(self, gap: Gap) -> None:
        fresh = gap.path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        partition = Partition(fresh, create=True)
        sources = Sources(self._log)
        try:
            for block in self._lines(sources, dict(gap.starts), 0.0):
                if (wanted := block.until(gap.ends.get(block.name, 0))) is not None:
                    partition.add(digested(wanted, self._now() - int(self._keep * 1000)), {})
            partition.close()
        finally:
            sources.close()
            partition.disconnect()
        fresh.rename(gap.path)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _lines(self, sources: Sources, positions: dict[bytes, int], since: float) -> Iterator[Block]:
        try:
            yield from sources.read(positions, since)
        except SourceError as error:
            self._problem = error  # the others were read

    def _tell(self) -> None:
        """Of what is wrong, once as long as it is the same."""
        text = None if self._problem is None else f"history: {self._problem}"
        if text is not None and text != self._told:
            self._say(text)
        self._told = text


def digested(block: Block, since: int) -> Digest:
    """What a piece of the log says of the time since `since`, in milliseconds."""
    found = digest(block.text)
    if found.first >= since:
        return found
    return found.cut(since, found.last + 1)
