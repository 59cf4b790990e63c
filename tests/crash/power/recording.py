"""A recording of what a server did to its spool, and the disks that a loss of power may leave behind.

The recorder (`recorder.c`) is preloaded into the real server. Replaying its records up to some moment gives what is
surely on the disk - everything that a completed sync covers - and what may be: writes and names of files that no sync
has covered yet. A *crash state* makes one legal choice for each of these.

What is legal
- A sector that is being written has its content of some moment since the last sync, whatever the others have. Sectors
  are 512 octets or 4 KiB, chosen per state.
- A new name, a rename or a removal that is not synced has happened or not: either all up to some moment, as on a
  file system with a journal, or each by itself. A rename is never seen half-way.
- A length that is not synced is the old or the new one.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HEADER: Final = struct.Struct("<IIQQQ")
WRITE, ZEROS, SIZE, SYNC_BEGINS, SYNC_ENDS, CREATE, RENAME, UNLINK, ANSWER = range(1, 10)
_SOURCE: Final = Path(__file__).with_name("recorder.c")


@dataclass(frozen=True, slots=True)
class Event:
    """One record; see recorder.c."""

    kind: int
    inode: int
    offset: int
    length: int
    tail: bytes


def build(folder: Path, compiler: str) -> Path:
    """The recorder, compiled."""
    library = folder / "recorder.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def events(path: Path) -> Iterator[Event]:
    """The records of a file, up to one that a kill cut off."""
    with path.open("rb") as file:
        while len(head := file.read(HEADER.size)) == HEADER.size:
            tail, kind, inode, offset, length = HEADER.unpack(head)
            data = file.read(tail)
            if len(data) < tail:
                return
            yield Event(kind, inode, offset, length, data)


@dataclass(slots=True)
class _File:
    """Octets that are on the disk, and what was done since."""

    stable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)  # syncs under way: how much was pending when each began


class Disk:
    """The files below `root` as events go by. `obeys_syncs=False`: a disk that lies, to test the test."""

    def __init__(self, root: Path, *, obeys_syncs: bool = True) -> None:
        self._root = root
        self._obeys = obeys_syncs
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}  # on the disk
        self._pending: list[tuple[Event, str]] = []  # changes of names, each with the folder whose sync covers it
        self._begun: dict[int, list[int]] = {}
        self._folders = {entry.stat().st_ino: str(entry) for entry in (root, *root.rglob("*")) if entry.is_dir()}
        self.answered: list[str] = []

    def play(self, event: Event) -> None:
        """Take the next event."""
        if event.kind == ANSWER:
            self.answered.append(event.tail.decode("ascii"))
        elif event.kind in (CREATE, RENAME, UNLINK):
            self._pending.append((event, os.path.dirname(_last_name(event))))
            if event.kind == CREATE:
                self._files[event.inode] = _File()  # the number may have belonged to a file that is gone
        elif event.inode in self._folders:
            self._sync_folder(event)
        elif event.kind == SYNC_BEGINS:
            self._file(event).begun.append(len(self._file(event).pending))
        elif event.kind == SYNC_ENDS:
            self._sync(self._file(event))
        else:
            self._file(event).pending.append(event)

    def crash(self, dice: random.Random, target: Path) -> None:
        """Write one legal state of this moment below `target`."""
        names = self._surviving_names(dice)
        mode = dice.choice(("none", "all", "sectors", "pages"))
        for name, inode in names.items():
            content = self._surviving_content(self._files[inode], dice, mode)
            place = target / Path(name).relative_to(self._root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    # ---- inside

    def _file(self, event: Event) -> _File:
        return self._files.setdefault(event.inode, _File())

    def _sync(self, file: _File) -> None:
        covered = file.begun.pop(0) if file.begun else 0
        if not self._obeys:
            return
        for event in file.pending[:covered]:
            _apply(file.stable, event)
        del file.pending[:covered]
        file.begun = [max(0, begun - covered) for begun in file.begun]

    def _sync_folder(self, event: Event) -> None:
        begun = self._begun.setdefault(event.inode, [])
        if event.kind == SYNC_BEGINS:
            begun.append(len(self._pending))
            return
        covered = begun.pop(0) if begun else 0
        if not self._obeys:
            return
        durable = self._durable(self._folders[event.inode], covered)
        kept = []
        for number, (change, where) in enumerate(self._pending):
            if number in durable:
                _rename(self._names, change)
            else:
                kept.append((change, where))
        gone = len(self._pending) - len(kept)
        self._pending = kept
        for other in self._begun.values():
            other[:] = [max(0, n - gone) for n in other]

    def _durable(self, folder: str, covered: int) -> set[int]:
        """The changes that a sync of a folder makes durable: its own, and how files got the names they came from."""
        durable: set[int] = set()
        sources: set[str] = set()
        for number in reversed(range(covered)):
            change, where = self._pending[number]
            name = _last_name(change)
            if where == folder or name in sources:
                durable.add(number)
                sources.discard(name)
                if change.kind == RENAME:
                    sources.add(change.tail.split(b"\0")[0].decode())
        return durable

    def _surviving_names(self, dice: random.Random) -> dict[str, int]:
        names = dict(self._names)
        if dice.random() < 0.5:
            happened = self._pending[: dice.randint(0, len(self._pending))]
        else:
            happened = [change for change in self._pending if dice.random() < 0.5]
        for change, _ in happened:
            _rename(names, change)
        return names

    def _surviving_content(self, file: _File, dice: random.Random, mode: str) -> bytes:
        content = bytearray(file.stable)
        if mode == "none" or not file.pending:
            return bytes(content)
        if mode == "all":
            for event in file.pending:
                _apply(content, event)
            return bytes(content)
        if any(event.kind == SIZE for event in file.pending) and dice.random() < 0.5:
            _apply(content, [event for event in file.pending if event.kind == SIZE][-1])
        grain = 512 if mode == "sectors" else 4096
        writes = [event for event in file.pending if event.kind != SIZE]
        touched: dict[int, list[Event]] = {}
        for event in writes:
            for sector in range(event.offset // grain, (event.offset + max(event.length, 1) - 1) // grain + 1):
                touched.setdefault(sector, []).append(event)
        for sector, since in touched.items():
            for event in since[: dice.randint(0, len(since))]:
                _apply(content, _clipped(event, sector * grain, (sector + 1) * grain))
        return bytes(content)


def _last_name(event: Event) -> str:
    return event.tail.split(b"\0")[-1].decode()


def _rename(names: dict[str, int], event: Event) -> None:
    """Make a change of names; one whose beginning did not happen does not happen either."""
    if event.kind == CREATE:
        names[event.tail.decode()] = event.inode
    elif event.kind == UNLINK:
        names.pop(event.tail.decode(), None)
    else:
        before, after = (part.decode() for part in event.tail.split(b"\0"))
        if before in names:
            names[after] = names.pop(before)


def _apply(content: bytearray, event: Event) -> None:
    if event.kind == SIZE:
        if event.length < len(content):
            del content[event.length :]
        else:
            content.extend(bytes(event.length - len(content)))
        return
    end = event.offset + event.length
    if end > len(content):
        content.extend(bytes(end - len(content)))
    content[event.offset : end] = event.tail if event.kind == WRITE else bytes(event.length)


def _clipped(event: Event, start: int, end: int) -> Event:
    first, last = max(start, event.offset), min(end, event.offset + event.length)
    tail = event.tail[first - event.offset : last - event.offset]
    return Event(event.kind, event.inode, first, last - first, tail)
