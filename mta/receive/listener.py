"""What the connections of one listener share: session configuration, relay rule, TLS context, receive buffer."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mta import _fastparse
from mta.config.settings import Domain, Limits, Listener, Tls
from mta.model import Body, MessageId, StoreError, id_text
from mta.policy.relay import Judge, RelayControl
from mta.policy.submission import Submission, Unfit
from mta.protocol.sasl.binding import server_end_point
from mta.receive.offers import offers

if TYPE_CHECKING:
    from mta.receive.auth import Logins
    from mta.receive.connection import Connection
    from mta.receive.intake import MessageIntake

READ_SIZE = 256 << 10
_HANDSHAKE_SECONDS = 30.0
_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"


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


def channel_bindings(tls: Tls) -> dict[str, bytes]:
    """What a login can be bound to under this certificate (RFC 5929)."""
    if tls.certificate is None:
        return {}
    text = tls.certificate.read_text("ascii", "replace")
    start, end = text.find(_BEGIN), text.find(_END)
    if start < 0 or end < start:
        return {}
    binding = server_end_point(ssl.PEM_cert_to_DER_cert(text[start : end + len(_END)]))
    return {"tls-server-end-point": binding} if binding is not None else {}


class Endpoint:
    """One [[listener]] in one receiver. `logins` is there on listeners of role submission when users are known."""

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
        domains: Sequence[Domain] = (),
        logins: Logins | None = None,
    ) -> None:
        self.role = listener.role
        self.implicit_tls = listener.tls == "implicit"
        self.tls = tls
        self.clock = clock
        self.buffer = buffer
        self.submission = Submission(hostname, domains) if listener.role == "submission" else None
        self.config = _fastparse.ServerConfig(
            hostname=hostname.encode("ascii"),
            message_size=limits.message_size,
            recipients=limits.recipients,
            errors=limits.errors,
            chunk=chunk,
            starttls=listener.tls == "starttls",
            mechanisms=b"" if logins is None else " ".join(logins.plain).encode("ascii"),
            mechanisms_tls=b"" if logins is None else " ".join(logins.under_tls).encode("ascii"),
            judge_sender=None if self.submission is None or logins is None else self.submission.judge_sender,
            offers=offers(listener),
        )
        self._logins = logins
        self._relay = relay
        self._intake = intake
        self._connections = connections
        self.accept: Callable[[Connection], None] = intake.accept

    def judge_for(self, client: str) -> Judge:
        if self._logins is not None:
            return self._relay.judge_trusted  # who is not logged in does not get beyond MAIL
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

    def prepared(self, text: bytes, user: str, message_id: MessageId, *, whole: bool) -> bytes:
        """A text, or its beginning, as this listener hands it on. Unfit."""
        if self.submission is None:
            return text
        return self.submission.prepared(text, user, id_text(message_id), int(time.time()), whole=whole)

    def log_in(self, connection: Connection) -> None:
        assert self._logins is not None  # else the session offers no AUTH
        self._logins.step(connection)

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
    """The reply for mail that is not taken, mostly because the store cannot now."""
    if isinstance(error, Unfit):
        return error.reply
    if error.full:
        return b"452 4.3.1 the mail queue has no room now, try again later\r\n"
    return b"451 4.3.0 the message could not be stored now, try again later\r\n"
