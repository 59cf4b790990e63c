"""Segment files: made whole, named, used again.

    spool/segments/LL-SSSSSSSS.seg   logs in use: log number, sequence number
    spool/free/                      emptied or spare files, without a meaning
    spool/bodies/ID                  large texts
    spool/lost+found/                what recovery could not use; never deleted by us

The order of steps when a segment begins, and why no crash in between matters:

    1. a file in free/ gets a private name there     (rename: of two processes only one has it)
    2. its header is written and synced              (still in free/: nobody reads it)
    3. it is renamed into segments/, both directories are synced
    4. only now the first record is appended         INVARIANT: no 250 for a record in a file that may lose its name

A file that is not written to its end before costs 1.5 to 2 times as much at each sync, so spares are written full of
zeros in advance, and emptied segments are kept for the next use.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from mta.spool.format import SEGMENT, SegmentHeader, pack_segment, parse_segment_name, segment_name, unpack_segment

_CHUNK = bytes(1 << 20)
_KEEP_FREE = 8
_GONE = "gone-"  # begins the names of files in free/ that are being removed


@dataclass(frozen=True, slots=True)
class Segment:
    """An open segment of a log that is being written."""

    key: int
    fd: int
    generation: int
    size: int


class Folder:
    """The directories of a spool."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir / "spool"
        self.segments = self.root / "segments"
        self.free = self.root / "free"
        self.bodies = self.root / "bodies"
        self.lost = self.root / "lost+found"
        self.checkpoint = self.root / "checkpoint"

    def make(self) -> None:
        for path in (self.root, self.segments, self.free, self.bodies, self.lost):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self.root.parent, self.root):
            sync_directory(path)

    def in_use(self, log: int | None = None) -> list[int]:
        """The segments in use, oldest first within each log."""
        found = (parse_segment_name(name) for name in os.listdir(self.segments))
        return sorted(key for key in found if key is not None and (log is None or key >> 32 == log))

    def path(self, key: int) -> Path:
        return self.segments / segment_name(key)

    def body(self, message_id: int) -> Path:
        return self.bodies / f"{message_id:016x}"

    def recycle(self, keys: list[int]) -> None:
        """Take emptied segments out of use; a few are kept for the next ones. May be called again after a failure."""
        for key in keys:
            name = segment_name(key)
            with contextlib.suppress(FileNotFoundError):  # then the failure came behind this step
                if len(os.listdir(self.free)) < _KEEP_FREE:
                    os.rename(self.segments / name, self.free / f"old-{name}")
                else:
                    gone = self.free / f"{_GONE}{name}"
                    os.rename(self.segments / name, gone)
                    _give_back(gone)
        sync_directory(self.free)
        sync_directory(self.segments)

    def tidy(self) -> None:
        """Finish what a crash left of a removal."""
        for name in os.listdir(self.free):
            if name.startswith(_GONE):
                _give_back(self.free / name)

    def spares(self) -> int:
        """Whole files that wait for their next use."""
        return sum(name.startswith(("old-", "spare-")) for name in os.listdir(self.free))

    def set_aside(self, path: Path) -> None:
        """Move what cannot be used out of the way, keeping it for a person to look at."""
        target = self.lost / path.name
        number = 1
        while target.exists():
            target = self.lost / f"{path.name}.{number}"
            number += 1
        os.rename(path, target)
        sync_directory(self.lost)
        sync_directory(path.parent)


def _give_back(path: Path) -> None:
    """Remove a file and what it takes of the disk, also while a reader has it open still: couriers keep descriptors."""
    os.truncate(path, 0)
    os.unlink(path)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_header(path: Path) -> SegmentHeader | None:
    """The header of a segment file, or None where it has no valid one."""
    with path.open("rb") as file:
        return unpack_segment(file.read(SEGMENT.size))


