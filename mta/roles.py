"""The real process table: what each process of a server is given at birth.

What is made here once (sockets, links, counters) outlives every child, and reloads: only settings are replaced.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mta.config.load import ConfigError, load
from mta.config.settings import Address, Settings
from mta.control.access import access_of
from mta.control.server import serve_control
from mta.deliver import role as courier
from mta.history import role as historian
from mta.listeners import Sockets
from mta.local_sockets import Access
from mta.local_sockets import access_of as socket_access_of
from mta.net.certificates import CertificateError, CertificateStore, listener_policy
from mta.net.link import socket_pair
from mta.net.seats import SeatTable
from mta.observe.counters import Table
from mta.observe.maillog import MailLog
from mta.policy.failures import FailureTable, login_secret
from mta.policy.tally import TallyTable
from mta.premises import EX_TEMPFAIL, Account, StartError
from mta.processes import Plan, ProcessTable, Role, Up, rehearse
from mta.queue import role as queue
from mta.receive import role as receiver

_QUEUE_WORKER = 0


def all_addresses(settings: Settings) -> list[Address]:
    """Every address of every listener, in the order of the file."""
    return [address for listener in settings.listener for address in listener.address]


def local_access(settings: Settings, account: Account | None) -> dict[Address, Access]:
    """Who may connect to each unix address."""
    return {
        address: socket_access_of(listener, account)
        for listener in settings.listener
        for address in listener.address
        if address.path
    }


def obstacle(settings: Settings) -> str:
    """What is right in the file and would still keep every process from serving; "" when nothing would.

    It is tried by the user that the processes run as.
    """
    return rehearse(lambda: _open_all(settings))


def open_seats(settings: Settings, couriers: int) -> SeatTable:
    """The couriers' seats, as the server before this one left them."""
    server = settings.server
    path = server.runtime_dir / "seats"
    try:
        return SeatTable(path, couriers, str(server.state_dir))
    except OSError as error:
        raise StartError(f"[server] runtime_dir: cannot make {path}: {error.strerror}", EX_TEMPFAIL) from error


def open_secret(settings: Settings) -> bytes:
    """The one from which come the salts of users that do not exist."""
    if not settings.auth:
        return b""  # nobody logs in; one that is added by a reload serves until the next start
    path = settings.server.state_dir / "login-secret"
    try:
        return login_secret(path)
    except OSError as error:
        raise StartError(f"[server] state_dir: cannot make {path}: {error.strerror}", EX_TEMPFAIL) from error


def _open_all(settings: Settings) -> str:
    """The files that processes open at birth, and would die of."""
    try:
        MailLog(settings.log.path)
    except OSError as error:
        return f"[log] path: cannot open {settings.log.path}: {error.strerror}"
    secure = [listener for listener in settings.listener if listener.tls != "off"]
    if secure:
        try:
            CertificateStore(settings.tls, map(listener_policy, secure), 0.0)
        except CertificateError as error:
            return f"[tls]: {error}"
    if not settings.auth:
        return ""
    from mta.policy.users import backends  # late: a server without users has no use for what comes with it

    return backends.obstacle(settings.auth)


