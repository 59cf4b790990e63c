"""Which messages of each segment are unfinished, in a bit a message.

A message is live until all its parts are finished. A segment without live messages may be used again, so a message
that is counted off twice would cost another one its place: hence a bit for each message, not a bare count per segment.
One bit stands for 64 octets of a segment; no record of a message is that short. Messages with several parts are few,
and have a mask of their open parts besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_GROW = 1024


class Ledger:
    """See above. `key` is log and sequence number of a segment."""

    def __init__(self) -> None:
        self._bits: dict[int, bytearray] = {}
        self._counts: dict[int, int] = {}
        self._open: dict[int, int] = {}  # reference -> mask of unfinished parts, where there are several parts

    def add(self, ref: int, parts: int, finished: Iterable[int] = ()) -> bool:
        """A message is live from now on; False when it was already."""
        key, place, bit = ref >> 24, (ref & 0xFFFFFF) >> 6, 1 << (ref >> 3 & 7)
        bits = self._bits.get(key)
        if bits is None:
            bits = self._bits[key] = bytearray(_GROW)
            self._counts[key] = 0
        if place >= len(bits):
            bits.extend(bytes(place + _GROW - len(bits)))
        if bits[place] & bit:
            return False
        bits[place] |= bit
        self._counts[key] += 1
        if parts > 1:
            mask = (1 << parts) - 1
            for part in finished:
                mask &= ~(1 << part)
            self._open[ref] = mask
        return True

    def finish(self, ref: int, part: int) -> bool:
        """A part is finished; True when this was the end of the message."""
        if self._open and ref in self._open:
            mask = self._open[ref] & ~(1 << part)
            if mask:
                self._open[ref] = mask
                return False
            del self._open[ref]
        key, place, bit = ref >> 24, (ref & 0xFFFFFF) >> 6, 1 << (ref >> 3 & 7)
        bits = self._bits.get(key)
        if bits is None or place >= len(bits) or not bits[place] & bit:
            return False
        bits[place] ^= bit
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key], self._bits[key]
        return True

    def leave(self, ref: int) -> bool:
        """A message is live somewhere else from now on; True when it was here."""
        self._open.pop(ref, None)
        return self.finish(ref, 0)  # without a mask any part is the last

    def finished_parts(self, ref: int, parts: int) -> list[int]:
        """Of a message with several parts that is live: those which are done."""
        mask = self._open.get(ref)
        return [] if mask is None else [part for part in range(parts) if not mask >> part & 1]

    def references(self) -> References:
        """The live messages of this moment."""
        return References({key: bytearray(bits) for key, bits in self._bits.items()})

    def __contains__(self, ref: int) -> bool:
        bits = self._bits.get(ref >> 24)
        place = (ref & 0xFFFFFF) >> 6
        return bits is not None and place < len(bits) and bool(bits[place] & 1 << (ref >> 3 & 7))

    def live(self, key: int) -> int:
        """Unfinished messages in a segment."""
        return self._counts.get(key, 0)

    @property
    def total(self) -> int:
        return sum(self._counts.values())


class References:
    """A set of messages, in the same few bits."""

    def __init__(self, bits: dict[int, bytearray]) -> None:
        self._bits = bits

    def discard(self, ref: int) -> None:
        bits = self._bits.get(ref >> 24)
        place = (ref & 0xFFFFFF) >> 6
        if bits is not None and place < len(bits):
            bits[place] &= ~(1 << (ref >> 3 & 7))

    def __iter__(self) -> Iterator[range]:
        """For each message that is left, the references of which one is its own."""
        for key, bits in self._bits.items():
            for place in [i for i, octet in enumerate(bits) if octet]:
                for bit in range(8):
                    if bits[place] >> bit & 1:
                        first = key << 24 | place << 6 | bit << 3
                        yield range(first, first + 8)
