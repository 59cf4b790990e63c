"""Refusals as people need them: each carries the id of its session, under which the mail log has it.

    550 5.7.1 relaying to this domain is not permitted from your address [S1PBHN4AQ0C00]
    12:00:00.123Z S1PBHN4AQ0C00 refused client=192.0.2.1 helo=c.example verb=RCPT from=<a@x> path="…" reply="…"

A session gets its id with its first refusal; most never need one. Ids sort by time, as those of messages do.

INVARIANT: what was said in a login is not in the log, and no flood of refusals can fill the disk: beyond a rate lines
are only counted, and the count is told (`refusals-omitted`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mta.config.settings import Rate
from mta.model import IdSource, id_text
from mta.observe.maillog import MailLog, printable, quoted

if TYPE_CHECKING:
    from mta.receive.connection import Connection

_LAST_LINES = re.compile(rb"(?m)^(\d\d\d .*)\r$")
_SHOWN: Final = 300  # characters of a refused path


class Throttle:
    """So many lines in a window of time, whatever comes. `now` in seconds."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._window = -1
        self._count = 0
        self.omitted = 0

    def allows(self, now: int) -> bool:
        if not self._rate.count:
            return True
        window = now // self._rate.seconds
        if window != self._window:
            self._window = window
            self._count = 0
        self._count += 1
        if self._count <= self._rate.count:
            return True
        self.omitted += 1
        return False

    def take_omitted(self, now: int) -> int:
        """How many were left out in windows that are over."""
        if not self.omitted or now // self._rate.seconds == self._window:
            return 0
        omitted, self.omitted = self.omitted, 0
        return omitted


class Refusals:
    """Those of one receiver."""

    def __init__(
        self,
        ids: IdSource,
        maillog: MailLog,
        rate: Rate,
        count: Callable[[str], None],
        tell: Callable[[Connection], None] | None = None,
    ) -> None:
        self._tell = tell
        self._ids = ids
        self._maillog = maillog
        self._throttle = Throttle(rate)
        self._count = count

    def id_of(self, connection: Connection) -> str:
        """The session's id; it gets one if it has none."""
        if not connection.id:
            connection.id = "S" + id_text(self._ids.next(time.time_ns() // 1_000_000))
        return connection.id

    def named(self, connection: Connection, reply: bytes, line: bytes) -> bytes:
        """Note a refusal of this command line; what to say instead of the reply (see ServerConfig)."""
        name = self.id_of(connection)
        if self._tell is not None:
            self._tell(connection)
        if reply.startswith(b"5"):
            connection.guest.erred()
            if line[:4].upper() == b"RCPT":
                self._count("recipients_refused")
        if self._throttle.allows(int(time.time())):
            self._maillog(name, "refused", _fields(connection, reply, line))
        return tagged(reply, name)

    def note(self, connection: Connection, event: str, fields: str) -> None:
        """Another line that clients can cause; bounded with the others."""
        if self._throttle.allows(int(time.time())):
            self._maillog(self.id_of(connection), event, fields)

    def note_stranger(self, event: str, fields: str) -> None:
        """The same, of who is no connection yet."""
        if self._throttle.allows(int(time.time())):
            self._maillog("-", event, fields)

    def sweep(self) -> None:
        """Called from time to time: tell of what was left out of the log."""
        if omitted := self._throttle.take_omitted(int(time.time())):
            self._maillog("-", "refusals-omitted", f"count={omitted}")


def tagged(reply: bytes, name: str) -> bytes:
    """The reply, or several behind each other (RFC 2033), with the id at the end of each."""
    return _LAST_LINES.sub(rb"\1 [" + name.encode("ascii") + rb"]\r", reply)


def _fields(connection: Connection, reply: bytes, line: bytes) -> str:
    session = connection.session
    verb = line.split(b" ", 1)[0][:16]
    parts = [f"client={connection.client or '-'}"]
    if session.helo:
        parts.append(f"helo={printable(session.helo)}")
    if verb:
        parts.append(f"verb={printable(verb.upper())}")
    if session.in_transaction:
        parts.append(f"from=<{printable(session.sender)}>")
    if verb.upper() in (b"MAIL", b"RCPT"):
        parts.append(f"path={quoted(line[5 : 5 + _SHOWN])}")
    elif session.recipients:
        parts.append(f"to=<{printable(session.recipients[0])}> recipients={len(session.recipients)}")
    text = reply.decode("ascii", "replace").rstrip().replace("\r\n", " / ")
    if connection.aside:
        parts.append(connection.aside[1:])
    return f"{' '.join(parts)} reply={quoted(text[:_SHOWN])}"