class Server:
    """The lasting parts of one server, and the plan for its current settings."""

    def __init__(self, settings: Settings, path: Path, sockets: Sockets, receivers: int, couriers: int) -> None:
        self._settings = settings
        self._path = path
        self._sockets = sockets
        self._receivers = range(1, 1 + receivers)
        self._couriers = range(1 + receivers, 1 + receivers + couriers)
        self._counters = Table(1 + receivers + couriers)
        self._seats = open_seats(settings, couriers)
        self._failures = FailureTable()
        self._tallies = TallyTable(receivers)
        self._secret = open_secret(settings)
        if settings.auth:
            importlib.import_module("mta.receive.auth")  # before the forks, so that receivers share it
        self._has_historian = historian.wanted(settings)
        self._links = {worker: socket_pair() for worker in (*self._receivers, *self._couriers)}
        self.processes = ProcessTable([(role.name, role.worker) for role in self.plan_roles(settings)])

    def plan(self) -> Plan:
        return Plan(self.plan_roles(self._settings), self._settings.server.drain)

    def reload(self) -> Plan | None:
        """The plan for the file as it is now; None, and the reasons on stderr, when the file is bad."""
        try:
            new = load(self._path)
        except ConfigError as error:
            _say(f"{error}\nmta: the settings in use stay")
            return None
        if problem := obstacle(new):
            _say(f"{self._path}: {problem}\nmta: the settings in use stay")
            return None
        if new.spool.risk:
            _say(new.spool.risk)
        self._settings = self._with_what_can_change(new)
        return self.plan()

    def plan_roles(self, settings: Settings) -> list[Role]:
        """In the order of start: who takes mail from outside comes last."""
        return [
            self._queue_manager(settings),
            *(self._courier(settings, worker) for worker in self._couriers),
            *([self._historian(settings)] if self._has_historian else []),
            *(self._receiver(settings, worker) for worker in self._receivers),
        ]

    def _queue_manager(self, settings: Settings) -> Role:
        def run(life: int, up: Up) -> None:
            queue.run(
                queue.QueueStart(
                    settings=settings,
                    worker=_QUEUE_WORKER,
                    life=life,
                    counters=self._counters.row(_QUEUE_WORKER),
                    totals=self._counters.totals,
                    receivers=[self._links[worker][0] for worker in self._receivers],
                    couriers=[(worker, self._links[worker][0]) for worker in self._couriers],
                    seats=self._seats,
                    processes=self.processes.rows,
                    places=self.processes.places,
                    up=up,
                    serve_control=partial(serve_control, settings.server.runtime_dir, access_of(settings.control)),
                )
            )

        return Role("queue", _QUEUE_WORKER, run, links=[ours for ours, _ in self._links.values()])

    def _courier(self, settings: Settings, worker: int) -> Role:
        link = self._links[worker][1]
        seats = self._seats.rows[worker - self._couriers.start]

        def run(life: int, up: Up) -> None:
            row = self._counters.row(worker)
            courier.run(
                courier.CourierStart(settings, worker=worker, life=life, counters=row, link=link, seats=seats, up=up)
            )

        return Role("courier", worker, run, links=[link])

    def _historian(self, settings: Settings) -> Role:
        def run(life: int, up: Up) -> None:
            historian.run(settings, up)

        return Role("historian", 0, run)

    def _receiver(self, settings: Settings, worker: int) -> Role:
        link = self._links[worker][1]
        mine = worker - self._receivers.start
        listeners = [
            (listener, self._sockets[address][mine]) for listener in settings.listener for address in listener.address
        ]

        def run(life: int, up: Up) -> None:
            row = self._counters.row(worker)
            receiver.run(
                receiver.ReceiverStart(
                    settings=settings,
                    worker=worker,
                    life=life,
                    counters=row,
                    link=link,
                    listeners=listeners,
                    failures=self._failures,
                    tallies=self._tallies,
                    place=mine,
                    secret=self._secret,
                    up=up,
                )
            )

        return Role("receiver", worker, run, listeners=[sock for _, sock in listeners], links=[link], front=True)

    def _with_what_can_change(self, new: Settings) -> Settings:
        """The new settings, but for what is fixed at the start; that is named."""
        old = self._settings
        fixed = [
            name
            for name in ("state_dir", "runtime_dir", "receivers", "couriers", "user")
            if getattr(new.server, name) != getattr(old.server, name)
        ]
        for name in fixed:
            new = replace(new, server=replace(new.server, **{name: getattr(old.server, name)}))
        if set(all_addresses(new)) != set(self._sockets):
            fixed.append("[[listener]] address")
            new = replace(new, listener=old.listener)
        elif _permissions(new) != _permissions(old):
            fixed.append("[[listener]] socket_mode, socket_group")
        if historian.wanted(new) and not self._has_historian:
            fixed.append("[history] keep, or [log] path, so that there is a history")
        _say_fixed(fixed)
        return new


def _permissions(settings: Settings) -> dict[Address, tuple[str, str]]:
    return {a: (each.socket_mode, each.socket_group) for each in settings.listener for a in each.address if a.path}


def _say_fixed(names: Sequence[str]) -> None:
    if names:
        _say(f"mta: a change of {', '.join(names)} needs a restart; the old values stay")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
