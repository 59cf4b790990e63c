"""Changes of state as they lie in STATE records, and what is left of them after a replay.

One record holds many changes, so that a batch costs one header and one checksum. An entry is fixed fields and, only
where there is more to say, a tail: the finished recipients and the reason.

Invariant: changes are absolute and `finished` is for ever, so replaying a log twice, or from an earlier place, gives
the same result.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from mta.model import Change, Kind
from mta.spool._replay import Newest

ENTRY: Final = struct.Struct("<QQQIIHBB4x")  # ref, id, due, part, octets of tail, attempts, kind, told
_REST: Final = struct.Struct("<QIIHBB4x")  # the same from `due` on
_NAMES: Final = 16  # octets of ref and id
# INVARIANT: the place in this row is the number on the disk; append only.
_KINDS: Final[tuple[Kind, ...]] = ("finished", "waiting", "held", "begun", "ambiguous")
_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}
_MOST_ATTEMPTS: Final = 0xFFFF
_LONGEST_WHY: Final = 65_536  # so that one entry always fits a record, and a record a segment
_RECORD: Final = 256 << 10
_MOVED: Final = 255  # kind; `due` is the new reference

_encode = msgspec.msgpack.Encoder().encode


class _Tail(msgspec.Struct, frozen=True, array_like=True):
    """What only some entries have; fields are only ever appended."""

    done: tuple[int, ...] = ()
    why: str = ""
    to: str = ""


_decode_tail = msgspec.msgpack.Decoder(_Tail).decode
_NO_TAIL: Final = _Tail()


def pack_changes(changes: Sequence[Change]) -> list[tuple[Sequence[Change], bytes]]:
    """The payloads of STATE records, each with the changes that are in it. Few changes give one record."""
    records: list[tuple[Sequence[Change], bytes]] = []
    parts: list[bytes] = []
    pack = ENTRY.pack
    first = size = 0
    for i, c in enumerate(changes):
        if c.done or c.why or c.to:
            tail = _encode((c.done, c.why[:_LONGEST_WHY], c.to) if c.to else (c.done, c.why[:_LONGEST_WHY]))
            attempts = min(c.attempts, _MOST_ATTEMPTS)
            parts += (pack(c.ref, c.id, c.due, c.part, len(tail), attempts, _NUMBERS[c.kind], c.told), tail)
            size += len(tail)
        else:
            attempts = min(c.attempts, _MOST_ATTEMPTS)
            parts.append(pack(c.ref, c.id, c.due, c.part, 0, attempts, _NUMBERS[c.kind], c.told))
        size += ENTRY.size
        if size > _RECORD:
            records.append((changes[first : i + 1], b"".join(parts)))
            parts.clear()
            first, size = i + 1, 0
    if parts:
        records.append((changes[first:], b"".join(parts)))
    return records


class Move(NamedTuple):
    """The only valid record of a message is at `new` from now on, and no more at `ref`."""

    ref: int
    id: int
    new: int


def pack_moves(moves: Sequence[Move]) -> list[bytes]:
    """The payloads of STATE records that say so."""
    entries = [ENTRY.pack(ref, message_id, new, 0, 0, 0, _MOVED, 0) for ref, message_id, new in moves]
    most = _RECORD // ENTRY.size
    return [b"".join(entries[n : n + most]) for n in range(0, len(entries), most)]


def unpack_changes(payload: bytes) -> Iterator[Change]:
    """The changes in a STATE record; the caller has checked its checksum."""
    offset = 0
    while offset < len(payload):
        ref, message_id, _, part, tail, _, kind, _ = ENTRY.unpack_from(payload, offset)
        end = offset + ENTRY.size + tail
        if kind != _MOVED:
            yield _change(ref, message_id, part, payload[offset + _NAMES : end])
        offset = end


def _change(ref: int, message_id: int, part: int, rest: bytes) -> Change:
    due, _, tail, attempts, kind, told = _REST.unpack_from(rest)
    more = _decode_tail(rest[_REST.size :]) if tail else _NO_TAIL
    return _made(ref, message_id, part, _KINDS[kind], attempts, due, told, more)


def _made(ref: int, message_id: int, part: int, kind: Kind, attempts: int, due: int, told: int, more: _Tail) -> Change:
    return Change(
        ref=ref,
        id=message_id,
        part=part,
        kind=kind,
        attempts=attempts,
        due=due,
        done=more.done,
        why=more.why,
        told=told,
        to=more.to,
    )


class Replay:
    """What a state log says in the end: the newest change of each part of each message that it names.

    Kept by message id: a reference may come again after a segment was set aside, an id never does. Changes of
    messages in segments that are gone are dropped at once, and the others kept packed, which bounds the memory.
    """

    def __init__(self, segments: Container[int]) -> None:
        self._segments = segments
        self._newest = Newest()

    def feed(self, payload: bytes) -> int:
        """Take a STATE record; returns how many changes were in it. ValueError: it is of another version."""
        return self._newest.feed(payload, self._segments)

    @property
    def moves(self) -> dict[int, int]:
        """Messages that were moved: where the only valid record of each is."""
        return self._newest.moves

    def take(self, ref: int, message_id: int, part: int) -> Change | None:
        """The newest change of a part; each is given once."""
        newest = self._newest.take(message_id, part)
        if newest is None:
            return None
        kind, attempts, due, told, tail = newest
        more = _known_tail(tail) if tail else _NO_TAIL
        return _made(ref, message_id, part, _KINDS[kind], attempts, due, told, more)


@lru_cache(4096)
def _known_tail(tail: bytes) -> _Tail:
    """Reasons repeat: a million deliveries wait for a few causes."""
    return _decode_tail(tail)
