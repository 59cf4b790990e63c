"""A supervisor over roles that do nothing but tell of themselves: `python -m tests.kit.fake_server DIRECTORY ROLE...`.

A ROLE is NAME:BEHAVIOUR. Each life writes lines "NAME WORKER WORD [DETAIL]" to DIRECTORY/events. Behaviours:
  good      comes up, ends at SIGTERM
  stubborn  comes up, ignores SIGTERM
  dies      ends with exit status 9 before it is up
  raises    ends with an exception before it is up
  fragile   comes up, and ends with exit status 3 once DIRECTORY/break exists
A reload gives a plan whose lives tell the next generation, unless DIRECTORY/bad exists.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

from mta import processes
from mta.notify import Notifier
from mta.premises import StartError, lock, make_directories
from mta.processes import Plan, ProcessTable, Role, Up
from mta.supervisor import Supervisor, report


class FakeServer:
    """The table of the roles that were named on the command line."""

    def __init__(self, directory: Path, roles: list[str], drain: float) -> None:
        self._directory = directory
        self._drain = drain
        self._generation = 0
        self._specs = [spec.split(":") for spec in roles]
        self._sockets = [_listener() for _ in roles]
        self.table = ProcessTable([(name, worker) for worker, (name, _) in enumerate(self._specs)])
        ports = [str(sock.getsockname()[1]) for sock in self._sockets]
        (directory / "ports").write_text(" ".join(ports))

    def plan(self) -> Plan:
        roles = [
            Role(
                name,
                worker,
                partial(self._live, name, behaviour, worker, self._generation),
                listeners=[self._sockets[worker]],
                front=name == "receiver",
            )
            for worker, (name, behaviour) in enumerate(self._specs)
        ]
        return Plan(roles, self._drain)

    def reload(self) -> Plan | None:
        if (self._directory / "bad").exists():
            report("the file is bad")
            return None
        self._generation += 1
        return self.plan()

    def _live(self, name: str, behaviour: str, worker: int, generation: int, life: int, up: Up) -> None:
        stop = {"stubborn": signal.SIG_IGN}.get(behaviour, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, stop)
        if behaviour == "dies":
            os._exit(9)
        if behaviour == "raises":
            raise RuntimeError("the spool is on fire")
        if behaviour != "stubborn":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        self._sockets[worker].listen(5)
        self._tell(f"{name} {worker} up {os.getpid()} {generation}")
        up()
        self._wait(behaviour)
        self._tell(f"{name} {worker} stopped {os.getpid()} {generation}")

    def _wait(self, behaviour: str) -> None:
        while behaviour != "stubborn" and signal.sigtimedwait([signal.SIGTERM], 0.01) is None:
            if behaviour == "fragile" and (self._directory / "break").exists():
                os._exit(3)
        while behaviour == "stubborn":
            time.sleep(60)

    def _tell(self, line: str) -> None:
        with (self._directory / "events").open("a") as events:
            events.write(line + "\n")


def _listener() -> socket.socket:
    """A free port, but bound by its number as that of a listener in a file is: so it stays ours through a silence."""
    with socket.socket() as finder, contextlib.ExitStack() as on_error:
        sock = on_error.enter_context(socket.socket())
        for each in (finder, sock):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        finder.bind(("127.0.0.1", 0))
        sock.bind(finder.getsockname())
        sock.listen(5)
        on_error.pop_all()
        return sock


def main(directory: Path, drain: float, roles: list[str]) -> int:
    try:
        make_directories(directory / "state", directory / "run", None)
        lock(directory / "state", None, patience=0.1)
    except StartError as error:
        report(str(error))
        return error.code
    processes._LONGEST_DELAY = 1.0  # so that a test of a crash loop is short
    server = FakeServer(directory, roles, drain)
    return Supervisor(server.plan(), reload=server.reload, processes=server.table, notifier=Notifier()).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
