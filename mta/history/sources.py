"""The files of the mail log: the one that is written, and those that it was before it was rotated.

A file is known by its first line, which begins with a time in milliseconds: under whatever name it is met again, packed
or not, copied or moved. How much of each was read is the caller's to keep (`Positions`).

What rotation does: moving the file away and making a new one; packing it (gzip), now or a day later; copying it and
emptying the original; deleting old ones. In all of these a line is read once, if the file still exists somewhere beside
its old place under a name that begins with its own. The file that was read last is kept open, so that one that is moved
elsewhere, or deleted, is still read to its end.

Invariant: only whole lines are given out.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

BLOCK: Final = 2 << 20  # octets read at once
_LONGEST_NAME: Final = 1 << 10  # of a first line, as far as it is looked at

_NOT_READ: Final = (".xz", ".zst", ".bz2", ".lz4")

Mark = tuple[int, int, int, int]  # device, inode, size and time of a file: while these stay, it has nothing new


class SourceError(Exception):
    """A file of the log cannot be read; the text says which, and why."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines of the file known as `name`, and where they end."""

    name: bytes
    text: bytes
    end: int

    def until(self, end: int) -> Block | None:
        """What of it is before a position in its file."""
        if self.end <= end:
            return self
        left = len(self.text) - (self.end - end)
        return Block(self.name, self.text[:left], end) if left > 0 else None


class Sources:
    """Of one server's log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, Mark] = {}
        self._kept: list[BinaryIO] = []  # the file that is written, and the one before it

    def close(self) -> None:
        for file in self._kept:
            file.close()
        self._kept.clear()

    def read(self, positions: dict[bytes, int], since: float = 0.0) -> Iterator[Block]:
        """What is behind the positions, oldest file first; `positions` may be changed meanwhile.

        Files that were not written since the time `since` (in seconds) are passed over. SourceError at the end, if one
        of them could not be read.
        """
        for file in reversed(self._kept):
            if not self._is_in_place(file) and (name := _name(file)):
                yield from _blocks(file, name, positions)
        problem: SourceError | None = None
        for path in self._files(since):
            try:
                yield from self._read_file(path, positions)
            except SourceError as error:
                problem = problem or error  # old files may be somebody else's by now: the others are read all the same
        if problem is not None:
            raise problem

    def _files(self, since: float) -> list[Path]:
        """In the order in which they were written last."""
        found: list[tuple[float, Path]] = []
        try:
            for entry in os.scandir(self._path.parent):
                if self._is_ours(entry.name) and entry.is_file():
                    status = entry.stat()
                    if status.st_mtime >= since or entry.name == self._path.name:
                        found.append((status.st_mtime, Path(entry.path)))
        except OSError as error:
            raise SourceError(f"{self._path.parent}: {error.strerror}") from error
        return [path for _, path in sorted(found, key=lambda item: (item[1] == self._path, item[0]))]

    def _is_ours(self, name: str) -> bool:
        own = self._path.name
        return name == own or (name.startswith(own) and name[len(own)] in ".-_" and not name.endswith(_NOT_READ))

    def _read_file(self, path: Path, positions: dict[bytes, int]) -> Iterator[Block]:
        try:
            status = path.stat()
            mark = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            if self._seen.get(path.name) == mark:
                return
            with _opened(path) as file:
                if name := _name(file):
                    yield from _blocks(file, name, positions)
            if path == self._path:
                self._keep_open(path)
        except FileNotFoundError:
            return  # rotated away a moment ago: under its new name it is met the next time
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        self._seen[path.name] = mark

    def _is_in_place(self, file: BinaryIO) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        return False

    def _keep_open(self, path: Path) -> None:
        if self._kept and self._is_in_place(self._kept[0]):
            return
        self._kept.insert(0, open(path, "rb"))  # noqa: SIM115 - it stays open
        for file in self._kept[2:]:
            file.close()
        del self._kept[2:]


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _name(file: BinaryIO) -> bytes:
    """The first line; b"" where there is no whole one yet."""
    file.seek(0)
    line = file.readline(_LONGEST_NAME)
    return line if line.endswith(b"\n") or len(line) == _LONGEST_NAME else b""


def _blocks(file: BinaryIO, name: bytes, positions: dict[bytes, int]) -> Iterator[Block]:
    at = positions.get(name, 0)
    file.seek(at)
    while chunk := file.read(BLOCK):
        whole = chunk.rfind(b"\n") + 1
        if not whole:
            if len(chunk) < BLOCK:
                return  # the line is still being written
            whole = len(chunk)  # no line of ours is so long: pass over it
        at += whole
        yield Block(name, chunk[:whole], at)
        file.seek(at)
