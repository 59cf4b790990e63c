"""Group commit by a native thread; see the .pyx."""

from typing import Final

from typing_extensions import Buffer

SOURCE_HASH: Final[str]

class Committer:
    """The thread of one log. `event` is readable when `collect` has something to report.

    `interval_ns`: 0, or what was written is synced once in so many nanoseconds, and reported before.
    """

    def __init__(self, interval_ns: int = 0) -> None: ...
    @property
    def event(self) -> int: ...
    def append(
        self,
        fd: int,
        segment: int,
        offset: int,
        kind: int,
        flags: int,
        generation: int,
        id: int,
        time_ms: int,
        parts: tuple[bytes, ...],
    ) -> int:
        """Copy a record, header first, into the batch for `offset` of a segment; returns its padded length.

        `segment` is a number that no other open segment of this log has (not 0). Nothing is written before `kick`.
        """
    def append_message(
        self,
        fd: int,
        segment: int,
        offset: int,
        flags: int,
        generation: int,
        id: int,
        time_ms: int,
        large: int,
        checksum: int,
        envelope: bytes,
        head: bytes,
        body: bytes,
    ) -> int:
        """The same for a MESSAGE: its head, then envelope and text.

        `large`, `checksum`: octets in the body file, and their crc32c.
        """
    def kick(self) -> None:
        """Let the thread write what was appended."""
    def collect(self) -> list[tuple[int, int, int, int, int]]:
        """Finished batches, in order: a list of (segment, start, end, records, errno).

        One without records is a failed sync of an interval: what was reported of that segment before may be lost.
        """
    def close(self) -> None:
        """Write what waits, end the thread. `collect` still reports afterwards."""
    @property
    def waiting(self) -> int:
        """Octets appended and not yet durable."""
    @property
    def statistics(self) -> tuple[int, int, int, float, float, int, int]:
        """(batches, octets, failures, seconds in write and sync, longest of them, syncs, failed batches not cut off)"""

def crc32c(data: Buffer, start: int = 0) -> int:
    """CRC-32C of a buffer, continued from `start`."""

def scan(data: Buffer, generation: int, offset: int, base: int = 0) -> tuple[list[tuple[int, int, int, int, int]], int]:
    """Walk the valid records of one generation in data[offset:].

    Returns ([(kind, flags, offset, payload length, id), ...], end): `end` is where the first octets lie that are no
    whole, undamaged record of this generation. `base` is added to all offsets that are returned.
    """

def find(data: Buffer, generation: int, offset: int) -> int:
    """Where the next valid record of a generation begins, at or behind data[offset:]; -1 where none does."""

def read_message(fd: int, offset: int, generation: int, room: int) -> tuple[int, int, int, int, bytes, bytes]:
    """The message of the record at `offset` of a segment with `room` octets.

    Returns (flags, id, octets in the body file, their crc32c, envelope, text). OSError from the disk; ValueError with
    the fault where there is no undamaged message of this generation.
    """

def read_envelopes(fd: int, generation: int, room: int, offsets: list[int]) -> list[tuple[int, int, bytes] | None]:
    """Of each record at some (ascending) offsets of a segment: (id, octets of the message, envelope), or None.

    None where there is no undamaged message of this generation. Reads without the GIL, neighbours in one go, and checks
    every octet of each record like `read_message`.
    """
