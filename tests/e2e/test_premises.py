"""What the server takes from and leaves to its surroundings: sockets of systemd, the control socket, processes."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.kit.server import COMMAND, ROOT, Server, free_port
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

_ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="smtp")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_the_control_socket_is_private(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        assert stat.S_IMODE(server.runtime.stat().st_mode) == 0o700
        (path,) = [p for p in server.runtime.iterdir() if stat.S_ISSOCK(p.stat().st_mode)]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_another_user_is_turned_away(tmp_path: Path) -> None:
    """Even one whom the permissions would let in: the kernel says who asks (SO_PEERCRED)."""
    with Server(tmp_path) as server:
        (path,) = [p for p in server.runtime.iterdir() if stat.S_ISSOCK(p.stat().st_mode)]
        server.runtime.chmod(0o711)
        path.chmod(0o666)
        script = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            'import json; s.sendall(b\'{"v": 1, "id": 1, "verb": "status", "args": {}}\\n\');'
            "s.settimeout(10); print(s.recv(65536))"
        )
        done = subprocess.run(
            ["/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3", "-c", script, str(path)],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=20,
            cwd="/",
            check=False,
        )
        assert "durability" not in done.stdout, done.stdout
        assert "hostname" not in done.stdout, done.stdout
        assert server.count() == 0


def test_sockets_of_systemd_are_taken(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server.port = listening.getsockname()[1]
        server.configure()
        activate = [COMMAND[0], "-c", _ACTIVATE, str(listening.fileno()), *COMMAND, "serve", "-c", str(server.config)]
        process = subprocess.Popen(
            activate,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            pass_fds=[listening.fileno()],
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=10)
        with Talk(server.port) as talk:
            talk.hello()
            talk.mail("a@x.test", ["b@home.test"], b"x\r\n")
        server.wait_letters("b")
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()
        server.discard()


def test_sd_notify(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        server = Server(tmp_path)
        address = str(server.runtime / "notify")
        listener.bind(address)
        listener.settimeout(20)
        server.port = free_port()
        server.configure()
        process = subprocess.Popen(
            [*COMMAND, "serve", "-c", str(server.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "NOTIFY_SOCKET": address},
        )
        try:
            told = b""
            while b"READY=1" not in told:
                told += listener.recv(4096) + b"\n"
            process.terminate()
            while b"STOPPING=1" not in told:
                told += listener.recv(4096) + b"\n"
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate()
            server.discard()


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    with Server(tmp_path, receivers=2, couriers=2) as server:
        pids = [pid for group in server.children().values() for pid in group]
        assert len(pids) == 6
        server.stop()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="the end of all processes")
        server.start()


def test_two_receivers_share_the_port(tmp_path: Path) -> None:
    with Server(tmp_path, receivers=2, couriers=2) as server:
        ids = {server.send("a@x.test", ["b@home.test"], b"x\r\n") for _ in range(40)}
        assert len(ids) == 40
        server.wait_letters("b", 40)
        server.wait_empty()


def test_status_for_people_and_for_machines(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.send("a@x.test", ["b@home.test"], b"x\r\n")
        server.wait_letters("b")
        server.wait_empty()
        assert "mx.test" in server.ctl("status")
        status = server.status()
        assert status["counters"]["messages_accepted"] == 1
        assert status["counters"]["deliveries_done"] == 1
        assert status["messages"] == 0
        assert {row["role"] for row in status["processes"]} == {"receiver", "queue", "courier", "historian"}
