"""TLS on connections that we open: contexts, the upgrade of a connected transport, the name that is asked for.

Opportunistic TLS (RFC 7435) takes any certificate and any cipher that OpenSSL still has: the choice is not between a
strong and a weak one, but between that and plaintext. Where a server must prove who it is, its certificate is verified
against the trusted authorities and the name of the host (RFC 7817 §3). TLS 1.2 is the oldest version in both.

Contexts are made on first use: never before a fork, and not at all by a courier that needs none.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from mta.net.dial import Target, literal

_SECURITY_LEVEL = "DEFAULT:@SECLEVEL=0"


@dataclass(frozen=True, slots=True)
class TlsFailure:
    """Why there is no TLS. `rejected`: the peers do not agree, and will not tomorrow; else the network failed."""

    text: str
    rejected: bool


class ClientTls:
    """The contexts of one process. `authorities` is a file of certificates to trust; None: those of the system."""

    def __init__(self, authorities: Path | None) -> None:
        self._authorities = authorities
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def context(self, *, verified: bool) -> ssl.SSLContext:
        """Raises OSError when the file of authorities cannot be read."""
        context = self._contexts.get(verified)
        if context is None:
            context = self._contexts[verified] = self._verifying() if verified else _opportunistic()
        return context

    def _verifying(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._authorities is not None:
            context.load_verify_locations(self._authorities)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context


def _opportunistic() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(_SECURITY_LEVEL)
    return context


def server_name(target: Target, context: ssl.SSLContext) -> str:
    """What to ask for by SNI (RFC 6066 §3), and to verify: a host name, without its last dot; "" where there is none.

    An address is not asked for, but can be verified.
    """
    if context.check_hostname and target.port and literal(target.host):
        return literal(target.host)
    name = target.host.rstrip(".")
    if not target.port or literal(target.host) or not name.isascii():
        return ""
    labels = name.split(".")
    return name if len(name) <= 253 and all(0 < len(label) <= 63 for label in labels) else ""


async def upgrade(
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    name: str,
    seconds: float,
) -> asyncio.Transport | TlsFailure:
    """The client's side of a handshake. The transport is of no use after a failure."""
    if context.check_hostname and not name:
        return TlsFailure("the host has no name that a certificate could be verified for", rejected=True)
    try:
        secured = await asyncio.get_running_loop().start_tls(
            transport, protocol, context, server_hostname=name or None, ssl_handshake_timeout=seconds
        )
    except ssl.CertificateError as error:
        return TlsFailure(f"certificate not verified: {error.verify_message}", rejected=True)
    except ssl.SSLError as error:
        return TlsFailure((error.reason or str(error)).replace("_", " ").lower(), rejected=True)
    except TimeoutError:
        return TlsFailure(f"no end of the handshake within {seconds:g} s", rejected=False)
    except (OSError, EOFError) as error:
        return TlsFailure(f"connection lost in the handshake: {error}".removesuffix(": "), rejected=False)
    return secured or TlsFailure("connection lost in the handshake", rejected=False)
