"""The queue manager's process: puts the parts together, recovers, serves, stops.

What it opens: the spool (log 0, and all logs to read), the mail log, the links, DNS sockets, the control socket. It
never opens a connection for mail.

Starting: the control socket first, then the spool is recovered in slices, the couriers are greeted, and only then the
links of the receivers are read: what they told meanwhile lies in the links or, if these were full, in the spool.
Stopping: no more dispatch, the results of what couriers have in hand are recorded, the store is closed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import uvloop

from mta.config.settings import Settings
from mta.model import LINK_VERSION, Arrivals, Hello, LinkRecord, Position
from mta.net.link import Link
from mta.net.resolver import DnsResolver
from mta.net.seats import SeatTable
from mta.observe.maillog import LOG_DELAY, MailLog, quoted
from mta.queue._arena import ACTIVE
from mta.queue.audit import Audit
from mta.queue.couriers import Couriers
from mta.queue.egress import Egress
from mta.queue.filter import AMBIGUOUS, STATES
from mta.queue.imports import Importer
from mta.queue.learned import Learned
from mta.queue.manager import TICKS, QueueManager
from mta.queue.notices import Notifier
from mta.queue.operator import Operator, Row
from mta.queue.overview import Overview
from mta.queue.routing import Router
from mta.queue.snapshot import Housekeeping
from mta.queue.suppression import Suppression
from mta.spool.store import STATE_LOG, LocalStore

_SLICE = 2000  # messages recovered in one turn of the loop
_PATIENCE = 2.0  # seconds for couriers to say what they have in hand

ServeControl = Callable[[Operator], Awaitable[Callable[[], Awaitable[None]]]]


@dataclass(frozen=True, slots=True)
class QueueStart:
    """All that a queue manager is born with."""

    settings: Settings
    worker: int
    life: int
    counters: memoryview
    totals: Callable[[], dict[str, int]]
    processes: Callable[[], list[tuple[str, int, int]]]  # role, worker, pid
    places: Callable[[], list[tuple[str, int, int, int]]]  # and how often one has died there
    receivers: list[socket.socket]
    couriers: list[tuple[int, socket.socket]]
    seats: SeatTable
    up: Callable[[], None]
    serve_control: ServeControl | None


def run(start: QueueStart) -> None:
    """Serve until SIGTERM."""
    # Works in batches: it need not interrupt a receiver that answers a client.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    uvloop.run(_serve(start))


async def _serve(start: QueueStart) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.set_exception_handler(_broken)
    desk = Desk(start, loop)
    close_control = await start.serve_control(desk.operator) if start.serve_control is not None else None
    start.up()
    await desk.recover()
    await stop.wait()
    if close_control is not None:
        await close_control()
    await desk.close()


def _broken(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A broken invariant here must not go on: the successor rebuilds the queue from the spool."""
    loop.default_exception_handler(context)
    if isinstance(context.get("exception"), Exception):
        sys.stderr.flush()
        signal.raise_signal(signal.SIGABRT)


