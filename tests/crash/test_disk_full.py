"""The disk fills up under a running server: mail is refused in time, deliveries go on, nothing is lost."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.conftest import Figures
from tests.kit.server import Server, free_port
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

_SIZE = 32 << 20
_MIN_FREE = 6 << 20
_HEALTHY = 5.0  # seconds after which mail is taken again, once there is room
_TEXT = (b"x" * 70 + b"\r\n") * 700
_SUBJECT = re.compile(rb"^Subject: (\d+)\r$", re.MULTILINE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB where the server keeps its state."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0700", "mta-test", str(state)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield state
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)


def free(disk: Path) -> int:
    state = os.statvfs(disk)
    return state.f_bavail * state.f_frsize


def fill(server: Server) -> tuple[int, str]:
    """How many messages were acknowledged, and the refusal that ended it."""
    with server.talk() as talk:
        talk.hello()
        for number in range(2000):
            reply = talk.ask("MAIL FROM:<ann@here.test>")
            if not reply.startswith("250"):
                return number, reply
            talk.expect("RCPT TO:<bob@far.test>", "250")
            talk.expect("DATA", "354")
            talk.socket.sendall(b"Subject: %d\r\n\r\n" % number + _TEXT + b".\r\n")
            reply = talk.reply()
            if not reply.startswith("250"):
                return number, reply
    raise AssertionError("the disk never filled up")


def use_up(disk: Path) -> Path:
    """Leave not one octet."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_a_full_disk(small_disk: Path, tmp_path: Path, figures: Figures) -> None:
    port = free_port()
    server = Server(
        tmp_path,
        routes={"far.test": f"smtp:127.0.0.1:{port}"},
        retry={"first": "1h"},
        spool={"segment_size": "1M", "min_free": _MIN_FREE},
    )
    with server:
        accepted, refusal = fill(server)
        assert refusal.startswith("452 4.3.1"), refusal
        assert accepted > 100
        assert free(small_disk) > 0
        ballast = use_up(small_disk)
        assert free(small_disk) == 0
        with Sink(port=port) as sink:
            server.ctl("queue", "retry", "all", "--yes")
            got = sink.wait(accepted, 60)
            server.wait_empty(60)
            subjects = Counter(int(match[1]) for one in got if (match := _SUBJECT.search(one.content)))
            assert subjects == Counter(range(accepted))
        ballast.unlink()
        room_again = time.monotonic()
        with server.talk() as talk:
            talk.hello()
            wait_for(lambda: talk.ask("MAIL FROM:<ann@here.test>").startswith("250"), 20, "mail being taken again")
            talk.expect("RSET", "250")
            talk.mail("ann@here.test", ["bob@far.test"], b"Subject: 1\r\n\r\n")
        healthy = time.monotonic() - room_again
        figures(
            "full disk",
            f"{accepted} messages acknowledged, then {refusal.strip()!r}; all {len(got)} delivered with 0 octets free;"
            f" mail taken again {healthy:.1f} s after there was room",
        )
        assert healthy < _HEALTHY
        wait_for(lambda: server.count("all") == 1, 10, "the message in the queue")
