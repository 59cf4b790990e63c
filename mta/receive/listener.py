"""What the connections of one listener share: session configuration, relay rule, TLS context, receive buffer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from mta import _fastparse
from mta.config.settings import Limits, Listener, Tls
from mta.model import Body, MessageId, StoreError
from mta.policy.relay import Judge, RelayControl

if TYPE_CHECKING:
    from mta.receive.connection import Connection
    from mta.receive.intake import MessageIntake

READ_SIZE = 256 << 10
_HANDSHAKE_SECONDS = 30.0


class Clock:
    """A coarse clock: seconds since the receiver started, advanced by its sweep, so that no packet asks the time."""

    __slots__ = ("tick",)

    def __init__(self) -> None:
        self.tick = 0


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The server side context; made after the fork, as OpenSSL state must not be shared between processes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is None:
        raise ValueError("a listener with TLS needs [tls] certificate")
    context.load_cert_chain(tls.certificate, tls.key)
    return context


class Endpoint:
    """One [[listener]] in one receiver."""

    def __init__(
        self,
        listener: Listener,
        limits: Limits,
        *,
        hostname: str,
        chunk: int,
        relay: RelayControl,
        tls: ssl.SSLContext | None,
        intake: MessageIntake,
        connections: set[Connection],
        clock: Clock,
        buffer: memoryview,
    ) -> None:
        self.role = listener.role
        self.implicit_tls = listener.tls == "implicit"
        self.tls = tls
        self.clock = clock
        self.buffer = buffer
        self.config = _fastparse.ServerConfig(
            hostname=hostname.encode("ascii"),
            message_size=limits.message_size,
            recipients=limits.recipients,
            errors=limits.errors,
            chunk=chunk,
            starttls=listener.tls == "starttls",
        )
        self._relay = relay
        self._intake = intake
        self._connections = connections
        self.accept: Callable[[Connection], None] = intake.accept

    def judge_for(self, client: str) -> Judge:
        return self._relay.judge_for(client, self.role)

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._intake.count("sessions_opened")

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._intake.count("sessions_closed")
        self._intake.count("protocol_errors", connection.session.errors)

    def begin_body(self) -> tuple[MessageId, Body]:
        return self._intake.begin_body()

    def refuse_mail(self, error: StoreError | None) -> None:
        """MAIL is answered with this while the store cannot take any."""
        self.config.refuse_mail = b"" if error is None else refusal(error)

    def upgrade(self, connection: Connection) -> None:
        """STARTTLS: hand the socket to TLS; what was known of the client is forgotten when that is done."""
        asyncio.get_running_loop().create_task(self._handshake(connection))

    async def _handshake(self, connection: Connection) -> None:
        assert self.tls is not None  # the session offers STARTTLS only with a context
        try:
            transport = await asyncio.get_running_loop().start_tls(
                connection.transport,
                connection,
                self.tls,
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )
        except (OSError, EOFError, TimeoutError):  # ssl.SSLError is an OSError
            self._intake.count("protocol_errors")
            connection.transport.abort()
            return
        if transport is None:
            connection.transport.abort()
            return
        connection.transport = transport
        connection.session.secured()
        connection.origin = None


def refusal(error: StoreError) -> bytes:
    """The reply for mail that the store cannot take now."""
    if error.full:
        return b"452 4.3.1 the mail queue has no room now, try again later\r\n"
    return b"451 4.3.0 the message could not be stored now, try again later\r\n"
