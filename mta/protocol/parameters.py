"""The parameters of MAIL and RCPT (RFC 5321 §4.1.1.11): rows of keyword, extension, and reader.

A reader gets the octets behind "=", or None where there is no "="; it returns what they mean, or None when that is
nothing. What a row's extension does not offer is not known. What only several parameters together show, or a limit of
this server, is looked at when all are read (`_beyond`).

Invariant: a plain transaction, with SIZE and BODY at most, has no `MailOptions`.

SIZE: RFC 1870. BODY: RFC 6152, RFC 3030 §3. RET, ENVID, NOTIFY, ORCPT: RFC 3461 §4. REQUIRETLS: RFC 8689 §3.
SMTPUTF8: RFC 6531 §3.4. Original recipients of type utf-8: RFC 6533 §3. AUTH:
RFC 4954 §5. HOLDFOR, HOLDUNTIL: RFC 4865 §4. BY: RFC 2852 §4. MT-PRIORITY: RFC 6710 §4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mta.protocol.extensions import Extension, in_force
from mta.protocol.paths import UTF8, has_unwanted, parse_path
from mta.protocol.times import read_date_time

if TYPE_CHECKING:
    from mta.protocol.server import ServerSession

Given = dict[str, Any]  # slot to meaning
Rules = dict[bytes, "Rule"]

_UNKNOWN: Final = b"555 5.5.4 Parameter not recognized"
_TWICE: Final = b"501 5.5.4 A parameter is given twice"
_BINARY_BODY: Final = b"501 5.5.4 BODY takes 7BIT, 8BITMIME or BINARYMIME"
_SIZE = re.compile(rb"[0-9]{1,20}")  # RFC 1870 §4
# RFC 3461 §4: what is encoded must be printable ASCII, so that no notice can be broken by it
_XTEXT: Final = rb"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+"
_ENVID = re.compile(_XTEXT)
_ESCAPE = re.compile(rb"\\x\{([0-9A-F]{2,6})\}")
_UTF8_ADDRESS = re.compile(
    rb"(?:%b|%b|[!-*,-<>-\[\]-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+" % (_ESCAPE.pattern, UTF8)  # RFC 6533 §3
)
_TYPE: Final = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+;"
_ORCPT = re.compile(_TYPE + _XTEXT)
# Postfix (3.7, 2022) writes an address in UTF-8 as xtext of type rfc822, against RFC 6533 §3.
_ORCPT_IN_UTF8 = re.compile(_TYPE + rb"(?:[!-*,-<>-~]|\+(?:[2-689A-F][0-9A-F]|7[0-9A-E]))+")
_ENCODED: Final = re.compile(rb"\+([0-9A-F]{2})")
_WIDE_XTEXT: Final = re.compile(rb"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]|[89A-F][0-9A-F]))+")
_HOLDFOR: Final = re.compile(rb"[1-9][0-9]{0,8}")  # RFC 4865 §4
_BY: Final = re.compile(rb"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE)  # RFC 2852 §4
_PRIORITY: Final = re.compile(rb"[0-9]|-[1-9]")  # RFC 6710 §4
_AUTH_WRONG: Final = b"501 5.5.4 AUTH takes <> or an address as xtext"
_MAX_AUTH: Final = 500  # RFC 4954 §3
_MAX_ENVID: Final = 100  # RFC 3461 §4.4
_MAX_ORCPT: Final = 500  # RFC 3461 §4.2
_NOTIFY: Final = {b"SUCCESS": 2, b"FAILURE": 4, b"DELAY": 8}


@dataclass(slots=True)
class MailOptions:
    """What a transaction asks for besides SIZE and BODY; `mta.model.Options` says what each means.

    `notices` has NOTIFY and ORCPT of each accepted recipient, once one of them came with any.
    """

    utf8: bool = False
    binary: bool = False
    require_tls: bool = False
    ret: str = ""
    envid: bytes = b""
    hold: bytes = b""
    hold_until: int = 0
    deliver_by: int = 0
    by_return: bool = False
    by_trace: bool = False
    priority: int = 0
    auth: bytes | None = None
    notices: list[tuple[int, bytes]] | None = None


class Rule(NamedTuple):
    """One keyword."""

    needs: Extension
    slot: str  # parameters of one slot exclude each other
    read: Callable[[ServerSession, bytes | None], Any]
    wrong: bytes


class Hold(NamedTuple):
    """Seconds: a span, or since the epoch."""

    number: int
    absolute: bool
    said: bytes  # as notices tell it (RFC 4865 §5.1.2)


class By(NamedTuple):
    """Within so many seconds; what is late goes back, or its sender is told."""

    seconds: int
    returns: bool
    trace: bool


@dataclass(slots=True)
class MailParameters:
    """Those of one MAIL command."""

    eight_bit: bool = False
    binary: bool = False
    options: MailOptions | None = None


@dataclass(slots=True)
class RcptParameters:
    """Those of one RCPT command."""

    notify: int = 0
    orcpt: bytes = b""


def mail_parameters(s: ServerSession, rest: bytes) -> MailParameters | bytes:
    """Or the refusal."""
    given = _read(s, rest, _MAIL)
    if isinstance(given, bytes):
        return given
    if refusal := _beyond(s, given):
        return refusal
    given.pop("size", None)
    body = given.pop("body", b"")
    binary = body == b"BINARYMIME"
    if binary:
        given["binary"] = True
    return MailParameters(binary or body == b"8BITMIME", binary, MailOptions(**given) if given else None)


def rcpt_parameters(s: ServerSession, rest: bytes) -> RcptParameters | bytes:
    """Or the refusal."""
    given = _read(s, rest, _RCPT)
    return given if isinstance(given, bytes) else RcptParameters(**given)


def _read(s: ServerSession, rest: bytes, rules: Rules) -> Given | bytes:
    given: Given = {}
    offered = in_force(s.config, tls=s.tls)
    for parameter in filter(None, rest.split(b" ")):
        keyword, equals, value = parameter.partition(b"=")
        rule = rules.get(keyword.upper()) if s.esmtp else None
        if rule is None or rule.needs not in offered:
            return _why_not(s, rule)
        if rule.slot in given:
            return _TWICE
        meaning = rule.read(s, value if equals else None)
        if meaning is None:
            return _BINARY_BODY if rule.slot == "body" and Extension.BINARYMIME in offered else rule.wrong
        given[rule.slot] = meaning
    return given


def _why_not(s: ServerSession, rule: Rule | None) -> bytes:
    if rule is not None and rule.needs is Extension.REQUIRETLS and rule.needs in Extension(s.config.offers):
        return b"530 5.7.10 Say STARTTLS first, REQUIRETLS holds under TLS only"
    return _UNKNOWN


def _beyond(s: ServerSession, given: Given) -> bytes:
    if given.get("size", 0) > s.config.message_size:
        return b"552 5.3.4 The message is larger than this server takes"
    if "auth" in given and not _is_identity(given["auth"], utf8="utf8" in given):
        return _AUTH_WRONG
    return _times(s, given) if "hold" in given or "by" in given else b""


def _is_identity(xtext: bytes, *, utf8: bool) -> bool:
    """Does AUTH= stand for nobody or for a mailbox (RFC 4954 §5)? A source route is none."""
    text = _ENCODED.sub(lambda found: bytes([int(found[1], 16)]), xtext)
    found = parse_path(b"<%b>" % text, utf8)
    return text == b"<>" or (found == (text, len(text) + 2) and b"@" in text)


def _times(s: ServerSession, given: Given) -> bytes:
    """The refusal of times that cannot be kept, or b""; `given` gets them in milliseconds since the epoch."""
    now, hold, by = s.config.clock(), given.pop("hold", None), given.pop("by", None)
    if hold is not None:
        given["hold"] = hold.said
        given["hold_until"] = hold.number * 1000 if hold.absolute else now + hold.number * 1000
        if not now < given["hold_until"] <= now + s.config.hold * 1000:
            return b"501 5.5.4 The time to hold it until is past, or later than EHLO tells"
    if by is not None:
        if by.returns and by.seconds <= 0:
            return b"501 5.5.4 BY with R takes a time above zero"
        if by.returns and by.seconds < s.config.deliver_by:
            return b"555 5.4.7 The time of BY is shorter than EHLO tells"
        given |= {"deliver_by": now + by.seconds * 1000, "by_return": by.returns, "by_trace": by.trace}
        if hold is not None and given["hold_until"] > given["deliver_by"]:
            return b"501 5.5.4 It would be held until after the time of BY"
    return b""


# ---- readers ---------------------------------------------------------------------------------------------------


def _size(s: ServerSession, value: bytes | None) -> int | None:
    return int(value) if value is not None and _SIZE.fullmatch(value) else None


def _body(s: ServerSession, value: bytes | None) -> bytes | None:
    kind = (value or b"").upper()
    known = [b"7BIT", b"8BITMIME", *([b"BINARYMIME"] if Extension.BINARYMIME in Extension(s.config.offers) else [])]
    return kind if kind in known else None


def _alone(s: ServerSession, value: bytes | None) -> bool | None:
    return True if value is None else None


def _ret(s: ServerSession, value: bytes | None) -> str | None:
    kind = (value or b"").upper()
    return kind.decode() if kind in (b"FULL", b"HDRS") else None


def _envid(s: ServerSession, value: bytes | None) -> bytes | None:
    return value if value and len(value) <= _MAX_ENVID and _ENVID.fullmatch(value) else None


def _notify(s: ServerSession, value: bytes | None) -> int | None:
    wishes = (value or b"").upper()
    if wishes == b"NEVER":
        return 1
    bits = 0
    for wish in wishes.split(b","):
        if wish not in _NOTIFY:
            return None
        bits |= _NOTIFY[wish]
    return bits


def _orcpt(s: ServerSession, value: bytes | None) -> bytes | None:
    if not value or len(value) > _MAX_ORCPT:
        return None
    utf8 = s.options is not None and s.options.utf8
    if value[:6].upper() == b"UTF-8;":
        return value if _is_utf8_address(value[6:], raw=utf8) else None
    return value if (_ORCPT_IN_UTF8 if utf8 else _ORCPT).fullmatch(value) else None


def _is_utf8_address(text: bytes, *, raw: bool) -> bool:
    """An original recipient of type utf-8 (RFC 6533 §3); `raw`: characters may stand for themselves."""
    if not _UTF8_ADDRESS.fullmatch(text) or (not raw and not text.isascii()):
        return False
    return not has_unwanted(text) and all(_may_stand(int(number, 16)) for number in _ESCAPE.findall(text))


def _may_stand(number: int) -> bool:
    """For an address: a visible character of ASCII, or one beyond it."""
    if number < 0xA0:
        return 33 <= number <= 126
    return number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF and not has_unwanted(chr(number).encode())


def _auth(s: ServerSession, value: bytes | None) -> bytes | None:
    return value if value and len(value) <= _MAX_AUTH and _WIDE_XTEXT.fullmatch(value) else None


def _hold_for(s: ServerSession, value: bytes | None) -> Hold | None:
    return Hold(int(value), False, b"for;" + value) if value and _HOLDFOR.fullmatch(value) else None


def _hold_until(s: ServerSession, value: bytes | None) -> Hold | None:
    seconds = read_date_time(value or b"")
    return None if seconds is None or value is None else Hold(seconds, True, b"until;" + value)


def _by(s: ServerSession, value: bytes | None) -> By | None:
    found = _BY.fullmatch(value or b"")
    return By(int(found[1]), found[2].upper() == b"R", bool(found[3])) if found else None


def _priority(s: ServerSession, value: bytes | None) -> int | None:
    return int(value) if value and _PRIORITY.fullmatch(value) else None


_MAIL: Final[Rules] = {
    b"SIZE": Rule(Extension.SIZE, "size", _size, b"501 5.5.4 SIZE takes a number of at most 20 digits"),
    b"BODY": Rule(Extension.EIGHT_BIT, "body", _body, b"501 5.5.4 BODY takes 7BIT or 8BITMIME"),
    b"RET": Rule(Extension.DSN, "ret", _ret, b"501 5.5.4 RET takes FULL or HDRS"),
    b"ENVID": Rule(
        Extension.DSN, "envid", _envid, b"501 5.5.4 ENVID takes up to 100 characters, xtext of printable ASCII"
    ),
    b"REQUIRETLS": Rule(Extension.REQUIRETLS, "require_tls", _alone, b"501 5.5.4 REQUIRETLS takes no value"),
    b"AUTH": Rule(Extension.AUTH, "auth", _auth, _AUTH_WRONG),
    b"HOLDFOR": Rule(Extension.FUTURERELEASE, "hold", _hold_for, b"501 5.5.4 HOLDFOR takes a number of seconds"),
    b"HOLDUNTIL": Rule(
        Extension.FUTURERELEASE, "hold", _hold_until, b"501 5.5.4 HOLDUNTIL takes a time such as 2030-01-31T12:00:00Z"
    ),
    b"BY": Rule(Extension.DELIVERBY, "by", _by, b"501 5.5.4 BY takes seconds, a semicolon, and N or R, perhaps with T"),
    b"MT-PRIORITY": Rule(
        Extension.MT_PRIORITY, "priority", _priority, b"501 5.5.2 MT-PRIORITY takes a number from -9 to 9"
    ),
    b"SMTPUTF8": Rule(Extension.SMTPUTF8, "utf8", _alone, b"501 5.5.4 SMTPUTF8 takes no value"),
}
_RCPT: Final[Rules] = {
    b"NOTIFY": Rule(
        Extension.DSN, "notify", _notify, b"501 5.5.4 NOTIFY takes NEVER, or some of SUCCESS, FAILURE, DELAY"
    ),
    b"ORCPT": Rule(
        Extension.DSN, "orcpt", _orcpt, b"501 5.5.4 ORCPT takes a type, a semicolon, and an address as xtext"
    ),
}
