"""What the service manager is told, and how often: the sd_notify protocol, spoken directly.

Without NOTIFY_SOCKET everything here does nothing. A service manager that cannot be reached never harms the server:
its datagrams are dropped, and what follows (a start that times out) is the manager's to report.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """One datagram a call, to the socket that the service manager named in the environment."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.interval = _interval(environ)  # seconds between two signs of life; None: nobody watches

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        # the manager tells this reload from an earlier one by the time
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=finishing the work in hand")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def _send(self, *assignments: str) -> bool:
        if not self._address:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # a full or dead manager must not stop the supervisor
            try:
                sock.sendto("\n".join(assignments).encode(), self._address)
            except OSError:
                return False
        return True


def _address(name: str) -> str:
    """The address of a unix socket; a leading "@" stands for the abstract namespace."""
    return "\0" + name[1:] if name.startswith("@") else name


def _interval(environ: Mapping[str, str]) -> float | None:
    """Half the time after which the manager would think us dead."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or not int(microseconds) or meant != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
