"""Certificates for tests: of any key, for any names, good for as long as a test says."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mta.config.settings import KeyPair

_YEAR = 365 * 86400
_KEYS: dict[str, Any] = {}  # RSA keys take their time


def make_key(kind: str) -> Any:
    """A private key: "rsa", "p256", "p384" or "ed25519"; RSA's is the same for all."""
    if kind == "rsa":
        if kind not in _KEYS:
            _KEYS[kind] = rsa.generate_private_key(65537, 2048)
        return _KEYS[kind]
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1() if kind == "p256" else ec.SECP384R1())


class Authority:
    """Signs certificates. `path`, if a folder is given, is its own one."""

    def __init__(self, folder: Path | None = None, name: str = "ca") -> None:
        self._key = make_key("p256")
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"test authority {name}")])
        builder = _builder(self._name, self._name, self._key, 0, _YEAR)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        self._own = builder.sign(self._key, hashes.SHA256())
        if folder is not None:
            self.path = folder / f"{name}.pem"
            self.path.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        folder: Path,
        stem: str,
        names: Sequence[str],
        *,
        key: str = "p256",
        mail: Sequence[str] = (),
        age: int = 3600,
        life: int = _YEAR,
    ) -> KeyPair:
        """STEM.pem and STEM.key; `life` is seconds until it expires."""
        private = make_key(key)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, stem)])
        held: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        held += [x509.RFC822Name(address) for address in mail]
        builder = _builder(subject, self._name, private, age, life)
        if held:
            builder = builder.add_extension(x509.SubjectAlternativeName(held), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        pair = KeyPair(certificate=folder / f"{stem}.pem", key=folder / f"{stem}.key")
        pair.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, age: int, life: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return x509.CertificateBuilder(
        issuer,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        now - datetime.timedelta(seconds=age),
        now + datetime.timedelta(seconds=life),
    )
