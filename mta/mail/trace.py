"""The `Received:` header that this server puts in front of a text (RFC 5321 §4.4).

Invariant: no octet from the peer can end the header or begin another one: the HELO name is reduced to what a
domain or an address literal may hold, and an address has passed the session's grammar.
"""

from __future__ import annotations

from datetime import UTC, datetime

from mta.model import LOCAL_CLIENT

_HELO_KEEPS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:[]")
_HELO = bytes(c if c in _HELO_KEEPS else ord("?") for c in range(256))
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_text(seconds: int) -> str:
    """A time as RFC 5322 §3.3 writes it, in UTC, whatever the locale."""
    t = datetime.fromtimestamp(seconds, UTC)
    return (
        f"{_DAYS[t.weekday()]}, {t.day} {_MONTHS[t.month - 1]} {t.year}"
        f" {t.hour:02d}:{t.minute:02d}:{t.second:02d} +0000"
    )


class Tracer:
    """Makes the header for one host. The date is formatted once a second, the first lines once a session."""

    __slots__ = ("_by", "_date", "_second")

    def __init__(self, hostname: str) -> None:
        self._by = f"\r\n\tby {hostname} with ".encode("ascii")
        self._second = -1
        self._date = b""

    def origin(self, helo: bytes, client: str, protocol: bytes) -> bytes:
        """The beginning, up to the id: the same for all messages of a session until its next HELO or EHLO."""
        who = helo.translate(_HELO) or b"unknown"
        return b"Received: from " + who + b" (" + _came_from(client) + b")" + self._by + protocol + b" id "

    def received(self, origin: bytes, message_id: str, recipient: bytes, second: int, tls: bytes = b"") -> bytes:
        """`recipient` is named when it is the only one: others must not learn of each other. `tls`: further clauses."""
        if second != self._second:
            self._second = second
            self._date = b";\r\n\t" + date_text(second).encode("ascii") + b"\r\n"
        target = b"\r\n\tfor <" + recipient + b">" if recipient else b""
        return origin + message_id.encode("ascii") + target + tls + self._date


def _came_from(client: str) -> bytes:
    """What stands in brackets: TCP-info of RFC 5321 §4.4, or a comment where there is no TCP."""
    if client == LOCAL_CLIENT:
        return b"unix socket"
    return f"[IPv6:{client}]".encode("ascii") if ":" in client else f"[{client}]".encode("ascii")


def priority_clause(priority: int) -> bytes:
    """What MAIL said by MT-PRIORITY (RFC 6710 §4.1)."""
    return b"\r\n\tPRIORITY %d" % priority


def tls_clause(version: str, cipher: str, server_name: str) -> bytes:
    """How the text came under TLS (RFC 8314 §4.3): the suite by its name in IANA's registry."""
    asked = f" sni={server_name}" if server_name else ""
    return f"\r\n\ttls {cipher} ({version}{asked})".encode("ascii")


_DELIVERED_TO = b"\nDelivered-To:"


def was_delivered(start: bytes, recipient: bytes) -> bool:
    """Whether the beginning of a text says that this server has put it into the recipient's mailbox before.

    As Maildir deliveries write it, and whoever sends a letter on keeps it; letters of the address may change case.
    """
    at = start.find(_DELIVERED_TO)
    if at < 0:
        return False
    end = start.find(b"\r\n\r\n")
    wanted = recipient.lower()
    while 0 <= at < (end if end >= 0 else len(start)):
        line = start[at + len(_DELIVERED_TO) :].partition(b"\n")[0]
        if line.strip(b" \t\r<>").lower() == wanted:
            return True
        at = start.find(_DELIVERED_TO, at + 1)
    return False
