"""Transcripts of clients' sessions: which are kept, and what is told of them.

A session is worth it when something was refused or took long, or when it ended where it should not have. While it goes
on its transcript is kept within a second of the refusal, and again when there is more.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from mta import _fastparse
from mta.config.settings import Trace
from mta.observe.transcripts import Line, Place, Ring, Transcript

if TYPE_CHECKING:
    from mta.receive.connection import Connection

_QUEUED = re.compile(rb"queued as ([0-9A-Z]{8,16})")
_MOST_MESSAGES: Final = 16


class Tapes:
    """Those of one receiver. `ring` None: none are kept."""

    def __init__(self, ring: Ring | None, trace: Trace) -> None:
        self._ring = ring
        # For the configurations of sessions.
        self.options: dict[str, Any] = {
            "tape": trace.tape if ring is not None else 0,
            "tape_slow": int(trace.slow * 1000),
        }
        self.failures = ring is not None and trace.failures
        self._successes = 0 if ring is None else trace.successes
        self._ended_well = 0
        self._refused: set[Connection] = set()  # since the last sweep
        self._kept: dict[Connection, tuple[Place, int]] = {}  # and how many lines had gone from the tape by then

    def refused(self, connection: Connection) -> None:
        """The client is about to be told so."""
        if self.failures:
            self._refused.add(connection)

    def sweep(self) -> None:
        """Once a second."""
        refused, self._refused = self._refused, set()
        for connection in refused:
            if not connection.lost:
                self._keep(connection, "goes on", over=False)

    def ended(self, connection: Connection) -> None:
        """Called with each connection that is lost: what is not remarkable must cost nothing."""
        session = connection.session
        if session.marked or session.in_transaction or connection in self._kept or connection.tls is not None:
            self._ended_remarkably(connection)
        elif self._successes:
            self._sample(connection)

    # ---- inside

    def _ended_remarkably(self, connection: Connection) -> None:
        session = connection.session
        self._refused.discard(connection)
        if not (session.marked or session.in_transaction or connection in self._kept or connection.shakes_hands):
            self._sample(connection)
        elif self.failures:
            self._keep(connection, _ending(connection), over=True)
        self._kept.pop(connection, None)

    def _sample(self, connection: Connection) -> None:
        self._ended_well += 1
        if self._successes and self._ended_well % self._successes == 0:
            self._keep(connection, _ending(connection), over=True)

    def _keep(self, connection: Connection, ended: str, *, over: bool) -> None:
        assert self._ring is not None
        now = time.time()
        peer = connection.client or "-"
        place, gone = self._kept.get(connection, (None, 0))
        if not self._ring.allows(peer, int(now)):
            return
        session = connection.session
        slow = session.marked
        began, dropped, lost, lines = session.take_tape()
        transcript = Transcript(
            side="in",
            peer=peer,
            host=connection.listener,
            session=connection.name,
            why=_why(lines, connection, slow=slow, over=over),
            ended=ended,
            began=began or int(now * 1000),
            kept=int(now * 1000),
            over=over,
            messages=_messages(lines),
            tls="" if connection.tls is None else connection.tls.summary,
            certificate=_certificate(connection),
            dropped=dropped,
            lost=lost,
            lines=lines,
        )
        self._kept[connection] = self._ring.put(transcript, place if gone == dropped else None), dropped


def _why(lines: list[Line | None], connection: Connection, *, slow: bool, over: bool) -> str:
    """One word."""
    if connection.shakes_hands:
        return "tls"
    if any(line and line[1] == _fastparse.REPLIED and line[3][:1] >= b"4" for line in lines):
        return "refused"
    if connection.session.in_transaction and over:
        return "cut-short"
    return "slow" if slow else "fine"


def _ending(connection: Connection) -> str:
    session = connection.session
    if connection.shakes_hands:
        return "the connection ended within the TLS handshake"
    if session.in_data:
        return f"the connection ended within a text, after {session.body_size} octets"
    if session.parked:
        return "the connection ended before an answer was ready"
    if session.in_transaction:
        return "the connection ended within a transaction"
    return "the connection ended"


def _messages(lines: list[Line | None]) -> list[str]:
    replies = (line[3] for line in lines if line and line[1] == _fastparse.REPLIED)
    found = [match[1].decode("ascii") for reply in replies if (match := _QUEUED.search(reply))]
    return found[-_MOST_MESSAGES:]


def _certificate(connection: Connection) -> str:
    """What the client showed, if it was asked."""
    shown = connection.tls.peer() if connection.tls is not None and not connection.shakes_hands else None
    return "" if shown is None else f"{', '.join(shown.names[:4]) or 'without addresses'}, sha256 {shown.fingerprint}"
