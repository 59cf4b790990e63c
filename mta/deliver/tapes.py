"""Transcripts of our sessions with other servers: which are kept, and what is told of them.

A session is worth it when a delivery in it failed or was put off, when an answer took long, or when it ended where it
should not have; so is a host that could not be reached at all.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mta.config.settings import Trace
from mta.model import IdSource, MessageId, Reply, id_text
from mta.net.dial import DialFailure
from mta.observe.maillog import printable
from mta.observe.transcripts import Place, Ring, Transcript
from mta.protocol.x509 import told

if TYPE_CHECKING:
    from mta.deliver.connection import Connection
    from mta.deliver.work import Work

_MOST_MESSAGES: Final = 16
_SHOWN: Final = 300  # characters of a reply
_ORDERLY = ("QUIT", "IDLE")  # a server may end a connection that rests


@dataclass(slots=True)
class Kept:
    """What there is of a session already."""

    session: str
    why: str = ""
    place: Place | None = None
    gone: int = 0  # lines that had gone from its tape by then
    messages: list[str] = field(default_factory=list)


class Tapes:
    """Those of one courier. `ring` None: none are kept."""

    def __init__(self, ring: Ring | None, trace: Trace, ids: IdSource, loop: asyncio.AbstractEventLoop) -> None:
        self._ring = ring
        self._loop = loop
        self._ids = ids
        self._kept: dict[Connection, Kept] = {}
        self.octets = trace.tape if ring is not None else 0
        self.slow = int(trace.slow * 1000)
        self.failures = ring is not None and trace.failures
        self.successes = 0 if ring is None else trace.successes
        self._delivered = 0

    def failed(self, site: str, connection: Connection, work: Work) -> None:
        """Not everybody got it."""
        if self.failures:
            ended = str(connection.ended) if not connection.usable else "goes on"
            self._keep(site, connection, "failed", ended, work.job.id)

    def delivered(self, site: str, connection: Connection, work: Work) -> None:
        """Asked only while successes are kept too."""
        self._delivered += 1
        if self._delivered % self.successes == 0:
            self._keep(site, connection, "fine", "goes on", work.job.id)

    def sweep(self, site: str, connection: Connection) -> None:
        """At each tick of the clock: an answer took long."""
        if connection.session.marked and self.failures:
            self._keep(site, connection, "slow", "goes on")

    def closed(self, site: str, connection: Connection) -> None:
        """The connection is over; what it had in hand is settled behind this."""
        known = connection in self._kept
        if self.failures and (connection.session.ended_in not in _ORDERLY or connection.session.marked):
            self._keep(site, connection, "ended", str(connection.ended))
            known = True
        elif known:
            good = self._kept[connection].why != "unfit"
            self._keep(site, connection, "", "ended in good order" if good else str(connection.ended))
        if known:
            self._loop.call_soon(self._forget, connection)

    def unfit(self, site: str, connection: Connection, why: Reply) -> None:
        """The connection was ready, and must not be used."""
        if self.failures:
            self._keep(site, connection, "unfit", str(why))

    def unreachable(self, site: str, failure: DialFailure) -> None:
        """There was no connection."""
        now = time.time()
        if self._ring is None or not self.failures or not self._ring.allows(site, int(now)):
            return
        milliseconds = int(now * 1000)
        session = self._new_id(milliseconds)
        self._ring.put(_transcript(site, failure.hop, session, "unreachable", str(failure.reply), milliseconds))

    # ---- inside

    def _keep(self, site: str, connection: Connection, why: str, ended: str, message: int = 0) -> None:
        assert self._ring is not None
        now = time.time()
        milliseconds = int(now * 1000)
        kept = self._kept.get(connection)
        if kept is None:
            kept = self._kept[connection] = Kept(self._new_id(milliseconds))
        kept.why = "failed" if "failed" in (kept.why, why) else why or kept.why
        if message:
            kept.messages.append(id_text(MessageId(message)))
            del kept.messages[:-_MOST_MESSAGES]
        if not self._ring.allows(site, int(now)):
            return
        began, dropped, lost, lines = connection.session.take_tape()
        if dropped != kept.gone:
            kept.place = None
        transcript = _transcript(site, connection.hop, kept.session, kept.why, ended, milliseconds)
        transcript.began = began or milliseconds
        transcript.over = not connection.usable
        transcript.messages = list(kept.messages)
        transcript.tls = connection.tls.partition(" source=")[0].strip()
        transcript.certificate = _certificate(connection)
        transcript.dropped, transcript.lost, transcript.lines = dropped, lost, lines
        kept.place = self._ring.put(transcript, kept.place)
        kept.gone = dropped

    def _new_id(self, milliseconds: int) -> str:
        return "C" + id_text(self._ids.next(milliseconds))

    def _forget(self, connection: Connection) -> None:
        self._kept.pop(connection, None)


def _transcript(site: str, host: str, session: str, why: str, ended: str, milliseconds: int) -> Transcript:
    return Transcript(
        side="out",
        peer=site,
        host=host,
        session=session,
        why=why,
        ended=ended[:_SHOWN],
        began=milliseconds,
        kept=milliseconds,
        over=True,
        messages=[],
        tls="",
        certificate="",
        dropped=0,
        lost=0,
        lines=[],
    )


def _certificate(connection: Connection) -> str:
    """What the server showed; nobody has verified it unless the mail log says so."""
    if not connection.session.tls:
        return ""
    tls = connection.transport.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    return "" if der is None else printable(told(der))
