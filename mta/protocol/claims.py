"""XCLIENT and XFORWARD: what a trusted peer says of the client for whom it speaks.

By Postfix's XCLIENT_README and XFORWARD_README: attributes `NAME=value` with one blank between, values in xtext
(RFC 3461 §4), [UNAVAILABLE] and [TEMPUNAVAIL] for what is not known.

INVARIANT: no value holds a control character or a blank, so none can end a line, a header or a field of the log.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

XCLIENT: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
XFORWARD: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")

_UNKNOWN: Final = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_XTEXT = re.compile(rb"(?:[!-*,-~]|\+[0-9A-Fa-f]{2})*")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_WORD = re.compile(r"[!-;=?-~]{1,255}")  # as HELO takes it


class ClaimError(ValueError):
    """The text of it is for the client."""


def parse(argument: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """Attribute to value, "" for one that is not known. ClaimError."""
    claims: dict[str, str] = {}
    for word in filter(None, argument.split(b" ")):
        name, equals, value = word.partition(b"=")
        key = name.decode("ascii", "replace").upper()
        if not equals or key not in names:
            raise ClaimError("an attribute is not known")
        if key in claims:
            raise ClaimError(f"{key} is given twice")
        claims[key] = _checked(key, _decoded(key, value))
    if not claims:
        raise ClaimError("attributes are missing")
    return claims


def _decoded(key: str, value: bytes) -> str:
    if not _XTEXT.fullmatch(value):
        raise ClaimError(f"{key} is not xtext")
    octets = re.sub(rb"\+([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), value)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ClaimError(f"{key} is not UTF-8") from None


def _checked(key: str, text: str) -> str:
    if text.upper() in _UNKNOWN or not text:
        return ""
    try:
        return _CHECKS[key](text)
    except ValueError:
        raise ClaimError(f"{key} is not right") from None


def _address(text: str) -> str:
    bare = text[5:] if text[:5].upper() == "IPV6:" else text
    if "%" in bare:
        raise ValueError(text)
    return str(ipaddress.ip_address(bare))


def _port(text: str) -> str:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError(text)
    return str(int(text))


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(text)
        return text

    return check


def _login(text: str) -> str:
    if len(text) > 255 or not text.isprintable() or " " in text:
        raise ValueError(text)
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text.upper() not in words:
            raise ValueError(text)
        return text.upper()

    return check


_CHECKS: Final[dict[str, Callable[[str], str]]] = {
    "NAME": _matching(_HOST),
    "ADDR": _address,
    "PORT": _port,
    "PROTO": _one_of("SMTP", "ESMTP"),
    "HELO": _matching(_WORD),
    "LOGIN": _login,
    "DESTADDR": _address,
    "DESTPORT": _port,
    "IDENT": _matching(_WORD),
    "SOURCE": _one_of("LOCAL", "REMOTE"),
}
