"""Domains beyond ASCII and their A-labels (RFC 5890 §2.3.2.1, RFC 5891 §5).

Envelopes hold domains in ASCII only: whatever reads them later (queue, routes, Maildirs, DNS) knows one form of a
domain. Letters are mapped first as browsers do (UTS 46), so that capitals and wide forms are no other domain.

Pure. The tables are loaded with the first such domain: a server that meets none does without them.
"""

from __future__ import annotations

from functools import lru_cache


def a_labels(domain: str) -> str:
    """The domain in ASCII, in lower case; ValueError where it has no such form."""
    import idna

    encoded = idna.encode(domain, uts46=True).decode("ascii")
    if not encoded or encoded.endswith("."):
        raise ValueError("an empty label")
    return encoded


@lru_cache(maxsize=4096)
def ascii_mailbox(address: bytes) -> bytes:
    """A mailbox in UTF-8 with the A-labels of its domain; b"" where there are none. The local part stays."""
    local, _, domain = address.rpartition(b"@")
    if domain.isascii():
        return address
    try:
        return local + b"@" + a_labels(domain.decode("utf-8")).encode("ascii")
    except ValueError:
        return b""


def with_a_labels(address: str) -> str:
    """An address, or a name without a domain, for comparing: as it is where its domain has no such form."""
    if address.isascii():
        return address
    local, at, domain = address.rpartition("@")
    if not at or domain.isascii():
        return address
    try:
        return local + at + a_labels(domain)
    except ValueError:
        return address
