"""One timed run: a server, load into it, and what it cost.

- accept: until the last 250; nothing is delivered. relay: until the sink has counted the last message. maildir: until
  the last file lies in `new` of one of 100 mailboxes.
- CPU is read before the first connect and after the server has gone idle, so that work put off is paid for.
- A warm-up of a fifth of the messages is not counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.cpu import settle
from bench.postfix import Package
from bench.server import REPOSITORY, USERS, BenchError, Server, free_port

_RUN_SECONDS = 300.0
_QUEUE_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """What is measured."""

    workload: str
    messages: int
    sessions: int = 20
    size: int = 4096
    reuse: bool = True
    pipelined: bool = False
    generator: str = "own"  # "own" | "postfix"
    tls: str = "off"  # "off" | "starttls" | "implicit"


@dataclass
class Measure:
    """What came of one round of one server."""

    server: str
    seconds: float = 0.0
    rate: float = 0.0
    cpu_per_1000: float = 0.0
    user_per_1000: float = 0.0
    system_per_1000: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    megabytes: float = 0.0
    counted_by: str = ""
    errors: list[str] = field(default_factory=list)


@dataclass
class Sent:
    """What a load generator says of its run; `began` is of the clock of perf_counter, which all processes share."""

    began: float
    ended: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: list[str] = field(default_factory=list)


class Sink:
    """A counting next hop in a process of its own: the project's, or Postfix's smtp-sink."""

    def __init__(self, package: Package | None) -> None:
        self.port = free_port()
        self.count = 0
        self._changed = threading.Condition()
        self._at = 0.0
        self._process = self._start(package)
        threading.Thread(target=self._read, daemon=True).start()
        self._await_port()

    def wait(self, count: int) -> float:
        """Returns the time at which so many messages had come."""
        deadline = time.monotonic() + _RUN_SECONDS
        with self._changed:
            while self.count < count:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise BenchError(f"the sink got {self.count} messages of {count} in {_RUN_SECONDS:.0f} s")
            return self._at

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _start(self, package: Package | None) -> subprocess.Popen[bytes]:
        if package is None:
            command, environment = [sys.executable, "-m", "bench.sink", str(self.port)], dict(os.environ)
        else:
            command, environment = package.program("smtp-sink")
            command += [*(["-u", "nobody"] if os.geteuid() == 0 else []), "-c", f"127.0.0.1:{self.port}", "512"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd=REPOSITORY
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        kept = b""
        while data := os.read(self._process.stdout.fileno(), 65536):
            kept = (kept + data)[-400:]
            counts = re.findall(rb"mesg=(\d+)\s*\r", kept)
            if counts:
                with self._changed:
                    self.count, self._at = int(counts[-1]), time.perf_counter()
                    self._changed.notify_all()

    def _await_port(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise BenchError(f"the sink does not listen on port {self.port}")


class Bench:
    """Makes folders, takes the lock and runs rounds."""

    def __init__(self, place: Path, lock: Path, package: Package | None) -> None:
        self._place = place
        self._lock = lock
        self._package = package
        self._rounds = 0

    def round(self, make: Callable[[Path, str, int], Server], job: Job) -> Measure:
        self._rounds += 1
        folder = self._place / f"{self._rounds:03d}"
        folder.mkdir()
        folder.chmod(0o755)
        with locked(self._lock), self._sink(job) as sink:
            server = make(folder, job.workload, sink.port if sink else 0)
            _permit_files(job.sessions)
            try:
                server.start()
                return self._idle(server, job) if job.workload == "idle" else self._timed(server, job, sink)
            finally:
                server.stop()

    @contextlib.contextmanager
    def _sink(self, job: Job) -> Iterator[Sink | None]:
        if job.workload != "relay":
            yield None
            return
        sink = Sink(self._package if job.generator == "postfix" else None)
        try:
            yield sink
        finally:
            sink.close()

    def _timed(self, server: Server, job: Job, sink: Sink | None) -> Measure:
        warm = max(1, job.messages // 5)
        sent = self.send(server, replace(job, messages=warm))
        self._finish(server, job, sink, warm, sent)
        settle(server.group)
        before = server.group.usage()
        sent = self.send(server, job)
        ended = self._finish(server, job, sink, warm + job.messages, sent)
        settle(server.group)
        spent = server.group.usage() - before
        if job.workload == "accept":
            _check_queue(server, warm + job.messages)
        thousands = job.messages / 1000
        return Measure(
            server=server.name,
            seconds=ended - sent.began,
            rate=job.messages / (ended - sent.began),
            cpu_per_1000=spent.total / thousands,
            user_per_1000=spent.user / thousands,
            system_per_1000=spent.system / thousands,
            p50_ms=sent.p50_ms,
            p99_ms=sent.p99_ms,
            megabytes=server.group.memory(),
            counted_by=server.group.how,
            errors=sent.errors,
        )

    def _finish(self, server: Server, job: Job, sink: Sink | None, count: int, sent: Sent) -> float:
        """Wait until the last message is where it should go; says when that was."""
        if sent.errors:
            raise BenchError(f"{server.name}: the load generator met {'; '.join(sent.errors)}")
        if sink is not None:
            return sink.wait(count)
        if job.workload == "maildir":
            return _await_files(server, count)
        return sent.ended

    def send(self, server: Server, job: Job) -> Sent:
        """One run of the load generator."""
        if job.generator == "postfix" and self._package is not None:
            return self._smtp_source(self._package, server, job)
        program = "bench.handshakes" if job.workload == "handshakes" else "bench.load"
        command = [sys.executable, "-m", program, f"--port={server.port}", f"--messages={job.messages}"]
        command += [f"--sessions={job.sessions}", *_load_words(job)]
        done = _finished(command, dict(os.environ))
        if not done.stdout:
            raise BenchError(f"the load generator failed: {done.stderr[-2000:]}")
        tally = json.loads(done.stdout)
        ended = tally["began"] + tally["seconds"]
        return Sent(tally["began"], ended, tally["p50_ms"], tally["p99_ms"], tally["errors"])

    def _smtp_source(self, package: Package, server: Server, job: Job) -> Sent:
        command, environment = package.program("smtp-source")
        command += [
            "-s",
            str(job.sessions),
            "-m",
            str(job.messages),
            "-l",
            str(job.size),
            *(["-d"] if job.reuse else []),
        ]
        command += ["-M", "source.test", "-f", "sender@source.test", "-t", "user@dest.test", f"127.0.0.1:{server.port}"]
        began = time.perf_counter()
        done = _finished(command, environment)
        ended = time.perf_counter()
        said = done.stderr.strip()
        return Sent(began, ended, errors=[f"smtp-source: {said}"] if done.returncode or said else [])

    def _idle(self, server: Server, job: Job) -> Measure:
        """What `sessions` greeted and then silent connections add to the server's memory."""
        settle(server.group)
        before = server.group.memory()
        with contextlib.ExitStack() as stack:
            for _ in range(job.sessions):
                connection = stack.enter_context(server.connect())
                if not connection.recv(500).startswith(b"220"):
                    raise BenchError(f"{server.name} does not greet {job.sessions} sessions at once")
                connection.sendall(b"EHLO idle.test\r\n")
                connection.recv(1000)
            settle(server.group)
            return Measure(server.name, megabytes=server.group.memory() - before, counted_by="PSS")


