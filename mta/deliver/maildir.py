"""Writes letters into Maildirs, in batches, in a worker thread.

INVARIANT: a letter is reported as delivered only when its text, its name in `new` and every directory that
was made for it are on stable storage; nothing that is not whole and synced is ever visible in `new`.

Each batch goes: write all files in tmp, sync them, rename each into new, sync the directories. The sync is
one `syncfs` for the batch where that is sound: 79 us of CPU a letter in batches of 64, against 250 with an
fsync for each file and directory, because the journal is committed twice a batch instead of twice a letter.
It waits for all dirty data of the file system, so it is left alone for a while whenever it took long: some
other program is writing much.

Text is stored with LF line ends, behind `Return-Path:` (RFC 5321 §4.4) and `Delivered-To:`. A text that says that
it was delivered to the same recipient here before goes round in a circle, as a forward from the mailbox to itself
makes it, and is refused with 5.4.6.
Failure: ENOSPC is 4.3.1, EDQUOT 4.2.2, everything else 4.3.0 with path and reason; the file in tmp is
removed.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from mta.mail.trace import was_delivered
from mta.model import Reply, Stored

_SUBDIRECTORIES = ("tmp", "new", "cur")
_CHUNK = 256 << 10
_SYNCFS_FROM = 3  # files in a batch; for fewer fsync costs less
_SYNCFS_SLOW = 0.5  # seconds
_SYNCFS_PAUSE = 60.0
_LONGEST_HEADER = 64 << 10  # octets of it that are looked at
GOING_ROUND = Reply(0, "5.4.6", "it was delivered to this mailbox before, and came back: it goes round in a circle")
_FAULTS = {
    errno.ENOSPC: ("4.3.1", "no space left"),
    errno.EDQUOT: ("4.2.2", "mailbox over quota"),
}


class Letter:
    """One copy of a message for one mailbox. `fault` stays None when it was delivered."""

    __slots__ = ("base", "device", "fault", "fd", "head", "name", "recipient", "size", "stored")

    def __init__(self, base: str, sender: bytes, recipient: bytes, stored: Stored) -> None:
        self.base = base
        self.recipient = recipient
        self.head = b"Return-Path: <" + sender + b">\nDelivered-To: " + recipient + b"\n"
        self.stored = stored
        self.fault: Reply | None = None
        self.fd = -1
        self.device = 0
        self.name = ""
        self.size = 0

    @property
    def temporary(self) -> str:
        return f"{self.base}/tmp/{self.name}"

    @property
    def final(self) -> str:
        return f"{self.base}/new/{self.name},S={self.size}"

    def fail(self, error: OSError) -> None:
        enhanced, what = _FAULTS.get(error.errno or 0, ("4.3.0", error.strerror or str(error)))
        self.fault = Reply(0, enhanced, f"maildir {self.base}: {what} (errno {error.errno})")

    def remove(self, path: str) -> None:
        """Take back what was written, as far as that is possible; a leftover in tmp harms nobody."""
        try:
            os.unlink(path)
        except OSError as error:
            if self.fault is None:
                self.fail(error)


class MaildirWriter:
    """All Maildirs of one courier. `deliver` may run in several threads at once."""

    def __init__(self, hostname: str, syncfs: Callable[[int], None] | None = None) -> None:
        # The characters that the Maildir convention gives a meaning are written in octal there.
        self._host = hostname.replace("/", r"\057").replace(":", r"\072").replace(",", r"\054")
        self._numbers = itertools.count()
        self._devices: dict[str, int] = {}  # of Maildirs that are known to be on disk
        self._syncfs = syncfs
        self._syncfs_after = 0.0

    def deliver(self, letters: Sequence[Letter], publishing: Callable[[], None] | None = None) -> None:
        """Deliver each letter or set its `fault`. `publishing` is called before any of them can be read."""
        fresh: dict[str, list[str]] = {}  # Maildir: directories to sync, since it may not be on disk yet
        try:
            self._attempt(letters, _look_for_a_circle)
            self._attempt(_good(letters), self._write, fresh)
            self._sync_files(letters)
        finally:
            _close(letters)
        if publishing is not None:
            publishing()
        self._attempt(_good(letters), _publish)
        self._sync_directories(letters, fresh)

    def _attempt(self, letters: Iterable[Letter], step: Callable[..., None], *more: object) -> None:
        for letter in letters:
            try:
                step(letter, *more)
            except OSError as error:
                letter.fail(error)
                if letter.name:
                    letter.remove(letter.temporary)

    def _write(self, letter: Letter, fresh: dict[str, list[str]]) -> None:
        now = time.time_ns() // 1000
        second, microsecond = divmod(now, 1_000_000)
        letter.name = f"{second}.M{microsecond}P{os.getpid()}Q{next(self._numbers)}.{self._host}"
        if letter.base not in self._devices:
            fresh.setdefault(letter.base, []).extend(make_maildir(letter.base))
        try:
            letter.fd = _create(letter.temporary)
        except FileNotFoundError:  # it was there once, and somebody removed it
            fresh.setdefault(letter.base, []).extend(make_maildir(letter.base))
            letter.fd = _create(letter.temporary)
        letter.device = self._devices.get(letter.base) or os.fstat(letter.fd).st_dev
        letter.size = write_text(letter.fd, letter.head, letter.stored)

    def _sync_files(self, letters: Sequence[Letter]) -> None:
        written = list(_good(letters))
        # A descriptor learns of failed writes since it was opened: the first of the batch saw them all.
        if written and self._sync_at_once(written, written[0].fd):
            return
        self._attempt(written, lambda letter: os.fsync(letter.fd))

    def _sync_directories(self, letters: Sequence[Letter], fresh: dict[str, list[str]]) -> None:
        by_base: dict[str, list[Letter]] = {}
        for letter in _good(letters):
            by_base.setdefault(letter.base, []).append(letter)
        if not self._sync_at_once(list(_good(letters)), None):
            for base, held in by_base.items():
                _sync_base(base, held, fresh.get(base, ()))
        self._devices.update((held[0].base, held[0].device) for held in by_base.values() if not held[0].fault)

    def _sync_at_once(self, letters: Sequence[Letter], fd: int | None) -> bool:
        """Sync the whole file system, if that is the cheaper way; a failure is one of all letters."""
        begun = time.monotonic()
        if self._syncfs is None or len(letters) < _SYNCFS_FROM or begun < self._syncfs_after:
            return False
        if len({letter.device for letter in letters}) > 1:
            return False
        handle = -1
        try:
            handle = os.open(letters[0].base, os.O_RDONLY | os.O_DIRECTORY) if fd is None else fd
            self._syncfs(handle)
        except OSError as error:
            _withdraw(letters, error)
        finally:
            if fd is None and handle >= 0:
                os.close(handle)
        if time.monotonic() - begun > _SYNCFS_SLOW:
            self._syncfs_after = time.monotonic() + _SYNCFS_PAUSE
        return True


def _look_for_a_circle(letter: Letter) -> None:
    start = letter.stored.content[:_LONGEST_HEADER]
    if letter.stored.path and b"\r\n\r\n" not in start:  # the header of a large text is in its file
        start = b"".join(itertools.islice(_chunks(letter.stored), 2))[:_LONGEST_HEADER]
    if was_delivered(start, letter.recipient):
        letter.fault = GOING_ROUND


def _sync_base(base: str, letters: Sequence[Letter], more: Iterable[str]) -> None:
    try:
        for directory in (f"{base}/new", *more):
            _sync_directory(directory)
    except OSError as error:
        _withdraw(letters, error)


def system_syncfs() -> Callable[[int], None] | None:
    """syncfs(2), where it exists and tells of failed writes, which it does since Linux 5.8."""
    release = platform.release().split(".")
    if platform.system() != "Linux" or (int(release[0]), int(release[1])) < (5, 8):
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None

    def syncfs(fd: int) -> None:
        if call(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return syncfs


def make_maildir(base: str) -> list[str]:
    """Make the directories that are missing, closed to everybody else; those in which one was made, to be synced."""
    changed = [base]
    missing = []
    path = base
    while path:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            break
        except FileNotFoundError:
            missing.append(path)
            path = os.path.dirname(path)
        else:
            changed.append(os.path.dirname(path) or ".")
            break
    for path in reversed(missing):
        _mkdir(path)
        changed.append(os.path.dirname(path))
    for name in _SUBDIRECTORIES:
        _mkdir(f"{base}/{name}")
    return changed


def write_text(fd: int, head: bytes, stored: Stored) -> int:
    """Write headers and text with LF line ends, a binary one as it is (RFC 3030 §3); the octets written."""
    options = stored.envelope.options
    if options is not None and options.binary:
        return _write_all(fd, head) + sum(_write_all(fd, chunk) for chunk in _chunks(stored))
    if not stored.path:
        return _write_all(fd, head + stored.content.replace(b"\r\n", b"\n"))
    size = _write_all(fd, head)
    held = b""
    for chunk in _chunks(stored):
        chunk = held + chunk
        held = b"\r" if chunk.endswith(b"\r") else b""  # its LF may be the first octet of the next chunk
        size += _write_all(fd, chunk.removesuffix(b"\r").replace(b"\r\n", b"\n"))
    return size + _write_all(fd, held)


def _chunks(stored: Stored) -> Iterator[bytes]:
    yield stored.content
    left = stored.size - len(stored.content)
    if not stored.path:
        return
    with open(stored.path, "rb", buffering=0) as file:
        file.seek(stored.offset)
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise OSError(errno.EIO, "the text in the spool is shorter than its record says")
            left -= len(chunk)
            yield chunk


def _write_all(fd: int, data: bytes) -> int:
    done = os.write(fd, data)
    while done < len(data):  # the next attempt tells why there was not room for all of it
        done += os.write(fd, data[done:])
    return done


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _publish(letter: Letter) -> None:
    os.rename(letter.temporary, letter.final)


def _withdraw(letters: Iterable[Letter], error: OSError) -> None:
    """What cannot be known to be on disk is not delivered, and must not be read meanwhile."""
    for letter in letters:
        letter.fail(error)
        for path in (letter.temporary, letter.final):
            if os.path.exists(path):
                letter.remove(path)


def _good(letters: Iterable[Letter]) -> Iterator[Letter]:
    return (letter for letter in letters if letter.fault is None)


def _close(letters: Iterable[Letter]) -> None:
    for letter in letters:
        if letter.fd >= 0:
            os.close(letter.fd)
            letter.fd = -1


def _mkdir(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # another thread was first, or it was there before


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
