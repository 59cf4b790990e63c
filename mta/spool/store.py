"""The queue manager's side of the local spool: model.Store.

It owns log 0, in which it writes what became of each message and the queue manager's notices, and it knows which
messages of each segment are unfinished, so that an empty segment is used again (`mta.spool.upkeep`).

Invariants
- INVARIANT: a message counts as finished here only after the change that says so is durable.
- A message is claimed once: references at or below what is known of a log are dropped, a gap is read from the log.
- Changes that could not be written are kept and written again: the fate of a message is not forgotten for a full disk.

Failure: StoreError from `record` (the changes are kept nevertheless), `read` and `put`. What `claim` cannot read it
leaves out and notes in the report; the segment is kept, and read again at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mta.config.settings import Spool
from mta.model import (
    Arrival,
    Arrivals,
    Body,
    Change,
    Committed,
    Draft,
    Envelope,
    Glance,
    MessageId,
    Position,
    Queued,
    Ref,
    Stored,
    StoreError,
    lane_of,
    part_domains,
    wants_of,
)
from mta.spool.compact import Compaction, Relocate
from mta.spool.format import FIRST_OFFSET, MESSAGE, STATE, ref_offset, ref_segment, segment_name
from mta.spool.glances import Glances
from mta.spool.reader import SpoolReader
from mta.spool.recovery import Recovery, Report
from mta.spool.scan import Found, SegmentView, message_in
from mta.spool.segments import Folder
from mta.spool.state import pack_changes, pack_moves
from mta.spool.upkeep import Upkeep
from mta.spool.writer import LogWriter

STATE_LOG = 0
_SOON = 0.010  # seconds that changes may gather: few syncs, and few duplicates after a crash
_MOST_GATHERED = 512
_AGAIN = 1.0  # seconds until changes that could not be written are tried again
_QUICK = 1_500_000  # messages that a checkpoint writes in 4 to 6 s: a stop need not wait for more


class LocalStore:
    """See model.Store. Besides: set `snapshot` to have checkpoints made.

    `snapshot()` yields everything unfinished that `recover` and `claim` have given, finished parts included; it is
    read in slices over several loop turns, and what changes meanwhile may be in it or not. What `claim` gave must be
    in it from the same loop turn on.
    """

    def __init__(self, settings: Spool, state_dir: Path, loop: asyncio.AbstractEventLoop, committed: Committed) -> None:
        self._loop = loop
        self._folder = Folder(state_dir)
        self._folder.make()
        with contextlib.suppress(OSError):  # room that is not given back now is given back at the next start
            self._folder.tidy()
        self._recovery = Recovery(self._folder, STATE_LOG)
        self._first = max(self._folder.in_use(STATE_LOG), default=0) + 1  # segment of this life's own state log
        self._writer = LogWriter(settings, state_dir, STATE_LOG, loop, committed, reserve=True)
        self._reader = SpoolReader(state_dir)
        self._glances = Glances(state_dir, loop)
        self._ledger = self._recovery.ledger
        self._known = self._recovery.known
        self._large = self._recovery.large
        self._compaction = Compaction(
            self._folder, self._ledger, self._large, settings.segment_size, settings.compact_rate, self
        )
        self._upkeep = Upkeep(
            self._folder,
            loop,
            self._ledger,
            STATE_LOG,
            self._reached,
            self._lookup,
            self._compaction,
            settings.compact_rate,
        )
        self._segment_size = settings.segment_size
        self._began: dict[int, int] = {}  # up to where each log was written when this life began
        self._gathered: list[Change] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._retrying: asyncio.TimerHandle | None = None
        self._unwritten: list[Change] = []  # of records that failed
        self._tellings: list[Callable[[], None]] = []  # who waits for what gathers
        self._tellings_unwritten: list[Callable[[], None]] = []
        self.failures = 0  # records of changes that could not be written at once

    # ---- what is queued

    @property
    def report(self) -> Report:
        """What `recover` met."""
        return self._recovery.report

    @property
    def snapshot(self) -> Callable[[], Iterator[Queued]] | None:
        return self._upkeep.snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Callable[[], Iterator[Queued]] | None) -> None:
        self._upkeep.snapshot = snapshot

    @property
    def relocate(self) -> Relocate | None:
        """Set it to have mail that stays moved out of old segments."""
        return self._compaction.relocate

    @relocate.setter
    def relocate(self, relocate: Relocate | None) -> None:
        self._compaction.relocate = relocate

    def recover(self) -> Iterator[Queued]:
        yield from self._recovery.messages(before=self._first)
        self._upkeep.damaged |= self._recovery.damaged
        self._upkeep.unreadable |= self._recovery.unreadable
        self._began = dict(self._known)
        if self._recovery.dead_copies:
            for payload in pack_moves(self._recovery.dead_copies):
                self._append_state(payload)
        self._upkeep.begin(self._recovery.covered())

    def claim(self, news: Arrivals | Position) -> Sequence[Queued]:
        if isinstance(news, Position):
            return self._catch_up(news.log, news.ref)
        if news.log == STATE_LOG:  # our own: none can be missed
            return [queued for arrival in news.messages if (queued := self._claimed(arrival)) is not None]
        queued_now: list[Queued] = []
        known = self._known.get(news.log, 0)
        for arrival in news.messages:
            ref = arrival.ref
            if ref < known:
                continue
            if ref != known:
                queued_now += self._catch_up(news.log, ref)
            if (queued := self._claimed(arrival)) is not None:
                queued_now.append(queued)
            known = self._known[news.log] = ref + (arrival.length >> 3)
        return queued_now

    def read(self, ref: Ref) -> Stored:
        return self._reader.read(ref)

    def verify(self, stored: Stored) -> None:
        self._reader.verify(stored)

    def envelope(self, ref: Ref) -> Envelope:
        return self._reader.envelope(ref)

    async def glances(self, refs: Sequence[int]) -> list[Glance | None]:
        return await self._glances.read(refs)

    # ---- model.Intake, for notices

    @property
    def refusing(self) -> StoreError | None:
        return self._writer.refusing

    def put(self, draft: Draft, token: object) -> None:
        self._writer.put(draft, token)

    def commit(self) -> None:
        self._writer.commit()

    @property
    def committing(self) -> bool:
        return self._writer.committing

    def body(self, message_id: MessageId) -> Body:
        return self._writer.body(message_id)

    # ---- changes

    async def record(self, changes: Sequence[Change]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()

        def told(error: StoreError | None) -> None:
            if future.done():
                return  # cancelled
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self._flush()
        self._write(changes, told)
        await future

    def record_soon(self, changes: Sequence[Change], told: Callable[[], None] | None = None) -> None:
        self._gathered += changes
        if told is not None:
            self._tellings.append(told)
        if len(self._gathered) >= _MOST_GATHERED:
            self._flush()
        elif self._flushing is None:
            self._flushing = self._loop.call_later(_SOON, self._flush)

    def begin(self, begun: Sequence[Change], told: Callable[[StoreError | None], None]) -> None:
        self._flush()  # in the order in which things happened, and in the same commit
        payloads = [payload for _, payload in pack_changes(begun)] or [b""]  # an empty record is behind all others, too
        left = len(payloads)
        failure: StoreError | None = None

        def done(error: StoreError | None) -> None:
            nonlocal left, failure
            left -= 1
            failure = failure or error
            if left == 0:
                told(failure)

        for payload in payloads:
            try:
                self._writer.append(STATE, 0, (payload,), done)
            except StoreError as error:
                done(error)

    @property
    def floor(self) -> int:
        """The newest id of an earlier life."""
        return self._writer.floor

    @property
    def statistics(self) -> dict[str, float | str]:
        """For `mta status`."""
        disk = self._writer.watermark
        inodes = disk.room.inodes
        in_use = self._folder.in_use()
        live = self._compaction.live_octets(in_use)
        return {
            **self._writer.statistics,
            "free_octets": disk.room.octets,
            **({} if inodes is None else {"free_inodes": inodes}),
            **({"refusing_since": round(disk.since), "refusing_why": disk.why} if disk.since else {}),
            "segments": len(in_use),
            "segment_octets": len(in_use) * self._segment_size,
            "live_octets": live,
            "space_amplification": round(len(in_use) * self._segment_size / max(live, 1), 3) if live else 1.0,
            "write_amplification": round(self._write_amplification(), 3),
            "moved_messages": self._compaction.messages,
            "moved_octets": self._compaction.octets,
            "free_segments": self._folder.spares(),
            "live_messages": self._ledger.total,
            "large_bodies": len(self._large),
            "unwritten_changes": len(self._unwritten),
            "checkpoints": self._upkeep.checkpoints,
            "forgotten_by_snapshots": self._upkeep.forgotten,
            "damaged_segments": len(self._upkeep.damaged),
            "unreadable_segments": len(self._upkeep.unreadable),
        }

    def _write_amplification(self) -> float:
        """Octets written by all logs and checkpoints, for each octet of accepted mail."""
        mail = 0
        for log, ref in self._known.items():
            if log != STATE_LOG:
                since = self._began.get(log, ref_segment(ref) << 24)
                segments = ref_segment(ref) - ref_segment(since)
                mail += segments * self._segment_size + ref_offset(ref) - ref_offset(since)
        own = self._writer.statistics["octets"] + self._upkeep.checkpoint_octets
        return (mail + own) / mail if mail > 0 else 1.0

    async def close(self) -> None:
        """Make everything durable, and the next start quick."""
        self._upkeep.close()
        self._flush()
        if self._retrying is not None:
            self._retrying.cancel()
            self._retry()
        await self._writer.drain()
        await self._upkeep.settle()
        if self._ledger.total <= _QUICK:
            with contextlib.suppress(OSError, StoreError):  # the state log says the same, at more length
                await self._upkeep.checkpoint()
        await self._writer.close()
        if self._retrying is not None:
            self._retrying.cancel()
        self._reader.close()
        self._glances.close()

    # ---- inside: changes

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            tellings, self._tellings = self._tellings, []
            self._write(gathered, partial(self._tell, tellings) if tellings else None)

    def _tell(self, tellings: list[Callable[[], None]], error: StoreError | None) -> None:
        """What gathered is durable, or a part of it has to be written again; called a second time, it knows nobody."""
        calls = tellings[:]
        tellings.clear()
        if error is not None:
            self._tellings_unwritten += calls
            return
        for told in calls:
            told()

    def _write(self, changes: Sequence[Change], told: Callable[[StoreError | None], None] | None) -> None:
        """Append changes; `told` hears of the last record, or of the first that failed."""
        records = pack_changes(changes)
        if not records and told is not None:
            told(None)
        for n, (part, payload) in enumerate(records, 1):
            last = n == len(records)

            def done(error: StoreError | None, part: Sequence[Change] = part, last: bool = last) -> None:
                if error is None:
                    self._settle(part)
                else:
                    self._keep(part)
                if told is not None and (last or error is not None):
                    told(error)

            try:
                self._writer.append(STATE, 0, (payload,), done)
            except StoreError as error:
                done(error)

    def _keep(self, changes: Sequence[Change]) -> None:
        """The fate of these messages is not on disk: write it again, to a new segment."""
        self.failures += 1
        self._unwritten += changes
        if self._retrying is None:
            self._retrying = self._loop.call_later(_AGAIN, self._retry)

    def _retry(self) -> None:
        self._retrying = None
        unwritten, self._unwritten = self._unwritten, []
        tellings, self._tellings_unwritten = self._tellings_unwritten, []
        self._write(unwritten, partial(self._tell, tellings))

    def _settle(self, changes: Sequence[Change]) -> None:
        """Changes are durable: count off the messages that they finish."""
        finish, live, upkeep, large = self._ledger.finish, self._ledger.live, self._upkeep, self._large
        forward = self._compaction.forward
        for change in changes:
            ref = change.ref
            if forward and ref in forward and change.kind == "finished":
                finish(forward[ref], change.part)  # recorded before the message was moved
            if change.kind != "finished" or not finish(ref, change.part):
                continue
            if not live(ref >> 24):
                upkeep.emptied(ref >> 24)
            if large and ref in large:
                upkeep.finished_text(large.pop(ref))
        upkeep.look()

    # ---- for mta.spool.compact

    @property
    def troubled(self) -> bool:
        return bool(self._unwritten)

    def append_copy(
        self, message_id: int, flags: int, payload: bytes, done: Callable[[StoreError | None], None]
    ) -> Ref:
        return self._writer.append(MESSAGE, message_id, (payload,), done, flags)

    def flush(self) -> None:
        self._flush()

    async def record_moves(self, moves: Sequence[bytes], changes: Sequence[Change]) -> None:
        futures = [self._append_state(payload) for payload in moves]
        self._write(changes, None)
        errors = [error for future in futures if (error := await future) is not None]
        if errors:
            raise errors[0]

    def _append_state(self, payload: bytes) -> asyncio.Future[StoreError | None]:
        future: asyncio.Future[StoreError | None] = self._loop.create_future()
        try:
            self._writer.append(STATE, 0, (payload,), future.set_result)
        except StoreError as error:
            future.set_result(error)
        return future

    def left(self, ref: int) -> None:
        if self._ledger.leave(ref) and not self._ledger.live(ref >> 24):
            self._upkeep.emptied(ref >> 24)

    # ---- inside: what is known of the logs

    def _reached(self, log: int) -> int:
        """Up to where all messages of a log are known here."""
        return self._writer.position if log == STATE_LOG else self._known.get(log, 0)

    def _lookup(self, ref: int) -> Queued | None:
        """A message as it arrived; None where none begins."""
        try:
            stored = self._reader.read(Ref(ref))
        except StoreError:
            return None
        envelope = stored.envelope
        domains = tuple(part_domains(envelope.recipients))
        wants, lane = wants_of(envelope), lane_of(envelope)
        return Queued(id=stored.id, ref=ref, size=stored.size, domains=domains, wants=wants, lane=lane)

    def _claimed(self, arrival: Arrival) -> Queued | None:
        """An arrival, unless it is known already."""
        domains = arrival.domains
        if not domains:
            try:
                domains = tuple(part_domains(self.envelope(Ref(arrival.ref)).recipients))
            except StoreError as error:
                self._damage(ref_segment(arrival.ref), error)
                return None
        if not self._ledger.add(arrival.ref, len(domains)):
            return None
        if arrival.size > arrival.length:
            self._large[arrival.ref] = arrival.id
        wants, lane = arrival.wants, arrival.lane
        return Queued(id=arrival.id, ref=arrival.ref, size=arrival.size, domains=domains, wants=wants, lane=lane)

    def _catch_up(self, log: int, target: int) -> list[Queued]:
        """Read a log from where it is known up to `target`; all before that is durable, so what is read is final."""
        queued: list[Queued] = []
        known = self._known.get(log, 0)
        if target <= known:
            return queued
        for key in self._folder.in_use(log):
            if key < ref_segment(known) or key > ref_segment(target):
                continue
            start = ref_offset(known) if key == ref_segment(known) else FIRST_OFFSET
            limit = ref_offset(target) if key == ref_segment(target) else None
            try:
                queued += self._missed(key, start, limit)
            except StoreError as error:
                self._upkeep.unreadable.add(key)
                self.report.notes.append(str(error))
            if limit is None and not self._ledger.live(key):
                self._upkeep.emptied(key)
        self._known[log] = target
        self._upkeep.look()
        return queued

    def _missed(self, key: int, start: int, limit: int | None) -> list[Queued]:
        with contextlib.closing(SegmentView(self._folder, key)) as view:
            if view.header is None:
                raise StoreError(f"{segment_name(key)} has no valid header")
            walk = view.walk(start, limit, final=True)
        for place in walk.damaged:
            self._damage(key, StoreError(f"{segment_name(key)} is damaged at {place}; the records behind were read"))
        messages = (self._found(view, found) for found in walk.found if found[0] == MESSAGE)
        return [queued for queued in messages if queued is not None]

    def _found(self, view: SegmentView, found: Found) -> Queued | None:
        try:
            queued, large = message_in(view, found)
        except StoreError as error:
            self._damage(view.key, error)
            return None
        if not self._ledger.add(queued.ref, len(queued.domains)):
            return None
        if large:
            self._large[queued.ref] = queued.id
        return queued

    def _damage(self, key: int, error: StoreError) -> None:
        """The segment is not used again: what is in it may be readable another day."""
        self._upkeep.damaged.add(key)
        self.report.notes.append(str(error))
