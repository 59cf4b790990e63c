"""The sinks of one courier, and its end of the link to the queue manager.

Life of the link: a courier says Hello when it starts, and answers the Hello of a queue manager that was
restarted with the jobs it still has in hand, so that nobody else is given them. Results of these go to the
new one.

Stopping: what waits is given back untried at once, what is on the wire may finish until the drain time is
over, then the rest is reported as far as it is known. Bye comes last.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from mta.config.settings import Delivery, Settings
from mta.deliver.desk import Clock, Desk, Sink
from mta.deliver.local import DiscardSink, Maildirs, MaildirSink
from mta.deliver.maildir import MaildirWriter, system_syncfs
from mta.deliver.manners import Manners
from mta.deliver.pool import Pool
from mta.deliver.report import Report
from mta.deliver.tapes import Tapes
from mta.deliver.traffic import Collector, Key, key_of
from mta.deliver.work import Work
from mta.model import (
    BUSY_IN_ONE_HELLO,
    LINK_VERSION,
    Bye,
    Hello,
    IdSource,
    Job,
    Jobs,
    LinkRecord,
    Reader,
    Resolver,
    Site,
    SiteNews,
)
from mta.net._wire import Outbox
from mta.net.link import Link
from mta.net.seats import Row
from mta.net.tls import ClientTls
from mta.observe.maillog import LOG_DELAY, MailLog
from mta.observe.transcripts import open_ring

_LAST_WORDS = 2.0  # seconds to get results and Bye into a full link


@dataclass(frozen=True, slots=True)
class CourierStart:
    """All that a courier is born with."""

    settings: Settings
    worker: int
    life: int
    counters: memoryview
    link: socket.socket
    seats: Row
    up: Callable[[], None]


class Courier:
    """The sinks of one process. `stopping` is set when it is time to end."""

    def __init__(
        self, start: CourierStart, loop: asyncio.AbstractEventLoop, reader: Reader, resolver: Resolver
    ) -> None:
        settings = start.settings
        self._start = start
        self._loop = loop
        self._maillog = MailLog(settings.log.path, partial(loop.call_later, LOG_DELAY))
        self._link = Link(start.link, loop, self._heard)
        self._report = Report(
            loop=loop,
            counters=start.counters,
            maillog=self._maillog,
            reader=reader,
            send=self._link.send,
            states=start.seats.states,
        )
        self._desk = Desk(
            loop=loop,
            settings=settings.delivery,
            hostname=settings.server.hostname,
            reader=reader,
            resolver=resolver,
            report=self._report,
            traffic=Collector(loop, self._link.send),
            random=random.Random(),
            clock=Clock(clock_step(settings.delivery)),
            tls=ClientTls(settings.delivery.tls_authorities),
            manners=Manners(loop.time),
            scratch=settings.server.state_dir,
            tapes=Tapes(
                open_ring(settings.trace, settings.server.runtime_dir, start.worker),
                settings.trace,
                IdSource(start.worker),
                loop,
            ),
            outbox=Outbox(loop),
        )
        self._maildirs = Maildirs(self._desk, MaildirWriter(settings.server.hostname, system_syncfs()))
        self._sites: dict[int, SiteNews] = {}
        self._sinks: dict[Key, Sink] = {}
        self.stopping = asyncio.Event()
        self._sweep()

    def hello(self) -> None:
        """Tell the queue manager who is here, and what is in hand.

        INVARIANT: results come before it: what is neither in hand nor reported is given to somebody else.
        """
        self._report.flush()
        jobs = ((job.id, job.part) for job in self._busy())
        while True:
            busy = tuple(islice(jobs, BUSY_IN_ONE_HELLO))
            self._link.send(Hello(LINK_VERSION, "courier", self._start.worker, self._start.life, busy))
            if len(busy) < BUSY_IN_ONE_HELLO:
                return

    async def drain(self, seconds: float) -> None:
        """Finish what is on the wire, give back the rest, say Bye."""
        for sink in self._sinks.values():
            sink.stop()
        await self._until(lambda: next(self._busy(), None) is None, seconds)
        for sink in self._sinks.values():
            sink.abandon()
        await self._loop.run_in_executor(None, self._maildirs.close)
        await asyncio.sleep(0)  # the callbacks of the last letters
        self._report.flush()
        self._link.send(Bye(self._start.worker))
        await self._until(lambda: not self._link.backlog, _LAST_WORDS)
        self._maillog.flush()
        self._link.close()

    # ---- inside

    def _heard(self, record: LinkRecord) -> None:
        if isinstance(record, Jobs):
            self._assign(record)
        elif isinstance(record, SiteNews):
            key = key_of(record.site, record.source)
            self._sites[record.number] = record
            self._desk.traffic.numbers[key] = record.number
            sink = self._sinks.get(key)
            if sink is not None:
                sink.update(record.site)
        elif isinstance(record, Hello):
            if record.version != LINK_VERSION:
                raise RuntimeError(f"queue manager speaks link version {record.version}, not {LINK_VERSION}")
            self._desk.traffic.numbers.clear()  # those of its predecessor
            self.hello()

    def _assign(self, record: Jobs) -> None:
        if record.life not in (0, self._start.life):
            return  # meant for the one before us; the queue manager gives these out again
        news = self._sites.get(record.site)
        if news is None or news.site.kind not in _SINKS or self.stopping.is_set():
            for job in record.jobs:
                self._report.untried(Work(job, 0.0))
            return
        key = key_of(news.site, news.source)
        sink = self._sinks.get(key)
        if sink is None:
            desk = self._desk.at(news.source)
            sink = self._sinks[key] = _SINKS[news.site.kind](desk, self._maildirs, news.site)
        sink.add(record.jobs)

    def _busy(self) -> Iterator[Job]:
        for sink in self._sinks.values():
            yield from sink.busy()

    def _sweep(self) -> None:
        self._loop.call_later(self._desk.clock.step, self._sweep)
        self._desk.clock.tick += 1
        for key, sink in list(self._sinks.items()):
            sink.sweep()
            if sink.unused:
                del self._sinks[key]

    async def _until(self, met: Callable[[], bool], seconds: float) -> None:
        deadline = self._loop.time() + seconds
        while not met():
            if self._loop.time() > deadline:
                return
            await asyncio.sleep(0.01)


_SINKS: dict[str, Callable[[Desk, Maildirs, Site], Sink]] = {
    "smtp": lambda desk, maildirs, site: Pool(desk, site),
    "lmtp": lambda desk, maildirs, site: Pool(desk, site),
    "maildir": MaildirSink,
    "discard": lambda desk, maildirs, site: DiscardSink(desk),
}


def clock_step(settings: Delivery) -> float:
    """Fine enough for the shortest time-out, a second at most."""
    limits = (
        settings.idle_timeout,
        settings.connect_timeout,
        settings.command_timeout,
        settings.data_timeout,
    )
    return max(0.02, min(1.0, *(limit / 4 for limit in limits if limit > 0)))
