"""The extensions of SMTP that a server session may offer: bits of `ServerConfig.offers`, and their lines in EHLO.

STARTTLS and AUTH are not among them: they come from what the listener has, a certificate and users. CHUNKING and
BINARYMIME are RFC 3030.

RFC 5321 §4.1.1.1; RFC 1870 (SIZE), RFC 2034 (ENHANCEDSTATUSCODES), RFC 2920 (PIPELINING), RFC 3461 (DSN), RFC 6152
(8BITMIME), RFC 6531 (SMTPUTF8), RFC 8689 (REQUIRETLS), RFC 4865 (FUTURERELEASE), RFC 2852 (DELIVERBY), RFC 6710
(MT-PRIORITY; MIXER is the policy of its appendix), RFC 9422 (LIMITS).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mta.protocol.times import utc_text

if TYPE_CHECKING:
    from mta.protocol.server import ServerConfig

_LARGEST_LIMIT: Final = 999_999


class Extension(enum.IntFlag):
    """One bit each; `EXTENSIONS` has the names as they are written on the wire."""

    PIPELINING = 1
    SIZE = 2
    EIGHT_BIT = 4
    STATUS_CODES = 8
    SMTPUTF8 = 16
    DSN = 32
    CHUNKING = 64
    BINARYMIME = 128
    REQUIRETLS = 256
    FUTURERELEASE = 512
    DELIVERBY = 1024
    MT_PRIORITY = 2048
    LIMITS = 4096
    AUTH = 1 << 30  # not in `offers`: the AUTH parameter of MAIL is taken where logins are


EXTENSIONS: Final = {
    "PIPELINING": 1,
    "SIZE": 2,
    "8BITMIME": 4,
    "ENHANCEDSTATUSCODES": 8,
    "SMTPUTF8": 16,
    "DSN": 32,
    "CHUNKING": 64,
    "BINARYMIME": 128,
    "REQUIRETLS": 256,
    "FUTURERELEASE": 512,
    "DELIVERBY": 1024,
    "MT-PRIORITY": 2048,
    "LIMITS": 4096,
}
BASIC: Final = Extension.PIPELINING | Extension.SIZE | Extension.EIGHT_BIT | Extension.STATUS_CODES


def in_force(config: ServerConfig, *, tls: bool) -> Extension:
    """What is offered at this moment: REQUIRETLS under TLS only (RFC 8689 §2), the AUTH parameter beside AUTH."""
    offered = Extension(config.offers)
    if not tls:
        offered &= ~Extension.REQUIRETLS
    return offered | Extension.AUTH if config.offered_mechanisms(tls) else offered


def hello_lines(config: ServerConfig, *, tls: bool) -> list[bytes]:
    """What EHLO tells, each without its code; STARTTLS not twice (RFC 3207 §4.2)."""
    offered = in_force(config, tls=tls)
    lines = [config.hostname]
    lines += [line(config) for extension, line in _LINES.items() if extension in offered]
    if mechanisms := config.offered_mechanisms(tls):
        lines.append(b"AUTH " + mechanisms)
    if config.starttls and not tls:
        lines.append(b"STARTTLS")
    lines += config.keywords
    if Extension.STATUS_CODES in offered:
        lines.append(b"ENHANCEDSTATUSCODES")
    return lines


def help_text(config: ServerConfig, *, tls: bool) -> bytes:
    """The commands that are there now."""
    commands = [b"LHLO"] if config.lmtp else [b"EHLO", b"HELO"]
    commands += [b"MAIL", b"RCPT", b"DATA"]
    if Extension.CHUNKING in Extension(config.offers):
        commands.append(b"BDAT")
    commands += [b"RSET", b"NOOP", b"VRFY", b"HELP"]
    if config.offered_mechanisms(tls):
        commands.append(b"AUTH")
    if config.starttls and not tls:
        commands.append(b"STARTTLS")
    rfc = b"2033" if config.lmtp else b"5321"
    return b"214 2.0.0 Commands: %b; see RFC %b" % (b" ".join([*commands, b"QUIT"]), rfc)


def _latest(config: ServerConfig) -> bytes:
    return utc_text(config.clock() // 1000 + config.hold)


def _limits(config: ServerConfig) -> bytes:
    """RFC 9422 §4: numbers of at most six digits. A session that may send any number of messages is not told so."""
    mails = b"MAILMAX=%d " % min(config.mails, _LARGEST_LIMIT) if config.mails else b""
    return mails + b"RCPTMAX=%d" % min(config.recipients, _LARGEST_LIMIT)


_LINES: Final[dict[Extension, Callable[[ServerConfig], bytes]]] = {
    Extension.PIPELINING: lambda config: b"PIPELINING",
    Extension.SIZE: lambda config: b"SIZE %d" % config.message_size,
    Extension.EIGHT_BIT: lambda config: b"8BITMIME",
    Extension.SMTPUTF8: lambda config: b"SMTPUTF8",
    Extension.DSN: lambda config: b"DSN",
    Extension.CHUNKING: lambda config: b"CHUNKING",
    Extension.BINARYMIME: lambda config: b"BINARYMIME",
    Extension.REQUIRETLS: lambda config: b"REQUIRETLS",
    Extension.FUTURERELEASE: lambda config: b"FUTURERELEASE %d %b" % (config.hold, _latest(config)),
    Extension.DELIVERBY: lambda config: b"DELIVERBY %d" % config.deliver_by if config.deliver_by else b"DELIVERBY",
    Extension.MT_PRIORITY: lambda config: b"MT-PRIORITY MIXER",
    Extension.LIMITS: lambda config: b"LIMITS " + _limits(config),
}
