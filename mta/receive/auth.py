"""AUTH of a receiver's connections (RFC 4954): from the session's flag to the exchange, and its answer back.

The session is parked while an exchange thinks: a coroutine runs for that step only, and what the client sends
meanwhile waits in the session. A connection that was lost is forgotten when its step is over.

INVARIANT: what is offered without TLS is nothing, unless the listener says `auth_without_tls`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from mta.config.settings import Listener
from mta.observe.maillog import printable
from mta.policy.authenticate import UNAVAILABLE, UNKNOWN_MECHANISM, Answer, Authenticator, Denied, Exchange, Granted
from mta.policy.submission import LoggedIn
from mta.protocol.sasl.steps import Challenge

if TYPE_CHECKING:
    from mta.receive.connection import Connection
    from mta.receive.tls import TlsShell

_WELCOME = b"235 2.7.0 You are logged in\r\n"


class Logins:
    """The logins of one listener. `note` writes (event, fields) to the mail log, `count` counts."""

    def __init__(
        self,
        authenticator: Authenticator,
        listener: Listener,
        *,
        note: Callable[[str, str], None],
        count: Callable[[str], None],
    ) -> None:
        self._authenticator = authenticator
        self._note = note
        self._count = count
        self._steps: set[asyncio.Task[None]] = set()
        self._wanted = frozenset(listener.mechanisms)
        self._tls = listener.tls != "off"
        self.plain = self._filtered(authenticator.mechanisms()) if listener.auth_without_tls else ()

    def offered(self, tls: TlsShell | None) -> tuple[str, ...]:
        """The mechanisms behind this handshake; None: behind one that nothing is known of yet."""
        if not self._tls:
            return ()
        bound, known = (tls.can_bind, tls.peer() is not None) if tls is not None else (False, False)
        return self._filtered(self._authenticator.mechanisms(bindings=bound, certificate=known))

    def _filtered(self, mechanisms: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in mechanisms if not self._wanted or name in self._wanted)

    def step(self, connection: Connection) -> None:
        """The session has raised AUTH."""
        mechanism, response = connection.session.take_auth()
        if mechanism:
            connection.login = mechanism.decode("ascii"), self._begin(connection, mechanism.decode("ascii"))
        task = asyncio.get_running_loop().create_task(self._step(connection, response))
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)

    def _begin(self, connection: Connection, mechanism: str) -> Exchange | None:
        tls = connection.tls
        offered = self.plain if tls is None else self.offered(tls)
        if mechanism not in offered:
            return None
        # A client that saw no -PLUS says so; that must not look like somebody's work in between (RFC 5802 §6).
        bindings = tls.bindings() if tls is not None and any(name.endswith("-PLUS") for name in offered) else None
        peer = tls.peer() if tls is not None else None
        return self._authenticator.begin(mechanism, bindings, connection.client, peer)

    async def _step(self, connection: Connection, response: bytes | None) -> None:
        assert connection.login is not None  # the session raises no response before an AUTH
        mechanism, exchange = connection.login
        answer = await self._ask(exchange, response)
        if isinstance(answer, Granted | Denied):
            connection.login = None
            self._tell(connection, mechanism, answer)
        if connection.lost or connection.transport.is_closing():
            return
        session = connection.session
        match answer:
            case Challenge(data):
                connection.proceed(session.challenge(data))
            case Granted(user, addresses, tenant, priority):
                connection.origin = None  # the trace header tells of the login
                connection.proceed(session.authenticated(_WELCOME, LoggedIn(user, addresses, tenant, priority)))
            case Denied(reply):
                connection.proceed(session.auth_failed(reply))

    async def _ask(self, exchange: Exchange | None, response: bytes | None) -> Answer:
        if exchange is None:
            return Denied(UNKNOWN_MECHANISM, "", "mechanism not offered")
        try:
            return await exchange.step(response)
        except Exception as error:  # noqa: BLE001 - our own bug: this login ends, the process lives
            traceback.print_exc()
            self._count("internal_errors")
            return Denied(UNAVAILABLE, "", f"internal error: {error!r}")

    def _tell(self, connection: Connection, mechanism: str, answer: Granted | Denied) -> None:
        granted = isinstance(answer, Granted)
        self._count("logins" if granted else "logins_refused")
        fields = (
            f"client={connection.client} user={printable(answer.user)} mechanism={mechanism}"
            f" tls={'yes' if connection.session.tls else 'no'}"
        )
        if isinstance(answer, Denied):
            fields += f" session={connection.name}"
            fields += f" reply={answer.reply[:9].decode('ascii')!r} reason={printable(answer.reason)!r}"
        self._note("login" if granted else "login-refused", fields)
