"""The supervisor: starts the processes of a server, watches them, restarts, reloads and stops them.

It has no event loop and no threads, so it may fork at any time; no mail passes through it. Signal handlers only note:
one `poll` waits for signals, for children that come up, and for the next thing due; then the dead are reaped, and only
then is anything decided.

- Start: all at once. One that dies before it ever served ends the start, with its exit code.
- A death that nobody asked for is told in one line, and the process comes back with growing delays.
- Stop: those that take work from outside first; what they committed is the others' to hand over or to leave in the
  spool. Who does not stop in time is killed: nothing acknowledged is lost by that.
- Reload: one process after another gets the new settings; the next waits until the one before serves.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from mta.config.settings import Settings
from mta.listeners import open_sockets, silence
from mta.local_sockets import close_all
from mta.notify import Notifier
from mta.premises import EX_CONFIG, StartError, drop_privileges, find_account, lock, make_directories
from mta.processes import EX_SOFTWARE, HANDLED, Child, Plan, ProcessTable, Role, describe

_FRONT_GRACE = 1.0  # beyond the drain time
_BACK_GRACE = 2.0
_HASTE = 1.0


class Supervisor:
    """One server's processes. `reload` gives the next plan, for the same places, or None when there is none."""

    def __init__(
        self,
        plan: Plan,
        *,
        reload: Callable[[], Plan | None],
        processes: ProcessTable,
        notifier: Notifier,
    ) -> None:
        self._plan = plan
        self._reload = reload
        self._processes = processes
        self._notifier = notifier
        self._children = [Child(role, index) for index, role in enumerate(plan.roles)]
        self._ready = False
        self._stopping = False
        self._front_gone = False
        self._code = 0
        self._renewing: Child | None = None
        self._to_renew: deque[tuple[Child, Role]] = deque()
        self._next_sign = 0.0
        self._wake = (-1, -1)

    def run(self) -> int:
        """Serve until told to stop; the exit code."""
        self._note_signals()
        now = time.monotonic()
        for child in self._children:
            self._start(child, now)
        while not (self._stopping and not any(child.pid for child in self._children)):
            self._turn()
        return self._code

    # ---- one turn of the loop ----

    def _turn(self) -> None:
        signals = self._wait()
        now = time.monotonic()
        for signum in signals:
            self._act_on(signum, now)
        self._reap(now)
        self._do_what_is_due(now)
        if self._stopping:
            self._go_on_stopping(now)
        else:
            self._go_on_renewing(now)

    def _wait(self) -> bytes:
        """Sleep until something happens; the signals that came."""
        poll = select.poll()
        poll.register(self._wake[0], select.POLLIN)
        by_pipe = {child.pipe: child for child in self._children if child.pipe >= 0}
        for pipe in by_pipe:
            poll.register(pipe, select.POLLIN)
        seen = [descriptor for descriptor, _ in poll.poll(self._patience())]
        for descriptor in seen:
            if descriptor in by_pipe and by_pipe[descriptor].listen_for_up():
                self._came_up()
        return os.read(self._wake[0], 4096) if self._wake[0] in seen else b""

    def _patience(self) -> float | None:
        """Milliseconds until the next thing is due."""
        times = [min(child.due, child.kill_at) for child in self._children]
        if self._notifier.interval is not None:
            times.append(self._next_sign)
        soonest = min(times)
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic()) * 1000 + 1

    def _do_what_is_due(self, now: float) -> None:
        for child in self._children:
            if child.due <= now:
                self._start(child, now)
            if child.kill_at <= now:
                report(f"{child.role} (pid {child.pid}) did not stop in time and is killed")
                child.kill()
        if self._notifier.interval is not None and self._next_sign <= now:
            self._next_sign = now + self._notifier.interval
            self._notifier.alive()

    # ---- births and deaths ----

    def _start(self, child: Child, now: float) -> None:
        kept = {id(sock) for sock in (*child.role.listeners, *child.role.links)}
        everything = {id(sock): sock for c in self._children for sock in (*c.role.listeners, *c.role.links)}
        strangers = [sock for key, sock in everything.items() if key not in kept]
        pipes = [c.pipe for c in self._children if c.pipe >= 0]
        child.start(now, strangers, [*self._wake, *pipes])
        self._processes.set(child.index, child.pid)

    def _came_up(self) -> None:
        if self._ready or self._stopping or not all(child.up for child in self._children):
            return
        self._ready = True
        with contextlib.suppress(OSError):  # nobody has to read it
            print("ready", flush=True)
        self._notifier.ready(f"{len(self._children)} processes serve")

    def _reap(self, now: float) -> None:
        by_pid = {child.pid: child for child in self._children if child.pid}
        while by_pid:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = by_pid.pop(pid, None)
            if child is not None:
                self._died(child, status, now)

    def _died(self, child: Child, status: int, now: float) -> None:
        pid = child.pid
        child.gone()
        self._processes.set(child.index, 0)
        how = f"{child.role} (pid {pid}) ended with {describe(status)}"
        if child.dismissed:
            return
        if self._stopping:
            report(f"{how} while the server stops")
        elif not self._ready and not child.up:
            report(f"{how} before it served; the server does not start, see above for why")
            self._code = max(0, os.waitstatus_to_exitcode(status)) or EX_SOFTWARE
            self._stop(now)
        else:
            self._come_back(child, how, now)

    def _come_back(self, child: Child, how: str, now: float) -> None:
        self._processes.died(child.index)
        looped = child.backoff.looping
        delay = child.backoff.died(now, now - child.born)
        child.due = now + delay
        when = f"it comes back in {delay:.1f} s" if delay else "it comes back at once"
        if child.backoff.looping and not looped:
            when = f"it cannot stay alive, tries every {delay:.0f} s go on; its own last lines above tell why"
            for sock in child.role.listeners:
                _silence(sock, self._others(child))
            self._notifier.status(f"{child.role} cannot stay alive")
        report(f"{how}; {when}")

    def _others(self, child: Child) -> set[int]:
        """The sockets that other processes listen on, too."""
        return {id(sock) for other in self._children if other is not child for sock in other.role.listeners}

    # ---- signals ----

    def _note_signals(self) -> None:
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for signum in HANDLED:
            signal.signal(signum, _noted)

    def _act_on(self, signum: int, now: float) -> None:
        if signum in (signal.SIGTERM, signal.SIGINT):
            if self._stopping:
                self._hasten(now)
            else:
                self._stop(now)
        elif signum == signal.SIGHUP and not self._stopping:
            self._begin_renewing()

    # ---- stop ----

    def _stop(self, now: float) -> None:
        self._stopping = True
        self._notifier.stopping()
        for child in self._children:
            child.due = float("inf")
            for sock in child.role.listeners:
                sock.close()
        for child in self._children:
            if child.role.front:
                child.dismiss(now, self._plan.drain + _FRONT_GRACE)

    def _go_on_stopping(self, now: float) -> None:
        if self._front_gone or any(child.pid for child in self._children if child.role.front):
            return
        self._front_gone = True
        for child in self._children:
            child.dismiss(now, self._plan.drain + _BACK_GRACE)

    def _hasten(self, now: float) -> None:
        for child in self._children:
            child.dismiss(now, _HASTE)

    # ---- reload ----

    def _begin_renewing(self) -> None:
        self._notifier.reloading()
        plan = self._reload()
        if plan is not None:
            self._plan = plan
            self._to_renew = deque(zip(self._children, plan.roles, strict=True))
            report("the settings were read again; the processes are replaced one after another")
        elif self._ready:
            self._notifier.ready("the settings were not changed")

    def _go_on_renewing(self, now: float) -> None:
        """One step: the one that is being replaced must serve before the next is asked to go."""
        if self._renewing is not None:
            if self._renewing.pid == 0 and self._renewing.dismissed:
                self._renewing.dismissed = False
                self._start(self._renewing, now)
            if self._renewing.dismissed or not self._renewing.up:
                return
            self._renewing = None
            if not self._to_renew:
                report("all processes have the new settings")
                self._notifier.ready("the new settings are in use")
        if self._to_renew:
            child, role = self._to_renew.popleft()
            child.role = role
            self._renewing = child
            if child.pid:
                child.dismiss(now, self._plan.drain + _BACK_GRACE)
            else:
                self._start(child, now)


