"""One SMTP or LMTP connection to a server: the shell between uvloop and the sans-IO session.

Invariants
- Octets leave in order, as the wire does it (mta.net._wire).
- A large text is streamed: at most one chunk of it waits in memory, and a file that turns out shorter than
  the spool said never gets a final dot.
- Under TLS octets leave through the transport alone. Reading stops before the answer to STARTTLS is acted on, so that
  no octet of the handshake reaches the session.
- However the connection ends, each work in hand is settled exactly once, and the pool is told once.

The next work is taken when the text of the current one may be sent, so that its envelope rides on the final
dot: earlier it would wait behind a slow peer while another connection might have had it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from typing import Protocol, cast

from mta import _fastparse
from mta.deliver.desk import READ_SIZE, Desk
from mta.deliver.handover import Offer, read_offer
from mta.deliver.manners import Lesson, Manner
from mta.deliver.outcomes import reply_of
from mta.deliver.work import Work
from mta.model import Reply
from mta.net._wire import Wire
from mta.net.dial import Target
from mta.net.seats import DOTTED
from mta.net.tls import TlsFailure, server_name, upgrade
from mta.observe.maillog import printable

_OUTPUT = _fastparse.OUTPUT
_STARTTLS = _fastparse.STARTTLS
_CLOSE = _fastparse.CLOSE
_READY = _fastparse.READY
_NEXT = _fastparse.NEXT
_SEND = _fastparse.SEND
_DONE = _fastparse.DONE
_LEAVING_SECONDS = 10.0  # wait for the answer to QUIT


class Owner(Protocol):
    """What a connection asks of its pool."""

    def take(self, connection: Connection) -> Work | None:
        """The next work that this connection may have, opened; None when nothing waits."""

    def rests(self, connection: Connection) -> None:
        """The connection has nothing to do."""

    def settle(self, connection: Connection, work: Work, result: _fastparse.TransactionResult) -> None:
        """A transaction is over."""

    def closed(self, connection: Connection) -> None:
        """The connection is of no more use; called before the settling of what it had in hand."""


class Connection(Wire, asyncio.BufferedProtocol):
    """A server.

    `opened` becomes None when the session is ready, or the reply that says why it is not. `active` is the
    tick in which either side last got something through: a whole reply from there, octets of a text from here. `works`
    is what is in hand, in the session's order, `tls` what the log says of it, `tls_failure` why there is none. `offer`
    is what the server offers, `ceiling` the size above which a text must be looked at before it goes there; -1: any.
    """

    __slots__ = (
        "_blocked",
        "_ended",
        "_file",
        "_given_up",
        "_left",
        "_manner",
        "_offset",
        "_owner",
        "_replies",
        "_securing",
        "_target",
        "_tls",
        "_used",
        "_why",
        "ceiling",
        "desk",
        "given",
        "hop",
        "leaving",
        "offer",
        "opened",
        "tls",
        "tls_failure",
        "works",
    )

    session: _fastparse.ClientSession

    def __init__(
        self,
        desk: Desk,
        owner: Owner,
        target: Target,
        *,
        lmtp: bool,
        tls: ssl.SSLContext | None = None,
        manner: Manner = Manner(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(desk.buffer, desk.clock, desk.outbox)
        self.desk = desk
        self._owner = owner
        self._target = target
        self._manner = manner
        self._tls = tls
        self.hop = str(target)
        self.session = _fastparse.ClientSession(
            desk.hostname.encode("ascii"),
            lmtp=lmtp,
            esmtp=manner.esmtp,
            starttls=tls is not None,
            pipelining=manner.pipelining,
            tape=desk.tapes.octets,
            tape_slow=desk.tapes.slow,
        )
        self.offer = Offer()
        self.ceiling = -1
        self.tls = ""
        self.tls_failure: TlsFailure | None = None
        self._securing: asyncio.Task[None] | None = None
        self._replies = 0  # that the session had read at the last tick
        self.opened: asyncio.Future[Reply | None] = desk.loop.create_future()
        self.works: deque[Work] = deque()
        self.given = 0  # works, by its pool
        self.leaving = False
        self._used = False
        self._ended = False
        self._given_up = False
        self._blocked = False
        self._why: Reply | None = None
        self._file = -1  # a large text that is being sent
        self._left = 0  # octets of it still to come
        self._offset = 0

    # ---- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=0)  # whatever waits there holds the stream back
        self.direct(transport.get_extra_info("socket").fileno())

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        if self._file >= 0:
            self._stream()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose()
        if exc is not None and self._why is None:
            self._why = Reply(0, "4.4.2", f"{self.hop}: connection lost: {exc}")
        self._finish()

    # ---- called by the pool

    def feed(self) -> None:
        """Take the next work while the session is idle; without one, rest."""
        work = self._owner.take(self)
        if work is None:
            self._owner.rests(self)
        else:
            self.active = self.desk.clock.tick
            self._offer(work)

    def leave(self) -> None:
        """Say goodbye; nothing is in hand."""
        self.leaving = True
        self.active = self.desk.clock.tick
        self.act(self.session.quit())

    def give_up(self, why: Reply) -> None:
        """End the connection from our side, whatever is in hand."""
        self._why = why
        self._given_up = True
        self.transport.abort()
        self._finish()

    def overdue(self) -> str:
        """What was not done in time; "" while all is well (RFC 5321 §4.5.3.2). Asked at each tick of the clock.

        Only a whole reply counts: a server that sends an octet now and then has no more time than a silent one.
        """
        settings = self.desk.settings
        replies = self.session.replies
        if replies != self._replies:
            self._replies = replies
            self.active = self.desk.clock.tick
        if self.leaving:
            limit, what = _LEAVING_SECONDS, "no answer to QUIT"
        elif self.session.greeting is None:
            limit, what = settings.connect_timeout, "no greeting"
        elif self.session.awaits_final or self._file >= 0:
            limit, what = settings.data_timeout, "no reply to the text"
        elif self.works or not self.opened.done():
            limit, what = settings.command_timeout, "no reply"
        else:
            return ""
        return f"{self.hop}: {what} within {limit:g} s" if self.desk.clock.since(self.active) >= limit else ""

    @property
    def usable(self) -> bool:
        return not self._ended

    @property
    def lesson(self) -> Lesson | None:
        """What the host turned out unable to do, where that ended the connection before it was of use."""
        session = self.session
        if session.failure is not None and session.failure[0] != 0:
            return None  # it said why
        if session.tls or session.ended_in in ("STARTTLS", "HANDSHAKE"):
            return Lesson.TLS
        if session.ended_in == "EHLO" and session.failure is None and not self._given_up and self._manner.esmtp:
            return Lesson.EHLO
        return None

    @property
    def chokes(self) -> bool:
        """Whether it ended in a way that a server has which offers PIPELINING and does not know how: within an
        envelope, with replies missing or out of step."""
        session = self.session
        if not session.pipelining or session.ended_in not in ("MAIL", "RCPT", "DATA", "RSET"):
            return False
        return session.failure is None or session.failure[0] == 0

    @property
    def broken(self) -> bool:
        """Whether the server broke the protocol, so that what it said in the last transaction may mean another one."""
        failure = self.session.failure
        return failure is not None and failure[0] == 0

    @property
    def ended(self) -> Reply:
        """Why the connection is over."""
        failure = self.session.failure
        if failure is None:
            return self._why or Reply(0, "4.4.2", f"{self.hop} closed the connection")
        if failure[0] == 0:
            return Reply(0, "4.5.0", f"{self.hop} broke the protocol: {reply_of(0, failure[1]).text}")
        return reply_of(*failure)

    # ---- inside

    def act(self, flags: int) -> None:
        session = self.session
        if flags & _OUTPUT:
            self.send(session.take_output())
        if flags & _CLOSE:
            self._finish()
            return
        if flags & _STARTTLS:
            self.indirect()
            self.transport.pause_reading()
            self._securing = self.desk.loop.create_task(self._secure())
            return
        if flags & _DONE:
            self._settle()
        if flags & _SEND:
            self._send_text(flags)
        elif flags & _NEXT and not self.works:
            self.feed()
        elif flags & _READY:
            self._welcomed()

    def _welcomed(self) -> None:
        offer = self.offer = read_offer(self.session.extensions, pipelining=self.session.pipelining)
        chunking = self.desk.settings.chunking and offer.chunking
        self.ceiling = offer.size if offer.eight_bit and not chunking else -1
        self.opened.set_result(None)

    async def _secure(self) -> None:
        """Shake hands, and begin the session anew."""
        assert self._tls is not None  # the session says STARTTLS only with a context
        name, seconds = server_name(self._target, self._tls), self.desk.settings.connect_timeout
        secured = await upgrade(self.transport, self, self._tls, name, seconds)
        if isinstance(secured, TlsFailure):
            self.tls_failure = secured
            self.give_up(Reply(0, "4.7.5", f"{self.hop}: no TLS: {printable(secured.text)}"))
        elif self._ended:
            secured.abort()
        else:
            self.transport = secured
            secured.set_write_buffer_limits(high=1)  # 0 would hold the stream back for ever
            tls = secured.get_extra_info("ssl_object")
            self.tls = f" tls={tls.version()} cipher={tls.cipher()[0]}"
            self.active = self.desk.clock.tick
            self.act(self.session.secured())

    def _settle(self) -> None:
        for result in self.session.take_results():
            self._owner.settle(self, self.works.popleft(), result)

    def _offer(self, work: Work) -> None:
        stored = work.stored
        assert stored is not None
        work.fresh = not self._used
        self._used = True
        self.works.append(work)
        words = work.words
        if words is None:
            flags = self.session.offer(work, work.sender, work.addresses, stored.size, stored.envelope.eight_bit)
        else:
            flags = self.session.offer(
                work,
                work.sender,
                work.addresses,
                stored.size,
                words.eight_bit,
                words.mail,
                words.rcpt,
                words.chunked,
            )
        if flags & _OUTPUT:
            self.send(self.session.take_output())

    def _send_text(self, flags: int) -> None:
        """The server waits for the text of the first work. The second is taken now, to ride on its dot."""
        if flags & _NEXT:
            rider = self._owner.take(self)
            if rider is not None:
                self._offer(rider)
        work = self.works[0]
        stored, work.stored = work.stored, None  # the text is needed no more, and may be large
        assert stored is not None
        if not stored.path:
            self._dot(work)
            self.act(self.session.send_body(stored.content, True))
            return
        try:
            self._file = os.open(stored.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.give_up(Reply(0, "4.3.0", f"the text cannot be read from the spool: {error}"))
            return
        self._offset = stored.offset
        self._left = stored.size - len(stored.content)
        if not self._left:
            self._dot(work)
        self.act(self.session.send_body(stored.content, self._left == 0))
        self._stream()

    def _dot(self, work: Work) -> None:
        """INVARIANT: the seat says so before the final dot can leave."""
        self.desk.report.states[work.job.seat] = DOTTED

    def _stream(self) -> None:
        """Send parts of the file as long as the socket takes them."""
        while self._left and not self._blocked and not self._ended:
            chunk = os.pread(self._file, min(READ_SIZE, self._left), self._offset)
            if not chunk:
                self.give_up(Reply(0, "4.3.0", "the text in the spool is shorter than its record says"))
                return
            self._offset += len(chunk)
            self._left -= len(chunk)
            self.active = self.desk.clock.tick
            if not self._left:
                self._dot(self.works[0])
            self.act(self.session.send_body(chunk, self._left == 0))
            self.flush()  # whether the socket takes more is known only then
        if not self._left:
            self._close_file()

    def _finish(self) -> None:
        """The session is over: tell the pool, settle what is in hand."""
        if self._ended:
            return
        self._ended = True
        self._close_file()
        self.session.lost()
        if not self.opened.done():
            self.opened.set_result(self.ended)
        self._owner.closed(self)
        self._settle()
        self.flush()
        self.transport.close()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
