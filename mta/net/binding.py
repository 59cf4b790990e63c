"""A socket that leaves from a certain address of this machine."""

from __future__ import annotations

import errno
import socket

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; the socket module has no name for it


def bind_to(sock: socket.socket, address: str) -> str:
    """Let a socket leave from this address; why it cannot, or ""."""
    try:
        # The port is chosen with the connection: else each takes one of the address for all hosts together.
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((address, 0))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return f"this machine has no address {address}"
        return f"{address}: {error.strerror}"
    return ""
