"""What is queued, written down in one file, so that the state log before it is not needed any more.

    spool/checkpoint   frames: u32 length, u32 crc32c, msgpack; the first is a Head, the last an empty list

A checkpoint is fuzzy: the place in the state log is noted first (`Head.log_from`), then the index is written while
mail goes on. Replaying the state log from that place makes it exact, because changes are absolute.

Invariants
- INVARIANT: the file gets its name only when it is whole and synced; the directory is synced before anything that it
  makes unnecessary is removed.
- A checkpoint that fails any check is not used at all, and set aside.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mta.model import Queued
from mta.spool._commit import crc32c
from mta.spool.segments import Folder, sync_directory

_FRAME = struct.Struct("<II")
_VERSION: Final = 1


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a checkpoint covers: `segments` are (key, generation, offset up to which its messages are in it)."""

    version: int
    log_from: int  # key of the first segment of the state log that must be replayed
    segments: tuple[tuple[int, int, int], ...]


def head(log_from: int, segments: Sequence[tuple[int, int, int]]) -> Head:
    return Head(_VERSION, log_from, tuple(segments))


class CheckpointWriter:
    """Writes frames to a temporary file; `commit` gives it its name. All of it may run in a thread."""

    def __init__(self, folder: Folder, head: Head) -> None:
        self._folder = folder
        self._path = folder.root / "checkpoint.new"
        self._file = self._path.open("wb")
        self._encode = msgspec.msgpack.Encoder().encode
        self._frame(self._encode(head))

    def add(self, queued: list[Queued]) -> None:
        if queued:
            self._frame(self._encode(queued))

    def commit(self) -> None:
        self._frame(self._encode([]))
        self._file.flush()
        os.fsync(self._file.fileno())  # INVARIANT: whole on the disk before it has its name
        self._file.close()
        os.rename(self._path, self._folder.checkpoint)
        sync_directory(self._folder.root)

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # what is buffered may not fit: that is why it is given up
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _frame(self, data: bytes) -> None:
        self._file.write(_FRAME.pack(len(data), crc32c(data)))
        self._file.write(data)


class Damaged(Exception):
    """The file is no whole checkpoint."""


class Checkpoint:
    """A checkpoint read back: `head` at once, the messages streamed. The whole file is checked first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        last = b""
        first: bytes | None = None
        for data in self._frames():
            if first is None:
                first = data
            last = data
        if first is None or last != msgspec.msgpack.encode([]):
            raise Damaged(f"{path} has no end")
        try:
            self.head = msgspec.msgpack.decode(first, type=Head)
        except msgspec.DecodeError as error:
            raise Damaged(f"{path}: {error}") from error
        if self.head.version != _VERSION:
            raise Damaged(f"{path} is of version {self.head.version}, not {_VERSION}")

    def messages(self) -> Iterator[Queued]:
        decode = msgspec.msgpack.Decoder(list[Queued]).decode
        frames = self._frames()
        next(frames)
        for data in frames:
            yield from decode(data)

    def _frames(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while head := file.read(_FRAME.size):
                if len(head) < _FRAME.size:
                    raise Damaged(f"{self._path} ends inside a frame")
                length, crc = _FRAME.unpack(head)
                data = file.read(length)
                if len(data) != length or crc32c(data) != crc:
                    raise Damaged(f"{self._path} has a damaged frame")
                yield data


def load(folder: Folder, notes: list[str]) -> Checkpoint | None:
    """The checkpoint, or None if there is none that can be used; a damaged one is set aside, and noted."""
    path = folder.checkpoint
    if not path.exists():
        return None
    try:
        return Checkpoint(path)
    except Damaged as error:
        folder.set_aside(path)
        notes.append(f"{error}; moved to lost+found, some mail may be sent twice")
        return None
