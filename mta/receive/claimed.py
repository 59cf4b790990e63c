"""XCLIENT and XFORWARD: what a trusted peer says of its client is taken over, or only noted (mta.protocol.claims).

After XCLIENT the session is that of another client: its address decides on relaying and limits and is in trace and log,
LOGIN is its login, and it has said nothing yet. What XFORWARD says is for the log alone, of the next message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mta.observe.maillog import printable
from mta.policy.admission import Guest
from mta.policy.submission import LoggedIn
from mta.protocol.claims import XCLIENT, XFORWARD, ClaimError, parse

if TYPE_CHECKING:
    from mta.receive.connection import Connection

_DENIED: Final = b"550 5.7.0 Your address may not speak for others here\r\n"
_IN_TRANSACTION: Final = b"503 5.5.1 A transaction is open; RSET ends it\r\n"
_OK: Final = b"250 2.0.0 Ok\r\n"

KEYWORDS: Final = {
    b"XCLIENT": b"XCLIENT " + " ".join(XCLIENT).encode("ascii"),
    b"XFORWARD": b"XFORWARD " + " ".join(XFORWARD).encode("ascii"),
}


def denied(connection: Connection, argument: bytes) -> bytes:
    return _DENIED


def on_xclient(connection: Connection, argument: bytes) -> bytes:
    """The reply; the greeting when the client is another one from now on."""
    if connection.session.in_transaction:
        return _IN_TRANSACTION
    try:
        claims = parse(argument, XCLIENT)
    except ClaimError as error:
        return b"501 5.5.4 XCLIENT: %b\r\n" % str(error).encode("ascii")
    if "ADDR" in claims:
        guest = connection.readmit(claims["ADDR"])
        if not isinstance(guest, Guest):
            return b"450" + guest[3:]  # the peer may have others to speak for
    connection.claimed_helo = claims.get("HELO", "").encode("ascii")
    connection.origin = None
    connection.aside = " xclient" + _fields(claims, "NAME", "PORT", "PROTO")
    login = claims.get("LOGIN", "")
    connection.restart(LoggedIn(login, ()) if login else "")
    return connection.greeting


def on_xforward(connection: Connection, argument: bytes) -> bytes:
    if connection.session.in_transaction:
        return _IN_TRANSACTION
    try:
        claims = parse(argument, XFORWARD)
    except ClaimError as error:
        return b"501 5.5.4 XFORWARD: %b\r\n" % str(error).encode("ascii")
    connection.forwarded = connection.forwarded | claims
    return _OK


def forwarded_fields(claims: dict[str, str]) -> str:
    return _fields(claims, *XFORWARD, prefix="forwarded-") if claims else ""


def _fields(claims: dict[str, str], *names: str, prefix: str = "client-") -> str:
    return "".join(f" {prefix}{name.lower()}={printable(claims[name])}" for name in names if claims.get(name))
