"""OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's form of it from before), the server's side.

Both carry a bearer token in fields that ^A ends. A refusal is a challenge in JSON, which the client answers with an
empty message (XOAUTH2) or ^A (OAUTHBEARER); only then the exchange has failed.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from mta.protocol.sasl.prep import saslprep
from mta.protocol.sasl.steps import LONGEST_MESSAGE, AskToken, Challenge, Refused, Step, malformed

_TOKEN = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)")  # RFC 6750 §2.1
_KEY = re.compile(r"[A-Za-z]+")
_GS2 = re.compile(r"n,(?:a=([^,\0]+))?,")  # no binding to the channel: a bearer token has none
_NAME_ESCAPE = re.compile(r"=(2C|3D)?")


class OAuth:
    """One exchange. `scope` and `configuration` are told to a client whose token is refused: so it finds another."""

    def __init__(self, *, old: bool = False, scope: str = "", configuration: str = "") -> None:
        self._old = old  # XOAUTH2
        self._scope = scope
        self._configuration = configuration
        self._rejected = False
        self._user = ""

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"")
        if self._rejected:  # whatever it says: it has heard
            return Refused("the token was refused", user=self._user)
        if len(response) > LONGEST_MESSAGE:
            return malformed("the token is too long")
        try:
            text = response.decode("utf-8")
            user, fields = _old_fields(text) if self._old else _fields(text)
            match = _TOKEN.fullmatch(fields["auth"])
            self._user = saslprep(user) if user else ""
        except (ValueError, KeyError):
            return malformed("no bearer token in its fields")
        if match is None:
            return malformed("auth= holds no bearer token")
        return AskToken(self._user, match[1])

    def reject(self, status: Literal["invalid_token", "insufficient_scope"] = "invalid_token") -> Challenge:
        """The token is not good for this: what to send."""
        self._rejected = True
        if self._old:
            told = {"status": "401", "schemes": "bearer", "scope": self._scope}
        else:
            told = {"status": status, "scope": self._scope, "openid-configuration": self._configuration}
        return Challenge(json.dumps({key: value for key, value in told.items() if value}).encode())


def _fields(text: str) -> tuple[str, dict[str, str]]:
    """GS2 header ^A key=value ^A ... ^A ^A (RFC 7628 §3.1)."""
    header, separator, rest = text.partition("\x01")
    match = _GS2.fullmatch(header)
    if not separator or match is None:
        raise ValueError
    return _unescaped(match[1] or ""), _pairs(rest)


def _old_fields(text: str) -> tuple[str, dict[str, str]]:
    fields = _pairs(text)
    return fields["user"], fields


def _pairs(text: str) -> dict[str, str]:
    if not text.endswith("\x01\x01"):
        raise ValueError
    pairs: dict[str, str] = {}
    for field in text[:-2].split("\x01"):
        name, equals, value = field.partition("=")
        if not equals or name in pairs or _KEY.fullmatch(name) is None:
            raise ValueError
        pairs[name] = value
    return pairs


def _unescaped(name: str) -> str:
    """A saslname (RFC 5801 §4): =2C is a comma, =3D an equals sign, and no other escape exists."""

    def character(match: re.Match[str]) -> str:
        if match[1] is None:
            raise ValueError
        return "," if match[1] == "2C" else "="

    return _NAME_ESCAPE.sub(character, name)


def unescaped_name(octets: bytes) -> str:
    """A saslname from the wire; ValueError."""
    return _unescaped(octets.decode("utf-8"))
