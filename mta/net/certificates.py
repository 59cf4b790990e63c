"""The server's certificates: TLS contexts made of their files, chosen by what a client says, renewed when files change.

A context holds one certificate and belongs to the listeners of one policy, so session tickets, whose keys are the
context's, are good for these alone, and it is known which certificate a client was shown.

- By server name (RFC 6066 §3): the certificates that hold it, else those with a wildcard for it (RFC 6125 §6.4.3), else
  those of the first certificate's name. Among several for one name the first that the client can use and that is not
  RSA, as it costs a tenth; else the first that it can use.
- INVARIANT: what is in use stays in use until its successor has been loaded whole. A file is loaded when it looked the
  same twice, as certificate and key are seldom replaced in one go; one that is broken is reported once.
- Contexts are renewed twice a day, and with them the keys of the tickets: who gets hold of keys later must not be able
  to read old sessions.

TLS 1.2 and 1.3; of TLS 1.2 only AEAD with ECDHE (RFC 9325 §4.2). Failure: `CertificateError`, with file and reason.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from mta.config.settings import KeyPair, Listener, Tls
from mta.protocol.clienthello import TLS_1_3, ClientHello
from mta.protocol.x509 import Certificate, read_certificate

Asking = Literal["off", "ask", "require"]  # what a listener does about certificates of clients
Identity = tuple[tuple[int, int, int], ...]  # of files, as far as one look at the folder tells

LIFETIME: Final = 12 * 3600.0
ALPN: Final = "smtp"  # the name IANA gave it, in the registry of RFC 7301 §6
_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
    ":ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305:@SECLEVEL=2"
)
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"

# What a client must say to be able to use a key (RFC 8446 §4.2.3; TLS 1.2: RFC 5246 §7.4.1.4.1, RFC 8422 §5).
_PSS: Final = frozenset((0x0804, 0x0805, 0x0806))
_SIGNATURES: Final = {
    "RSA": _PSS,
    "RSA-PSS": frozenset((0x0809, 0x080A, 0x080B)),
    "ECDSA P-256": frozenset((0x0403,)),
    "ECDSA P-384": frozenset((0x0503,)),
    "ECDSA P-521": frozenset((0x0603,)),
    "Ed25519": frozenset((0x0807,)),
    "Ed448": frozenset((0x0808,)),
}
_ECDSA_OF_1_2: Final = frozenset((0x0403, 0x0503, 0x0603))
_GROUPS: Final = {"ECDSA P-256": 23, "ECDSA P-384": 24, "ECDSA P-521": 25}
_SUITES_ECDSA: Final = frozenset((0xC02B, 0xC02C, 0xCCA9))
_SUITES_RSA: Final = frozenset((0xC02F, 0xC030, 0xCCA8))


class CertificateError(Exception):
    """A file cannot be used; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What makes a listener's sessions different from those of another."""

    role: str = "mx"
    asking: Asking = "off"


@dataclass(frozen=True, slots=True)
class Choice:
    """What one client is shown."""

    context: ssl.SSLContext
    certificate: Certificate


@dataclass(slots=True)
class _Entry:
    """One [certificate, key], as it is in use."""

    pair: KeyPair
    identity: Identity
    made: float
    certificate: Certificate
    contexts: dict[Policy, ssl.SSLContext]
    seen: Identity  # at the last look
    broken: Identity | None = None  # reported


def listener_policy(listener: Listener) -> Policy:
    return Policy(listener.role, listener.client_certificates)


def read_file(path: Path) -> Certificate:
    """The first certificate of a PEM file. CertificateError."""
    try:
        text = path.read_text("ascii", "replace")
        start, end = text.find(_BEGIN), text.find(_END)
        if not 0 <= start < end:
            raise ValueError("holds no certificate in PEM")
        return read_certificate(ssl.PEM_cert_to_DER_cert(text[start : end + len(_END)]))
    except (OSError, ValueError) as error:
        raise CertificateError(f"{path} cannot be used: {error}") from None


