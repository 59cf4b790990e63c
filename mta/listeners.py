"""The listening sockets: opened here, or given by systemd, and kept by the supervisor for its whole life.

Each receiver has a socket of its own for every address (SO_REUSEPORT), so the kernel spreads connections evenly, and
one that dies loses no backlog: its successor inherits the same socket. Sockets from systemd exist once, and so do unix
sockets (`mta.local_sockets`): all receivers share them.

SO_REUSEPORT would let a second server of the same user join in unseen; a first bind without it finds that out.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence

from mta.config.settings import Address
from mta.local_sockets import Access, close_all, open_local
from mta.premises import EX_CONFIG, EX_NOPERM, EX_TEMPFAIL, StartError

BACKLOG = 4096
_FIRST_FD = 3  # sd_listen_fds(3)
_BUSY_PATIENCE = 1.0  # the last children of a killed server may still be closing theirs
_BUSY_POLL = 0.05

Sockets = Mapping[Address, Sequence[socket.socket]]  # one for each receiver


def open_sockets(
    addresses: Sequence[Address],
    receivers: int,
    environ: MutableMapping[str, str] = os.environ,
    access: Mapping[Address, Access] | None = None,
) -> Sockets:
    """A socket for each address and receiver: those of systemd if it gave any, else our own.

    `access` says who may connect to unix sockets that are made here.
    """
    given = _take_given(environ)
    if given:
        return _match(addresses, receivers, given)
    for address in addresses:
        if not address.path:
            _probe(address)
    sockets: dict[Address, Sequence[socket.socket]] = {}
    try:
        for address in addresses:
            if address.path:
                shared = open_local(address.path, (access or {}).get(address, Access()), BACKLOG)
                sockets[address] = [shared] * receivers
            else:
                sockets[address] = [_open(address, shared=True) for _ in range(receivers)]
    except StartError:
        close_all(sock for group in sockets.values() for sock in group)
        raise
    return sockets


def silence(sock: socket.socket) -> None:
    """Take a socket out of the kernel's choice until its next owner calls `listen`; the port stays ours.

    A unix socket would be silent for good, so its clients wait for that owner.
    """
    if sock.family != socket.AF_UNIX:
        sock.shutdown(socket.SHUT_RD)


def _probe(address: Address) -> None:
    deadline = time.monotonic() + _BUSY_PATIENCE
    while True:
        try:
            _bind(address, shared=False).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _explained(address, error) from None
            time.sleep(_BUSY_POLL)
        else:
            return


def _open(address: Address, *, shared: bool) -> socket.socket:
    try:
        sock = _bind(address, shared=shared)
        sock.listen(BACKLOG)
    except OSError as error:
        raise _explained(address, error) from None
    return sock


def _bind(address: Address, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 is an address of its own
        sock.bind((address.host, address.port))
    except OSError:
        sock.close()
        raise
    return sock


def _explained(address: Address, error: OSError) -> StartError:
    """What is wrong with an address, and what to do."""
    if error.errno == errno.EADDRINUSE:
        text = (
            f"another program listens there; stop it (`ss -ltnp sport = :{address.port}` names it) or take another port"
        )
        return StartError(f"cannot listen on {address}: {text}", EX_TEMPFAIL)
    if error.errno in (errno.EACCES, errno.EPERM):
        text = (
            "ports below 1024 need root; start as root with [server] user set, use systemd/mta.socket, or a higher port"
        )
        return StartError(f"cannot listen on {address}: {text}", EX_NOPERM)
    if error.errno == errno.EADDRNOTAVAIL:
        return StartError(f"cannot listen on {address}: this machine does not have that address", EX_TEMPFAIL)
    return StartError(f"cannot listen on {address}: {error.strerror}", EX_CONFIG)


def _take_given(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets of socket activation. The variables are removed: they are for this process alone."""
    meant, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant != str(os.getpid()) or not count.isdecimal():
        return []
    given = []
    for descriptor in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        given.append(sock)
    return given


def _match(addresses: Sequence[Address], receivers: int, given: Sequence[socket.socket]) -> Sockets:
    by_name = {_canonical(_address_of(sock)): sock for sock in given if _can_be_ours(sock)}
    matched = {a: by_name.pop(_canonical(a), None) for a in addresses}
    missing = [str(a) for a, sock in matched.items() if sock is None]
    if missing:
        text = f"systemd gave no socket for {', '.join(missing)}; add it to mta.socket or remove the listener"
        raise StartError(text, EX_CONFIG)
    for address, sock in by_name.items():
        _decline(address, sock)
    for shared in filter(None, matched.values()):
        shared.listen(BACKLOG)  # an earlier configuration may have declined it
    return {a: [sock] * receivers for a, sock in matched.items() if sock is not None}


def _decline(address: Address, sock: socket.socket) -> None:
    """Nobody will accept here: refuse connections rather than let them hang."""
    print(f"mta: systemd gave {address}, for which there is no [[listener]]; it is closed", file=sys.stderr, flush=True)
    silence(sock)
    sock.close()


def _can_be_ours(sock: socket.socket) -> bool:
    if sock.type != socket.SOCK_STREAM:
        return False
    if sock.family == socket.AF_UNIX:
        return isinstance(sock.getsockname(), str)  # an abstract one is octets, and has no path
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def _address_of(sock: socket.socket) -> Address:
    name = sock.getsockname()
    return Address("", 0, name) if sock.family == socket.AF_UNIX else Address(*name[:2])


def _canonical(address: Address) -> Address:
    """One spelling for each address; the wildcards stay what they are."""
    if address.path:
        return Address("", 0, os.path.realpath(address.path))
    return Address(str(ipaddress.ip_address(address.host)), address.port)
