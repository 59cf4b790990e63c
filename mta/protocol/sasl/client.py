"""The client's side of PLAIN, LOGIN, SCRAM-SHA-256(-PLUS) and XOAUTH2.

    initial()          the initial response; None where the server speaks first
    respond(data)      the answer to a challenge
    finished           whether the server has said all that it must: a success before that is none (RFC 5802 §3)

`ServerMisbehaves` ends the attempt: a server that does not know the verifier is not the one we took it for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Protocol

from mta.protocol.sasl.prep import saslprep
from mta.protocol.sasl.verifier import (
    DIGESTS,
    FEWEST_ITERATIONS,
    MOST_ITERATIONS,
    client_key,
    exclusive_or,
    salted_password,
    server_key,
)

_SERVER_FIRST = re.compile(rb"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+=*),i=([1-9][0-9]{0,8})(?:,.*)?", re.DOTALL)
_SERVER_FINAL = re.compile(rb"v=([A-Za-z0-9+/]+=*)(?:,.*)?", re.DOTALL)


class ServerMisbehaves(Exception):
    """The server broke the mechanism's rules, or could not prove that it knows the user."""


class ClientMechanism(Protocol):
    """One exchange, from the client's side."""

    @property
    def finished(self) -> bool:
        """Whether the server's success may be believed."""

    def initial(self) -> bytes | None:
        """The initial response."""

    def respond(self, challenge: bytes) -> bytes:
        """The next message."""


class PlainClient:
    finished = True

    def __init__(self, user: str, password: str) -> None:
        self._message = b"\0%b\0%b" % (user.encode(), password.encode())

    def initial(self) -> bytes:
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        raise ServerMisbehaves("PLAIN has no challenge")


class LoginClient:
    """What the server asks is not standardised; the order is."""

    def __init__(self, user: str, password: str) -> None:
        self._answers = [password.encode(), user.encode()]

    @property
    def finished(self) -> bool:
        return not self._answers

    def initial(self) -> None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not self._answers:
            raise ServerMisbehaves("LOGIN asks for name and password only")
        return self._answers.pop()


class XOAuth2Client:
    finished = True

    def __init__(self, user: str, token: str) -> None:
        self._message = b"user=%b\x01auth=Bearer %b\x01\x01" % (user.encode(), token.encode("ascii"))
        self.problem = b""

    def initial(self) -> bytes:
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """A challenge is the refusal in JSON; it wants an empty answer before the server says so by its reply."""
        self.problem = challenge
        return b""


class ScramClient:
    """`binding` is (type, data) for -PLUS. `could_bind`: we are able to, but the server did not offer it."""

    def __init__(
        self,
        user: str,
        password: str,
        *,
        nonce: str,
        digest: str = "SHA-256",
        binding: tuple[str, bytes] | None = None,
        could_bind: bool = False,
    ) -> None:
        name = saslprep(user).replace("=", "=3D").replace(",", "=2C")
        self._password = saslprep(password)
        self._digest = digest
        self._nonce = nonce.encode("ascii")
        self._bare = b"n=%b,r=%b" % (name.encode(), self._nonce)
        flag = b"p=" + binding[0].encode("ascii") if binding else b"y" if could_bind else b"n"
        self._header = flag + b",,"
        self._bound = self._header + (binding[1] if binding else b"")
        self._signature = b""
        self.finished = False

    def initial(self) -> bytes:
        return self._header + self._bare

    def respond(self, challenge: bytes) -> bytes:
        if self.finished:
            raise ServerMisbehaves("SCRAM: the server goes on after its end")
        return self._verify(challenge) if self._signature else self._prove(challenge)

    def _prove(self, challenge: bytes) -> bytes:
        match = _SERVER_FIRST.fullmatch(challenge)
        if match is None:
            raise ServerMisbehaves("SCRAM: no nonce, salt and count of iterations")
        nonce, iterations = match[1], int(match[3])
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ServerMisbehaves("SCRAM: the server's nonce does not go on from ours")
        if not FEWEST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise ServerMisbehaves(f"SCRAM: {iterations} iterations are too few or too many")
        salted = salted_password(self._password, _decoded(match[2]), iterations, self._digest)
        without_proof = b"c=%b,r=%b" % (base64.b64encode(self._bound), nonce)
        signed = b"%b,%b,%b" % (self._bare, challenge, without_proof)
        name = DIGESTS[self._digest]
        key = client_key(salted, self._digest)
        signature = hmac.digest(hashlib.new(name, key).digest(), signed, name)
        self._signature = hmac.digest(server_key(salted, self._digest), signed, name)
        return without_proof + b",p=" + base64.b64encode(exclusive_or(key, signature))

    def _verify(self, challenge: bytes) -> bytes:
        match = _SERVER_FINAL.fullmatch(challenge)
        if match is None or not hmac.compare_digest(_decoded(match[1]), self._signature):
            raise ServerMisbehaves("SCRAM: the server could not prove that it knows this user")
        self.finished = True
        return b""


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ServerMisbehaves("SCRAM: a field is not base64") from None
