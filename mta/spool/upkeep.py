"""Keeps the spool small: uses empty segments again, removes texts that are done with, makes checkpoints.

Invariants
- INVARIANT: a segment is given up, and a large text removed, only after the changes that finish its last message are
  durable. The store calls `finished` and `emptied` only then.
- INVARIANT: a segment of the state log is given up only after a checkpoint that makes it unnecessary is durable.
- A segment is given up only when its log has gone on to a later one *and* all its messages are known here.
- A segment in which damage was found is set aside, not used again; one that could not be read is left alone.

Failure: what the disk refuses is tried again after `_PATIENCE`; until then the spool is larger than it need be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice

from mta.model import Change, Queued, StoreError
from mta.spool import checkpoint as checkpoints
from mta.spool.format import ref_offset, ref_segment
from mta.spool.ledger import Ledger, References
from mta.spool.scan import SegmentView, with_changes
from mta.spool.segments import Folder

_STATE_SEGMENTS = 4  # sealed ones before a checkpoint is made
_SLICE = 2000  # messages of a checkpoint taken in one loop turn
_PATIENCE = 10.0  # seconds
_WHOLE = 1 << 27  # behind the end of any segment


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
        self._not_before = 0.0
        self.damaged: set[int] = set()
        self.unreadable: set[int] = set()
        self.snapshot: Callable[[], Iterator[Queued]] | None = None
        self.checkpoints = 0
        self.forgotten = 0  # live messages that a snapshot lacked
        self.failures = 0

    # ---- what the store tells

    def begin(self) -> None:
        """Recovery is over: look at everything once."""
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
        if (self._done_texts or self._wants_checkpoint() or self._ready()) and self._loop.time() >= self._not_before:
            self._task = self._loop.create_task(self._work())

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._task is not None and not self._task.done():
            await self._task

    # ---- the work

    def _ready(self) -> list[int]:
        """Empty segments that can be given up now, those of the state log apart."""
        live = self._ledger.live
        mail = [k for k in self._emptied if k >> 32 != self._state_log]
        return [k for k in mail if self._is_sealed(k) and not live(k) and k not in self.unreadable]

    def _is_sealed(self, key: int) -> bool:
        return key < ref_segment(self._reached(key >> 32))

    def _wants_checkpoint(self) -> bool:
        grown = ref_segment(self._reached(self._state_log)) - self._oldest_state
        return grown >= _STATE_SEGMENTS and self.snapshot is not None

    async def _work(self) -> None:
        try:
            if self._done_texts:
                texts, self._done_texts = self._done_texts, []
                await self._loop.run_in_executor(None, self._remove_texts, texts)
            if ready := self._ready():
                await self._give_up(ready)
            if self._wants_checkpoint():
                await self.checkpoint()
        except (OSError, StoreError):
            self.failures += 1
            self._not_before = self._loop.time() + _PATIENCE

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
        head = checkpoints.head(first, list(self._horizons()))
        missing = self._ledger.references()
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
