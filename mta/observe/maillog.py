"""The mail log: one line a step of a message, id first.

    2026-11-23T12:00:00.123Z 1AHHN4AQ0C00 received client=127.0.0.1 from=<a@x> size=4200 recipients=1

`logging` costs 15 us a line, this writer 0.3: lines gather in memory for some milliseconds and are written in whole
lines, with O_APPEND, so that several processes may share a file. Text from peers is escaped: nothing on the wire
can begin a line or a field of its own, carry a terminal sequence, or turn the direction in which a line is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mta.observe._lines import Lines

_FLUSH_AT = 64 << 10
LOG_DELAY = 0.005  # seconds that lines may gather: a system call for each would cost more than the line


def printable(text: str | bytes) -> str:
    """Text from outside, safe in a log line and on a terminal. Octets are read as UTF-8 where they are that."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join([c if c.isprintable() and c != "\\" else f"\\x{ord(c):02x}" for c in text])


def quoted(text: str | bytes) -> str:
    """`printable`, as a field that may hold blanks: no quotation mark within can end it."""
    return '"' + printable(text).replace('"', "'") + '"'


def _stamp(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode("ascii")


class MailLog:
    """One process's writer. `defer` asks for a flush soon: `partial(loop.call_later, LOG_DELAY)`; None: at once."""

    def __init__(self, path: Path | None, defer: Callable[[Callable[[], None]], object] | None = None) -> None:
        self._path = path
        self._fd = 2 if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._defer = defer
        self._lines = Lines(printable, _stamp)
        self._asked = False

    def __call__(self, message_id: str, event: str, fields: str) -> None:
        """Write a step. `fields` is already escaped (`printable`) where it holds text from outside."""
        self._lines.step(message_id, event, fields)
        self._grown()

    def received(
        self,
        message_id: str,
        client: str,
        helo: bytes,
        sender: bytes,
        recipients: tuple[bytes, int],
        octets: int,
        more: str = "",
    ) -> None:
        """A message is on disk; `recipients` are the first one and their number, `more` are fields, escaped."""
        self._lines.received(message_id, client, helo, sender, *recipients, octets, more)
        self._grown()

    def delivered(self, message_id: int, recipient: bytes, hop: str, delay: float, status: str) -> None:
        """A recipient has it since `delay` seconds after its arrival; `hop` is escaped, or ""."""
        self._lines.delivered(message_id, recipient, hop, delay, status)
        self._grown()

    def _grown(self) -> None:
        if self._defer is None or self._lines.size > _FLUSH_AT:
            self.flush()
        elif not self._asked:
            self._asked = True
            self._defer(self.flush)

    def flush(self) -> None:
        self._asked = False
        data = self._lines.take()
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                # A full or broken log must not stop mail; the loss is visible as a gap in the log itself.
                return

    def reopen(self) -> None:
        """After log rotation (SIGHUP)."""
        self.flush()
        if self._path is not None:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def close(self) -> None:
        """Whatever is said later is lost."""
        self.flush()
        if self._path is not None:
            os.close(self._fd)
            self._fd = -1
