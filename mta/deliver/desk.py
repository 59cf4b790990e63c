"""What all sinks of one courier share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from mta.config.settings import Delivery
from mta.deliver.manners import BELIEVED, Lesson, Manners
from mta.deliver.report import Report
from mta.deliver.tapes import Tapes
from mta.deliver.traffic import Collector
from mta.model import ANYWHERE, Job, Reader, Resolver, Site, Source
from mta.net._wire import Outbox
from mta.net.tls import ClientTls

READ_SIZE = 256 << 10


class Clock:
    """A coarse clock, advanced by the courier's sweep, so that no packet asks the time."""

    __slots__ = ("step", "tick")

    def __init__(self, step: float) -> None:
        self.step = step  # seconds between two ticks
        self.tick = 0

    def since(self, tick: int) -> float:
        """Seconds since a tick, at least."""
        return (self.tick - tick - 1) * self.step


@dataclass(slots=True)
class Desk:
    """One courier's tools, for one source. All connections read into `buffer`: each parses what it got at once."""

    loop: asyncio.AbstractEventLoop
    settings: Delivery
    hostname: str
    reader: Reader
    resolver: Resolver
    report: Report
    traffic: Collector
    random: random.Random
    clock: Clock
    tls: ClientTls
    manners: Manners
    scratch: Path  # where files without a name may be made
    tapes: Tapes
    outbox: Outbox
    source: Source = ANYWHERE
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_SIZE)))

    def at(self, source: Source) -> Desk:
        """The same tools, for another source."""
        return self if source == self.source else replace(self, source=source, hostname=source.ehlo or self.hostname)

    def learn(self, hop: str, lesson: Lesson, why: str) -> None:
        """Do without what a host cannot do, for a time."""
        self.manners.learn(hop, lesson)
        self.report.learnt(hop, lesson.value, BELIEVED, why)


class Sink(Protocol):
    """Where the jobs of one site go. Each job that is added ends in one result at the desk's report."""

    def add(self, jobs: Sequence[Job]) -> None:
        """Take jobs; they are tried in this order."""

    def update(self, site: Site) -> None:
        """The site has changed; what is being tried goes on as it was."""

    def busy(self) -> Iterator[Job]:
        """The jobs in hand."""

    def sweep(self) -> None:
        """Called at each tick of the clock."""

    @property
    def unused(self) -> bool:
        """Nothing is in hand and nothing is open: the sink may be forgotten."""

    def stop(self) -> None:
        """Give back what waits, finish what is on the wire; busy() tells when that is done."""

    def abandon(self) -> None:
        """The time for that is over: report all that is left, as far as it is known."""
