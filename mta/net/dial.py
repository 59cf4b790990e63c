"""Outbound connections: from a host name, an address or the path of a unix socket to a connected socket.

Nothing raises for what the network does: a failure is a value with the Reply that the queue will show.

    5.4.4  the host has no address, and will have none tomorrow (permanent)
    4.4.3  its address cannot be found now
    4.4.1  connection refused, timed out or unreachable; the text names host and address
    4.3.5  the source has no address of the host's family, or this machine has not the source's address: that is ours
           to mend, so the mail waits

Addresses are tried in the resolver's order, each with a time-out of its own; the caller walks them, because a
host that answers but greets badly is passed over like one that does not answer (RFC 5321 §5.1).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from mta.model import ANYWHERE, LookupFailure, Reply, Resolver, Source
from mta.net.binding import bind_to
from mta.observe.maillog import printable

_MOST_ADDRESSES = 8  # of one host: a hostile zone must not make us call a thousand


@dataclass(frozen=True, slots=True)
class Target:
    """One address to connect to. `host` is what the operator or the MX record named."""

    host: str
    address: str  # an IP address, or the path of a unix socket
    port: int  # 0: a unix socket

    def __str__(self) -> str:
        """Safe in a log line, whatever an MX record says."""
        return printable(f"{self.host}[{self.address}]:{self.port}" if self.port else f"unix:{self.address}")


@dataclass(frozen=True, slots=True)
class DialFailure:
    """Why there is no connection. `permanent`: trying again is of no use."""

    reply: Reply
    permanent: bool
    hop: str


def is_unix_path(host: str, port: int) -> bool:
    """A hop is the path of a unix socket when it has no port or holds a slash, which no host name does."""
    return port == 0 or "/" in host


def literal(host: str) -> str:
    """The IP address that `host` is, with or without brackets (RFC 5321 §4.1.3); "" for a name."""
    text = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


async def targets(host: str, port: int, resolver: Resolver) -> list[Target] | DialFailure:
    """The addresses behind one hop, in the order to try them; never empty."""
    if is_unix_path(host, port):
        return [Target(host, host, 0)]
    address = literal(host)
    if address:
        return [Target(host, address, port)]
    try:
        found = await resolver.addresses(host)
    except LookupFailure as failure:
        return DialFailure(failure.reply, failure.permanent, printable(host))
    if not found:
        return DialFailure(Reply(0, "5.4.4", f"host {printable(host)} has no address"), True, printable(host))
    return [Target(host, a, port) for a in found[:_MOST_ADDRESSES]]


def reachable(found: Sequence[Target], source: Source) -> list[Target] | DialFailure:
    """The targets that a source has an address for; never empty."""
    if not (source.ipv4 or source.ipv6):
        return list(found)
    usable = [target for target in found if not target.port or own_address(source, target)]
    if usable:
        return usable
    family, other = ("IPv4", "IPv6") if source.ipv4 else ("IPv6", "IPv4")
    host = printable(found[0].host)
    text = f"source {source.name} has an {family} address only, and {host} none but {other} ones"
    return DialFailure(Reply(0, "4.3.5", text), False, str(found[0]))


def own_address(source: Source, target: Target) -> str:
    """The address of a source that a target is called from; "" for any."""
    return source.ipv6 if ":" in target.address else source.ipv4


async def connect(target: Target, seconds: float, source: Source = ANYWHERE) -> socket.socket | DialFailure:
    """A connected, non-blocking socket."""
    sock: socket.socket | None = None
    try:
        sock = _socket(target)
        if target.port and (own := own_address(source, target)) and (why := bind_to(sock, own)):
            return DialFailure(Reply(0, "4.3.5", f"source {source.name} cannot be used: {why}"), False, str(target))
        place = (target.address, target.port) if target.port else target.address
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, place)
        connected, sock = sock, None
    except TimeoutError:
        return _failure(target, f"no answer within {seconds:g} s")
    except OSError as error:
        return _failure(target, os.strerror(error.errno) if error.errno else str(error))
    finally:
        if sock is not None:
            sock.close()
    return connected


def _socket(target: Target) -> socket.socket:
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    if not target.port:
        return socket.socket(socket.AF_UNIX, kind)
    sock = socket.socket(socket.AF_INET6 if ":" in target.address else socket.AF_INET, kind)
    # What follows a final dot must not wait for the acknowledgement of the text.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _failure(target: Target, why: str) -> DialFailure:
    return DialFailure(Reply(0, "4.4.1", f"cannot connect to {target}: {why}"), False, str(target))
