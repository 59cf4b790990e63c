"""Copies the few survivors of old segments on, so that mail that stays for days does not keep a whole disk.

A copy is a MESSAGE record in the state log with the id of the original and the flag COPY. Between the two, what counts
is decided by the state log alone. The order, and what a start makes of a crash behind each step:

    step                                              original   copy      a start takes
    0  nothing                                        whole      -         the original
    1  the copy is appended                           whole      torn      the original
    2  the copy is durable                            whole      whole     the original, and notes in the state log
                                                                           that the copy is dead
    3  the queue manager and the ledger use the copy  whole      whole     the original; changes go by id, so what the
                                                                           copy went through since counts for it
    4  the move is durable in the state log           whole      whole     the copy: the newest move of an id says where
                                                                           its only valid record is
    5  the original counts as finished                whole      whole     the copy
    6  its segment is used again                      gone       whole     the copy
    7  a later checkpoint names the copy, and the     gone       whole     the copy
       state log with the move is given up

    without checkpoint and move (both lost)           gone       whole     the copy: no other record has its id

Invariants
- INVARIANT: the original counts as unfinished until the move is durable, so that its segment stays until then.
- INVARIANT: a message moves only while no part of it is in hand: with a courier, or on its way to a notice.
- A copy that was not taken over is named in a move back to its original: it stays dead when the original is gone.
- The present state of the parts is recorded again with the new reference, together with the move: changes that name
  the old segment are not replayed once it is gone.
- A body file stays where it is: it goes by the id.

What is moved: while the segments in use exceed 1.4 times what is live in them by more than `_SLACK` segments, the one
with the least in it. What is live in a segment is found by reading it once, and then taken as falling with the number
of its unfinished messages.

Failure: what the disk refuses leaves the originals as they are, and is tried again; moves back are recorded first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from mta.model import Change, Ref, StoreError
from mta.spool.format import COPY, LARGE, MESSAGE, padded
from mta.spool.ledger import Ledger
from mta.spool.scan import Found, SegmentView, Walk, message_in
from mta.spool.segments import Folder
from mta.spool.state import Move, pack_moves

_BATCH = 1 << 20  # octets copied at once
_SLACK = 16  # segments
_ALLOWED = 1.4  # times the live octets
_REST = 60.0  # seconds until what could not be moved out of a segment, for somebody had it in hand, is tried again

# Old references to new ones: which of these messages the owner of the index has taken over, and their present state.
Relocate = Callable[[dict[int, int]], tuple[set[int], list[Change]]]


class StateLog(Protocol):
    """What the store lends."""

    @property
    def troubled(self) -> bool:
        """Changes wait to be written again: no time for moves."""

    def append_copy(
        self, message_id: int, flags: int, payload: bytes, done: Callable[[StoreError | None], None]
    ) -> Ref:
        """Append a MESSAGE record; `done` is told when it is durable."""

    def flush(self) -> None:
        """Append what is gathered."""

    async def record_moves(self, moves: Sequence[bytes], changes: Sequence[Change]) -> None:
        """Append both now; durable on return."""

    def left(self, ref: int) -> None:
        """The original of a moved message is over."""


@dataclass(slots=True)
class _Weight:
    """What a segment held when it was read. `records` are the messages that were unfinished then, in order."""

    octets: int
    messages: int
    records: deque[Found] = field(default_factory=deque)
    rest_until: float = 0.0


@dataclass(slots=True)
class _Copied:
    """A message that was read, with what must be known to move it."""

    ref: int
    id: int
    flags: int
    payload: bytes
    parts: int
    new: int = 0


class Compaction:
    """One step at a time, called by Upkeep. `forward`: messages between step 3 and step 5, old reference to new."""

    def __init__(
        self, folder: Folder, ledger: Ledger, large: dict[int, int], segment_size: int, rate: int, state: StateLog
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._large = large
        self._size = segment_size
        self._weigh_every = segment_size / max(rate, 1)  # reading is bounded by the same rate
        self._state = state
        self._weights: dict[int, _Weight] = {}
        self._unrecorded: list[Move] = []  # decided, not durable yet
        self._not_weigh_before = 0.0
        self.forward: dict[int, int] = {}
        self.relocate: Relocate | None = None
        self.messages = 0
        self.octets = 0

    # ---- what there is

    def live_octets(self, in_use: Iterable[int]) -> int:
        """An estimate: segments that were not read count as full, unless nothing in them is unfinished."""
        live = self._ledger.live
        return sum(self._estimate(key) for key in in_use if live(key))

    def _estimate(self, key: int) -> int:
        weight = self._weights.get(key)
        if weight is None:
            return self._size
        return weight.octets * self._ledger.live(key) // max(1, weight.messages)

    def due(self, sealed: list[int], in_use: list[int], now: float) -> bool:
        """Whether a step would find something to do."""
        if self.relocate is None or len(in_use) <= _SLACK or self._state.troubled:
            return False
        return bool(self._unrecorded) or self._unweighed(sealed, now) is not None or self._excess(in_use)

    def _excess(self, in_use: list[int]) -> bool:
        return len(in_use) * self._size > _ALLOWED * self.live_octets(in_use) + _SLACK * self._size

    def _unweighed(self, sealed: list[int], now: float) -> int | None:
        """The oldest segment of which it is not known what is live in it."""
        if now < self._not_weigh_before:
            return None
        return next((k for k in sealed if k not in self._weights and self._ledger.live(k)), None)

    # ---- the work

    async def step(self, sealed: list[int], in_use: list[int]) -> int:
        """Read one more segment, or copy one batch; octets copied. `sealed`: segments that are not written any more."""
        loop = asyncio.get_running_loop()
        for gone in self._weights.keys() - set(in_use):
            del self._weights[gone]
        if self._unrecorded:
            await self._record([])
        key = self._unweighed(sealed, loop.time())
        if key is not None:
            self._not_weigh_before = loop.time() + self._weigh_every
            await loop.run_in_executor(None, self._weigh, key)
        if not self._excess(in_use):
            return 0
        known = [k for k in sealed if k in self._weights and self._ledger.live(k)]
        known = [k for k in known if self._weights[k].rest_until <= loop.time()]
        victim = min(known, key=self._estimate, default=None)
        if victim is None or self._estimate(victim) > self._size / _ALLOWED:
            return 0
        if not self._weights[victim].records:
            await loop.run_in_executor(None, partial(self._weigh, victim, keep=True))
        records = self._next(victim)
        if not self._weights[victim].records:
            self._weights[victim].rest_until = loop.time() + _REST
        return await self._copy(await loop.run_in_executor(None, self._read, victim, records))

    def _weigh(self, key: int, *, keep: bool = False) -> None:
        """Read a segment (in a thread): the ledger may change meanwhile, which only makes the figure older."""
        try:
            view = SegmentView(self._folder, key)
            walk = view.walk(final=True) if view.header is not None else Walk([], 0, ())
            view.close()
        except StoreError:
            walk = Walk([], 0, ())
        base = key << 24
        found = [f for f in walk.found if f[0] == MESSAGE and (base | f[2] >> 3) in self._ledger]
        # Nothing to be found, though something is live: it is damaged, and left alone by counting as full.
        octets = sum(padded(f[3]) for f in found) or self._size
        self._weights[key] = _Weight(octets, len(found) or self._ledger.live(key), deque(found if keep else ()))

    def _next(self, key: int) -> list[Found]:
        """The next records of a victim that are still unfinished, one batch of them."""
        weight, base, octets = self._weights[key], key << 24, 0
        batch: list[Found] = []
        while weight.records and octets < _BATCH:
            found = weight.records.popleft()
            if (base | found[2] >> 3) in self._ledger:
                batch.append(found)
                octets += padded(found[3])
        return batch

    def _read(self, key: int, batch: list[Found]) -> list[_Copied]:
        """The payloads of some records (in a thread), each verified again; what is damaged now stays where it is."""
        copies: list[_Copied] = []
        if not batch:
            return copies
        view = SegmentView(self._folder, key)
        try:
            for _, flags, offset, length, message_id in batch:
                walk = view.walk(offset, offset + padded(length), final=False) if view.header is not None else None
                if walk is not None and walk.found and walk.found[0][4] == message_id:
                    queued, _ = message_in(view, walk.found[0])
                    payload = bytes(view.payload(walk.found[0]))
                    copies.append(_Copied(queued.ref, message_id, flags & LARGE, payload, len(queued.domains)))
        finally:
            view.close()
        return copies

    async def _copy(self, batch: list[_Copied]) -> int:
        """Steps 1 to 5 of the module's table."""
        batch = [copied for copied in batch if copied.ref in self._ledger]
        if not batch or self.relocate is None:
            return 0
        made: list[_Copied] = []
        durable: list[asyncio.Future[StoreError | None]] = []
        failure: StoreError | None = None
        for copied in batch:
            told: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()
            try:
                copied.new = self._state.append_copy(copied.id, COPY | copied.flags, copied.payload, told.set_result)
            except StoreError as error:
                failure = error
                break
            made.append(copied)
            durable.append(told)
        failures = [failure, *[await told for told in durable]]
        if any(failures):
            self._unrecorded += [Move(copied.new, copied.id, copied.ref) for copied in made]
            raise next(error for error in failures if error is not None)
        await self._take_over(made)
        octets = sum(padded(len(copied.payload)) for copied in made)
        self.octets += octets
        return octets

    async def _take_over(self, batch: list[_Copied]) -> None:
        """Steps 3 to 5: no turn of the loop between the queue manager's change of mind and the append of the move."""
        assert self.relocate is not None
        self._state.flush()  # what is gathered names old references: it must be before the moves
        moved, changes = self.relocate({c.ref: c.new for c in batch if c.ref in self._ledger})
        for copied in batch:
            if copied.ref in moved:
                self._unrecorded.append(Move(copied.ref, copied.id, copied.new))
                changes += self._adopt(copied)
            else:
                self._unrecorded.append(Move(copied.new, copied.id, copied.ref))
        await self._record(changes)

    def _adopt(self, copied: _Copied) -> list[Change]:
        """The ledger's side of step 3; the finished parts, to be recorded again."""
        old, new = copied.ref, copied.new
        done = self._ledger.finished_parts(old, copied.parts) if copied.parts > 1 else []
        self._ledger.add(new, copied.parts, done)
        if old in self._large:
            self._large[new] = self._large.pop(old)
        self.forward[old] = new
        return [Change(ref=new, id=copied.id, part=part, kind="finished") for part in done]

    async def _record(self, changes: Sequence[Change]) -> None:
        """Steps 4 and 5 for all that is decided."""
        moves, self._unrecorded = self._unrecorded, []
        try:
            await self._state.record_moves(pack_moves(moves), changes)
        except StoreError:
            self._unrecorded = moves + self._unrecorded
            raise
        for ref, _, new in moves:
            if self.forward.get(ref) == new:
                del self.forward[ref]
                self._state.left(ref)
                self.messages += 1
