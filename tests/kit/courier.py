"""What the tests of the courier share: a spool in memory, a resolver from a table, a desk that collects results."""

from __future__ import annotations

import asyncio
import random
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from mta.config.settings import Delivery, Trace
from mta.deliver.courier import clock_step
from mta.deliver.desk import Clock, Desk, Sink
from mta.deliver.manners import Manners
from mta.deliver.report import Report
from mta.deliver.tapes import Tapes
from mta.deliver.traffic import Collector
from mta.model import (
    Envelope,
    Hop,
    IdSource,
    Job,
    LookupFailure,
    MessageId,
    Options,
    Recipient,
    Ref,
    Reply,
    Result,
    Results,
    Site,
    Status,
    Stored,
    StoreError,
    Traffic,
)
from mta.net._wire import Outbox
from mta.net.tls import ClientTls
from mta.observe.counters import Table
from mta.observe.maillog import MailLog
from mta.observe.transcripts import Ring, Shelf, Transcript
from mta.spool.bodies import verify

WAIT = 20.0  # seconds after which a test that waits has failed


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test on uvloop; whatever reaches the loop unhandled fails it."""
    unhandled: list[str] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, c: unhandled.append(repr(c)))
        try:
            async with asyncio.timeout(WAIT):
                await main
        except BaseException:
            # A failed test leaves things open; an error out of that warning would block uvloop's close for good.
            warnings.simplefilter("ignore", ResourceWarning)
            raise

    with warnings.catch_warnings():
        uvloop.run(watched())
    if unhandled:
        raise AssertionError(unhandled)


async def until(met: Callable[[], bool]) -> None:
    """Wait for a condition; the time-out of `run` bounds it."""
    while True:
        if met():
            return
        await asyncio.sleep(0.002)


class FakeReader:
    """A spool in memory. A ref is the index of a message."""

    def __init__(self) -> None:
        self.messages: list[Stored] = []
        self.damaged: set[int] = set()
        self._ids = IdSource(1)

    def put(
        self,
        sender: bytes,
        recipients: Sequence[bytes],
        content: bytes,
        *,
        eight_bit: bool = False,
        options: Options | None = None,
        notify: int = 0,
        orcpt: bytes = b"",
        file: Path | None = None,
        offset: int = 0,
        size: int = 0,
    ) -> int:
        envelope = Envelope(
            sender=sender,
            recipients=tuple(Recipient(r, notify, orcpt) for r in recipients),
            eight_bit=eight_bit,
            options=options,
        )
        path = str(file) if file else ""
        now = 1_800_000_000_000
        self.messages.append(Stored(self._ids.next(now), envelope, content, path, offset, size or len(content)))
        return len(self.messages) - 1

    def read(self, ref: Ref) -> Stored:
        if ref in self.damaged:
            raise StoreError("record damaged")
        return self.messages[ref]

    def envelope(self, ref: Ref) -> Envelope:
        return self.read(ref).envelope

    def verify(self, stored: Stored) -> None:
        verify(stored.path, stored.offset, stored.size - len(stored.content), stored.checksum)

    def id(self, ref: int) -> MessageId:
        return self.messages[ref].id


@dataclass
class FakeResolver:
    """Addresses from a table; a host that is not in it does not exist, one with None cannot be found now."""

    table: dict[str, tuple[str, ...] | None] = field(default_factory=dict)

    async def addresses(self, host: str) -> tuple[str, ...]:
        found = self.table.get(host, ())
        if found is None:
            raise LookupFailure(Reply(0, "4.4.3", f"{host}: no name server answered"), permanent=False)
        if not found:
            raise LookupFailure(Reply(0, "5.4.4", f"{host}: no such host"), permanent=True)
        return found

    def mx(self, domain: str) -> Awaitable[tuple[Hop, ...]]:
        raise NotImplementedError


class Rig:
    """A desk, its sinks, and the results they gave. Made inside a running loop."""

    def __init__(self, log: Path, *, trace: Trace = Trace(), **settings: Any) -> None:  # noqa: B008 (frozen)
        loop = asyncio.get_running_loop()
        delivery = Delivery(**settings)
        self.log = log / "mail.log"
        self.reader = FakeReader()
        self.resolver = FakeResolver()
        self.results: list[Result] = []
        self.packets: list[Results] = []
        self.traffic: list[Traffic] = []
        self.table = Table(1)
        self.maillog = MailLog(self.log, partial(loop.call_later, 0.005))
        self.log_folder = log
        ring = Ring(log / "transcripts-1", 64 << 10, 20)
        weakref.finalize(self, self.maillog.close)  # tests read the log when the loop has ended
        self.desk = Desk(
            outbox=Outbox(loop),
            tapes=Tapes(ring, trace, IdSource(1), loop),
            loop=loop,
            settings=delivery,
            hostname="me.example",
            reader=self.reader,
            resolver=self.resolver,
            report=Report(
                loop=loop,
                counters=self.table.row(0),
                maillog=self.maillog,
                reader=self.reader,
                send=self._collect,
                states=memoryview(bytearray(1)),
            ),
            traffic=Collector(loop, self.traffic.append),
            random=random.Random(1),
            clock=Clock(clock_step(delivery)),
            tls=ClientTls(delivery.tls_authorities),
            manners=Manners(loop.time),
            scratch=log,
        )
        self.sinks: list[Sink] = []
        self._sweep()

    def transcripts(self) -> list[Transcript]:
        return Shelf(self.log_folder).read()

    def job(self, ref: int, *, part: int = 0, pending: tuple[int, ...] = ()) -> Job:
        return Job(ref + 100, self.reader.id(ref), ref, part, 0, pending=pending)

    def mail(self, count: int = 1, *, recipient: bytes = b"b@example.net", text: bytes = b"hi\r\n") -> list[Job]:
        return [self.job(self.reader.put(b"a@example.org", [recipient], text)) for _ in range(count)]

    async def settled(self, count: int) -> list[Result]:
        """Wait for so many results."""
        await until(lambda: len(self.results) >= count)
        return self.results

    def lines(self) -> list[str]:
        self.maillog.flush()
        return self.log.read_text().splitlines()

    def counter(self, name: str) -> int:
        return self.table.totals()[name]

    def _collect(self, packet: Results) -> None:
        self.packets.append(packet)
        self.results.extend(packet.results)

    def _sweep(self) -> None:
        self.desk.loop.call_later(self.desk.clock.step, self._sweep)
        self.desk.clock.tick += 1
        for sink in self.sinks:
            sink.sweep()


def verdicts(result: Result) -> list[tuple[Status, int, str, tuple[int, ...]]]:
    """The outcomes of a result without their texts."""
    return [(o.status, o.reply.code, o.reply.enhanced, o.recipients) for o in result.outcomes]


def smtp_site(*hops: tuple[int, str], port: int, **more: Any) -> Site:
    return Site(name="site", kind="smtp", hops=tuple(Hop(p, h) for p, h in hops), port=port, **more)
