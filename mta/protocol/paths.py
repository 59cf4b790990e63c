"""Paths of the SMTP envelope: `<user@example.org>`, `<>`, `<Postmaster>`, and old source routes.

The grammar is that of RFC 5321 §4.1.2 and §4.1.3, no wider, with three deliberate readings: an underscore may stand
in a domain label, a source route is read and dropped (RFC 5321 §4.1.1.3, Appendix C), and "::" in an IPv6 literal
may stand for a single group (RFC 4291 §2.2). Lengths are those of RFC 5321 §4.5.3.1; that of a domain, 255, needs
no check of its own, since a path of 256 has no room for more.

With `utf8` any character beyond ASCII may stand in local parts and domains as well (RFC 6531 §3.3), but those that
end lines, turn the direction of what is read, or are none. Lengths are in octets all the same.

Everything is octets: nothing is unquoted or folded to lower case. A wrong path is None, never an exception.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

MAX_LOCAL: Final = 64
MAX_PATH: Final = 256
MAX_LABEL: Final = 63

# One character beyond ASCII, in its shortest form and no half of a pair (RFC 3629 §4)
UTF8: Final = (
    rb"(?:[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})"
)
_NEVER = rb"(?!)"
_ROUTE = rb"@%b(?:,@%b)*:"
_MAILBOX = rb"(?P<local>%b|%b)@(?P<domain>%b|\[(?P<literal>[0-9A-Za-z:.]+)\])>"
_POSTMASTER = re.compile(rb"<postmaster>", re.IGNORECASE)
# Controls, line and paragraph separators, what turns the direction of what is read
_UNWANTED = re.compile("[\x80-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufdd0-\ufdef]")


class _Grammar:
    """Two patterns, of source routes and of mailboxes; `beyond` is what may stand there beyond ASCII."""

    def __init__(self, beyond: bytes) -> None:
        atom = rb"(?:[A-Za-z0-9!#$%%&'*+/=?^_`{|}~-]|%b)+" % beyond
        dot_string = rb"%b(?:\.%b)*" % (atom, atom)
        quoted = rb'"(?:[ !#-\[\]-~]|\\[ -~]|%b)*"' % beyond
        label = rb"(?!-)(?:[A-Za-z0-9_-]|%b)+(?<!-)" % beyond
        domain = rb"%b(?:\.%b)*" % (label, label)
        self.route = re.compile(_ROUTE % (domain, domain))
        self.mailbox = re.compile(_MAILBOX % (dot_string, quoted, domain))


_ASCII: Final = _Grammar(_NEVER)
_WIDE: Final = _Grammar(UTF8)


def parse_path(argument: bytes, utf8: bool = False) -> tuple[bytes, int] | None:
    """The mailbox of a path at the start of the argument and the offset behind it; None when malformed.

    The null path gives b"", `<Postmaster>` in any case gives b"postmaster".
    """
    if argument.startswith(b"<>"):
        return b"", 2
    if found := _POSTMASTER.match(argument):
        return b"postmaster", found.end()
    if not argument.startswith(b"<"):
        return None
    grammar = _WIDE if utf8 else _ASCII
    route = grammar.route.match(argument, 1)
    mailbox = grammar.mailbox.match(argument, route.end() if route else 1)
    if mailbox is None or mailbox.end() > MAX_PATH or len(mailbox["local"]) > MAX_LOCAL:
        return None
    if has_unwanted(argument[: mailbox.end()]) or not _fit_labels((route[0] if route else b"") + mailbox["domain"]):
        return None
    if mailbox["literal"] is not None and not is_address_literal(mailbox["literal"].decode("ascii")):
        return None
    return argument[mailbox.start() : mailbox.end() - 1], mailbox.end()


def has_unwanted(octets: bytes) -> bool:
    """Whether well-formed UTF-8 holds what no address needs and a reader could be misled by."""
    text = octets.decode("utf-8")
    return not text.isascii() and (bool(_UNWANTED.search(text)) or any(ord(c) & 0xFFFE == 0xFFFE for c in text))


def _fit_labels(domains: bytes) -> bool:
    """No label of ASCII is too long; the limit of others is that of their A-labels (RFC 5890 §2.3.2.1)."""
    return all(len(label) <= MAX_LABEL or not label.isascii() for label in re.split(rb"[.@,:]", domains))


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
