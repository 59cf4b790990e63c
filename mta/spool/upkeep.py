"""Keeps the spool small: uses empty segments again, has survivors copied on, removes texts, makes checkpoints.

Invariants
- INVARIANT: a segment is given up, and a large text removed, only after the changes that finish its last message are
  durable. The store calls `finished` and `emptied` only then.
- INVARIANT: a segment of the state log is given up only after a checkpoint that makes it unnecessary is durable.
- A segment is given up only when its log has gone on to a later one *and* all its messages are known here.
- A segment in which damage was found is set aside, not used again; one that could not be read is left alone.

Failure: what the disk refuses is tried again after `_PATIENCE` or `_HASTE`; until then the spool is larger than it
need be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from mta.model import Change, Queued, StoreError
from mta.spool import checkpoint as checkpoints
from mta.spool.compact import Compaction
from mta.spool.format import ref_offset, ref_segment
from mta.spool.ledger import Ledger, References
from mta.spool.scan import SegmentView, with_changes
from mta.spool.segments import Folder

_STATE_SEGMENTS = 4  # sealed ones before a checkpoint is made
_SLICE = 2000  # messages of a checkpoint taken in one loop turn
_PATIENCE = 10.0  # seconds before a write that failed is tried again
_HASTE = 1.0  # and before room is given back that could not be: mail may be refused for want of it
_WHOLE = 1 << 27  # behind the end of any segment
_BEHIND = 16  # segments with mail that no checkpoint covers yet, before one is made: a start would have to read them
_PER_BEHIND = 20_000  # messages for which one segment more is allowed, as a checkpoint of many costs more
_LOOK_EVERY = 1.0  # seconds between looks at the whole spool while there is something to move
_IDLE_EVERY = 5.0  # and while there is not
_OLD = 60.0  # seconds since a segment was full: what is left in it is not just on its way


class Upkeep:
    """One background task at most.

    `snapshot`: see LocalStore. `reached(log)`: the reference up to which all messages of a log are known.
    `lookup(ref)`: the message at a reference as it arrived, None where none begins or it cannot be read.
    """

    def __init__(
        self,
        folder: Folder,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        state_log: int,
        reached: Callable[[int], int],
        lookup: Callable[[int], Queued | None],
        compaction: Compaction,
        compact_rate: int,
    ) -> None:
        self._folder = folder
        self._loop = loop
        self._ledger = ledger
        self._state_log = state_log
        self._reached = reached
        self._lookup = lookup
        self._oldest_state = ref_segment(reached(state_log))
        self._emptied: set[int] = set()
        self._done_texts: list[int] = []
        self._task: asyncio.Task[None] | None = None
        self._compaction = compaction
        self._compact_rate = compact_rate
        self._alarm: asyncio.TimerHandle | None = None
        self._to_compact = False
        self._behind = False
        self._covered: set[int] = set()
        self._sealed_since: dict[int, float] = {}
        self._write_after = 0.0
        self._give_after = 0.0
        self.damaged: set[int] = set()
        self.unreadable: set[int] = set()
        self.snapshot: Callable[[], Iterator[Queued]] | None = None
        self.checkpoints = 0
        self.checkpoint_octets = 0
        self.forgotten = 0  # live messages that a snapshot lacked
        self.failures = 0

    # ---- what the store tells

    def begin(self, covered: Iterable[int]) -> None:
        """Recovery is over: look at everything once. `covered`: segments that the checkpoint knows to their end."""
        self._covered = set(covered)
        self._alarm = self._loop.call_later(_LOOK_EVERY, self._look_at_all)
        keys = self._folder.in_use()
        self._emptied.update(key for key in keys if not self._ledger.live(key))
        self._oldest_state = min((k for k in keys if k >> 32 == self._state_log), default=self._oldest_state)
        self.look()

    def emptied(self, key: int) -> None:
        """The last live message of a segment is finished, durably; or there never was one in it."""
        self._emptied.add(key)

    def finished_text(self, message_id: int) -> None:
        """A message with a body file is finished, durably."""
        self._done_texts.append(message_id)

    def look(self) -> None:
        """Start the work if there is any."""
        if self._task is not None and not self._task.done():
            return
        now = self._loop.time()
        give = now >= self._give_after and bool(self._done_texts or self._ready())
        write = now >= self._write_after and (self._to_compact or self._wants_checkpoint())
        if give or write:
            self._task = self._loop.create_task(self._work(give=give, write=write))

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._task is not None and not self._task.done():
            await self._task

    def close(self) -> None:
        """No more work of our own accord."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # ---- the work

    def _look_at_all(self) -> None:
        """By the clock, for what does not follow from an event."""
        self._alarm = self._loop.call_later(_IDLE_EVERY, self._look_at_all)
        try:
            in_use = self._folder.in_use()
        except OSError:
            self.failures += 1
            return
        fresh = [k for k in in_use if k not in self._covered and k >> 32 != self._state_log and self._ledger.live(k)]
        self._behind = len(fresh) > _BEHIND + self._ledger.total // _PER_BEHIND
        self._to_compact = self._compact_rate > 0 and self._compaction.due(
            self._movable(in_use), in_use, self._loop.time()
        )
        if self._to_compact:
            self._look_again(_LOOK_EVERY)
        self.look()

    def _look_again(self, delay: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = self._loop.call_later(delay, self._look_at_all)

    def _movable(self, in_use: list[int]) -> list[int]:
        """Segments from which messages may be moved: nothing more is written to them, and they can be read."""
        now = self._loop.time()
        sealed = [k for k in in_use if self._is_sealed(k)]
        self._sealed_since = {k: self._sealed_since.get(k, now) for k in sealed}
        out = self.damaged | self.unreadable
        old = (k for k in sealed if now - self._sealed_since[k] >= _OLD and k not in out)
        return [k for k in old if k >> 32 != self._state_log or k < self._oldest_state]

    async def _compact(self) -> None:
        """One step, and the next one when the rate allows it."""
        self._to_compact = False
        in_use = self._folder.in_use()
        octets = await self._compaction.step(self._movable(in_use), in_use)
        if octets:
            self._look_again(octets / self._compact_rate)

    def _ready(self) -> list[int]:
        """Empty segments that can be given up now, those of the state log apart."""
        live = self._ledger.live
        mail = [k for k in self._emptied if k >> 32 != self._state_log]
        return [k for k in mail if self._is_sealed(k) and not live(k) and k not in self.unreadable]

    def _is_sealed(self, key: int) -> bool:
        return key < ref_segment(self._reached(key >> 32))

    def _wants_checkpoint(self) -> bool:
        grown = ref_segment(self._reached(self._state_log)) - self._oldest_state
        return (grown >= _STATE_SEGMENTS or self._behind) and self.snapshot is not None

    async def _work(self, *, give: bool, write: bool) -> None:
        """Give room back, then write; a full disk that refuses the one must not delay the other."""
        if give:
            try:
                await self._give_back()
            except (OSError, StoreError):
                self.failures += 1
                self._give_after = self._loop.time() + _HASTE
                self._look_again(_HASTE)
        if write:
            try:
                if self._wants_checkpoint():
                    await self.checkpoint()
                if self._to_compact:
                    await self._compact()
            except (OSError, StoreError):
                self.failures += 1
                self._write_after = self._loop.time() + _PATIENCE

    async def _give_back(self) -> None:
        if self._done_texts:
            texts = self._done_texts[:]
            await self._loop.run_in_executor(None, self._remove_texts, texts)
            del self._done_texts[: len(texts)]
        if ready := self._ready():
            await self._give_up(ready)

    def _remove_texts(self, message_ids: list[int]) -> None:
        for message_id in message_ids:
            self._folder.body(message_id).unlink(missing_ok=True)

    async def _give_up(self, keys: list[int]) -> None:
        damaged = [k for k in keys if k in self.damaged]
        sound = sorted(set(keys).difference(damaged))
        if sound:
            await self._loop.run_in_executor(None, self._folder.recycle, sound)
        for key in damaged:
            await self._loop.run_in_executor(None, self._folder.set_aside, self._folder.path(key))
        self._emptied.difference_update(keys)

    # ---- checkpoints

    async def checkpoint(self) -> None:
        """Write down all that is unfinished, then give up the state log before it."""
        if self.snapshot is None:
            return
        run = self._loop.run_in_executor
        # One segment more than is needed by the letter: the queue manager may hear that a change is durable, and
        # change its own mind accordingly, a little later than we do.
        first = max(self._oldest_state, ref_segment(self._reached(self._state_log)) - 1)
        horizons = list(self._horizons())
        head = checkpoints.head(first, horizons)
        self._behind = False
        missing = self._ledger.references()
        for ref in self._compaction.forward:
            missing.discard(ref)
        messages = self._unfinished(self.snapshot(), missing)
        writer = checkpoints.CheckpointWriter(self._folder, head)
        try:
            while batch := list(islice(messages, _SLICE)):
                await run(None, writer.add, batch)
            await run(None, writer.commit)
        except (OSError, StoreError):
            await run(None, writer.abandon)  # the old one still holds, with the longer log
            raise
        self.checkpoints += 1
        self.checkpoint_octets += self._folder.checkpoint.stat().st_size
        self._covered = {key for key, _, end in horizons if end == _WHOLE}
        self._oldest_state = first
        old = [k for k in self._folder.in_use(self._state_log) if k < first and not self._ledger.live(k)]
        old = [k for k in old if k not in self.unreadable]
        await self._give_up(old)

    def _unfinished(self, snapshot: Iterator[Queued], live: References) -> Iterator[Queued]:
        """The snapshot, and then what it lacks of the messages that were live when it began.

        INVARIANT: a message that is not finished durably is in the checkpoint, whatever the queue manager says: the
        next recovery looks at nothing else. Mostly these were finished a moment ago, and the state log says so.
        """
        for queued in snapshot:
            live.discard(queued.ref)
            yield self._complete(queued)
        for references in live:
            for ref in references:
                if ref in self._compaction.forward:
                    break  # its copy is in the snapshot
                if ref in self._ledger and (found := self._lookup(ref)) is not None:
                    self.forgotten += 1
                    yield self._complete(found)
                    break

    def _complete(self, queued: Queued) -> Queued:
        """With the parts that are finished for good, should the queue manager have forgotten them."""
        if len(queued.domains) == 1:
            return queued
        there = {c.part for c in queued.changes if c.kind == "finished"}
        lacks = [p for p in self._ledger.finished_parts(queued.ref, len(queued.domains)) if p not in there]
        if not lacks:
            return queued
        others = tuple(c for c in queued.changes if c.part not in lacks)
        finished = tuple(Change(ref=queued.ref, id=queued.id, part=p, kind="finished") for p in lacks)
        return with_changes(queued, others + finished)

    def _horizons(self) -> Iterator[tuple[int, int, int]]:
        """For each segment, its generation and the offset up to which its messages are in the snapshot to come."""
        for key in self._folder.in_use():
            reached = self._reached(key >> 32)
            if key > ref_segment(reached):
                continue
            try:
                view = SegmentView(self._folder, key)
            except StoreError:
                continue
            view.close()
            if view.header is not None:
                whole = key < ref_segment(reached)
                yield key, view.header.generation, (_WHOLE if whole else ref_offset(reached))
