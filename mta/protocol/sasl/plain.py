"""PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login) and EXTERNAL (RFC 4422, appendix A), the server's side.

Nobody may act for another here: an authorization identity must be empty or the user's own.
"""

from __future__ import annotations

from mta.protocol.sasl.prep import prepared_name
from mta.protocol.sasl.steps import LONGEST_NAME, AskCertificate, AskPassword, Challenge, Refused, Step, malformed


class Plain:
    """[authzid] NUL authcid NUL password, in one message."""

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3 or len(response) > 3 * LONGEST_NAME:
            return malformed("PLAIN: not three fields of bearable length")
        authorization, name, password = parts
        try:
            user = prepared_name(name)
            acting = prepared_name(authorization) if authorization else user
        except ValueError:
            return malformed("PLAIN: no user name in UTF-8")
        if acting != user:
            return Refused(f"PLAIN: {user} may not act as {acting}", user=user)
        return _password(user, password)


class Login:
    """Asked for the name, then for the password. Some clients give the name at once."""

    def __init__(self) -> None:
        self._user = ""

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"Username:")
        if self._user:
            return _password(self._user, response)
        if len(response) > LONGEST_NAME:
            return malformed("LOGIN: the user name is too long")
        try:
            self._user = prepared_name(response)
        except ValueError:
            return malformed("LOGIN: no user name in UTF-8")
        return Challenge(b"Password:")


class External:
    """Who the client is, the TLS layer knows from its certificate; the message only says who it wants to be."""

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"")
        if len(response) > LONGEST_NAME:
            return malformed("EXTERNAL: the user name is too long")
        try:
            return AskCertificate(prepared_name(response) if response else "")
        except ValueError:
            return malformed("EXTERNAL: no user name in UTF-8")


def _password(user: str, octets: bytes) -> Step:
    if not octets or len(octets) > LONGEST_NAME or b"\0" in octets:
        return malformed("the password is empty, too long or has a NUL in it")
    try:
        return AskPassword(user, octets.decode("utf-8"))
    except ValueError:
        return Refused("the password is not UTF-8", user=user)