def serve(settings: Settings, path: Path) -> int:
    """Run the server of these settings, read from `path`, in the foreground; the exit code."""
    sockets: list[socket.socket] = []
    try:
        supervisor = _prepare(settings, path, sockets)
        gc.collect()
        gc.freeze()  # what the children share must not be touched, and so copied, by a collection
        return supervisor.run()
    except StartError as error:
        report(str(error))
        return error.code
    finally:
        close_all(sockets)


def _prepare(settings: Settings, path: Path, opened: list[socket.socket]) -> Supervisor:
    """Everything that needs root or must not be done twice, then the plan."""
    # late: with the roles comes all that they import
    from mta.config.load import processes
    from mta.roles import Server, all_addresses, local_access, obstacle

    account = find_account(settings.server.user)
    make_directories(settings.server.state_dir, settings.server.runtime_dir, account)
    lock(settings.server.state_dir, account)
    if account is None and os.geteuid() == 0:
        report("running as root, as [server] user is not set; a server on the Internet should have a user of its own")
    if settings.spool.risk:
        report(settings.spool.risk)
    receivers, couriers = processes(settings)
    sockets = open_sockets(all_addresses(settings), receivers, access=local_access(settings, account))
    opened.extend(sock for group in sockets.values() for sock in group)
    drop_privileges(account)
    if problem := obstacle(settings):
        raise StartError(f"{path}: {problem}", EX_CONFIG)
    server = Server(settings, path, sockets, receivers, couriers)
    return Supervisor(server.plan(), reload=server.reload, processes=server.processes, notifier=Notifier())


def report(text: str) -> None:
    """One line for whoever looks after this server."""
    with contextlib.suppress(OSError):  # a terminal that went away must not take the server with it
        print(f"mta: {text}", file=sys.stderr, flush=True)


def _noted(signum: int, frame: FrameType | None) -> None:
    """Python writes the number to the wake-up pipe; that is all a handler has to do."""


def _silence(sock: socket.socket, shared: set[int]) -> None:
    """Connections to one that cannot stay alive are refused; its next life listens again by itself."""
    if id(sock) not in shared:
        with contextlib.suppress(OSError):
            silence(sock)
