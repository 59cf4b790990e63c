"""One SMTP connection: the shell between uvloop and the sans-IO session.

Invariants
- Octets leave in order, as the wire does it (mta.net._wire); under TLS its shell is the transport.
- A message is answered only from `answer`, which the intake calls when the store has spoken.
- Reading is not paused while a message is being committed, for that costs two system calls a message; it is paused
  as soon as the client sends something meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from mta import _fastparse
from mta.model import LOCAL_CLIENT, Body, MessageId, StoreError
from mta.net._wire import ListeningWire
from mta.policy.admission import NOBODY, Guest
from mta.policy.shape import Look
from mta.policy.submission import Unfit
from mta.receive.placing import first_read
from mta.receive.tls import TlsShell

if TYPE_CHECKING:
    from mta.policy.authenticate import Exchange
    from mta.receive.listener import Endpoint

_OUTPUT = _fastparse.OUTPUT
_BODY = _fastparse.BODY
_MESSAGE = _fastparse.MESSAGE
_DISCARD = _fastparse.DISCARD
_STARTTLS = _fastparse.STARTTLS
_CLOSE = _fastparse.CLOSE
_AUTH = _fastparse.AUTH
_SLOW = _fastparse.SLOW
_TOO_EARLY = b"554 5.5.1 You spoke before this server has greeted you\r\n"
_NOTHING: dict[str, str] = {}
_FLUSH_SECONDS = 30  # for the last replies to go out
_MOST_UNREAD = 1 << 20  # octets of replies that wait for a client; one read of commands makes less


@dataclass(frozen=True, slots=True)
class Presented:
    """What is known of a client before there is a connection (mta.receive.front): `aside` is for the log."""

    client: str
    aside: str = ""
    early: bool = False  # it spoke before its greeting was due


class Connection(ListeningWire, asyncio.BufferedProtocol):
    """A client.

    `guest` is how its address is counted, `id` the session's name in refusals and log, "" until there is need of one.
    `powers` are the commands by which the peer may speak for others, `claimed_helo`, `aside` and `forwarded` what it
    said (mta.receive.claimed) or its proxy did (mta.receive.front): for trace and log, for the log, for one message's.
    `began` is the tick of its first moment, `active` that in which it last sent something, `progress` how far it was at
    the tick `since` (mta.receive.patience), `choked` the tick since which it does not read its replies, or 0.
    `large` is the file of a large text that arrives and `large_id` the id it was begun under, `look` what is known of
    its shape, `failed` why it could not be taken, `tls` the shell of a connection under TLS, `lost` that it is gone,
    `login` the mechanism and state of an AUTH that goes on, `named` the tenant that the header of a large text names,
    `origin` the HELO name, whether it was EHLO, the beginning
    of the trace header that was made of it, and the header's clause about TLS.
    """

    __slots__ = (
        "_endpoint",
        "_eof",
        "_fd",
        "_paused",
        "_presented",
        "_timer",
        "aside",
        "began",
        "choked",
        "claimed_helo",
        "client",
        "failed",
        "forwarded",
        "guest",
        "id",
        "large",
        "large_id",
        "lmtp",
        "login",
        "look",
        "lost",
        "named",
        "origin",
        "powers",
        "progress",
        "shape",
        "since",
        "submission",
        "tenancy",
        "tls",
    )

    session: _fastparse.ServerSession

    def __init__(self, endpoint: Endpoint, presented: Presented | None = None) -> None:
        super().__init__(endpoint.buffer, endpoint.clock, endpoint.outbox)
        self._endpoint = endpoint
        self._presented = presented
        self.aside = "" if presented is None else presented.aside
        self.claimed_helo = b""
        self.forwarded: dict[str, str] = _NOTHING
        self.powers: frozenset[bytes] = frozenset()
        self._fd = -1
        self._paused = False
        self._eof = False
        self.client = ""
        self.submission = endpoint.submission
        self.lmtp = endpoint.lmtp
        self.shape = endpoint.shape
        self.tenancy = endpoint.tenancy
        self.named = ""
        self.look: Look | None = None
        self.guest: Guest = NOBODY
        self.id = ""
        self._timer: asyncio.TimerHandle | None = None
        self.large: Body | None = None
        self.large_id = MessageId(0)
        self.origin: tuple[bytes, bool, bytes, bytes] | None = None
        self.failed: StoreError | None = None
        self.login: tuple[str, Exchange | None] | None = None
        self.lost = False
        self.tls: TlsShell | None = None
        self.began = self.since = self.active
        self.progress = -1
        self.choked = 0

    # ---- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        endpoint = self._endpoint
        peer = transport.get_extra_info("peername")
        if self._presented is not None:
            self.client = self._presented.client
        else:
            self.client = LOCAL_CLIENT if endpoint.local else peer[0] if peer else ""
        self._fd = transport.get_extra_info("socket").fileno()
        self.direct(self._fd)
        guest = endpoint.admit(self.client)
        if isinstance(guest, Guest):
            self.guest = guest
        config = endpoint.config
        if endpoint.has_powers:
            self.powers = endpoint.powers_of(self.client)
            config = endpoint.config_with(self.powers)
        self.session = _fastparse.ServerSession(config, endpoint.judge_for(self))
        self.session.owner = self
        endpoint.opened(self)
        if isinstance(guest, bytes):
            self._turn_away(guest)
        elif endpoint.implicit_tls:
            self._begin_tls()
        elif self._presented is not None and self._presented.early and (refusal := self._blame()):
            self._turn_away(refusal)
        else:
            self.act(self.session.greet())

    def eof_received(self) -> bool:
        # A client that shut its sending side still gets the answer to what it sent (smtp-source and others do so).
        self._eof = self.session.parked
        return self._eof

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.lose()
        self._forget_large()
        if self._timer is not None:
            self._timer.cancel()
        self.guest.leave()
        self.session.owner = None
        self._endpoint.closed(self)

    def pause_writing(self) -> None:
        """The client does not read: nothing more is read from it either, and it has not for ever."""
        self.choked = self._endpoint.clock.tick or 1
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.choked = 0
        if not self._paused:
            self.transport.resume_reading()

    # ---- called by the shell of TLS

    def secured(self) -> None:
        """The handshake is done: what was known of the client is forgotten (RFC 3207 §4.2)."""
        assert self.tls is not None
        self.session.secured(self._endpoint.config_under(self.tls, self.powers))
        self.origin = None
        self.active = self._endpoint.clock.tick
        if self._endpoint.implicit_tls:
            self.act(self.session.greet())

    # ---- called by the intake and the listener

    def answer(self, reply: bytes) -> None:
        """The store has spoken on the parked message."""
        if self.transport.is_closing():
            return
        self.proceed(self.session.resume(reply))

    def refuse(self, reply: bytes) -> None:
        """The parked message is not taken."""
        self.answer(self._endpoint.refusals.named(self, reply, b"DATA"))

    def proceed(self, flags: int) -> None:
        """The session is not parked any more, or again, and has raised these."""
        if flags == _OUTPUT:
            self.send(self.session.take_output())
            flags = 0
        if self._paused and not self.session.parked:
            self._paused = False
            if not self.choked:
                self.transport.resume_reading()
        if flags:
            self.act(flags)
        if self._eof and not self.session.parked:
            self._close()

    def hang_up(self, reply: bytes, *, refused: bool = True) -> None:
        """End the session from our side: time-out or, which is no refusal, shutdown."""
        if self.shakes_hands:
            assert self.tls is not None
            self.tls.give_up()
        elif self.choked:
            self.transport.abort()  # it would not read the farewell either
        elif not self.transport.is_closing():
            self.act(self.session.close(self._endpoint.refusals.named(self, reply, b"") if refused else reply))

    def overdue(self, tick: int) -> bytes:
        """The farewell, when the client has taken too long."""
        if self.transport.is_closing():
            if tick - self.active > _FLUSH_SECONDS:
                self.transport.abort()  # it does not read what was said last
            return b""
        return self._endpoint.patience.exhausted(self, tick)

    # ---- called by the commands of who speaks for others

    def readmit(self, client: str) -> Guest | bytes:
        """The client is this one from now on; or why not."""
        guest = self._endpoint.admit(client)
        if isinstance(guest, Guest):
            self.guest.leave()
            self.guest, self.client = guest, client
        return guest

    def restart(self, user: str) -> None:
        """The session begins anew, for `user` if there is one."""
        self.session.restart(self._endpoint.judge_for(self, user), user)

    @property
    def name(self) -> str:
        """The session's id; it gets one if it has none."""
        return self._endpoint.refusals.id_of(self)

    @property
    def trusted(self) -> bool:
        """Whether the client may relay."""
        return self._endpoint.trusts(self.client)

    @property
    def listener(self) -> str:
        return self._endpoint.title

    @property
    def greeting(self) -> bytes:
        return self._endpoint.config.greeting

    @property
    def shakes_hands(self) -> bool:
        """Whether a TLS handshake goes on."""
        return self.tls is not None and not self.tls.established

    # ---- inside

    def act(self, flags: int) -> None:
        session = self.session
        if flags == _MESSAGE:
            self._endpoint.accept(self)
            return
        if not flags:
            if session.parked and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            return
        if flags & _SLOW:
            self._hold_back()
        elif flags & _OUTPUT:
            self.send(session.take_output())
        if flags & _DISCARD:
            self._forget_large()
        if flags & _BODY:
            self._spill()
        if flags & _MESSAGE:
            self._endpoint.accept(self)
        elif flags & _CLOSE:
            self._close()
        elif flags & _STARTTLS:
            self._begin_tls()
        elif flags & _AUTH:
            self._endpoint.log_in(self)

    def _close(self) -> None:
        self.flush()  # the last words
        self.transport.close()

    def cut_off(self) -> None:
        self.transport.abort()

    def held_back(self) -> None:
        if self.transport.get_write_buffer_size() > _MOST_UNREAD:
            self.transport.abort()

    def _spill(self) -> None:
        """Move the part of a large text that is here into its file."""
        chunk = self.session.take_body()
        if self.failed is not None:
            return  # the refusal waits for the true end of the text; nothing more is kept until then
        try:
            if self.large is None:
                self.large_id, self.large = self._endpoint.begin_body()
                self.look = Look(self.shape)
                if self.tenancy is not None:
                    chunk = first_read(self, self.tenancy, chunk)
                chunk = self._endpoint.prepared(chunk, self.session.user, self.large_id, whole=False)
            self.large.write(self._looked_at(chunk))
        except StoreError as error:
            self._forget_large()
            self.failed = error

    def _looked_at(self, chunk: bytes) -> bytes:
        """The same; Unfit when the shape of the text is not taken here."""
        assert self.look is not None
        if refusal := self.look.at(chunk):
            raise Unfit(refusal)
        return chunk

    def take_last(self) -> bytes:
        """The end of a large text, or the whole of a small one. Unfit."""
        chunk = self.session.take_body()
        if self.large is not None:
            return self._looked_at(chunk)
        if len(chunk) > self.shape.least and (refusal := self.shape.of(chunk)):
            raise Unfit(refusal)
        return chunk

    def _hold_back(self) -> None:
        """The session waits with a refusal, and so does its client."""
        delay = self._endpoint.delay_after(self.session.errors)
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        if not self.transport.is_closing() and self.session.slowed:
            self.proceed(self.session.wake())

    def _blame(self) -> bytes:
        """The client spoke before its time: the reply to send it away with, or b""."""
        endpoint = self._endpoint
        if endpoint.early_talk == "refuse":
            return _TOO_EARLY
        endpoint.refusals.note(self, "early-talk", f"client={self.client}")
        return b""

    def _drain(self) -> None:
        """What was never read would turn the end of the connection into a reset, which may overtake our last words."""
        try:
            os.read(self._fd, 65536)
        except OSError:
            return  # there was nothing, or nobody is there any more

    def _turn_away(self, reply: bytes) -> None:
        """Nothing can be said where TLS begins at once."""
        named = self._endpoint.refusals.named(self, reply, b"")
        self._endpoint.turned_away()
        if self._endpoint.implicit_tls:
            self._close()
        else:
            self._drain()
            self.act(self.session.close(named))

    def _forget_large(self) -> None:
        self.failed = None
        self.look = None
        if self.large is not None:
            self.large.discard()
            self.large = None

    def _begin_tls(self) -> None:
        endpoint = self._endpoint
        assert endpoint.tls is not None  # the configuration was checked
        self.indirect()
        self.active = endpoint.clock.tick  # and stays so: the handshake has a deadline
        tcp = self.transport
        self.transport = self.tls = TlsShell(self, tcp, endpoint.tls, endpoint.buffer)
        tcp.set_protocol(self.tls)
