"""Seats: what each courier has in hand, in memory that outlives every process of the server.

One row a courier, one seat a job. The queue manager fills a seat before it gives the job out; the courier then only
changes its state, one octet, just before the final dot leaves and as soon as the replies to it were read. Whoever dies,
the next queue manager reads here how far each attempt had come: an attempt that never reached its dot is no attempt,
one that was answered is over, and only what died in between may have been delivered or not.

    FREE -> GIVEN -> DOTTED -> DELIVERED        all recipients have it
                            -> MIXED            some have it
                            -> GIVEN            nobody has it: refused, put off

Invariants
- INVARIANT: a seat is free again only when the change that settles its job is durable in the store.
- The queue manager writes every column of a seat that is free, the state last; the courier that was given the job
  writes the state, until it has reported a result. So there is one writer at a time, and no lock.
- Seat 0 is everybody's: it is for jobs that found no other, and its state says nothing.

The rows lie in a file in the runtime directory, so that they outlive a killed supervisor as well. They are not synced:
a boot makes them void, and then the store's own "begun" entries speak alone. The whole file is allocated at the start,
for a full file system would kill whoever touches a hole.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

FREE: Final = 0
GIVEN: Final = 1  # with its courier, or on the way there: no final dot was sent
DOTTED: Final = 2  # the final dot may have been sent; what was answered is not known
DELIVERED: Final = 3
MIXED: Final = 4

SEATS: Final = 16_384  # in a row
_PAGE: Final = 4096
_VERSION: Final = b"mta seats 1\n"
_OWNER: Final = 32  # octets
_IDS_AT: Final = _PAGE + SEATS
_JOBS_AT: Final = _IDS_AT + 8 * SEATS
_ROW: Final = _JOBS_AT + 4 * SEATS
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Row:
    """The seats of one courier. `states` may be written item by item; the rest through `fill`."""

    __slots__ = ("_ids", "_jobs", "_life", "states")

    def __init__(self, cells: memoryview) -> None:
        self._life = cells[:8].cast("Q")
        self.states = cells[_PAGE:_IDS_AT]
        self._ids = cells[_IDS_AT:_JOBS_AT].cast("Q")
        self._jobs = cells[_JOBS_AT:_ROW].cast("I")  # part and attempts

    @property
    def life(self) -> int:
        """Which life of the courier the seats were given to."""
        return self._life[0]

    @life.setter
    def life(self, life: int) -> None:
        self._life[0] = life

    def fill(self, jobs: Sequence[tuple[int, int, int, int, int]], vacant: list[int]) -> list[int]:
        """The seats taken from `vacant` for jobs (slot, id, ref, part, attempts); 0 where none is left."""
        ids, rest, states = self._ids, self._jobs, self.states
        seats = []
        for _, message_id, _, part, attempts in jobs:
            if vacant:
                seat = vacant.pop()
                ids[seat] = message_id
                rest[seat] = part << 16 | attempts
                states[seat] = GIVEN
                seats.append(seat)
            else:
                seats.append(0)
        return seats

    def vacant(self) -> list[int]:
        """The free seats, the lowest last."""
        states = bytes(self.states)
        return [seat for seat in range(SEATS - 1, 0, -1) if not states[seat]]

    def used(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(seat, message id, part, attempts, state) of all that are not free."""
        states = bytes(self.states)
        for seat in range(1, SEATS):
            if states[seat]:
                job = self._jobs[seat]
                yield seat, self._ids[seat], job >> 16, job & 0xFFFF, states[seat]


class SeatTable:
    """All rows: the first belong to the couriers, in order; others are left of a start with more couriers."""

    def __init__(self, path: Path | None, couriers: int, owner: str) -> None:
        """`owner` tells one spool from another. Without a path the rows are gone with the server. OSError."""
        if path is None:
            cells = memoryview(mmap.mmap(-1, _PAGE + couriers * _ROW))
        else:
            cells = _open(path, couriers, _VERSION + _identity(owner))
        rows = (len(cells) - _PAGE) // _ROW
        self.rows = [Row(cells[_PAGE + n * _ROW : _PAGE + (n + 1) * _ROW]) for n in range(rows)]


def _identity(owner: str) -> bytes:
    """Of this boot of this machine, and the spool: seats of another are void."""
    try:
        boot = _BOOT.read_bytes()
    except OSError:
        boot = os.urandom(16)  # what cannot be known to be of this boot is taken as of another
    return hashlib.blake2s(boot + os.fsencode(owner), digest_size=_OWNER).digest()


def _open(path: Path, couriers: int, head: bytes) -> memoryview:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        if (size - _PAGE) % _ROW or os.pread(fd, len(head), 0) != head:
            os.ftruncate(fd, 0)
            size = 0
        size = max(size, _PAGE + couriers * _ROW)
        os.posix_fallocate(fd, 0, size)
        cells = memoryview(mmap.mmap(fd, size))
    finally:
        os.close(fd)
    cells[: len(head)] = head
    return cells
