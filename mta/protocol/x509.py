"""What is read of a certificate in DER (RFC 5280 §4.1): names, key, times, and how it was signed.

For the server's own certificates, which the operator put there: the TLS library, which checks them and the
signatures of clients', does not tell these things of its own ones. Nothing here decides whether a certificate is to
be trusted.

Failure: ValueError for what is no certificate.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_OID: Final = 0x06
_UTC_TIME: Final = 0x17
_EXTENSIONS: Final = 0xA3
_VERSION: Final = 0xA0
_DNS_NAME: Final = 0x82  # in a GeneralName

_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")
_COMMON_NAME: Final = bytes.fromhex("550403")
_KEYS: Final = {  # object identifiers of public keys (RFC 3279 §2.3, RFC 5480 §2.1, RFC 8410 §3)
    bytes.fromhex("2a864886f70d010101"): "RSA",
    bytes.fromhex("2a864886f70d01010a"): "RSA-PSS",
    bytes.fromhex("2a8648ce3d0201"): "ECDSA",
    bytes.fromhex("2b6570"): "Ed25519",
    bytes.fromhex("2b6571"): "Ed448",
}
_CURVES: Final = {
    bytes.fromhex("2a8648ce3d030107"): "P-256",
    bytes.fromhex("2b81040022"): "P-384",
    bytes.fromhex("2b81040023"): "P-521",
}
_HASHES: Final = {  # signature algorithms (RFC 3279, RFC 4055, RFC 5758): the hash that tls-server-end-point uses
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


@dataclass(frozen=True, slots=True)
class Certificate:
    """The facts of one certificate. `key` is "RSA", "ECDSA P-256", "Ed25519" and the like."""

    names: tuple[str, ...]  # DNS names in lower case, "*.example.org" among them
    key: str
    not_before: int  # seconds since 1970
    not_after: int
    digest: bytes  # SHA-256 of the whole
    binding: bytes | None  # tls-server-end-point (RFC 5929 §4.1); None where none is defined, as for Ed25519


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a client showed and TLS has verified: the mail addresses in it, and its SHA-256 in hexadecimal."""

    names: tuple[str, ...]
    fingerprint: str


def read_certificate(der: bytes) -> Certificate:
    """ValueError."""
    try:
        return _certificate(der)
    except (IndexError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"is no certificate: {error}") from None


def told(der: bytes) -> str:
    """One line about a certificate, for people. Its names are as they were written there: not escaped."""
    digest = hashlib.sha256(der).hexdigest()
    try:
        found = read_certificate(der)
    except ValueError:
        return f"unreadable, sha256 {digest}"
    until = datetime.datetime.fromtimestamp(found.not_after, datetime.UTC).strftime("%Y-%m-%d")
    names = ", ".join(found.names[:4]) + (f" and {len(found.names) - 4} more" if len(found.names) > 4 else "")
    return f"{names[:200] or 'without names'}, {found.key}, until {until}, sha256 {digest}"


def _certificate(der: bytes) -> Certificate:
    (outer,) = _children(der)
    signed, algorithm, *_ = _inside(outer)
    fields = _inside(signed)
    if fields[0][0] == _VERSION:
        fields = fields[1:]
    _serial, _inner, _issuer, validity, subject, key, *more = fields
    before, after = (_seconds(*field) for field in _inside(validity))
    names = [name for field in more if field[0] == _EXTENSIONS for name in _alternative_names(field[1])]
    signature = _HASHES.get(_inside(algorithm)[0][1])
    return Certificate(
        names=tuple(dict.fromkeys(names or _common_names(subject[1]))),
        key=_key(key[1]),
        not_before=before,
        not_after=after,
        digest=hashlib.sha256(der).digest(),
        binding=hashlib.new(signature, der).digest() if signature else None,
    )


Element = tuple[int, bytes]  # tag, content


def _inside(element: Element) -> list[Element]:
    return list(_children(element[1]))


def _children(content: bytes) -> Iterator[Element]:
    at = 0
    while at < len(content):
        tag, size, at = content[at], content[at + 1], at + 2
        if size & 0x80:
            octets = size & 0x7F
            size, at = int.from_bytes(content[at : at + octets], "big"), at + octets
        if at + size > len(content):
            raise IndexError("an element reaches beyond its frame")
        yield tag, content[at : at + size]
        at += size


def _first(content: bytes) -> Element:
    for element in _children(content):
        return element
    raise IndexError("nothing in an element")


def _key(content: bytes) -> str:
    algorithm = _inside(_first(content))
    kind = _KEYS.get(algorithm[0][1], "unknown")
    if kind != "ECDSA":
        return kind
    return f"ECDSA {_CURVES.get(algorithm[1][1], 'on another curve')}"


def _seconds(tag: int, content: bytes) -> int:
    """UTCTime or GeneralizedTime (RFC 5280 §4.1.2.5)."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text
    moment = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ")
    return int(moment.replace(tzinfo=datetime.UTC).timestamp())


def _alternative_names(content: bytes) -> Iterator[str]:
    """The DNS names of the subject alternative name, if this is where it is."""
    for extension in _inside(_first(content)):
        identifier, *_critical, value = _inside(extension)
        if identifier == (_OID, _SUBJECT_ALT_NAME):
            for tag, name in _inside(_first(value[1])):
                if tag == _DNS_NAME:
                    yield name.decode("ascii").lower()


def _common_names(subject: bytes) -> Iterator[str]:
    """Only where there is no alternative name (RFC 6125 §6.4.4)."""
    for relative in _children(subject):
        for attribute in _inside(relative):
            identifier, value = _inside(attribute)
            if identifier == (_OID, _COMMON_NAME):
                yield value[1].decode("utf-8").lower()
