"""The supervisor with real processes whose roles are fakes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.waiting import wait_for

ROOT = Path(__file__).parents[3]
THREE = ("queue:good", "courier:good", "receiver:good")


class Running:
    """One fake server, its events and its complaints."""

    def __init__(self, directory: Path, roles: tuple[str, ...], drain: float = 5.0, **environ: str) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        with (directory / "stdout").open("ab") as out, (directory / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.kit.fake_server", str(directory), str(drain), *roles],
                cwd=ROOT,
                stdout=out,
                stderr=err,
                env=os.environ | environ,
            )

    def until_ready(self) -> Running:
        wait_for(lambda: self.stdout == "ready\n", what="ready line")
        return self

    def wait(self) -> int:
        return self.process.wait(timeout=30)

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    @property
    def stdout(self) -> str:
        return (self.directory / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text()

    @property
    def ports(self) -> list[int]:
        return [int(port) for port in (self.directory / "ports").read_text().split()]

    def events(self, word: str, name: str = "") -> list[list[str]]:
        path = self.directory / "events"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if line[2] == word and line[0].startswith(name)]

    def pids(self, name: str = "") -> list[int]:
        return [int(line[3]) for line in self.events("up", name)]


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def start(*roles: str, drain: float = 5.0, **environ: str) -> Running:
        started.append(Running(tmp_path / "server", roles, drain, **environ))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody reaps (a container without init) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ready_is_said_once_when_all_serve(start: Start) -> None:
    running = start(*THREE).until_ready()
    assert {line[0] for line in running.events("up")} == {"queue", "courier", "receiver"}
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert running.stdout == "ready\n"
    assert running.stderr == ""


def test_children_have_their_own_name(start: Start) -> None:
    running = start(*THREE).until_ready()
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in running.pids()}
    assert names == {"mta-queue", "mta-courier", "mta-receiver"}


def test_a_child_holds_no_listening_socket_of_another(start: Start) -> None:
    running = start(*THREE).until_ready()
    for pid in running.pids():
        links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
        assert len([link for link in links if link.startswith("socket:")]) == 1


def test_those_in_front_stop_first(start: Start) -> None:
    running = start("queue:good", "courier:good", "receiver:good", "receiver:good").until_ready()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    order = [line[0] for line in running.events("stopped")]
    assert order[:2] == ["receiver", "receiver"]
    assert sorted(order[2:]) == ["courier", "queue"]


def test_ports_are_closed_after_a_stop_begins(start: Start) -> None:
    running = start(*THREE).until_ready()
    running.signal(signal.SIGINT)
    assert running.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.ports[2]))


def test_a_killed_child_comes_back(start: Start) -> None:
    running = start(*THREE).until_ready()
    (victim,) = running.pids("receiver")
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(running.pids("receiver")) == 2, what="successor")
    assert f"receiver 2 (pid {victim}) ended with signal SIGKILL; it comes back" in running.stderr
    assert all(alive(pid) for pid in running.pids() if pid != victim)


def test_a_port_outlives_its_process(start: Start) -> None:
    running = start(*THREE).until_ready()
    os.kill(running.pids("receiver")[0], signal.SIGKILL)
    socket.create_connection(("127.0.0.1", running.ports[2])).close()
    wait_for(lambda: len(running.pids("receiver")) == 2, what="successor")
    socket.create_connection(("127.0.0.1", running.ports[2])).close()


def test_a_crash_loop_is_told_and_its_port_refuses(start: Start) -> None:
    running = start("queue:good", "receiver:fragile").until_ready()
    (running.directory / "break").touch()
    wait_for(lambda: "cannot stay alive" in running.stderr, what="report of the crash loop")
    (line,) = [line for line in running.stderr.splitlines() if "cannot stay alive" in line]
    assert "receiver 1" in line
    assert "exit status 3" in line
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.ports[1]))
    (running.directory / "break").unlink()
    lives = len(running.pids("receiver"))
    wait_for(lambda: len(running.pids("receiver")) > lives, what="another try")
    socket.create_connection(("127.0.0.1", running.ports[1])).close()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


@pytest.mark.parametrize(("behaviour", "code", "why"), [("dies", 9, "exit status 9"), ("raises", 70, "on fire")])
def test_who_dies_before_it_served_ends_the_start(start: Start, behaviour: str, code: int, why: str) -> None:
    running = start("queue:good", f"receiver:{behaviour}")
    assert running.wait() == code
    assert running.stdout == ""
    assert why in running.stderr
    assert "before it served" in running.stderr
    assert not any(alive(pid) for pid in running.pids())


def test_children_vanish_with_a_killed_supervisor(start: Start) -> None:
    running = start("queue:good", "courier:stubborn", "receiver:good").until_ready()
    running.signal(signal.SIGKILL)
    running.wait()
    wait_for(lambda: not any(alive(pid) for pid in running.pids()), what="death of the children")


def test_a_second_server_is_refused_the_spool(start: Start) -> None:
    running = start(*THREE).until_ready()
    second = start(*THREE)
    assert second.wait() == 75
    assert f"another server (pid {running.process.pid}) uses" in second.stderr


def test_who_does_not_stop_is_killed(start: Start) -> None:
    running = start("queue:stubborn", "receiver:good", drain=0.1).until_ready()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert "did not stop in time" in running.stderr
    assert not any(alive(pid) for pid in running.pids())


def test_a_second_sigterm_hastens(start: Start, tmp_path: Path) -> None:
    with service_manager(tmp_path) as manager:
        running = start("queue:good", "receiver:stubborn", drain=600.0, NOTIFY_SOCKET=str(tmp_path / "notify"))
        until(manager, "READY=1")
        running.signal(signal.SIGTERM)
        until(manager, "STOPPING=1")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    assert "receiver 1" in running.stderr
    assert "did not stop in time" in running.stderr


def test_reload_replaces_one_after_another(start: Start) -> None:
    running = start(*THREE).until_ready()
    running.signal(signal.SIGHUP)
    wait_for(lambda: "all processes have the new settings" in running.stderr, what="reload")
    story = [line.split() for line in (running.directory / "events").read_text().splitlines()]
    assert [(line[0], line[2], line[4]) for line in story[3:]] == [
        (name, word, generation)
        for name in ("queue", "courier", "receiver")
        for word, generation in (("stopped", "0"), ("up", "1"))
    ]
    assert "ended" not in running.stderr
    assert running.stdout == "ready\n"


def test_reload_of_a_bad_file_changes_nothing(start: Start) -> None:
    running = start(*THREE).until_ready()
    (running.directory / "bad").touch()
    running.signal(signal.SIGHUP)
    wait_for(lambda: "the file is bad" in running.stderr, what="complaint")
    assert len(running.pids()) == 3
    assert all(alive(pid) for pid in running.pids())


def test_the_service_manager_is_kept_informed(start: Start, tmp_path: Path) -> None:
    with service_manager(tmp_path) as manager:
        running = start(*THREE, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")
        seen = until(manager, "READY=1")
        assert "WATCHDOG=1" in seen + until(manager, "WATCHDOG=1")
        running.signal(signal.SIGHUP)
        assert any(line.startswith("MONOTONIC_USEC=") for line in until(manager, "RELOADING=1"))
        until(manager, "READY=1")
        running.signal(signal.SIGTERM)
        until(manager, "STOPPING=1")
        assert running.wait() == 0


def service_manager(directory: Path) -> socket.socket:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(directory / "notify"))
    manager.settimeout(20)
    return manager


def until(manager: socket.socket, word: str) -> list[str]:
    """All assignments up to and with the datagram that holds `word`."""
    seen: list[str] = []
    while word not in seen:
        seen += manager.recv(4096).decode().split("\n")
    return seen
