"""Transcripts: what a session said, and the ring of them that each worker keeps in `runtime_dir`.

    transcripts-3      a page with the newest number, then slots of 4 KiB: number, length, checksum, one transcript

Theory of operation
- A worker maps its file and writes into the slot of the oldest transcript; there is no system call. The queue manager
  reads the files, and so it can tell what a worker said that is dead. They are as gone after a boot as `runtime_dir`.
- A peer (a site, or a client's address) has at most `per_peer` slots: one that fails all the time takes its own oldest
  slot, not that of somebody else.
- A transcript that was kept while its session went on is written again into its slot when there is more to tell.
- So many transcripts a second are kept, and fewer of one peer; those beyond are only counted.

Invariants
- The number and the checksum, which covers it, are written around the transcript, so whoever reads at the same time,
  or finds what a killed worker left, sees it whole or not at all.
- INVARIANT: a file is never made shorter by its reader, nor mapped by it: what a worker does to it harms nobody.
- The whole file is allocated at the start, for a full file system would kill whoever touches a hole.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from mta.config.settings import Trace

NAME: Final = "transcripts-"  # and the worker's number
SLOT: Final = 4096
_HEAD: Final = SLOT
_VERSION: Final = b"mta transcripts 1\n".ljust(32)
_COUNTS: Final = struct.Struct("<QQ")  # behind the version: the newest number, how many were not kept
_SLOT: Final = struct.Struct("<QII")  # number (0: nothing is here), octets, checksum
_ROOM: Final = SLOT - _SLOT.size
_MOST_PER_SECOND: Final = 200
_MOST_OF_ONE_PEER: Final = 20  # in a second

Line = tuple[int, int, int, bytes]  # milliseconds since the beginning, kind, octets, the first of them


class Transcript(msgspec.Struct, array_like=True, kw_only=True):
    """One session, or the end of a long one. Times are milliseconds since the epoch.

    `side` is "in" for a client's and "out" for one of ours, `peer` the client's address or the site, `host` the
    listener or the host that was called, `why` one word for what is remarkable, `ended` a sentence, `messages` those
    that it is about. None in `lines` stands where `dropped` lines were; `lost` ones came after the last line.
    """

    side: Literal["in", "out"]
    peer: str
    host: str
    session: str
    why: str
    ended: str
    began: int
    kept: int
    over: bool
    messages: list[str]
    tls: str
    certificate: str
    dropped: int
    lost: int
    lines: list[Line | None]


_decode = msgspec.msgpack.Decoder(Transcript).decode
_encode = msgspec.msgpack.Encoder().encode


class Place(NamedTuple):
    """Where a transcript was written."""

    slot: int
    number: int


class Ring:
    """One worker's. `path` None: in memory of this process alone. OSError."""

    def __init__(self, path: Path | None, octets: int, per_peer: int) -> None:
        self._slots = max(1, octets // SLOT - 1)
        size = _HEAD + self._slots * SLOT
        self._cells = memoryview(mmap.mmap(-1, size)) if path is None else _open(path, size)
        self._per_peer = per_peer
        self._order: OrderedDict[int, str] = OrderedDict()  # slots in use, the oldest first, and whose they are
        self._own: dict[str, deque[int]] = {}  # by peer, the oldest first
        self._vacant: list[int] = []
        self._number, self._omitted = _COUNTS.unpack_from(self._cells, len(_VERSION))
        self._second = 0
        self._this_second: dict[str, int] = {}
        self._adopt()

    def allows(self, peer: str, now: int) -> bool:
        """Whether one more may be kept in this second; asked before it is made."""
        if now != self._second:
            self._second = now
            self._this_second.clear()
        counts = self._this_second
        counts[""] = counts.get("", 0) + 1
        counts[peer] = counts.get(peer, 0) + 1
        if counts[""] <= _MOST_PER_SECOND and counts[peer] <= _MOST_OF_ONE_PEER:
            return True
        self._omitted += 1
        self._tell()
        return False

    def put(self, transcript: Transcript, again: Place | None = None) -> Place:
        """Keep it; `again`: in the place of what was kept of this session before, if that is still there."""
        slot = again.slot if again is not None and self._holds(again) else self._slot_for(transcript.peer)
        self._number += 1
        self._write(slot, self._number, _fitting(transcript))
        self._tell()
        return Place(slot, self._number)

    # ---- inside

    def _holds(self, place: Place) -> bool:
        return bool(_SLOT.unpack_from(self._cells, _HEAD + place.slot * SLOT)[0] == place.number)

    def _slot_for(self, peer: str) -> int:
        own = self._own.setdefault(peer, deque())
        if len(own) >= self._per_peer:
            slot = own.popleft()
            del self._order[slot]
        elif self._vacant:
            slot = self._vacant.pop()
        else:
            slot, owner = self._order.popitem(last=False)
            theirs = self._own[owner]
            theirs.remove(slot)
            if not theirs and owner != peer:
                del self._own[owner]
        own.append(slot)
        self._order[slot] = peer
        return slot

    def _write(self, slot: int, number: int, octets: bytes) -> None:
        at = _HEAD + slot * SLOT
        cells = self._cells
        _SLOT.pack_into(cells, at, 0, 0, 0)
        cells[at + _SLOT.size : at + _SLOT.size + len(octets)] = octets
        _SLOT.pack_into(cells, at, number, len(octets), zlib.crc32(octets, number & 0xFFFFFFFF))

    def _tell(self) -> None:
        _COUNTS.pack_into(self._cells, len(_VERSION), self._number, self._omitted)

    def _adopt(self) -> None:
        """What an earlier life has left."""
        found = sorted(_whole(self._cells), key=lambda each: each[1])
        for slot, number, octets in found:
            self._number = max(self._number, number)
            if (transcript := _decoded(octets)) is not None:
                self._order[slot] = transcript.peer
                self._own.setdefault(transcript.peer, deque()).append(slot)
        self._vacant = [slot for slot in range(self._slots - 1, -1, -1) if slot not in self._order]


def open_ring(settings: Trace, folder: Path, worker: int) -> Ring | None:
    """A worker's ring; None where none is wanted, or none can be had: mail goes on without."""
    if not settings.tape:
        return None
    path = folder / f"{NAME}{worker}"
    try:
        return Ring(path, settings.memory, settings.per_peer)
    except OSError as error:
        print(f"mta: [trace]: no transcripts: cannot make {path}: {error.strerror}", file=sys.stderr, flush=True)
        return None


class Shelf:
    """The rings of all workers, for reading."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self) -> dict[str, int]:
        """The newest number of each ring."""
        return {path.name: counts[0] for path in self._paths() if (counts := _counts(path)) is not None}

    def omitted(self) -> int:
        """How many were not kept, for there were too many at once."""
        return sum(counts[1] for path in self._paths() if (counts := _counts(path)) is not None)

    def read(self, behind: dict[str, int] | None = None) -> list[Transcript]:
        """All that are kept, the oldest first; with `behind` those with later numbers, which it is told of."""
        found: list[tuple[int, int, Transcript]] = []
        for path in self._paths():
            since = 0 if behind is None else behind.get(path.name, 0)
            counts = _counts(path)
            if counts is None or counts[0] <= since:
                continue
            newest = since
            for _, number, octets in _whole(_contents(path)):
                if number > since and (transcript := _decoded(octets)) is not None:
                    found.append((transcript.kept, number, transcript))
                    newest = max(newest, number)
            if behind is not None:
                behind[path.name] = newest
        return [transcript for _, _, transcript in sorted(found, key=lambda each: each[:2])]

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(NAME + "*"))


def _whole(cells: memoryview | bytes) -> Iterator[tuple[int, int, bytes]]:
    """(slot, number, octets) of what is there; passes over what is being written or was never finished."""
    for slot in range((len(cells) - _HEAD) // SLOT):
        at = _HEAD + slot * SLOT
        number, length, checksum = _SLOT.unpack_from(cells, at)
        if number and length <= _ROOM:
            octets = bytes(cells[at + _SLOT.size : at + _SLOT.size + length])
            if zlib.crc32(octets, number & 0xFFFFFFFF) == checksum:
                yield slot, number, octets


def _decoded(octets: bytes) -> Transcript | None:
    """None: another version of the server wrote it."""
    try:
        return _decode(octets)
    except msgspec.MsgspecError:
        return None


def _fitting(transcript: Transcript) -> bytes:
    """It, encoded, with as many of its lines as there is room for: the newest, and the opening."""
    octets = _encode(transcript)
    while len(octets) > _ROOM and transcript.lines:
        gap = transcript.lines.index(None) if None in transcript.lines else len(transcript.lines) // 3
        if None in transcript.lines:
            transcript.lines.pop(gap)
        more = max(1, (len(transcript.lines) - gap) // 4)
        transcript.lines[gap : gap + more] = [None]
        transcript.dropped += more
        octets = _encode(transcript)
    return octets


def _counts(path: Path) -> tuple[int, int] | None:
    """None: it is no ring of this version."""
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(len(_VERSION) + _COUNTS.size)
    except OSError:
        return None  # it is gone, or being made
    if len(head) < len(_VERSION) + _COUNTS.size or not head.startswith(_VERSION):
        return None
    newest, omitted = _COUNTS.unpack_from(head, len(_VERSION))
    return newest, omitted


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return bytes(_HEAD)


def _open(path: Path, size: int) -> memoryview:
    """One of another size or version is replaced: a worker that is about to end may still write into it."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size or file.read(len(_VERSION)) != _VERSION:
                path.unlink()
    except FileNotFoundError:
        pass  # the first start
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
        cells = memoryview(mmap.mmap(fd, size))
    finally:
        os.close(fd)
    cells[: len(_VERSION)] = _VERSION
    return cells
