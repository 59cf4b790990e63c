"""tls-server-end-point: the channel binding that a certificate gives (RFC 5929 §4).

It is the hash of the certificate, by the function that its signature uses, or SHA-256 where that is MD5 or SHA-1. So
all that is read of the certificate is which algorithm signed it.
"""

from __future__ import annotations

import hashlib
from typing import Final

_HASHES: Final = {  # signature algorithms (RFC 3279, RFC 4055, RFC 5758), as DER has their object identifiers
    bytes.fromhex("2a864886f70d010104"): "sha256",  # md5WithRSAEncryption
    bytes.fromhex("2a864886f70d010105"): "sha256",  # sha1WithRSAEncryption
    bytes.fromhex("2a864886f70d01010b"): "sha256",
    bytes.fromhex("2a864886f70d01010c"): "sha384",
    bytes.fromhex("2a864886f70d01010d"): "sha512",
    bytes.fromhex("2a8648ce3d0401"): "sha256",  # ecdsa-with-SHA1
    bytes.fromhex("2a8648ce3d040302"): "sha256",
    bytes.fromhex("2a8648ce3d040303"): "sha384",
    bytes.fromhex("2a8648ce3d040304"): "sha512",
}


def server_end_point(certificate: bytes) -> bytes | None:
    """The binding for a certificate in DER; None where the RFC defines none, as for Ed25519."""
    try:
        whole, _ = _element(certificate, 0)
        _, behind = _element(certificate, whole.start)  # what was signed
        algorithm, _ = _element(certificate, behind)
        identifier, _ = _element(certificate, algorithm.start)
    except IndexError:
        return None
    name = _HASHES.get(certificate[identifier])
    return hashlib.new(name, certificate).digest() if name else None


def _element(der: bytes, at: int) -> tuple[slice, int]:
    """Where the content of the element at `at` lies, and what follows it begins."""
    size, start = der[at + 1], at + 2
    if size & 0x80:
        octets = size & 0x7F
        size = int.from_bytes(der[start : start + octets], "big")
        start += octets
    return slice(start, start + size), start + size
