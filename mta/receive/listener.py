"""What the connections of one listener share: session configurations, relay rule, TLS, receive buffer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mta import _fastparse
from mta.config.settings import Domain, Limits, Listener, Trace
from mta.idn import ascii_mailbox
from mta.model import LOCAL_CLIENT, Body, MessageId, StoreError, id_text
from mta.net._wire import Outbox
from mta.policy.admission import Admission, Guest
from mta.policy.relay import Judge, RelayControl, within
from mta.policy.shape import Shape
from mta.policy.submission import Submission, Unfit
from mta.receive.claimed import KEYWORDS, denied, on_xclient, on_xforward
from mta.receive.offers import offers
from mta.receive.patience import Patience
from mta.receive.tapes import Tapes

if TYPE_CHECKING:
    from mta.policy.tenancy import Tenancy
    from mta.receive.auth import Logins
    from mta.receive.connection import Connection
    from mta.receive.intake import MessageIntake
    from mta.receive.refusals import Refusals
    from mta.receive.tls import TlsShell, TlsSide

READ_SIZE = 256 << 10
_TRUSTED = frozenset({b"trusted"})  # among the powers of a client: `trusted_extensions` are offered to it


class Clock:
    """A coarse clock: seconds since the receiver started, advanced by its sweep, so that no packet asks the time."""

    __slots__ = ("tick",)

    def __init__(self) -> None:
        self.tick = 0


class Endpoint:
    """One address of a [[listener]] in one receiver; `local`: it is a unix socket.

    `logins` is there on listeners of role submission when users are known.
    """

    def __init__(
        self,
        listener: Listener,
        limits: Limits,
        *,
        admission: Admission,
        refusals: Refusals,
        hostname: str,
        chunk: int,
        relay: RelayControl,
        tls: TlsSide | None,
        intake: MessageIntake,
        connections: set[Connection],
        clock: Clock,
        buffer: memoryview,
        outbox: Outbox,
        domains: Sequence[Domain] = (),
        logins: Logins | None = None,
        local: bool = False,
        tenancy: Tenancy | None = None,
        tapes: Tapes | None = None,
    ) -> None:
        self.title, self.tapes = _title(listener), tapes or Tapes(None, Trace())
        self.role, self.local, self._trusted = listener.role, local, local and listener.trusted
        self.implicit_tls = listener.tls == "implicit"
        self.tls, self.clock, self.buffer, self.outbox = tls, clock, buffer, outbox
        self.admission, self.refusals = admission, refusals
        self.patience = Patience(limits)
        self.shape = Shape(limits)
        self._limits, self._refuse_mail = limits, b""
        self.tenancy = tenancy
        self.early_talk, self.greeting_delay = listener.early_talk, listener.greeting_delay
        self.proxies = listener.proxy_protocol
        # Whether clients come in through mta.receive.front.
        self.has_front = bool(self.proxies or listener.greeting_delay) or listener.early_talk != "ignore"
        self._speakers = {b"XCLIENT": listener.xclient, b"XFORWARD": listener.xforward}
        self._offers = offers(listener, limits), offers(listener, limits, trusted=True)
        self.has_powers = bool(listener.xclient or listener.xforward) or self._offers[0] != self._offers[1]
        self.submission = Submission(hostname, domains) if listener.role == "submission" else None
        self._make_config = partial(
            _fastparse.ServerConfig,
            hostname=hostname.encode("ascii"),
            **_bounds(limits),
            **self.tapes.options,
            refused=refusals.named,
            chunk=chunk,
            starttls=listener.tls == "starttls",
            mechanisms=b"" if logins is None else " ".join(logins.plain).encode("ascii"),
            judge_sender=None if self.submission is None or logins is None else self.submission.judge_sender,
            lmtp=listener.role == "lmtp",
        )
        self._logins = logins
        self._plain = logins.offered(None) if logins is not None else ()
        # By what is offered under TLS, and to whom may speak for others.
        self._configs: dict[tuple[tuple[str, ...], frozenset[bytes]], _fastparse.ServerConfig] = {}
        self.config = self._config_for(self._plain, frozenset())
        self._relay = relay
        self._intake = intake
        self._connections = connections
        self.accept: Callable[[Connection], None] = intake.accept

    @property
    def lmtp(self) -> bool:
        return self.role == "lmtp"

    def admit(self, client: str) -> Guest | bytes:
        """How the client is counted, or the reply it is turned away with."""
        return self.admission.admit(client, len(self._connections))

    def powers_of(self, client: str) -> frozenset[bytes]:
        """The commands by which this client may speak for others, and whether more is offered to it."""
        verbs = frozenset(verb for verb, networks in self._speakers.items() if within(networks, client))
        if b"XCLIENT" in verbs or self._offers[0] == self._offers[1]:
            return verbs  # who speaks for strangers must not be offered what they are not
        trusted = self._trusted if client == LOCAL_CLIENT else self._relay.trusts(client)
        return verbs | _TRUSTED if trusted else verbs

    def judge_for(self, connection: Connection, user: str = "") -> Judge:
        """`user`: who is logged in by the word of a peer that is trusted with it."""
        if self._logins is not None or user:
            judge: Judge = self._relay.judge_trusted  # who is not logged in does not get beyond MAIL
        elif self._trusted and connection.client == LOCAL_CLIENT:
            judge = self._relay.judge_trusted
        else:
            judge = self._relay.judge_for(connection.client, self.role)
        counted = connection.guest.tag and self._limits.recipient_rate.count
        return partial(_judge_counted, connection.guest, judge) if counted else judge

    def trusts(self, client: str) -> bool:
        """Whether this client may relay, whoever is logged in."""
        return (self._trusted and client == LOCAL_CLIENT) or self._relay.trusts(client)

    def delay_after(self, errors: int) -> float:
        """How long the refusal of that many errors is held back."""
        return self._limits.error_delay * min(10, errors - self._limits.slow_errors + 1)

    def sweep(self, error: StoreError | None) -> None:
        """Once a second; see `refuse_mail`."""
        self.refuse_mail(error)
        self.patience.sweep(self.admission.stressed(len(self._connections)))

    def config_under(self, tls: TlsShell, powers: frozenset[bytes]) -> _fastparse.ServerConfig:
        """The session's configuration behind this handshake, which says what ways to log in there are."""
        return self._config_for(self._plain if self._logins is None else self._logins.offered(tls), powers)

    def config_with(self, powers: frozenset[bytes]) -> _fastparse.ServerConfig:
        return self._config_for(self._plain, powers)

    def _config_for(self, mechanisms: tuple[str, ...], powers: frozenset[bytes]) -> _fastparse.ServerConfig:
        config = self._configs.get((mechanisms, powers))
        if config is None:
            config = self._make_config(
                mechanisms_tls=" ".join(mechanisms).encode("ascii"),
                commands={v: _COMMANDS[v] if v in powers else denied for v, n in self._speakers.items() if n} or None,
                keywords=tuple(KEYWORDS[verb] for verb in sorted(powers - _TRUSTED)),
                offers=self._offers[powers >= _TRUSTED],
            )
            self._configs[mechanisms, powers] = config
            config.refuse_mail = self._refuse_mail
        return config

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._intake.count("sessions_opened")

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.tapes.ended(connection)
        self._intake.count("sessions_closed")
        self._intake.count("protocol_errors", connection.session.errors)

    def turned_away(self) -> None:
        self._intake.count("connections_refused")

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
        self._refuse_mail = b"" if error is None else refusal(error)
        for config in self._configs.values():
            config.refuse_mail = self._refuse_mail


