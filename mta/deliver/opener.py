"""From a site to a connection that is ready for mail.

Hosts are tried in the order of preference, equals in random order (RFC 5321 §5.1). A bad greeting or EHLO counts like a
failed connection; even a 5yz greeting only defers, for it is the host that is refused, not the message.

TLS is begun where the host offers it (RFC 3207), without asking who it is (RFC 7435). What a host turns out unable to
do is noted (`mta.deliver.manners`), and it is called once more without. Where `[delivery] tls` requires TLS nothing is
done without it: the next host is tried, and in the end the mail waits. A unix socket does not leave the machine, and is
as it is.

An opener that demands TLS wants hosts that prove who they are and offer REQUIRETLS (RFC 8689 §4.2.1); one that demands
TIME wants hosts with DELIVERBY (RFC 2852 §4.1.4.1). The name that is proved is
that of the MX record, which DNS may have been made to lie about: neither DNSSEC nor MTA-STS is asked.
"""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Callable

from mta.deliver.connection import Connection, Owner
from mta.deliver.desk import Desk
from mta.deliver.handover import NO_DELIVERBY
from mta.deliver.manners import Lesson, Manner
from mta.model import Hop, Reply, Site
from mta.net.dial import DialFailure, Target, connect, reachable, targets
from mta.observe.maillog import printable

_STOPPING = Reply(0, "4.3.2", "this server is stopping")


class Demand(enum.Flag):
    """What a host must offer, or the next one is tried; where none does, the mail goes back."""

    NOTHING = 0
    TLS = enum.auto()
    TIME = enum.auto()


class Opener:
    """Opens the connections of one pool. `shaking` are those that are connected, but not yet ready.

    `passed_over` hears of the hosts that failed before another one was ready.
    """

    def __init__(
        self,
        desk: Desk,
        owner: Owner,
        *,
        demands: Demand = Demand.NOTHING,
        passed_over: Callable[[DialFailure], None] = lambda _: None,
    ) -> None:
        self._desk = desk
        self._demands = demands
        self._strict = Demand.TLS in demands
        self._owner = owner
        self._passed_over = passed_over
        self.shaking: set[Connection] = set()

    async def open(self, site: Site) -> Connection | list[DialFailure]:
        """Try host after host until one is ready."""
        failures: list[DialFailure] = []
        for hop in self._ordered(site):
            found = await targets(hop.host, site.port, self._desk.resolver)
            if not isinstance(found, DialFailure):
                found = reachable(found, self._desk.source)
            if isinstance(found, DialFailure):
                failures.append(found)
                self._desk.tapes.unreachable(site.name, found)
                continue
            for target in found:
                connection = await self._try(target, site)
                if isinstance(connection, Connection):
                    for failure in failures:
                        self._passed_over(failure)
                    return connection
                failures.append(connection)
        return failures

    def _ordered(self, site: Site) -> list[Hop]:
        hops = list(site.hops)
        self._desk.random.shuffle(hops)
        return sorted(hops, key=lambda hop: hop.preference)

    async def _try(self, target: Target, site: Site) -> Connection | DialFailure:
        """Call a host; again, where it may be able to do with less."""
        while True:
            manner = self._desk.manners.of(str(target))
            called = await self._call(target, manner, site)
            if isinstance(called, DialFailure):
                return called
            if called.usable:
                if self._desk.source.name:
                    called.tls += f" source={self._desk.source.name}"
                self._desk.report.count("connections_opened")
                return called
            self._desk.report.count("connections_failed")
            if not self._learns(called, manner):
                return self._failure(called)

    async def _call(self, target: Target, manner: Manner, site: Site) -> Connection | DialFailure:
        """A connection that is ready or has ended."""
        desk = self._desk
        sock = await connect(target, desk.settings.connect_timeout, desk.source)
        if isinstance(sock, DialFailure):
            desk.report.count("connections_failed")
            desk.tapes.unreachable(site.name, sock)
            return sock
        lmtp = site.kind == "lmtp"
        connection = Connection(desk, self._owner, target, lmtp=lmtp, tls=self._tls(target, manner), manner=manner)
        try:
            await desk.loop.create_connection(lambda: connection, sock=sock)
        except OSError as error:  # it was connected, and is no more
            sock.close()
            desk.report.count("connections_failed")
            return DialFailure(Reply(0, "4.4.2", f"{target}: connection lost: {error}"), False, str(target))
        self.shaking.add(connection)
        try:
            refusal = await connection.opened
        except asyncio.CancelledError:
            connection.give_up(_STOPPING)
            raise
        self.shaking.discard(connection)
        if refusal is None and connection.usable:
            lacking = self._lacking(target, connection)
            if lacking is not None:
                desk.tapes.unfit(site.name, connection, lacking)
                connection.give_up(lacking)
        return connection

    @property
    def _required(self) -> bool:
        return self._strict or self._desk.settings.tls == "require"

    def _tls(self, target: Target, manner: Manner) -> ssl.SSLContext | None:
        if not self._required and (not target.port or self._desk.settings.tls == "off" or not manner.starttls):
            return None
        return self._desk.tls.context(verified=self._strict)

    def _lacking(self, target: Target, connection: Connection) -> Reply | None:
        """Why a connection that is ready must not be used."""
        if self._strict and connection.session.tls and not connection.offer.require_tls:
            return Reply(
                0, "5.7.30", f"{connection.hop}: TLS is required on the whole way, and it offers no REQUIRETLS"
            )
        if Demand.TIME in self._demands and connection.offer.deliver_by is None:
            return NO_DELIVERBY
        if not self._required or connection.session.tls or not (target.port or self._strict):
            return None
        refusal = connection.session.tls_refusal
        why = f"STARTTLS was answered {refusal[0]} {refusal[1]}" if refusal else "it does not offer STARTTLS"
        enhanced = "5.7.10" if self._strict else "4.7.4"
        return Reply(0, enhanced, f"{connection.hop}: TLS is required, and {printable(why)}")

    def _failure(self, called: Connection) -> DialFailure:
        """What is demanded and cannot be had goes back, when no host of the site can do better (RFC 8689 §4.2.1)."""
        ended = called.ended
        if self._strict and called.tls_failure is not None and called.tls_failure.rejected:
            ended = Reply(0, "5.7.10", f"TLS is required on the whole way; {ended.text}")
        permanent = bool(self._demands) and not ended.code and ended.enhanced.startswith("5")
        return DialFailure(ended, permanent, called.hop)

    def _learns(self, connection: Connection, manner: Manner) -> bool:
        """Whether the host is to be called again, in another manner."""
        lesson = connection.lesson
        if lesson is None or self._required:  # there is no TLS behind HELO either
            return False
        if lesson is Lesson.TLS and not manner.starttls:
            return False
        self._desk.learn(connection.hop, lesson, str(connection.ended))
        return True