class Supply:
    """Gives one log its next segment, and prepares the one after that in a thread.

    `untouched`: octets of the disk that are left alone: no file is made that would leave less.
    """

    def __init__(self, folder: Folder, log: int, size: int, untouched: int = 0) -> None:
        self._folder = folder
        self._log = log
        self._size = size
        self._untouched = untouched
        self._spare = folder.free / f"spare-{log:02x}"
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.unprepared = 0  # segments that had to be made without a spare at hand
        self.failure: OSError | None = None  # why the newest spare could not be made

    def take(self, sequence: int, generation: int, now_ms: int) -> Segment:
        """A new segment, ready for its first record. OSError when the disk gives none."""
        path = self._private()
        key = self._log << 32 | sequence
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, pack_segment(SegmentHeader(self._log, sequence, generation, now_ms)), 0)
            os.fdatasync(fd)  # INVARIANT: the new generation is on disk before the file has a name in segments/
            os.rename(path, self._folder.path(key))
            sync_directory(self._folder.segments)  # INVARIANT: no 250 for a record in a file that may lose its name
            sync_directory(self._folder.free)
        except BaseException:
            os.close(fd)
            raise
        self.prepare()
        return Segment(key, fd, generation, self._size)

    def prepare(self) -> None:
        """Begin to make a spare, unless there is one or it is being made."""
        if (self._thread is None or not self._thread.is_alive()) and not self._has_spare():
            thread = threading.Thread(target=self._make_spare, name="spare segment", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads: the next look tries again
                thread.start()
                self._thread = thread

    def _has_spare(self) -> bool:
        try:
            return self._spare.exists()
        except OSError:
            return True  # a disk that cannot be asked makes none either: the next look tries again

    def close(self) -> None:
        """End the thread; a spare that is not whole yet is given up, so that a stop does not wait for it."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _private(self) -> Path:
        """A whole file under a name that only this call uses: the spare, an emptied segment, or one made now.

        INVARIANT: the thread that makes spares never touches this name, or it could take away a file in use.
        """
        mine = self._folder.free / f"next-{self._log:02x}"
        with contextlib.suppress(FileNotFoundError):  # not made yet
            if self._spare.stat().st_size == self._size:
                os.rename(self._spare, mine)
                return mine
        if not self._claim_old(mine):
            self.unprepared += 1
            self._make(mine)
        return mine

    def _claim_old(self, mine: Path) -> bool:
        """Take an emptied segment, of whatever log, under a name of our own."""
        for name in os.listdir(self._folder.free):
            if not name.startswith("old-"):
                continue
            path = self._folder.free / name
            try:
                if path.stat().st_size != self._size:
                    path.unlink()
                    continue
                os.rename(path, mine)
            except FileNotFoundError:
                continue  # another log was faster
            return True
        return False

    def _make_spare(self) -> None:
        unfinished = self._spare.with_suffix(".part")
        try:
            if not self._claim_old(unfinished):
                self._make(unfinished, prewrite_until=self._closing)
            os.rename(unfinished, self._spare)
            self.failure = None
        except OSError as error:
            self.failure = error
            _drop(unfinished)

    def _make(self, path: Path, *, prewrite_until: threading.Event | None = None) -> None:
        if self._untouched:
            disk = os.statvfs(self._folder.free)
            if disk.f_bavail * disk.f_frsize - self._size < self._untouched:
                raise OSError(errno.ENOSPC, "a new segment would use up the reserve below [spool] min_free")
        _make(path, self._size, prewrite_until=prewrite_until)


def _make(path: Path, size: int, *, prewrite_until: threading.Event | None = None) -> None:
    """A file of full size. Prewritten, if so, in small steps, for the disk serves commits at the same time."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
        if prewrite_until is not None:
            for offset in range(0, size, len(_CHUNK)):
                if prewrite_until.is_set():
                    raise InterruptedError(errno.EINTR, "the log is being closed")
                os.pwrite(fd, _CHUNK[: size - offset], offset)
                os.fdatasync(fd)
        os.fsync(fd)
    except BaseException:
        _drop(path)
        raise
    finally:
        os.close(fd)


def _drop(path: Path) -> None:
    """Remove what was not finished, if the disk lets us: its name is used again anyway."""
    with contextlib.suppress(OSError):
        path.unlink()