class Desk:
    """One life of a queue manager."""

    def __init__(self, start: QueueStart, loop: asyncio.AbstractEventLoop) -> None:
        settings = start.settings
        self._start = start
        self._loop = loop
        self._began = time.time()
        self._recovered = False
        self._maillog = MailLog(settings.log.path, partial(loop.call_later, LOG_DELAY))
        notifier = Notifier(settings.notices, settings.server.hostname, STATE_LOG, loop)
        self._store = LocalStore(settings.spool, settings.server.state_dir, loop, notifier.committed)
        suppression = Suppression(settings.suppression, settings.server.state_dir / "suppression.db", time.time)
        self.manager = QueueManager(
            store=self._store,
            router=Router(
                settings.domain,
                settings.route,
                hostname=settings.server.hostname,
                connections=settings.delivery.connections,
                port=settings.delivery.port,
            ),
            retry=settings.retry,
            resolver=DnsResolver(settings.dns),
            maillog=self._maillog,
            counters=start.counters,
            couriers=self._couriers,
            seats=start.seats,
            teller=notifier,
            egress=Egress(settings.source) if settings.source else None,
            weights={tenant.name: tenant.weight for tenant in settings.tenant},
            shapes=settings.shape,
            delivery=settings.delivery,
            learned=Learned(settings.server.state_dir / "sites.db", time.time),
            suppression=suppression,
        )
        suppression.attach(self.manager)
        notifier.attach(self.manager, self._store.floor)
        housekeeping = Housekeeping(self.manager)
        self._store.snapshot = housekeeping.snapshot
        self._store.relocate = housekeeping.relocate
        self._audit = Audit(settings.server.state_dir / "operations.sqlite")
        self.operator = Operator(self.manager, self.status, self._audit, Importer(self.manager, notifier.new_id))
        self.operator.overview = Overview(self.manager, self.status, start.places, settings.server.runtime_dir)
        self._links: list[Link] = []

    def _couriers(self, manager: QueueManager) -> Couriers:
        return Couriers(
            self._start.couriers,
            self._loop,
            manager.arena,
            self._start.life,
            results=manager.settling.came,
            drained=manager.dispatch,
            began=lambda courier, new, busy: manager.attempts.courier_said(courier, new, busy),
            traffic=lambda worker, traffic: manager.regulator.heard(worker, traffic),
        )

    async def recover(self) -> None:
        """Rebuild the queue from the spool, then open it."""
        for number, queued in enumerate(self._store.recover()):
            self.manager.admission.admit(queued)
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        await self.manager.couriers.greet(_PATIENCE)
        for end in self._start.receivers:
            link = Link(end, self._loop, self._heard, self.manager.dispatch)
            link.send(Hello(LINK_VERSION, "queue", self._start.worker, self._start.life))
            self._links.append(link)
        self._recovered = True
        self._report()
        self.manager.open()
        self._turn()

    async def close(self) -> None:
        self.manager.close()
        # Couriers that stop as well give back what they have; others finish it, or tell our successor.
        arena = self.manager.arena
        patience = self._start.settings.server.drain + _PATIENCE
        await self.manager.couriers.until(lambda: arena.count(ACTIVE) == 0, patience)
        self.manager.couriers.close()
        for link in self._links:
            link.close()
        await self._store.close()
        self._audit.close()
        self.manager.regulator.close()
        if self.manager.suppression is not None:
            self.manager.suppression.close()
        self._maillog.flush()

    def status(self) -> Row:
        """What `mta status` shows."""
        arena = self.manager.arena
        spool = self._start.settings.spool
        return {
            "hostname": self._start.settings.server.hostname,
            "pid": self._start.processes()[0][2] if self._start.processes() else 0,
            "recovered": self._recovered,
            "uptime": round(time.time() - self._began, 1),
            "messages": self.manager.messages,
            "deliveries": {
                **{name: arena.count(state) for name, state in STATES.items()},
                AMBIGUOUS: len(self.manager.extras.ambiguous),  # of the deferred ones
            },
            "queue_time": self.manager.waits.report(self.manager.clock()),
            "sites": len(self.manager.sites.by_number) - 1,
            "sites_held_back": sum(queue.limits.gated for queue in self.manager.sites.by_number),
            "durability": spool.durability,
            **({"interval": spool.interval} if spool.durability == "interval" else {}),
            "processes": [
                {"role": role, "worker": worker, "pid": pid, "deaths": deaths}
                for role, worker, pid, deaths in self._start.places()
                if pid
            ],
            "counters": self._start.totals(),
            "spool": self._store.statistics,
        }

    def _turn(self) -> None:
        """Several times a second: what is due becomes ready."""
        self._loop.call_later(1.0 / TICKS, self._turn)
        self.manager.advance(self.manager.clock())

    def _heard(self, record: LinkRecord) -> None:
        if isinstance(record, Arrivals | Position):
            self.manager.admission.arrived(record)

    def _report(self) -> None:
        if risk := self._start.settings.spool.risk:
            self._maillog("-", "durability", f"interval={self._start.settings.spool.interval:g} warning={quoted(risk)}")
        report = self._store.report
        for note in report.notes:
            print(f"mta: spool: {note}", file=sys.stderr, flush=True)
        if report.messages or report.torn:
            print(
                f"mta: spool: {report.messages} messages queued, {report.segments} segments read in"
                f" {report.seconds:.2f} s, {report.torn} torn tails",
                file=sys.stderr,
                flush=True,
            )
