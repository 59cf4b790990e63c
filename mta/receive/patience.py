"""How long a client may take (RFC 5321 §4.5.3.2): a sweep looks at each connection once a second.

A command must be whole within its time, however its octets trickle in. A text must not pause, and must come at a
least rate over a window. A client that does not read its replies has the time of a pause in a text. While there is
little room left all waits are short. A session has a time in all, or twice as much where a transaction is open: what
moves on in small steps, chunks of an octet or NOOPs, does not last for ever either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta.config.settings import Limits

if TYPE_CHECKING:
    from mta.receive.connection import Connection

SILENT = b"421 4.4.2 nothing heard from you for too long, closing\r\n"
SLOW = b"421 4.4.2 the text comes too slowly, closing\r\n"
LONG = b"421 4.4.2 this session has lasted too long, closing\r\n"


class Patience:
    """That of one listener."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stressed = False

    def sweep(self, stressed: bool) -> None:
        self._stressed = stressed

    def _wait(self, seconds: float) -> float:
        return min(seconds, self._limits.stress_timeout) if self._stressed else seconds

    def exhausted(self, connection: Connection, tick: int) -> bytes:
        """The farewell to who took too long, or b"". `tick` is now, in seconds."""
        limits = self._limits
        session = connection.session
        if connection.choked and tick - connection.choked > self._wait(limits.data_timeout):
            return SILENT
        if connection.shakes_hands:
            return SILENT if tick - connection.active > self._wait(limits.handshake_timeout) else b""
        if session.parked:
            connection.since = tick
            return b""  # it waits for us
        if limits.session_timeout and tick - connection.began > limits.session_timeout * (1 + session.in_transaction):
            return LONG
        if session.in_data:
            return self._text(connection, session.body_size, tick)
        progress = -1 - session.lines
        if connection.progress != progress:
            connection.progress, connection.since = progress, tick
        wait = limits.command_timeout if session.spoke else limits.greeting_timeout
        return SILENT if tick - connection.since > self._wait(wait) else b""

    def _text(self, connection: Connection, size: int, tick: int) -> bytes:
        limits = self._limits
        if not 0 <= connection.progress <= size:  # a new text
            connection.progress, connection.since = size, tick
        elif limits.data_rate and tick - connection.since >= limits.data_window:
            if size - connection.progress < limits.data_rate * (tick - connection.since):
                return SLOW
            connection.progress, connection.since = size, tick
        return SILENT if tick - connection.active > self._wait(limits.data_timeout) else b""
