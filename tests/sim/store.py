"""A store in memory: what it is told is durable a moment later, in order, and what is not yet is lost in a crash.

Invariant that it checks: a part is finished once, and nothing is recorded of it afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from mta.model import (
    Arrival,
    Arrivals,
    Change,
    Committed,
    Draft,
    Envelope,
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

SYNC = 0.001  # seconds
_CONTENT = b"X-Id: %d\r\nSubject: simulated\r\n\r\nText.\r\n"  # a notice brings it back


class MemoryStore:
    """See the module. `committed` is the notifier's, `noticed` hears of each notice that is durable."""

    refusing: StoreError | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, noticed: Callable[[Draft], None]) -> None:
        self._loop = loop
        self._noticed = noticed
        self.committed: Committed
        self._envelopes: dict[int, tuple[int, Envelope]] = {}
        self._open: dict[int, int] = {}  # unfinished parts, by ref
        self._newest: dict[tuple[int, int], Change] = {}  # by ref and part, of messages that are not finished
        self._batch: list[Callable[[], None]] = []  # what is on its way to the disk
        self._told: list[Callable[[], None]] = []
        self.records = 0

    # ---- the world's side

    def keep(self, message_id: int, envelope: Envelope) -> Queued:
        """A message is there; the news of it."""
        ref = (len(self._envelopes) + 1) * 8
        self._envelopes[ref] = message_id, envelope
        queued = self._news(ref)
        self._open[ref] = len(queued.domains)
        return queued

    @property
    def unfinished(self) -> int:
        return len(self._open)

    def crash(self) -> None:
        """Its process is gone, with what was not durable."""
        self._batch.clear()
        self._told.clear()

    def states(self, ref: int) -> list[Change | None]:
        """The newest change of each part of a message; None where there is none. Empty: it is finished."""
        return [self._newest.get((ref, n)) for n in range(len(self._news(ref).domains))] if ref in self._open else []

    # ---- the store's

    def recover(self) -> Iterator[Queued]:
        for ref in list(self._open):
            changes = [change for change in self.states(ref) if change is not None]
            yield msgspec.structs.replace(self._news(ref), changes=tuple(changes))

    def record_soon(self, changes: Sequence[Change], told: Callable[[], None] | None = None) -> None:
        self._soon(partial(self._note, changes), told)

    def begin(self, begun: Sequence[Change], told: Callable[[StoreError | None], None]) -> None:
        self._soon(partial(self._note, begun), partial(told, None))

    async def record(self, changes: Sequence[Change]) -> None:
        self.record_soon(changes)
        await asyncio.sleep(2 * SYNC)

    def envelope(self, ref: Ref) -> Envelope:
        return self._envelopes[ref][1]

    def read(self, ref: Ref) -> Stored:
        message_id, envelope = self._envelopes[ref]
        content = _CONTENT % message_id
        return Stored(MessageId(message_id), envelope, content, "", 0, len(content))

    def claim(self, news: Arrivals | Position) -> Sequence[Queued]:
        assert isinstance(news, Arrivals)
        return [self._news(arrival.ref) for arrival in news.messages]

    def put(self, draft: Draft, token: object) -> None:
        kept: list[Arrival] = []

        def keep() -> None:
            queued = self.keep(draft.id, draft.envelope)
            kept.append(Arrival(queued.id, queued.ref, 100, 100, queued.domains, queued.wants))
            self._noticed(draft)

        self._soon(keep, lambda: self.committed([token], kept, None))

    # ---- inside

    def _news(self, ref: int) -> Queued:
        message_id, envelope = self._envelopes[ref]
        domains = tuple(part_domains(envelope.recipients))
        wants, lane = wants_of(envelope), lane_of(envelope)
        return Queued(id=message_id, ref=ref, size=1, domains=domains, wants=wants, lane=lane)

    def _soon(self, write: Callable[[], None], told: Callable[[], None] | None) -> None:
        if not self._batch:
            self._loop.call_later(SYNC, self._sync)
        self._batch.append(write)
        if told is not None:
            self._told.append(told)

    def _sync(self) -> None:
        batch, self._batch = self._batch, []
        told, self._told = self._told, []
        for write in batch:
            write()
        for tell in told:
            tell()

    def _note(self, changes: Sequence[Change]) -> None:
        self.records += len(changes)
        for change in changes:
            part = change.ref, change.part
            assert change.ref in self._open, f"{change} of a message that is finished"
            before = self._newest.get(part)
            assert before is None or before.kind != "finished", f"{change} of a part that is finished"
            self._newest[part] = change
            if change.kind == "finished":
                self._open[change.ref] -= 1
                if not self._open[change.ref]:
                    del self._open[change.ref]
                    for number in range(len(self._news(change.ref).domains)):
                        self._newest.pop((change.ref, number), None)
