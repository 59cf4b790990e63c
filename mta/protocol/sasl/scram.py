"""SCRAM (RFC 5802, RFC 7677), the server's side, with and without channel binding.

    C: n,,n=user,r=CLIENT                         p=tls-server-end-point,,n=user,r=CLIENT   with -PLUS
    S: r=CLIENTSERVER,s=SALT,i=ITERATIONS
    C: c=BINDING,r=CLIENTSERVER,p=PROOF
    S: v=SIGNATURE
    C: (empty, as SMTP's 235 carries no data)

Invariants
- A client that could bind the channel but was shown no -PLUS ("y") is refused when we did offer it: someone between
  took it out of the list (RFC 5802 §6).
- Nothing tells an unknown user from a wrong password: the caller supplies a verifier for every name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping

from mta.protocol.sasl.oauth import unescaped_name
from mta.protocol.sasl.prep import saslprep
from mta.protocol.sasl.steps import LONGEST_NAME, AskVerifier, Challenge, Proven, Refused, Step, malformed
from mta.protocol.sasl.verifier import DIGESTS, Verifier, exclusive_or

ChannelBindings = Mapping[str, bytes]  # by type, as "tls-server-end-point" (RFC 5929), "tls-exporter" (RFC 9266)

_LONGEST = 4 * LONGEST_NAME
_HEADER = re.compile(rb"(n|y|p=([A-Za-z0-9.-]+)),(?:a=([^,\0]+))?,")
_FIRST = re.compile(rb"n=([^,\0]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*")
_FINAL = re.compile(rb"(c=([A-Za-z0-9+/]+=*),r=([\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*),p=([A-Za-z0-9+/]+=*)")


class Scram:
    """One exchange. `nonce` is fresh and printable; `offered_plus`: the client was shown a -PLUS mechanism."""

    def __init__(
        self,
        digest: str,
        *,
        nonce: str,
        plus: bool = False,
        offered_plus: bool = False,
        bindings: ChannelBindings | None = None,
    ) -> None:
        self._digest = digest
        self._own_nonce = nonce.encode("ascii")
        self._plus = plus
        self._offered_plus = offered_plus
        self._bindings = bindings or {}
        self._state = self._first
        self._user = ""

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"")
        if len(response) > _LONGEST:
            return malformed("SCRAM: the message is too long")
        return self._state(response)

    def supply(self, verifier: Verifier) -> Step:
        """The answer to AskVerifier."""
        self._verifier = verifier
        salt = base64.b64encode(verifier.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, verifier.iterations)
        self._state = self._final
        return Challenge(self._server_first)

    # ---- the states

    def _first(self, message: bytes) -> Step:
        header = _HEADER.match(message)
        if header is None:
            return malformed("SCRAM: no GS2 header")
        bare = message[header.end() :]
        match = _FIRST.fullmatch(bare)
        if match is None:
            return malformed("SCRAM: no user name and nonce")  # m=, a mandatory extension, too: we know none
        if refusal := self._check_binding(header[1], (header[2] or b"").decode("ascii")):
            return refusal
        try:
            self._user = saslprep(unescaped_name(match[1]))
            acting = saslprep(unescaped_name(header[3])) if header[3] else self._user
        except ValueError:
            return malformed("SCRAM: no user name in UTF-8")
        if acting != self._user:
            return Refused(f"SCRAM: {self._user} may not act as {acting}", user=self._user)
        self._bare = bare
        self._bound = header[0] + self._bindings.get((header[2] or b"").decode("ascii"), b"")
        self._nonce = match[2] + self._own_nonce
        return AskVerifier(self._user, self._digest)

    def _check_binding(self, flag: bytes, kind: str) -> Refused | None:
        if self._plus:
            if not kind:
                return malformed("SCRAM: a -PLUS mechanism without channel binding")
            if kind not in self._bindings:
                return Refused(f"SCRAM: no channel binding of type {kind} here")
        elif kind:
            return malformed("SCRAM: channel binding needs a -PLUS mechanism")
        elif flag == b"y" and self._offered_plus:
            return Refused("SCRAM: the client was not shown -PLUS, which was offered: someone is in between")
        return None

    def _final(self, message: bytes) -> Step:
        match = _FINAL.fullmatch(message)
        if match is None:
            return malformed("SCRAM: no binding, nonce and proof")
        try:
            binding, proof = base64.b64decode(match[2], validate=True), base64.b64decode(match[4], validate=True)
        except binascii.Error:
            return malformed("SCRAM: a field is not base64")
        if match[3] != self._nonce:
            return Refused("SCRAM: another nonce", user=self._user)
        if not hmac.compare_digest(binding, self._bound):
            return Refused("SCRAM: the client is bound to another channel", user=self._user)
        signed = b"%b,%b,%b" % (self._bare, self._server_first, match[1])
        return self._check_proof(proof, signed)

    def _check_proof(self, proof: bytes, signed: bytes) -> Step:
        name = DIGESTS[self._digest]
        signature = hmac.digest(self._verifier.stored_key, signed, name)
        if len(proof) != len(signature):
            return malformed("SCRAM: the proof has a wrong length")
        key = exclusive_or(proof, signature)
        if not hmac.compare_digest(hashlib.new(name, key).digest(), self._verifier.stored_key):
            return Refused("wrong password", user=self._user)
        self._state = self._last
        return Challenge(b"v=" + base64.b64encode(hmac.digest(self._verifier.server_key, signed, name)))

    def _last(self, message: bytes) -> Step:
        if message:
            return malformed("SCRAM: more after the end")
        return Proven(self._user)
