"""The layout of the spool on disk: segments, records, references. Little endian throughout.

    segment   64 octets of header, then records, each at a multiple of 8
    record    40 octets of header, payload, zeros up to a multiple of 8
    MESSAGE   payload: u32 length of the envelope, u32 0, u64 octets of a body in a file of its own (0: none),
              the envelope (msgpack of model.Envelope), the text (with a body file: our trace header only)
    STATE     payload: entries, see mta.spool.state

Invariants
- Every record repeats the generation of its segment, and no two lives of a file have the same one: what an earlier
  life left behind a torn tail can never be read as a record of this life.
- The checksum covers header and payload. A segment ends at the first octets that are no valid record.
- A reference is log (8 bits), sequence number of the segment in its log (32), offset / 8 (24).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from mta.model import Ref

SEGMENT_MAGIC: Final = b"MTASEG01"
SEGMENT: Final = struct.Struct("<8sIIQQQI20x")  # magic, log, 0, sequence, generation, created ms, crc32c
RECORD: Final = struct.Struct("<IBBHQIIQQ")  # magic, kind, flags, 0, generation, length, crc32c, id, time ms
RECORD_MAGIC: Final = 0x3152544D
MESSAGE_HEAD: Final = struct.Struct("<IIQ")  # octets of envelope; crc32c (0: not known) and octets of the body file

FIRST_OFFSET: Final = SEGMENT.size
MESSAGE: Final = 1
STATE: Final = 2
LARGE: Final = 1  # flag of a MESSAGE: the body lies in a file of its own
COPY: Final = 2  # flag of a MESSAGE: it was moved here, see mta.spool.compact

assert SEGMENT.size == 64
assert RECORD.size == 40


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What identifies one life of a segment file."""

    log: int
    sequence: int
    generation: int
    created_ms: int


def make_ref(log: int, sequence: int, offset: int) -> Ref:
    return Ref(log << 56 | sequence << 24 | offset >> 3)


def ref_segment(ref: int) -> int:
    """Log and sequence number in one integer: the key of a segment."""
    return ref >> 24


def ref_offset(ref: int) -> int:
    return (ref & 0xFFFFFF) << 3


def segment_name(key: int) -> str:
    return f"{key >> 32:02x}-{key & 0xFFFFFFFF:08x}.seg"


def parse_segment_name(name: str) -> int | None:
    """The key of a segment file, or None where the name is not one of ours."""
    log, dash, rest = name.partition("-")
    sequence, dot, suffix = rest.partition(".")
    if (len(log), dash, len(sequence), dot, suffix) != (2, "-", 8, ".", "seg"):
        return None
    try:
        return int(log, 16) << 32 | int(sequence, 16)
    except ValueError:
        return None


def padded(length: int) -> int:
    """Room of a record with a payload of so many octets."""
    return (RECORD.size + length + 7) & ~7


# ---- the readable reference of what _commit does ----


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _table()


def crc32c(data: bytes, start: int = 0) -> int:
    """CRC-32C (RFC 3720 §12.1), continued from `start`."""
    crc = start ^ 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ _CRC[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


def pack_segment(header: SegmentHeader) -> bytes:
    fields = (SEGMENT_MAGIC, header.log, 0, header.sequence, header.generation, header.created_ms)
    return SEGMENT.pack(*fields, crc32c(SEGMENT.pack(*fields, 0)))


def unpack_segment(data: bytes) -> SegmentHeader | None:
    """None where the octets are no undamaged segment header."""
    if len(data) < SEGMENT.size:
        return None
    magic, log, zero, sequence, generation, created, crc = SEGMENT.unpack_from(data)
    fields = (magic, log, zero, sequence, generation, created)
    if magic != SEGMENT_MAGIC or crc32c(SEGMENT.pack(*fields, 0)) != crc:
        return None
    return SegmentHeader(log, sequence, generation, created)


def pack_record(kind: int, flags: int, generation: int, message_id: int, time_ms: int, payload: bytes) -> bytes:
    head = (RECORD_MAGIC, kind, flags, 0, generation, len(payload))
    crc = crc32c(payload, crc32c(RECORD.pack(*head, 0, message_id, time_ms)))
    record = RECORD.pack(*head, crc, message_id, time_ms) + payload
    return record + bytes(padded(len(payload)) - len(record))
