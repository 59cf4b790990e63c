"""The children of the supervisor: how one is born, when it may come back, and who is alive.

INVARIANT: a child starts with default signal handling, dies with its parent, and holds no descriptor of another role:
an inherited copy of a listening socket would keep taking connections that nobody accepts.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

EX_SOFTWARE = os.EX_SOFTWARE

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_prctl = ctypes.CDLL(None, use_errno=True).prctl

_SETTLED = 10.0  # a process that lived so long may come back at once
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 10.0
_LOOP_DEATHS = 5
_LOOP_SECONDS = 30.0

Up = Callable[[], None]
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class Role:
    """One row of the process table. `run(life, up)` calls `up` once it serves, and returns when it was told to stop.

    `front` roles take work from outside: they are stopped first.
    """

    name: str
    worker: int
    run: Callable[[int, Up], None]
    listeners: Sequence[socket.socket] = ()
    links: Sequence[socket.socket] = ()
    front: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.worker}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The processes to run, in the order in which they start and reload; `drain`: how long each may take to stop."""

    roles: Sequence[Role]
    drain: float


class Backoff:
    """When a process that died may come back; a pure function of the times given to it."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._deaths: deque[float] = deque(maxlen=_LOOP_DEATHS)
        self.looping = False

    def died(self, now: float, lived: float) -> float:
        """Seconds to wait; `looping` tells whether the process cannot stay alive."""
        self._deaths.append(now)
        if lived > _SETTLED:
            self._delay = 0.0
            self.looping = False
            return 0.0
        self._delay = min(max(_FIRST_DELAY, self._delay * 2), _LONGEST_DELAY)
        if len(self._deaths) == _LOOP_DEATHS and now - self._deaths[0] <= _LOOP_SECONDS:
            self.looping = True
        return _LONGEST_DELAY if self.looping else self._delay


@dataclass(slots=True)
class Child:
    """A place for one process, and the process that is in it now, if any."""

    role: Role
    index: int
    pid: int = 0
    pipe: int = -1  # one octet comes through it when the process serves
    born: float = 0.0
    up: bool = False
    dismissed: bool = False  # its end was asked for
    due: float = float("inf")  # when to start it
    kill_at: float = float("inf")
    backoff: Backoff = field(default_factory=Backoff)

    def start(self, now: float, strangers: Iterable[socket.socket], private: Iterable[int]) -> None:
        """Fork. The child closes `strangers` and `private`."""
        self.pid, self.pipe = _spawn(self.role, strangers, private)
        self.born, self.due, self.kill_at = now, float("inf"), float("inf")
        self.up = self.dismissed = False

    def dismiss(self, now: float, patience: float) -> None:
        """Ask it to stop; it is killed when it has not within `patience` seconds."""
        self.due = float("inf")
        if self.pid:
            self.dismissed = True
            self.kill_at = min(self.kill_at, now + patience)
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        self.kill_at = float("inf")
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the pid is still its own

    def listen_for_up(self) -> bool:
        """Read the pipe; True when the process has just come up."""
        came = os.read(self.pipe, 1) != b""
        self.hang_up()
        self.up = self.up or came
        return came

    def hang_up(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1

    def gone(self) -> None:
        """It was reaped."""
        if self.pipe >= 0:
            self.listen_for_up()  # it may have come up and died since
        self.pid, self.kill_at = 0, float("inf")


class ProcessTable:
    """Role, worker and pid of every process, in memory shared by all of them; the supervisor alone writes it.

    Beside the pid stands how often one in that place has died, without having been asked to.
    """

    def __init__(self, names: Sequence[tuple[str, int]]) -> None:
        self._names = list(names)
        self._cells = memoryview(mmap.mmap(-1, max(mmap.PAGESIZE, len(names) * 16))).cast("q")

    def set(self, index: int, pid: int) -> None:
        self._cells[index] = pid

    def died(self, index: int) -> None:
        self._cells[len(self._names) + index] += 1

    def rows(self) -> list[tuple[str, int, int]]:
        """Who is alive now."""
        return [(name, worker, self._cells[i]) for i, (name, worker) in enumerate(self._names) if self._cells[i]]

    def places(self) -> list[tuple[str, int, int, int]]:
        """The same, with the deaths there, and with pid 0 where nobody is now."""
        cells, count = self._cells, len(self._names)
        return [(name, worker, cells[i], cells[count + i]) for i, (name, worker) in enumerate(self._names)]


def describe(status: int) -> str:
    """How a process ended, from its wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _spawn(role: Role, strangers: Iterable[socket.socket], private: Iterable[int]) -> tuple[int, int]:
    """The pid of a new process and the end of its pipe.

    Signals are blocked across the fork: one that came before the child has its own handlers would be taken for one
    to the supervisor, whose wake-up pipe it shares until then.
    """
    parent = os.getpid()
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    pid = os.fork()
    if pid == 0:
        _live(role, parent, writer, strangers, [*private, reader])
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    os.close(writer)
    return pid, reader


def rehearse(act: Callable[[], str]) -> str:
    """What `act` returns when a process of its own runs it, which then ends with all that it loaded.

    For what must be tried, and must leave nothing behind in a process that forks: TLS state, for one.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    pid = os.fork()
    if pid == 0:
        _rehearse(act, writer)
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return text if status == 0 else f"trying it ended with {describe(status)}"


def _rehearse(act: Callable[[], str], writer: int) -> None:
    """The whole life of a rehearsal; never returns."""
    code = EX_SOFTWARE
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setsid()  # without a terminal and without input nothing can ask for a pass phrase, and wait for it
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        with open(writer, "wb") as pipe:
            pipe.write(act().encode("utf-8", "backslashreplace"))
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may leave here: the stack above is the supervisor's
        traceback.print_exc()
    finally:
        os._exit(code)


def _live(role: Role, parent: int, writer: int, strangers: Iterable[socket.socket], private: Iterable[int]) -> None:
    """The whole life of a child; never returns."""
    code = EX_SOFTWARE
    try:
        _settle(role, parent, strangers, private)
        # What a message leaves behind has no cycles: few and late collections, each a stall, are enough.
        gc.set_threshold(20_000, 20, 50)
        role.run(time.time_ns(), lambda: _announce(writer))
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may leave here: the stack above is the supervisor's
        traceback.print_exc()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _settle(role: Role, parent: int, strangers: Iterable[socket.socket], private: Iterable[int]) -> None:
    """Become a process of one's own. A terminal's Ctrl-C and hang-up are the supervisor's to act on."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EX_SOFTWARE)  # it died before the line above
    _prctl(_PR_SET_NAME, f"mta-{role.name}".encode()[:15], 0, 0, 0)
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for sock in strangers:
        sock.close()
    for descriptor in private:
        os.close(descriptor)


def _announce(writer: int) -> None:
    os.write(writer, b"u")
