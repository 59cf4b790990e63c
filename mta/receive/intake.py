"""From a whole message to its 250: draft, store, answer, tell the queue manager.

INVARIANT: a 250 leaves only from `committed` with no error, that is, after the store said that the batch which holds
the message is on stable storage.
The queue manager is told after the answer. If its link is full the news is dropped and a `Position` is owed: the
queue manager then finds the messages in the spool itself, so neither side needs a growing list.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from mta.config.settings import Domain
from mta.mail.trace import Tracer, priority_clause
from mta.model import (
    Arrival,
    Arrivals,
    Body,
    Draft,
    Envelope,
    IdSource,
    Intake,
    LinkRecord,
    MessageId,
    Options,
    Position,
    Recipient,
    StoreError,
    id_text,
)
from mta.net.link import BATCH
from mta.observe.counters import INDEX
from mta.observe.maillog import MailLog, printable
from mta.policy.relay import expand_postmaster
from mta.receive.asked import options_of, recipients_of
from mta.receive.claimed import forwarded_fields
from mta.receive.listener import refusal
from mta.receive.placing import place

if TYPE_CHECKING:
    from mta.receive.connection import Connection

_ACCEPTED = INDEX["messages_accepted"]
_OCTETS = INDEX["octets_accepted"]
_COMMITS = INDEX["commits"]
_NEWS_DELAY = 0.004  # seconds


class MessageIntake:
    """One receiver's way into the store; `attach` comes before the first connection."""

    _store: Intake
    _ids: IdSource

    def __init__(
        self,
        *,
        log: int,
        hostname: str,
        domains: Sequence[Domain],
        counters: memoryview,
        maillog: MailLog,
        announce: Callable[[LinkRecord], bool],
        position: Callable[[], int],
    ) -> None:
        self._log = log
        self._domains = domains
        self._tracer = Tracer(hostname)
        self._counters = counters
        self._maillog = maillog
        self._announce = announce
        self._position = position
        self._owes_position = False
        self._gathered: list[Arrival] = []
        self._whole: list[Connection] = []  # with a message that came in this loop turn

    def count(self, name: str, amount: int = 1) -> None:
        self._counters[INDEX[name]] += amount

    def attach(self, store: Intake, ids: IdSource) -> None:
        self._store = store
        self._ids = ids

    def begin_body(self) -> tuple[MessageId, Body]:
        """The file of a large text, under the id that its message will have."""
        message_id = self._ids.next(time.time_ns() // 1_000_000)
        return message_id, self._store.body(message_id)

    def accept(self, connection: Connection) -> None:
        """A whole message is parked in the session.

        What came while the store commits is put when that is done, in one go: between the reads and writes of a
        network the same work takes three times as long, for want of room in the processor's caches.
        """
        self._whole.append(connection)
        if len(self._whole) == 1 and not self._store.committing:
            asyncio.get_running_loop().call_soon(self._put_whole)

    def _put_whole(self) -> None:
        whole, self._whole = self._whole, []
        for connection in whole:
            if not connection.lost:  # else nobody waits for the 250, and its sender will come again
                self._put(connection)
        self._store.commit()

    def _put(self, connection: Connection) -> None:
        """Give a message to the store."""
        if connection.failed is not None:
            self._refuse(connection, connection.failed)
            return
        try:
            draft, text = self._draft(connection)
            aside = connection.aside
            if connection.forwarded:
                aside += forwarded_fields(connection.forwarded)
                connection.forwarded = {}
            self._store.put(draft, (connection, draft, text, aside))
        except StoreError as error:
            self._refuse(connection, error)
            return
        connection.large = None  # the store's now

    def _draft(self, connection: Connection) -> tuple[Draft, str]:
        """The message to store, and its id as text."""
        session = connection.session
        now = time.time_ns()
        recipients = session.recipients
        if b"postmaster" in recipients:
            recipients = [expand_postmaster(r, self._domains) for r in recipients]
        helo = connection.claimed_helo or session.helo
        body: bytes | Body
        if connection.large is not None:
            message_id = connection.large_id
            connection.large.write(connection.take_last())
            body = connection.large
        else:
            message_id = self._ids.next(now // 1_000_000)
            body = connection.take_last()
            if connection.submission is not None:
                body = connection.submission.prepared(body, session.user, id_text(message_id), now // 10**9, whole=True)
        asked = session.options
        user = str(session.user) if connection.submission is not None else ""
        options = None
        if asked is not None or user:
            is_his = partial(connection.submission.is_his, session.user) if connection.submission is not None else None
            options = options_of(asked, user, is_his)
        if connection.tenancy is not None:
            options, body = place(connection, connection.tenancy, options, body)
        text = id_text(message_id)
        origin = connection.origin
        if origin is None or origin[0] is not helo or origin[1] is not session.esmtp:
            protocol = _protocol(connection.lmtp, session.esmtp, session.tls, bool(session.user))
            head = self._tracer.origin(helo, connection.client, protocol)
            clause = b"" if connection.tls is None else connection.tls.clause
            origin = connection.origin = helo, session.esmtp, head, clause
        if asked is not None and asked.utf8:
            protocol = _utf8_protocol(connection.lmtp, session.tls, bool(session.user))
            origin = helo, True, self._tracer.origin(helo, connection.client, protocol), origin[3]
        clauses = origin[3] if asked is None or not asked.priority else origin[3] + priority_clause(asked.priority)
        only = recipients[0] if len(recipients) == 1 else b""
        head = self._tracer.received(origin[2], text, only, now // 1_000_000_000, clauses)
        envelope = Envelope(
            sender=session.sender,
            recipients=tuple([Recipient(r) for r in recipients]) if asked is None else recipients_of(recipients, asked),
            eight_bit=session.eight_bit,
            client=connection.client,
            helo=helo,
            options=options,
        )
        return Draft(message_id, envelope, head, body), text

    def committed(self, tokens: Sequence[object], arrivals: Sequence[Arrival], error: StoreError | None) -> None:
        """The store's callback: a batch is on disk, or failed as a whole."""
        batch = cast("Sequence[tuple[Connection, Draft, str, str]]", tokens)
        if self._whole:
            self._put_whole()  # before the answers: the disk works meanwhile
        if error is not None:
            self.count("commit_failures")
            for connection, _, _, _ in batch:
                self.count("messages_refused")
                connection.refuse(refusal(error))
            return
        for connection, _, text, _ in batch:
            connection.answer(b"250 2.0.0 queued as " + text.encode("ascii") + b"\r\n")
        self._gather(arrivals)
        self._note(batch, arrivals)

    def _gather(self, arrivals: Sequence[Arrival]) -> None:
        """News is told some milliseconds later, with what else came meanwhile: a wake-up costs more than the news."""
        first = not self._gathered
        self._gathered.extend(arrivals)
        if len(self._gathered) >= BATCH // 2:
            self.tell()
        elif first:
            asyncio.get_running_loop().call_later(_NEWS_DELAY, self.tell)

    def tell(self) -> None:
        """Tell the queue manager what has gathered."""
        for start in range(0, len(self._gathered), BATCH):
            if not self._announce(Arrivals(self._log, tuple(self._gathered[start : start + BATCH]))):
                self._owes_position = True
        self._gathered.clear()

    def settle(self) -> None:
        """Called from time to time: tell the queue manager what it may have missed."""
        if self._owes_position and self._announce(Position(self._log, self._position())):
            self._owes_position = False

    def owe_position(self) -> None:
        """The queue manager is new: it wants to know how far the log goes."""
        self._owes_position = True
        self.settle()

    def _note(self, batch: Sequence[tuple[Connection, Draft, str, str]], arrivals: Sequence[Arrival]) -> None:
        octets = 0
        log = self._maillog
        for (connection, draft, text, aside), arrival in zip(batch, arrivals, strict=True):
            envelope = draft.envelope
            octets += arrival.size
            options = envelope.options
            user = "" if options is None else _told_of(options)
            tls = f" {connection.tls.summary}" if connection.tls is not None else ""
            recipients = envelope.recipients
            log.received(
                text,
                envelope.client,
                envelope.helo,
                envelope.sender,
                (recipients[0].address, len(recipients)),
                arrival.size,
                user + tls + aside,
            )
        counters = self._counters
        counters[_COMMITS] += 1
        counters[_ACCEPTED] += len(batch)
        counters[_OCTETS] += octets

    def _refuse(self, connection: Connection, error: StoreError) -> None:
        self.count("messages_refused")
        connection.failed = None
        if connection.large is not None:
            connection.large.discard()
            connection.large = None
        connection.refuse(refusal(error))


def _told_of(options: Options) -> str:
    """What the log says of a transaction that was not plain."""
    user = f" user={printable(options.user)}" if options.user else ""
    tenant = f" tenant={options.tenant}" if options.tenant else ""
    priority = options.priority or options.rank
    return f"{user}{tenant} priority={priority}" if priority else user + tenant


def _utf8_protocol(lmtp: bool, tls: bool, logged_in: bool) -> bytes:
    """The "with" keyword of a transaction with SMTPUTF8 (RFC 6531 §4.3)."""
    return (b"UTF8LMTP" if lmtp else b"UTF8SMTP") + (b"S" if tls else b"") + (b"A" if logged_in else b"")


def _protocol(lmtp: bool, esmtp: bool, tls: bool, logged_in: bool) -> bytes:
    """The "with" keyword (RFC 3848)."""
    if not esmtp:
        return b"SMTP"
    return (b"LMTP" if lmtp else b"ESMTP") + (b"S" if tls else b"") + (b"A" if logged_in else b"")
