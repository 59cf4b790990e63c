"""SCRAM's stored secret (RFC 5802 §3): from a password to the keys, and the keys as text.

    SCRAM-SHA-256$15000:salt$stored key:server key        (base64; the form that PostgreSQL uses)

With a verifier one can check a client and prove oneself to it, but not log in as it anywhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

DIGESTS: Final = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}  # SASL's names, hashlib's
FEWEST_ITERATIONS: Final = 4096  # RFC 7677 §4
MOST_ITERATIONS: Final = 10_000_000  # an error in a file, or a hostile server, must not cost minutes
ITERATIONS: Final = 15_000
SALT_LENGTH: Final = 16
_TEXT = re.compile(r"SCRAM-(SHA-1|SHA-256|SHA-512)\$([0-9]{1,8}):([^$:]+)\$([^$:]+):([^$:]+)")


@dataclass(frozen=True, slots=True, repr=False)
class Verifier:
    """What the server keeps of a password."""

    digest: str
    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __str__(self) -> str:
        salt, stored, server = map(_encoded, (self.salt, self.stored_key, self.server_key))
        return f"SCRAM-{self.digest}${self.iterations}:{salt}${stored}:{server}"

    def holds(self, password: str) -> bool:
        """Whether this was made of that (prepared) password; takes its time."""
        salted = salted_password(password, self.salt, self.iterations, self.digest)
        stored = hashlib.new(DIGESTS[self.digest], client_key(salted, self.digest)).digest()
        return hmac.compare_digest(stored, self.stored_key)


def make_verifier(password: str, salt: bytes, iterations: int = ITERATIONS, digest: str = "SHA-256") -> Verifier:
    """Of a prepared password."""
    salted = salted_password(password, salt, iterations, digest)
    stored = hashlib.new(DIGESTS[digest], client_key(salted, digest)).digest()
    return Verifier(digest, iterations, salt, stored, server_key(salted, digest))


def parse_verifier(text: str) -> Verifier:
    """ValueError says what is wrong, without the secret."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError("is no SCRAM verifier")
    digest, iterations = match[1], int(match[2])
    try:
        salt, stored, server = (base64.b64decode(match[n], validate=True) for n in (3, 4, 5))
    except binascii.Error:
        raise ValueError("has keys that are not base64") from None
    size = hashlib.new(DIGESTS[digest]).digest_size
    if not FEWEST_ITERATIONS <= iterations <= MOST_ITERATIONS or len(stored) != size or len(server) != size or not salt:
        raise ValueError("has keys of a wrong length, or a number of iterations out of bounds")
    return Verifier(digest, iterations, salt, stored, server)


def salted_password(password: str, salt: bytes, iterations: int, digest: str) -> bytes:
    return hashlib.pbkdf2_hmac(DIGESTS[digest], password.encode("utf-8"), salt, iterations)


def client_key(salted: bytes, digest: str) -> bytes:
    return hmac.digest(salted, b"Client Key", DIGESTS[digest])


def server_key(salted: bytes, digest: str) -> bytes:
    return hmac.digest(salted, b"Server Key", DIGESTS[digest])


def exclusive_or(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
