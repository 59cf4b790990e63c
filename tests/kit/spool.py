"""A spool in a temporary folder, driven from inside an event loop."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from mta.config.settings import Octets, Spool
from mta.model import (
    Arrival,
    Arrivals,
    Change,
    Draft,
    Envelope,
    IdSource,
    Options,
    Position,
    Queued,
    Recipient,
    Stored,
    StoreError,
)
from mta.spool.store import LocalStore
from mta.spool.writer import LogWriter

NOW = 1_795_000_000_000
SETTINGS = Spool(segment_size=Octets(1 << 20), min_free=Octets(0))


def finished(ref: int, message_id: int, part: int = 0) -> Change:
    return Change(ref=ref, id=message_id, part=part, kind="finished")


class Log:
    """A LogWriter, what it reported, and short ways to use it."""

    def __init__(self, state_dir: Path, log: int = 1, settings: Spool = SETTINGS) -> None:
        self.log = log
        self.reports: list[tuple[list[object], list[Arrival], StoreError | None]] = []
        self.told = asyncio.Event()
        self.writer = LogWriter(settings, state_dir, log, asyncio.get_running_loop(), self.committed)
        self.ids = IdSource(log, self.writer.floor)

    def committed(self, tokens: Sequence[object], arrivals: Sequence[Arrival], error: StoreError | None) -> None:
        self.reports.append((list(tokens), list(arrivals), error))
        self.told.set()

    def draft(
        self,
        body: bytes = b"text\r\n",
        recipients: Sequence[bytes] = (b"b@y.example",),
        options: Options | None = None,
    ) -> Draft:
        envelope = Envelope(sender=b"a@x.example", recipients=tuple(map(Recipient, recipients)), options=options)
        return Draft(self.ids.next(NOW), envelope, b"Received: here\r\n", body)

    def put(
        self,
        body: bytes = b"text\r\n",
        recipients: Sequence[bytes] = (b"b@y.example",),
        options: Options | None = None,
    ) -> Draft:
        draft = self.draft(body, recipients, options)
        self.writer.put(draft, draft.id)
        return draft

    async def settled(self) -> list[Arrival]:
        """Wait until everything is reported; all arrivals so far."""
        async with asyncio.timeout(10):
            await self.writer._idle.wait()
        return [a for _, arrivals, _ in self.reports for a in arrivals]

    async def news(self) -> Arrivals:
        return Arrivals(self.log, tuple(await self.settled()))


class Manager:
    """A LocalStore as the queue manager holds it."""

    @staticmethod
    def opened(state_dir: Path) -> LocalStore:
        """A store before its recovery."""
        return LocalStore(SETTINGS, state_dir, asyncio.get_running_loop(), lambda tokens, arrivals, error: None)

    def __init__(self, state_dir: Path, settings: Spool = SETTINGS) -> None:
        self.notices: list[Arrival] = []
        self.store = LocalStore(settings, state_dir, asyncio.get_running_loop(), self.committed)
        self.queue: dict[int, Queued] = {q.ref: q for q in self.store.recover()}
        self.store.snapshot = lambda: iter(list(self.queue.values()))

    def committed(self, tokens: Sequence[object], arrivals: Sequence[Arrival], error: StoreError | None) -> None:
        assert error is None
        self.notices.extend(arrivals)

    def claim(self, news: Arrivals | Position) -> list[Queued]:
        claimed = list(self.store.claim(news))
        self.queue.update((q.ref, q) for q in claimed)
        return claimed

    async def finish(self, queued: Sequence[Queued]) -> None:
        """All parts of some messages are done with."""
        for q in queued:
            self.queue.pop(q.ref, None)
        await self.store.record([finished(q.ref, q.id, part) for q in queued for part in range(len(q.domains))])
        await self.store._upkeep.settle()

    def contents(self) -> list[bytes]:
        return sorted(self.read(ref).content for ref in self.queue)

    def read(self, ref: int) -> Stored:
        return self.store.read(ref)  # type: ignore[arg-type]
