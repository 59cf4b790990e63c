"""A store in memory: what was told it is durable a moment later, in the order in which it was told.

Invariant that it checks: a part is finished once, and nothing is recorded of it afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

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
    part_domains,
    wants_of,
)

SYNC = 0.001  # seconds
_CONTENT = b"Subject: simulated\r\n\r\nText.\r\n"


class MemoryStore:
    """See the module. `committed` is the notifier's."""

    refusing: StoreError | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, committed: Committed) -> None:
        self._loop = loop
        self._committed = committed
        self._envelopes: dict[int, tuple[int, Envelope]] = {}
        self._refs: dict[int, int] = {}  # by id
        self._open: dict[int, int] = {}  # unfinished parts, by ref
        self._done: set[tuple[int, int]] = set()  # finished parts of messages that have others left
        self.records = 0

    # ---- the world's side

    def keep(self, message_id: int, envelope: Envelope) -> Queued:
        """A message is there; the news of it."""
        ref = (len(self._refs) + 1) * 8
        self._refs[message_id] = ref
        self._envelopes[ref] = message_id, envelope
        domains = tuple(part_domains(envelope.recipients))
        self._open[ref] = len(domains)
        return Queued(id=message_id, ref=ref, size=1, domains=domains, wants=wants_of(envelope))

    @property
    def unfinished(self) -> int:
        return len(self._open)

    # ---- the store's

    def record_soon(self, changes: Sequence[Change], told: Callable[[], None] | None = None) -> None:
        for change in changes:
            self._note(change)
        if told is not None:
            self._loop.call_later(SYNC, told)

    def begin(self, begun: Sequence[Change], told: Callable[[StoreError | None], None]) -> None:
        for change in begun:
            self._note(change)
        self._loop.call_later(SYNC, told, None)

    async def record(self, changes: Sequence[Change]) -> None:
        self.record_soon(changes)
        await asyncio.sleep(SYNC)

    def envelope(self, ref: Ref) -> Envelope:
        return self._envelopes[ref][1]

    def read(self, ref: Ref) -> Stored:
        message_id, envelope = self._envelopes[ref]
        return Stored(MessageId(message_id), envelope, _CONTENT, "", 0, len(_CONTENT))

    def claim(self, news: Arrivals | Position) -> Sequence[Queued]:
        assert isinstance(news, Arrivals)
        found = []
        for arrival in news.messages:
            envelope = self._envelopes[arrival.ref][1]
            domains = tuple(part_domains(envelope.recipients))
            found.append(Queued(id=arrival.id, ref=arrival.ref, size=1, domains=domains, wants=wants_of(envelope)))
        return found

    def put(self, draft: Draft, token: object) -> None:
        queued = self.keep(draft.id, draft.envelope)
        arrival = Arrival(queued.id, queued.ref, 100, 100, queued.domains, queued.wants)
        self._loop.call_later(SYNC, partial(self._committed, [token], [arrival], None))

    def _note(self, change: Change) -> None:
        self.records += 1
        part = change.id, change.part
        assert change.ref in self._open, f"{change} of a message that is finished"
        assert part not in self._done, f"{change} of a part that is finished"
        if change.kind == "finished":
            left = self._open[change.ref] = self._open[change.ref] - 1
            self._done.add(part)
            if not left:
                del self._open[change.ref]
                parts = part_domains(self._envelopes[change.ref][1].recipients)
                self._done.difference_update((change.id, n) for n in range(len(parts)))
