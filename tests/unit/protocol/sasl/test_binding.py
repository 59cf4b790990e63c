"""tls-server-end-point of real certificates, against what a library reads of them."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mta.protocol.sasl.binding import server_end_point

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.test")])


def certificate(key: Any, algorithm: hashes.HashAlgorithm | None) -> bytes:
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), 1)
    now = datetime.datetime(2026, 1, 1)
    built = builder.not_valid_before(now).not_valid_after(now.replace(year=2027)).sign(key, algorithm)
    return built.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY], ids=["RSA", "ECDSA"])
@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda a: a.name)
def test_bindings(key: Any, algorithm: hashes.HashAlgorithm) -> None:
    der = certificate(key, algorithm)
    assert server_end_point(der) == hashlib.new(algorithm.name, der).digest()


def test_where_there_is_none() -> None:
    assert server_end_point(certificate(ed25519.Ed25519PrivateKey.generate(), None)) is None
    der = certificate(EC_KEY, hashes.SHA256())
    for cut in (0, 1, 2, 3, 5, 100):
        assert server_end_point(der[:cut]) is None
