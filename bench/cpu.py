"""CPU time and memory of a whole server: every process of it, and every child it ever had.

A cgroup counts best, as it knows processes that have died since; where none can be made (no root), the process tree
is summed from /proc, which misses a grandchild that dies unseen together with its parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/cpuacct")
_V2 = Path("/sys/fs/cgroup")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of processor time since the group began."""

    total: float
    user: float
    system: float

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.total - other.total, self.user - other.user, self.system - other.system)


class Group:
    """Processes started through `wrap`, and their children."""

    how = ""

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The same command, so that it begins its life inside the group."""
        raise NotImplementedError

    def adopt(self, pid: int) -> None:
        """Tell the group the process that `wrap` led to."""

    def usage(self) -> Usage:
        raise NotImplementedError

    def pids(self) -> list[int]:
        raise NotImplementedError

    def close(self) -> None:
        """Kill what is left."""
        deadline = time.monotonic() + 5
        while (left := self.pids()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def memory(self) -> float:
        """Megabytes, pages that several processes share counted once (PSS)."""
        return sum(_pss(pid) for pid in self.pids()) / 1e6


class ControlGroup(Group):
    """A cgroup, of version 1 or 2."""

    def __init__(self, name: str) -> None:
        self._v1 = (_V1 / "cpuacct.usage").exists()
        self.how = f"cgroup v{1 if self._v1 else 2}"
        self._path = (_V1 if self._v1 else _V2) / f"mta-bench-{os.getpid()}-{name}"
        self._path.mkdir()

    def wrap(self, command: Sequence[str]) -> list[str]:
        enter = f'echo $$ > "{self._path}/cgroup.procs" && exec "$@"'
        return ["/bin/sh", "-c", enter, "sh", *command]

    def usage(self) -> Usage:
        if self._v1:
            return Usage(*(int(self._read(f"cpuacct.usage{part}")) / 1e9 for part in ("", "_user", "_sys")))
        stat = dict(line.split() for line in self._read("cpu.stat").splitlines())
        return Usage(*(int(stat[f"{part}_usec"]) / 1e6 for part in ("usage", "user", "system")))

    def pids(self) -> list[int]:
        try:
            return [int(pid) for pid in self._read("cgroup.procs").split()]
        except FileNotFoundError:  # closed already
            return []

    def close(self) -> None:
        super().close()
        for _ in range(50):  # the kernel lets go of a cgroup a moment after its last process
            try:
                self._path.rmdir()
            except OSError:
                time.sleep(0.02)
            else:
                return

    def _read(self, name: str) -> str:
        return (self._path / name).read_text()


class ProcessTree(Group):
    """The fall-back: a process and its descendants, as /proc shows them now."""

    how = "/proc"

    def __init__(self) -> None:
        self._roots: list[int] = []

    def wrap(self, command: Sequence[str]) -> list[str]:
        return list(command)

    def adopt(self, pid: int) -> None:
        self._roots.append(pid)

    def usage(self) -> Usage:
        user = system = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                user += int(fields[11]) + int(fields[13])  # its own, and that of children it has waited for
                system += int(fields[12]) + int(fields[14])
        return Usage((user + system) / _TICK, user / _TICK, system / _TICK)

    def pids(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
        found, ahead = [], [pid for pid in self._roots if Path(f"/proc/{pid}").exists()]
        while ahead:
            pid = ahead.pop()
            found.append(pid)
            ahead += children.get(pid, [])
        return found


def new_group(name: str) -> Group:
    try:
        return ControlGroup(name)
    except OSError:
        return ProcessTree()


def settle(group: Group, limit: float = 10.0) -> None:
    """Return once the group is idle: what a server does after the last message is part of its price."""
    deadline = time.monotonic() + limit
    last = group.usage().total
    while time.monotonic() < deadline:
        time.sleep(0.4)
        now = group.usage().total
        if now - last < 0.01:
            return
        last = now


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the command name, which may itself hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
