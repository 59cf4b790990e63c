"""What is read of certificates, against the library that made them."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mta.protocol.x509 import read_certificate

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name(
    [
        x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, "Mx.Test"),
    ]
)
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(2051, 6, 30, 1, 2, 3, tzinfo=datetime.UTC)  # beyond what UTCTime can say


def certificate(key: Any = EC_KEY, algorithm: hashes.HashAlgorithm | None = None, names: tuple[str, ...] = ()) -> bytes:
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), 1).not_valid_before(START).not_valid_after(END)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    if names:
        held: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        held += [x509.IPAddress(ipaddress.ip_address("192.0.2.1")), x509.RFC822Name("a@mx.test")]
        builder = builder.add_extension(x509.SubjectAlternativeName(held), critical=False)
    if algorithm is None and not isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (RSA_KEY, "RSA"),
        (EC_KEY, "ECDSA P-256"),
        (ec.generate_private_key(ec.SECP384R1()), "ECDSA P-384"),
        (ec.generate_private_key(ec.SECP521R1()), "ECDSA P-521"),
        (ec.generate_private_key(ec.SECP256K1()), "ECDSA on another curve"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
)
def test_keys(key: Any, kind: str) -> None:
    assert read_certificate(certificate(key)).key == kind


def test_names_and_times() -> None:
    found = read_certificate(der := certificate(names=("MX.example.org", "*.example.org", "mx.example.org")))
    assert found.names == ("mx.example.org", "*.example.org")
    assert (found.not_before, found.not_after) == (int(START.timestamp()), int(END.timestamp()))
    assert found.digest == hashlib.sha256(der).digest()


def test_the_common_name_counts_where_there_is_no_other() -> None:
    assert read_certificate(certificate()).names == ("mx.test",)


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY], ids=["RSA", "ECDSA"])
@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda a: a.name)
def test_bindings(key: Any, algorithm: hashes.HashAlgorithm) -> None:
    der = certificate(key, algorithm)
    assert read_certificate(der).binding == hashlib.new(algorithm.name, der).digest()


def test_no_binding_where_the_signature_has_no_hash() -> None:
    assert read_certificate(certificate(ed25519.Ed25519PrivateKey.generate())).binding is None


def test_damage_is_a_value_error() -> None:
    der = certificate(names=("mx.example.org",))
    for cut in range(len(der)):
        with pytest.raises(ValueError):
            read_certificate(der[:cut])
    rng = random.Random(1)
    for _ in range(2000):
        damaged = bytearray(der)
        for _ in range(rng.randint(1, 5)):
            damaged[rng.randrange(len(der))] = rng.randrange(256)
        try:
            read_certificate(bytes(damaged))
        except ValueError:
            continue
