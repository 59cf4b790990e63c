"""A log of the spool, open for writing: model.Intake.

One `LogWriter` belongs to one process and owns one log number. `put` copies a message into the batch that fills; at
the end of the loop turn the commit thread may take it. When a batch is on stable storage, or failed, `committed` is
called with its tokens.

Invariants
- Records of a log lie in the order in which they were appended, segment after segment.
- A writer never appends behind what an earlier life left: it begins with a new segment.
- A segment in which a write or a sync failed is left behind: the next record goes to a new one.
- Two segments never have the same generation, even when the clock was set back between two lives.

Failure: StoreError from `put` and `body` at once when there is no room; through `committed` when a batch failed. Both
end by themselves: the disk is looked at again once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from mta.config.settings import Spool
from mta.model import (
    Arrival,
    Body,
    Committed,
    Draft,
    IdSource,
    MessageId,
    Ref,
    StoreError,
    lane_of,
    part_domains,
    wants_of,
)
from mta.spool._commit import Committer
from mta.spool.bodies import BodyFile, store_error
from mta.spool.format import FIRST_OFFSET, LARGE, MESSAGE, MESSAGE_HEAD, make_ref, padded, segment_name
from mta.spool.scan import SegmentView
from mta.spool.segments import Folder, Segment, Supply
from mta.spool.watermark import Watermark

_MOST_WAITING = 64 << 20  # octets that may wait for one disk; beyond, mail is refused for the moment
_MOST_DOMAINS = 64  # more are not sent with an arrival: the queue manager reads them from the spool
_LOOK_EVERY = 1.0  # seconds between looks at the free space

# What is called when records are durable: an error, or None.
Done = Callable[[StoreError | None], None]


class LogWriter:
    """One log. `reserve` logs go on below the low-water mark: the queue manager's, so that delivery can free space."""

    def __init__(
        self,
        settings: Spool,
        state_dir: Path,
        log: int,
        loop: asyncio.AbstractEventLoop,
        committed: Committed,
        *,
        reserve: bool = False,
    ) -> None:
        self._settings = settings
        self._log = log
        self._loop = loop
        self._committed = committed
        self._reserve = reserve
        self._folder = Folder(state_dir)
        self._folder.make()
        self._encode = msgspec.msgpack.Encoder().encode
        keys = self._folder.in_use(log)
        self.floor, self._generation = _earlier_life(self._folder, log, keys)
        self._sequence = (keys[-1] & 0xFFFFFFFF) if keys else 0
        self._supply = Supply(self._folder, log, settings.segment_size, 0 if reserve else settings.min_free)
        self._watermark = Watermark(settings, self._folder.root)
        # What became of mail is always synced at once: texts and segments are given up for it.
        relaxed = settings.durability == "interval" and not reserve
        self._committer = Committer(int(settings.interval * 1e9) if relaxed else 0)
        self._open: dict[int, Segment] = {}  # segments with records on their way, by key
        self._waiting: deque[tuple[object, Arrival | None]] = deque()  # None: the token is a Done
        self._messages = 0  # of those
        self._syncing = 0  # large bodies on their way to a record
        self._kicking = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._looked = -_LOOK_EVERY
        self._short: StoreError | None = None
        self.retired = 0  # segments left behind after a failure
        self._segment: Segment | None = None
        self._offset = 0
        with contextlib.suppress(StoreError):  # a full disk: the process starts, and refuses until there is room
            self._roll()
        self.position = make_ref(log, self._sequence, FIRST_OFFSET)
        loop.add_reader(self._committer.event, self._collect)

    # ---- model.Intake

    @property
    def refusing(self) -> StoreError | None:
        """Why new mail would be refused now; looked at once a second."""
        now = self._loop.time()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._short = self._look()
        return self._short

    def put(self, draft: Draft, token: object) -> None:
        # Looked at anew once a loop turn, by `_kick`. Raised anew: one object would gather all frames it stopped.
        if self._short is not None and (short := self.refusing) is not None:
            raise StoreError(str(short), full=short.full)
        if self._committer.waiting > _MOST_WAITING:
            raise StoreError("the disk does not keep up: too much waits to be written")
        body = draft.body
        if isinstance(body, bytes):
            self._append_message(draft, body, None, token)
        elif isinstance(body, BodyFile):
            self._begin_large(draft, body, token)
        else:
            raise TypeError("a body must come from this store")

    def commit(self) -> None:
        self._committer.kick()

    @property
    def committing(self) -> bool:
        return self._messages > 0

    def body(self, message_id: MessageId) -> Body:
        short = self.refusing
        if short is not None:
            raise StoreError(str(short), full=short.full)
        return BodyFile(self._folder.body(message_id))

    # ---- for the store around it

    def append(self, kind: int, message_id: int, parts: tuple[bytes, ...], done: Done, flags: int = 0) -> Ref:
        """Append any record; `done` is told when it is durable. StoreError when there is no room for it."""
        offset = self._append(kind, flags, message_id, parts, padded(sum(map(len, parts))))
        self._waiting.append((done, None))
        return make_ref(self._log, self._sequence, offset)

    @property
    def statistics(self) -> dict[str, float]:
        batches, octets, failures, seconds, longest, syncs, uncut = self._committer.statistics
        return {
            "commits": batches,
            "octets": octets,
            "syncs": syncs,
            "failures": failures,
            "retired_segments": self.retired,
            "uncut_batches": uncut,
            "mean_seconds": seconds / syncs if syncs else 0.0,
            "longest_seconds": longest,
            "unprepared_segments": self._supply.unprepared,
        }

    @property
    def watermark(self) -> Watermark:
        """The disk as it is now, whether this log heeds it or not."""
        self._watermark.look()
        return self._watermark

    async def drain(self) -> None:
        """Wait until all that was put is durable and told."""
        self._kick()
        await self._idle.wait()

    async def close(self) -> None:
        """Drain, then end the thread."""
        await self.drain()
        self._loop.remove_reader(self._committer.event)
        self._committer.close()
        self._supply.close()
        if self._segment is not None:
            self._open[self._segment.key] = self._segment
            self._segment = None
        while self._open:
            os.close(self._open.popitem()[1].fd)

    # ---- inside

    def _append_message(self, draft: Draft, body: bytes, file: BodyFile | None, token: object) -> None:
        envelope = self._encode(draft.envelope)
        head = draft.head
        size = len(head) + len(body)
        need = padded(MESSAGE_HEAD.size + len(envelope) + size)
        segment, offset = self._room(need)
        large, checksum, flags = (0, 0, 0) if file is None else (file.size, file.checksum, LARGE)
        self._committer.append_message(
            segment.fd,
            segment.key,
            offset,
            flags,
            segment.generation,
            draft.id,
            time.time_ns() // 1_000_000,
            large,
            checksum,
            envelope,
            head,
            body,
        )
        self._appended(offset + need)
        domains = part_domains(draft.envelope.recipients)
        named = tuple(domains) if len(domains) <= _MOST_DOMAINS else ()
        wants, lane = (
            (0, None) if draft.envelope.options is None else (wants_of(draft.envelope), lane_of(draft.envelope))
        )
        arrival = Arrival(draft.id, segment.key << 24 | offset >> 3, need, size + large, named, wants, lane)
        self._waiting.append((token, arrival))
        self._messages += 1

    def _append(self, kind: int, flags: int, message_id: int, parts: tuple[bytes, ...], need: int) -> int:
        """The offset at which a record goes into the segment; `need` is its room."""
        segment, offset = self._room(need)
        now = time.time_ns() // 1_000_000
        generation = segment.generation
        self._committer.append(segment.fd, segment.key, offset, kind, flags, generation, message_id, now, parts)
        self._appended(offset + need)
        return offset

    def _room(self, need: int) -> tuple[Segment, int]:
        """The segment and the offset for the next record."""
        segment = self._segment
        # Never filled to the last octet: a reference to the end of the largest segment would not fit its 24 bits.
        if segment is None or self._offset + need >= segment.size:
            if FIRST_OFFSET + need >= self._settings.segment_size:
                raise StoreError(f"a record of {need} octets does not fit a segment")
            segment = self._roll()
        return segment, self._offset

    def _appended(self, end: int) -> None:
        self._offset = end
        self._idle.clear()
        if not self._kicking:
            self._kicking = True
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        self._kicking = False
        self._committer.kick()
        if self._loop.time() - self._looked >= _LOOK_EVERY:
            self._short = self.refusing

    def _roll(self) -> Segment:
        """Go on in a new segment; the old one is closed when its last batch is reported."""
        now = time.time_ns()
        self._generation = max(now & ~0xFF | self._log, self._generation + 256)
        try:
            segment = self._supply.take(self._sequence + 1, self._generation, now // 1_000_000)
        except OSError as error:
            self._short = store_error("no new segment", error)
            self._looked = self._loop.time()
            raise self._short from error
        if self._segment is not None:
            self._open[self._segment.key] = self._segment
        self._sequence += 1
        self._segment = segment
        self._offset = FIRST_OFFSET
        self._looked = -_LOOK_EVERY  # a segment is much at once: look at the free space before the next message
        return segment

    def _collect(self) -> None:
        os.read(self._committer.event, 8)
        for key, _, end, records, error in self._committer.collect():
            if error:
                self._retire(key, error, records)
            else:
                self.position = make_ref(key >> 32, key & 0xFFFFFFFF, end)
            self._tell(records, store_error("commit failed", OSError(error, os.strerror(error))) if error else None)
            self._close_left(key)
        if not self._waiting and not self._syncing:
            self._idle.set()

    def _tell(self, records: int, error: StoreError | None) -> None:
        tokens: list[object] = []
        arrivals: list[Arrival] = []
        calls: list[Done] = []
        for _ in range(records):
            token, arrival = self._waiting.popleft()
            if arrival is not None:
                tokens.append(token)
                arrivals.append(arrival)
            elif callable(token):
                calls.append(token)
        self._messages -= len(tokens)
        if tokens:
            self._committed(tokens, arrivals if error is None else (), error)
        for done in calls:
            done(error)

    def _retire(self, key: int, error: int, records: int) -> None:
        """A batch failed, or a sync of what was answered 250 already: its segment is not written again."""
        if self._segment is not None and self._segment.key == key:
            self._open[key] = self._segment
            self._segment = None  # the next record begins a new one
            self.retired += 1
        if not records:
            text = f"what was answered 250 in the last {self._settings.interval:g} s may be lost if the machine stops"
            _say(f"{segment_name(key)}: a sync failed ({os.strerror(error)}); {text}")

    def _close_left(self, key: int) -> None:
        """Close segments that are behind the one just reported: batches come in order."""
        for left in [k for k in self._open if k < key]:
            os.close(self._open.pop(left).fd)

    def _begin_large(self, draft: Draft, body: BodyFile, token: object) -> None:
        try:
            future = self._loop.run_in_executor(None, body.finish)
        except RuntimeError as error:  # no more threads
            raise StoreError(f"a large text cannot be synced: {error}") from error
        self._syncing += 1
        self._idle.clear()
        future.add_done_callback(partial(self._end_large, draft, body, token))

    def _end_large(self, draft: Draft, body: BodyFile, token: object, future: asyncio.Future[None]) -> None:
        self._syncing -= 1
        try:
            future.result()
            self._append_message(draft, b"", body, token)
        except OSError as error:
            self._refuse_large(body, token, store_error("a large text could not be synced", error))
        except StoreError as error:
            self._refuse_large(body, token, error)

    def _refuse_large(self, body: BodyFile, token: object, error: StoreError) -> None:
        body.discard()
        if not self._waiting and not self._syncing:
            self._idle.set()
        self._committed([token], (), error)

    def _look(self) -> StoreError | None:
        self._supply.prepare()  # the disk may have been too full for it
        if self._reserve:
            return None
        if (short := self._watermark.look()) is not None:
            return short
        if self._segment is None:
            return self._try_again()
        return None

    def _try_again(self) -> StoreError | None:
        """After a failure: can a segment be begun now?"""
        try:
            self._roll()
        except StoreError as error:
            return error
        return None


def _say(text: str) -> None:
    print(f"mta: spool: {text}", file=sys.stderr, flush=True)


def _earlier_life(folder: Folder, log: int, keys: Sequence[int]) -> tuple[int, int]:
    """The newest id that this log may have given before, and the newest generation: both must only grow."""
    floor = generation = 0
    for key in reversed(keys):
        try:
            view = SegmentView(folder, key)
        except StoreError:
            continue  # recovery reports it
        with contextlib.closing(view), contextlib.suppress(StoreError):
            if view.header is None:
                continue
            generation = max(generation, view.header.generation)
            floor = max(floor, IdSource(log).next(view.header.created_ms))
            ids = [found[4] for found in view.walk(final=True).found if found[0] == MESSAGE]
            if ids:
                return max(floor, *ids), generation
    return floor, generation
