"""The sinks that end on this machine: Maildir and discard.

All Maildir sites of a courier share one queue, so that letters for different domains share a sync. A batch is
what waits when a thread is free: a lone letter goes at once, a flood goes in batches of `_BATCH`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mta.deliver.desk import Desk
from mta.deliver.maildir import GOING_ROUND, Letter, MaildirWriter
from mta.deliver.work import Work
from mta.mail.mailbox import maildir_path
from mta.model import Job, Outcome, Reply, Site, Status, StoreError
from mta.net.seats import DELIVERED, DOTTED

_BATCH = 64
_THREADS = 2  # one batch writes while the other syncs; more only make the batches smaller

_Parcel = tuple["MaildirSink", Work, list[Letter | None]]


class Maildirs:
    """The threads, and what waits for them."""

    def __init__(self, desk: Desk, writer: MaildirWriter) -> None:
        self._desk = desk
        self._writer = writer
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="maildir")
        self._running = 0
        self._waiting: deque[tuple[MaildirSink, Work]] = deque()

    def add(self, sink: MaildirSink, works: Sequence[Work]) -> None:
        self._waiting.extend((sink, work) for work in works)
        self._pump()

    def take_back(self) -> list[tuple[MaildirSink, Work]]:
        """What no thread has begun; it waits no more."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    def _pump(self) -> None:
        while self._waiting and self._running < _THREADS:
            parcels = [p for p in (self._parcel() for _ in range(min(_BATCH, len(self._waiting)))) if p]
            self._running += 1
            future = self._desk.loop.run_in_executor(self._threads, self._deliver, parcels)
            future.add_done_callback(lambda f, parcels=parcels: self._done(f, parcels))  # type: ignore[misc]

    def _deliver(self, parcels: Sequence[_Parcel]) -> None:
        """In a thread: write the letters, and note in the seats how far they came."""
        states = self._desk.report.states

        def publishing() -> None:
            for _, work, _ in parcels:
                states[work.job.seat] = DOTTED

        self._writer.deliver([letter for _, _, held in parcels for letter in held if letter is not None], publishing)
        for _, work, held in parcels:
            if all(letter is not None and letter.fault is None for letter in held):
                states[work.job.seat] = DELIVERED

    def _parcel(self) -> _Parcel | None:
        sink, work = self._waiting.popleft()
        try:
            stored = work.open(self._desk.reader)
        except StoreError as error:
            reply = Reply(0, "4.3.0", f"the message cannot be read from the spool: {error}")
            sink.settle(work, [Outcome(Status.DEFERRED, reply)])
            return None
        letters: list[Letter | None] = []
        for address in work.addresses:
            base = maildir_path(sink.template, address)
            letters.append(Letter(str(base), work.sender, address, stored) if base else None)
        work.stored = None
        return sink, work, letters

    def _done(self, future: asyncio.Future[None], parcels: Sequence[_Parcel]) -> None:
        self._running -= 1
        try:
            future.result()
        finally:  # a bug of ours: what it left without a fault is not known to be delivered
            for sink, work, letters in parcels:
                sink.settle(work, _outcomes(work, letters, broken=future.exception() is not None))
            self._pump()


class MaildirSink:
    """One Maildir template."""

    def __init__(self, desk: Desk, maildirs: Maildirs, site: Site) -> None:
        self._desk = desk
        self._maildirs = maildirs
        self.template = site.path
        self._works: set[Work] = set()
        self._stopping = False

    def add(self, jobs: Sequence[Job]) -> None:
        works = [Work(job, 0.0) for job in jobs]
        self._works.update(works)
        self._maildirs.add(self, works)
        if self._stopping:
            self.stop()

    def update(self, site: Site) -> None:
        self.template = site.path

    def busy(self) -> Iterator[Job]:
        return (work.job for work in self._works)

    def sweep(self) -> None:
        """Nothing here has a time-out."""

    @property
    def unused(self) -> bool:
        return not self._works

    def stop(self) -> None:
        self._stopping = True
        for sink, work in self._maildirs.take_back():
            sink._works.discard(work)
            self._desk.report.untried(work)

    def abandon(self) -> None:
        """Threads cannot be interrupted: Maildirs.close waits for them."""

    def settle(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        self._works.discard(work)
        if outcomes:
            self._desk.report.settled(work, outcomes)
        else:
            self._desk.report.delivered(work, "maildir", "250 2.0.0 delivered")


class DiscardSink:
    """Everything is delivered, nowhere."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            work = Work(job, 0.0)
            try:
                work.address(self._desk.reader)
            except StoreError as error:
                reply = Reply(0, "4.3.0", f"the message cannot be read from the spool: {error}")
                self._desk.report.settled(work, [Outcome(Status.DEFERRED, reply)])
            else:
                self._desk.report.delivered(work, "discard", "250 2.0.0 discarded")

    def update(self, site: Site) -> None:
        """There is nothing to change."""

    def busy(self) -> Iterator[Job]:
        return iter(())

    def sweep(self) -> None:
        """Nothing here has a time-out."""

    @property
    def unused(self) -> bool:
        return True

    def stop(self) -> None:
        """Nothing waits here."""

    def abandon(self) -> None:
        """Nothing waits here."""


def _outcomes(work: Work, letters: Sequence[Letter | None], *, broken: bool) -> list[Outcome]:
    """What became of the recipients of one work; empty when all have it."""
    outcomes = [_outcome(letter, broken) for letter in letters]
    if all(o.status == Status.DELIVERED for o in outcomes):
        return []
    groups: dict[Outcome, list[int]] = {}
    for member, outcome in zip(work.members, outcomes, strict=True):
        groups.setdefault(outcome, []).append(member)
    if len(groups) == 1:
        return list(groups)
    return [Outcome(o.status, o.reply, o.hop, tuple(who)) for o, who in groups.items()]


def _outcome(letter: Letter | None, broken: bool) -> Outcome:
    if letter is None:
        return Outcome(Status.FAILED, Reply(0, "5.1.1", "no mailbox can have this name"))
    if letter.fault is None and not broken:
        return _DELIVERED
    if letter.fault is GOING_ROUND:
        return Outcome(Status.FAILED, GOING_ROUND, f"maildir:{letter.base}")
    return Outcome(Status.DEFERRED, letter.fault or Reply(0, "4.3.0", "internal error"), f"maildir:{letter.base}")


_DELIVERED = Outcome(Status.DELIVERED, Reply(250, "2.0.0", "delivered"), "maildir")