def make_context(pair: KeyPair, asking: Asking = "off", client_ca: Path | None = None) -> ssl.SSLContext:
    """Made after the fork, as OpenSSL's state must not be shared between processes. CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    try:
        context.load_cert_chain(pair.certificate, pair.key, password="")  # a locked key must fail, not ask
    except OSError as error:  # ssl.SSLError is one
        raise CertificateError(f"{pair.certificate} with {pair.key} cannot be used: {error}") from None
    if asking != "off" and client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise CertificateError(f"{client_ca} cannot be used: {error}") from None
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # one may trust a single certificate
        context.verify_mode = ssl.CERT_REQUIRED if asking == "require" else ssl.CERT_OPTIONAL
    return context


class CertificateStore:
    """The certificates of one receiver, for listeners of these policies. CertificateError at the start."""

    def __init__(self, tls: Tls, policies: Iterable[Policy], now: float) -> None:
        pairs = [KeyPair(certificate=tls.certificate, key=tls.key)] if tls.certificate and tls.key else []
        self._client_ca = tls.client_ca
        self._policies = frozenset(policies)
        self._entries = [self._load(pair, now) for pair in (*pairs, *tls.certificates)]
        if not self._entries:
            raise CertificateError("a listener with TLS needs [tls] certificate")
        self._index()

    def choose(self, hello: ClientHello, policy: Policy) -> Choice:
        """What a client is shown that said this."""
        candidates = self._named(hello.server_name) or self._default
        usable = [entry for entry in candidates if _can_use(hello, entry.certificate.key)]
        quick = next((entry for entry in usable if not entry.certificate.key.startswith("RSA")), None)
        chosen = quick or (usable or candidates)[0]
        return Choice(chosen.contexts[policy], chosen.certificate)

    def refresh(self, now: float) -> list[str]:
        """Look at the files, load what has changed; what there is to tell of it."""
        told = [line for entry in list(self._entries) for line in self._look(entry, now)]
        self._index()
        return told

    def _look(self, entry: _Entry, now: float) -> Iterator[str]:
        seen, entry.seen = entry.seen, _identity(entry.pair, self._client_ca)
        changed = entry.seen != entry.identity
        if entry.seen == entry.broken or entry.seen != seen or not (changed or now - entry.made > LIFETIME):
            return
        try:
            fresh = self._load(entry.pair, now)
        except CertificateError as error:
            entry.broken = entry.seen
            yield f"{error}; the certificate in use stays"
            return
        self._entries[self._entries.index(entry)] = fresh
        if changed:
            yield f"{entry.pair.certificate} is in use"

    def _load(self, pair: KeyPair, now: float) -> _Entry:
        identity = _identity(pair, self._client_ca)  # before: a change while we read must be seen
        contexts = {p: make_context(pair, p.asking, self._client_ca) for p in self._policies}
        return _Entry(pair, identity, now, read_file(pair.certificate), contexts, identity)

    def _index(self) -> None:
        self._by_name: dict[str, list[_Entry]] = {}
        for entry in self._entries:
            for name in entry.certificate.names:
                self._by_name.setdefault(name, []).append(entry)
        first = self._entries[0]
        self._default = self._by_name[first.certificate.names[0]] if first.certificate.names else [first]

    def _named(self, name: str) -> list[_Entry] | None:
        return self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])


def _identity(pair: KeyPair, client_ca: Path | None) -> Identity:
    files = (pair.certificate, pair.key) if client_ca is None else (pair.certificate, pair.key, client_ca)
    return tuple(map(_stamp, files))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0  # a file that is away differs from the one that was there
    return status.st_mtime_ns, status.st_size, status.st_ino


def _can_use(hello: ClientHello, key: str) -> bool:
    signatures = frozenset(hello.signatures)
    if TLS_1_3 in hello.versions:
        return not signatures.isdisjoint(_SIGNATURES.get(key, frozenset()))
    if key == "RSA":
        return not _SUITES_RSA.isdisjoint(hello.ciphers)
    wanted = _ECDSA_OF_1_2 if key in _GROUPS else _SIGNATURES.get(key, frozenset())
    if _SUITES_ECDSA.isdisjoint(hello.ciphers) or signatures.isdisjoint(wanted):
        return False
    return key not in _GROUPS or not hello.groups or _GROUPS[key] in hello.groups