def _load_words(job: Job) -> list[str]:
    if job.workload == "handshakes":
        return ["--resume"] if job.reuse else []
    words = [f"--size={job.size}", f"--tls={job.tls}", "--reuse" if job.reuse else "--no-reuse"]
    words += ["--pipelined"] if job.pipelined else []
    return words + ([f"--users={len(USERS)}", "--domain=virt.test"] if job.workload == "maildir" else [])


def _permit_files(sessions: int) -> None:
    """For us and for the server, which inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, sessions + 1000)), hard))


def _finished(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=REPOSITORY,
            timeout=_RUN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"not done within {_RUN_SECONDS:.0f} s: {' '.join(command)}") from None


def _check_queue(server: Server, count: int) -> None:
    """What was accepted must be there; the index may be a moment behind the log."""
    deadline = time.monotonic() + _QUEUE_SECONDS
    while (queued := server.queued()) != count:
        if time.monotonic() > deadline:
            raise BenchError(f"{server.name} has {queued} messages in its queue, not {count}")
        time.sleep(0.2)


def _await_files(server: Server, count: int) -> float:
    deadline = time.monotonic() + _RUN_SECONDS
    while time.monotonic() < deadline:
        if server.delivered() >= count:
            return time.perf_counter()
        time.sleep(0.02)
    raise BenchError(f"{server.name} delivered {server.delivered()} messages of {count} in {_RUN_SECONDS:.0f} s")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One measurement at a time on this machine."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
