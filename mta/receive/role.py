"""The receiver: accepts SMTP on its listeners, writes each message to its own log of the spool, answers.

What it opens: the listening sockets it was given, its log in the spool, the mail log, the link to the queue manager.
It goes on accepting while the queue manager is away: what it committed is found in the spool later.

Stopping: sessions outside a transaction are told 421 at once, the others after their message or when the drain time
is over; then the log is closed, which waits for the last commit.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import uvloop

from mta.config.settings import Listener, Settings
from mta.model import LINK_VERSION, Hello, IdSource, LinkRecord
from mta.net._wire import Outbox
from mta.net.certificates import CertificateStore, listener_policy
from mta.net.link import Link
from mta.observe.counters import INDEX
from mta.observe.maillog import LOG_DELAY, MailLog, printable
from mta.observe.transcripts import open_ring
from mta.policy.admission import Admission
from mta.policy.failures import FailureTable
from mta.policy.relay import RelayControl
from mta.policy.tally import TallyTable
from mta.policy.tenancy import Tenancy
from mta.receive.connection import Connection
from mta.receive.front import Front
from mta.receive.intake import MessageIntake
from mta.receive.listener import READ_SIZE, Clock, Endpoint
from mta.receive.refusals import Refusals
from mta.receive.tapes import Tapes
from mta.receive.tls import CIPHERTEXT, TlsSide
from mta.spool.writer import LogWriter

if TYPE_CHECKING:
    from mta.policy.authenticate import Authenticator
    from mta.receive.auth import Logins

_OTHER_FILES = 256  # texts that arrive, segments, links, look-ups
_STOPPING = b"421 4.3.2 this server is stopping, try again later\r\n"


@dataclass(frozen=True, slots=True)
class ReceiverStart:
    """All that a receiver is born with."""

    settings: Settings
    worker: int
    life: int
    counters: memoryview
    link: socket.socket
    listeners: list[tuple[Listener, socket.socket]]
    failures: FailureTable
    tallies: TallyTable
    place: int  # among the receivers, from 0
    secret: bytes  # makes the salts of users that do not exist
    up: Callable[[], None]


def run(start: ReceiverStart) -> None:
    """Serve until SIGTERM."""
    # Does not interrupt a client or a server on this machine that it has just woken: more comes in a turn of the loop.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    uvloop.run(_serve(start))


async def _serve(start: ReceiverStart) -> None:
    receiver = Receiver(start, asyncio.get_running_loop())
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await receiver.listen()
    start.up()
    await stop.wait()
    await receiver.drain(start.settings.server.drain)


class Receiver:
    """The connections of one process and what they share."""

    def __init__(self, start: ReceiverStart, loop: asyncio.AbstractEventLoop) -> None:
        settings = start.settings
        self._start = start
        self._loop = loop
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server | Front] = []
        self._clock = Clock()
        self._stopping = False
        self._retired = 0  # segments that failed, as far as they are counted
        self._maillog = MailLog(settings.log.path, partial(loop.call_later, LOG_DELAY))
        self._link = Link(start.link, loop, self._heard)
        self._intake = MessageIntake(
            log=start.worker,
            hostname=settings.server.hostname,
            domains=settings.domain,
            counters=start.counters,
            maillog=self._maillog,
            announce=self._link.try_send,
            position=lambda: self._writer.position,
        )
        self._writer = LogWriter(settings.spool, settings.server.state_dir, start.worker, loop, self._intake.committed)
        self._intake.attach(self._writer, IdSource(start.worker, self._writer.floor))
        self._tapes = Tapes(open_ring(settings.trace, settings.server.runtime_dir, start.worker), settings.trace)
        told = self._tapes.refused if self._tapes.failures else None
        self._refusals = Refusals(
            IdSource(start.worker), self._maillog, settings.log.refusals, self._intake.count, told
        )
        self._tally = start.tallies.born(start.place)
        self._certificates: CertificateStore | None = None
        self._endpoints = self._make_endpoints()

    def _make_endpoints(self) -> list[tuple[Endpoint, socket.socket]]:
        settings = self._start.settings
        secure = [listener for listener, _ in self._start.listeners if listener.tls != "off"]
        if secure:
            self._certificates = CertificateStore(settings.tls, map(listener_policy, secure), time.monotonic())
        relay = RelayControl(settings.relay.networks, settings.domain)
        buffer = memoryview(bytearray(READ_SIZE))
        outbox = Outbox(self._loop)
        most = _most_connections()
        ciphertext = memoryview(bytearray(CIPHERTEXT if secure else 0))
        authenticator = self._authenticator = self._make_authenticator()
        return [
            (
                Endpoint(
                    listener,
                    listener.limits,
                    admission=self._admission(listener, relay, most),
                    refusals=self._refusals,
                    hostname=settings.server.hostname,
                    chunk=settings.spool.large_body,
                    relay=relay,
                    tls=self._tls_side(listener, ciphertext),
                    intake=self._intake,
                    connections=self._connections,
                    clock=self._clock,
                    buffer=buffer,
                    outbox=outbox,
                    domains=settings.domain,
                    logins=self._make_logins(authenticator, listener),
                    local=sock.family == socket.AF_UNIX,
                    tapes=self._tapes,
                    tenancy=Tenancy.of(settings, listener),
                ),
                sock,
            )
            for listener, sock in self._start.listeners
        ]

    def _admission(self, listener: Listener, relay: RelayControl, most: int) -> Admission:
        name = str(listener.address[0])
        return Admission(name, listener.limits, self._tally, trusts=relay.trusts, now=_seconds, most=most)

    def _make_authenticator(self) -> Authenticator | None:
        start, settings = self._start, self._start.settings
        if not settings.auth:
            return None
        # late: a server without users has no use for what comes with these
        from mta.policy.authenticate import Authenticator
        from mta.policy.users.backends import make_back_ends

        return Authenticator(
            make_back_ends(settings.auth), settings.login, start.failures, start.secret or os.urandom(32)
        )

    def _make_logins(self, authenticator: Authenticator | None, listener: Listener) -> Logins | None:
        if authenticator is None or listener.role != "submission":
            return None
        from mta.receive.auth import Logins  # late, as above

        note = partial(self._maillog, "-")
        return Logins(authenticator, listener, note=note, count=self._intake.count)

    def _tls_side(self, listener: Listener, ciphertext: memoryview) -> TlsSide | None:
        if self._certificates is None or listener.tls == "off":
            return None
        note = partial(self._maillog, "-")
        policy = listener_policy(listener)
        return TlsSide(self._certificates, policy, ciphertext, note=note, count=self._intake.count)

    async def listen(self) -> None:
        for endpoint, sock in self._endpoints:
            if endpoint.has_front:
                front = Front(endpoint, sock, self._loop, self._refusals.note_stranger)
                front.open()
                self._servers.append(front)
                continue
            local = sock.family == socket.AF_UNIX
            create = self._loop.create_unix_server if local else self._loop.create_server
            self._servers.append(await create(partial(Connection, endpoint), sock=sock, backlog=4096))
        self._intake.owe_position()
        self._sweep()

    async def drain(self, seconds: float) -> None:
        """End all sessions in good order, then close the log."""
        self._stopping = True
        for server in self._servers:
            server.close()
        deadline = self._loop.time() + seconds
        while self._connections and self._loop.time() < deadline:
            self._hang_up_idle()
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.hang_up(_STOPPING, refused=False)
        if self._authenticator is not None:
            await self._authenticator.close()
        await self._writer.close()
        self._intake.tell()
        self._intake.settle()
        self._maillog.flush()
        self._link.close()

    def _hang_up_idle(self) -> None:
        for connection in list(self._connections):
            session = connection.session
            if session.slowed or (not session.in_transaction and not session.parked):
                connection.hang_up(_STOPPING, refused=False)

    def _heard(self, record: LinkRecord) -> None:
        if isinstance(record, Hello):
            if record.version != LINK_VERSION:
                raise RuntimeError(f"queue manager speaks link version {record.version}, not {LINK_VERSION}")
            self._intake.owe_position()

    def _sweep(self) -> None:
        """Once a second: advance the clock, end silent sessions, look whether the store takes mail again."""
        self._loop.call_later(1.0, self._sweep)
        self._clock.tick += 1
        self._intake.settle()
        refusing = self._writer.refusing
        self._tell_health(refusing is not None)
        for endpoint, _ in self._endpoints:
            endpoint.sweep(refusing)
        self._refusals.sweep()
        self._tapes.sweep()
        tick = self._clock.tick
        if self._certificates is not None:
            self._look_at_certificates(self._certificates)
        for connection in list(self._connections):
            if farewell := connection.overdue(tick):
                connection.hang_up(farewell)

    def _look_at_certificates(self, store: CertificateStore) -> None:
        for line in store.refresh(time.monotonic()):
            self._maillog("-", "certificate", f"text={printable(line)!r}")
            print(f"mta: [tls]: {line}", file=sys.stderr, flush=True)

    def _tell_health(self, refusing: bool) -> None:
        """For `mta status`: the row of counters outlives this process, what it says now must not."""
        counters = self._start.counters
        counters[INDEX["receivers_refusing"]] = refusing
        counters[INDEX["segments_retired"]] += self._writer.retired - self._retired
        self._retired = self._writer.retired


def _seconds() -> int:
    """The clock that all receivers share."""
    return int(time.monotonic())


def _most_connections() -> int:
    """How many this process can hold; as many as it may have open files, but for those that mail needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(16, hard - _OTHER_FILES)
