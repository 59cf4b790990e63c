"""Walks the records of one segment file.

Segments are read, not mapped: a sector that cannot be read is then an error to report, not a signal that kills.

A segment ends at the first octets that are no valid record. While its log may still be writing to it, that is all
that can be said: what lies behind may be on its way. Once a later segment of the log has records the file is *final*,
and valid records behind such a place mean damage: they were acknowledged, so the walk goes on with them.

Failure: StoreError where the file cannot be opened or read.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import msgspec

from mta.model import Change, Envelope, Lane, Queued, StoreError, lane_of, part_domains, wants_of
from mta.spool._commit import find, scan
from mta.spool._replay import heads
from mta.spool.format import (
    FIRST_OFFSET,
    LARGE,
    MESSAGE_HEAD,
    RECORD,
    SegmentHeader,
    segment_name,
    unpack_segment,
)
from mta.spool.segments import Folder

Found = tuple[int, int, int, int, int]  # kind, flags, offset, length of the payload, id


@dataclass(frozen=True, slots=True)
class Walk:
    """What a stretch of a segment holds."""

    found: list[Found]
    end: int  # where the valid records end
    damaged: tuple[int, ...]  # offsets where something unreadable had to be stepped over


class SegmentView:
    """One segment, open for reading. `header` is None where the file is no segment of this name.

    `room`: memory to read into, large enough for a whole segment, for one who walks many of them: fresh memory costs
    four times as much as the copy from the page cache. The next view that uses it takes it from this one.
    """

    def __init__(self, folder: Folder, key: int, room: memoryview | None = None) -> None:
        self.key = key
        self._room = room
        self._data = memoryview(b"")
        self._base = 0
        try:
            self._fd = os.open(folder.path(key), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(key, error) from error
        try:
            header = unpack_segment(bytes(self._read(0, FIRST_OFFSET)))
        except StoreError:
            self.close()
            raise
        known = header is not None and (header.log << 32 | header.sequence) == key
        self.header: SegmentHeader | None = header if known else None

    def walk(self, start: int = FIRST_OFFSET, limit: int | None = None, *, final: bool) -> Walk:
        """The valid records from `start` on; a later call forgets the payloads of an earlier one."""
        assert self.header is not None
        generation = self.header.generation
        room = os.fstat(self._fd).st_size
        end = room if limit is None else limit
        start = min(start, max(room - 8, FIRST_OFFSET))
        self._data = data = self._read(start, max(0, end - start))
        self._base = start
        found, end = scan(data, generation, 0, start)
        damaged = []
        while final and (place := find(data, generation, end - start)) >= 0:
            damaged.append(end)
            more, end = scan(data, generation, place, start)
            found += more
        return Walk(found, end, tuple(damaged))

    def payload(self, found: Found) -> memoryview:
        start = found[2] - self._base + RECORD.size
        return self._data[start : start + found[3]]

    def heads(self, found: list[Found]) -> list[Head | None]:
        """For each record of the last walk: what can be told of its message quickly; see `_replay.heads`."""
        return heads(self._data, found, self._base)

    def torn(self, end: int) -> bool:
        """Whether a record was begun behind the last valid one, and not finished."""
        assert self.header is not None
        head = self._data[end - self._base : end - self._base + 16]
        return len(head) == 16 and RECORD_START.unpack(head)[1] == self.header.generation

    def sync(self) -> None:
        """Make what was read durable: a writer that was killed may not have come to it."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _unreadable(self.key, error) from error

    def close(self) -> None:
        """Close the file; payloads can still be had."""
        os.close(self._fd)

    def _read(self, start: int, length: int) -> memoryview:
        room = self._room
        try:
            if room is None or len(room) < length:
                return memoryview(os.pread(self._fd, length, start))
            return room[: os.preadv(self._fd, [room[:length]], start)]
        except OSError as error:
            raise _unreadable(self.key, error) from error


RECORD_START = struct.Struct("<8sQ")  # of format.RECORD: what is before the generation, the generation

Head = tuple[int, int, bytes | None, int, Lane | None]  # octets, those in a file, domain, wants and lane

_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode


def message_in(view: SegmentView, found: Found) -> tuple[Queued, bool]:
    """The message of a record, without changes, and whether its body lies in a file of its own."""
    _, flags, offset, length, message_id = found
    payload = view.payload(found)
    try:
        size, _, large = MESSAGE_HEAD.unpack_from(payload)
        envelope = _decode_envelope(payload[MESSAGE_HEAD.size : MESSAGE_HEAD.size + size])
    except (struct.error, msgspec.DecodeError) as error:
        raise StoreError(f"{segment_name(view.key)} at {offset}: no message of this version: {error}") from error
    queued = Queued(
        id=message_id,
        ref=view.key << 24 | offset >> 3,
        size=length - MESSAGE_HEAD.size - size + large,
        domains=tuple(part_domains(envelope.recipients)),
        wants=wants_of(envelope),
        lane=lane_of(envelope),
    )
    return queued, bool(flags & LARGE)


def text_of(view: SegmentView, found: Found) -> tuple[int, int]:
    """Octets and checksum of the body file that a MESSAGE names; 0 and 0 where there is none."""
    _, checksum, octets = MESSAGE_HEAD.unpack_from(view.payload(found))
    return octets, checksum


def with_changes(queued: Queued, changes: tuple[Change, ...]) -> Queued:
    """The message in its newest state. (Built anew: `structs.replace` takes four times as long.)"""
    return Queued(
        id=queued.id,
        ref=queued.ref,
        size=queued.size,
        domains=queued.domains,
        changes=changes,
        wants=queued.wants,
        lane=queued.lane,
    )


def is_finished(queued: Queued) -> bool:
    """Whether all parts are."""
    changes = queued.changes
    return len(changes) >= len(queued.domains) == sum([c.kind == "finished" for c in changes])


def _unreadable(key: int, error: OSError) -> StoreError:
    return StoreError(f"{segment_name(key)} cannot be read: {error.strerror}")