_COMMANDS: dict[bytes, Callable[[Connection, bytes], bytes]] = {b"XCLIENT": on_xclient, b"XFORWARD": on_xforward}


def _title(listener: Listener) -> str:
    return f"{listener.role} {', '.join(map(str, listener.address))}"


def _bounds(limits: Limits) -> dict[str, Any]:
    """What the limits are to a session, and whom it asks for what it cannot know."""
    return {
        "message_size": limits.message_size,
        "recipients": limits.recipients,
        "clock": _milliseconds,
        "ascii_mailbox": ascii_mailbox,
        "hold": int(limits.hold),
        "deliver_by": int(limits.deliver_by),
        "errors": limits.errors,
        "slow_errors": limits.slow_errors if limits.error_delay else 0,
        "idle_commands": limits.idle_commands,
        "mails": limits.session_messages,
        "gate": _may_send if limits.message_rate.count else None,
    }


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _may_send(connection: Connection) -> bytes:
    return connection.guest.message()


def _judge_counted(guest: Guest, judge: Judge, address: bytes) -> bytes:
    return guest.recipient() or judge(address)


def refusal(error: StoreError) -> bytes:
    """The reply for mail that is not taken, mostly because the store cannot now."""
    if isinstance(error, Unfit):
        return error.reply
    if error.full:
        return b"452 4.3.1 the mail queue has no room now, try again later\r\n"
    return b"451 4.3.0 the message could not be stored now, try again later\r\n"
