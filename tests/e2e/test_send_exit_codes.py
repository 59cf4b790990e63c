"""`mta send` tells a script what became of the message: 0 taken, 75 try again later, 69 not taken, 2 a wrong word."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kit.server import COMMAND, ROOT, Server
from tests.kit.sink import refused_port

TEXT = b"Subject: sent\n\nhello\n"


def send(port: int, *words: str, sender: str = "ann@far.test") -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, "send", "-f", sender, "--server", f"127.0.0.1:{port}", *words]
    done = subprocess.run(command, input=TEXT, capture_output=True, cwd=ROOT, timeout=30, check=False)
    assert b"Traceback" not in done.stderr
    return done


def test_it_tells_what_became_of_the_message(tmp_path: Path) -> None:
    with Server(tmp_path, relay={"networks": []}) as server:
        taken = send(server.port, "-t", "bob@home.test")
        assert taken.returncode == 0
        assert b"250 2.0.0 queued as " in taken.stdout
        assert send(server.port, "-t", "bob@home.test", sender="").returncode == 0

        refused = send(server.port, "-t", "bob@home.test", "-t", "eve@foreign.test")
        assert refused.returncode == 69
        assert b"550 5.7.1" in refused.stderr
        assert refused.stdout == b""
        server.wait_letters("bob", 2)
        server.wait_empty()
        assert len(server.letters("bob")) == 2, "to all recipients or to none"


def test_a_full_disk_is_for_later(tmp_path: Path) -> None:
    with Server(tmp_path, spool={"min_free": "900T"}) as server:
        later = send(server.port, "-t", "bob@home.test")
        assert later.returncode == 75
        assert b"452 4.3.1" in later.stderr


def test_no_server_and_no_address() -> None:
    nobody = send(refused_port(), "-t", "bob@home.test")
    assert nobody.returncode == 69
    assert b"127.0.0.1" in nobody.stderr
    assert send(refused_port(), "-t", "bób@home.test").returncode == 2
    assert send(refused_port()).returncode == 2
