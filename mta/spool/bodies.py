"""Large texts in files of their own, written while they arrive.

The record that names a text keeps its checksum, which `verify` compares before any of it is given out.

INVARIANT: `finish`, which syncs the file and its directory, succeeds before the record that names it is appended.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from mta.model import StoreError
from mta.spool._commit import crc32c
from mta.spool.segments import sync_directory

_PIECE = 1 << 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def store_error(what: str, error: OSError) -> StoreError:
    """An operating system's refusal in the store's words."""
    return StoreError(f"{what}: {error}", full=error.errno in _NO_ROOM)


class BodyFile:
    """model.Body: one large text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0
        self.checksum = 0
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise store_error(str(path), error) from error

    def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        try:
            while view:
                written = os.write(self._fd, view)
                self.size += written
                self.checksum = crc32c(view[:written], self.checksum)
                view = view[written:]
        except OSError as error:
            raise store_error(str(self._path), error) from error

    def finish(self) -> None:
        """Make the text durable. Runs in a thread; OSError when it could not."""
        try:
            os.fsync(self._fd)  # INVARIANT: the text is on disk before the record that promises it
            # Recovery sets aside files that seem to belong to nobody: this one must still have its name.
            os.stat(self._path)
        finally:
            os.close(self._fd)
            self._fd = -1
        sync_directory(self._path.parent)  # INVARIANT: and so is its name

    def discard(self) -> None:
        """The message was refused or given up: forget what was written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        # What a failing disk keeps belongs to no message, and is set aside by a later recovery.
        with contextlib.suppress(OSError):
            self._path.unlink()


def verify(path: str, offset: int, octets: int, checksum: int) -> None:
    """StoreError unless so many octets of a file are those that were accepted. `checksum` 0: they are only counted."""
    found = 0
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            while octets > 0 and (piece := file.read(min(_PIECE, octets))):
                found = crc32c(piece, found)
                octets -= len(piece)
    except OSError as error:
        raise store_error(path, error) from error
    if octets > 0:
        raise StoreError(f"{path} ends {octets} octets early")
    if checksum and found != checksum:
        raise StoreError(f"{path} fails its checksum")
