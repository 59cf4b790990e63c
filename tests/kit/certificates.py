"""Certificates of tests, and contexts with them."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import trustme


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def issued(*names: str) -> trustme.LeafCert:
    return authority().issue_cert(*names)


def server_context(*names: str, **limits: ssl.TLSVersion) -> ssl.SSLContext:
    """A server's, for these names; `minimum_version` and `maximum_version` as in ssl."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued(*names).configure_cert(context)
    for name, version in limits.items():
        setattr(context, name, version)
    return context


def authority_file(folder: Path) -> Path:
    path = folder / "authority.pem"
    authority().cert_pem.write_to_path(str(path))
    return path
