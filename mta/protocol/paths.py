"""Paths of the SMTP envelope: `<user@example.org>`, `<>`, `<Postmaster>`, and old source routes.

The grammar is that of RFC 5321 §4.1.2 and §4.1.3, no wider, with three deliberate readings: an underscore may stand
in a domain label, a source route is read and dropped (RFC 5321 §4.1.1.3, Appendix C), and "::" in an IPv6 literal
may stand for a single group (RFC 4291 §2.2). Lengths are those of RFC 5321 §4.5.3.1; that of a domain, 255, needs
no check of its own, since a path of 256 has no room for more.

Everything is octets: nothing is decoded, unquoted or folded to lower case. A wrong path is None, never an exception.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

MAX_LOCAL: Final = 64
MAX_PATH: Final = 256

_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_STRING = rb"%b(?:\.%b)*" % (_ATOM, _ATOM)
_QUOTED = rb'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_LABEL = rb"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_DOMAIN = rb"%b(?:\.%b)*" % (_LABEL, _LABEL)

_ROUTE = re.compile(rb"@%b(?:,@%b)*:" % (_DOMAIN, _DOMAIN))
_MAILBOX = re.compile(rb"(?P<local>%b|%b)@(?:%b|\[(?P<literal>[0-9A-Za-z:.]+)\])>" % (_DOT_STRING, _QUOTED, _DOMAIN))
_POSTMASTER = re.compile(rb"<postmaster>", re.IGNORECASE)


def parse_path(argument: bytes) -> tuple[bytes, int] | None:
    """The mailbox of a path at the start of the argument and the offset behind it; None when malformed.

    The null path gives b"", `<Postmaster>` in any case gives b"postmaster".
    """
    if argument.startswith(b"<>"):
        return b"", 2
    if found := _POSTMASTER.match(argument):
        return b"postmaster", found.end()
    if not argument.startswith(b"<"):
        return None
    route = _ROUTE.match(argument, 1)
    mailbox = _MAILBOX.match(argument, route.end() if route else 1)
    if mailbox is None or mailbox.end() > MAX_PATH or len(mailbox["local"]) > MAX_LOCAL:
        return None
    if mailbox["literal"] is not None and not is_address_literal(mailbox["literal"].decode("ascii")):
        return None
    return argument[mailbox.start() : mailbox.end() - 1], mailbox.end()


def is_address_literal(text: str) -> bool:
    """What may stand between brackets: an IPv4 address, or "IPv6:" and an IPv6 address."""
    try:
        if text[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(text[5:])
        else:
            ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
