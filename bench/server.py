"""A mail server under measurement: what all have in common, and the project's own.

Invariants
- Durable on both sides: nothing about syncing is switched off.
- A server lives for one round, in a folder made for that round: on ext4 a create is dear where many inodes were
  deleted in the last minutes, so nothing is deleted before the end of the whole run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.cpu import Group, new_group
from bench.handshakes import client_context

REPOSITORY = Path(__file__).resolve().parents[1]
USERS = [f"user{number:02d}" for number in range(100)]  # who has a mailbox at virt.test
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


class BenchError(Exception):
    """A run that cannot count: the text says what went wrong and where to look."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One life of a mail server in `folder`."""

    name = ""

    def __init__(self, folder: Path, workload: str, sink_port: int) -> None:
        self.folder = folder
        self.workload = workload
        self.sink_port = sink_port
        self.port = free_port()
        self.mail = folder / "mail"
        self.group: Group = new_group(f"{self.name}-{time.monotonic_ns()}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the server greets."""
        self.prepare()
        command, environment = self.command()
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self.group.wrap(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=REPOSITORY,
                start_new_session=True,
            )
        self.group.adopt(self._process.pid)
        self._await_greeting()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        self.group.close()
        if self._process is not None:
            self._process.wait()

    def prepare(self) -> None:
        """Write the configuration."""
        raise NotImplementedError

    def command(self) -> tuple[list[str], dict[str, str]]:
        """What to run, with which environment."""
        raise NotImplementedError

    def says_ready(self) -> bool:
        """For a server that tells it; the others are ready when they greet."""
        return True

    def connect(self) -> socket.socket:
        """A connection on which the greeting comes next."""
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def queued(self) -> int:
        """Messages in the queue: the proof that what was accepted is there."""
        raise NotImplementedError

    def delivered(self) -> int:
        """Messages in all Maildirs."""
        count = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self.mail) as boxes:
            for box in boxes:
                with contextlib.suppress(FileNotFoundError):
                    count += len(os.listdir(f"{box.path}/new"))
        return count

    def _await_greeting(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._alive():
            with contextlib.suppress(OSError), self.connect() as connection:
                if connection.recv(100).startswith(b"220") and self.says_ready():
                    return
            time.sleep(0.05)
        output = (self.folder / "output").read_text(errors="replace")[-2000:]
        raise BenchError(f"{self.name} does not greet on port {self.port}; it said: {output or 'nothing'}")

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None


class Mta(Server):
    """The project's own server, one receiver and one courier unless told otherwise."""

    name = "mta"
    receivers = 1
    couriers = 1
    tls = "off"

    @staticmethod
    def version() -> str:
        try:
            return f"mta {importlib.metadata.version('mta')}"
        except importlib.metadata.PackageNotFoundError:
            return "mta (from the source tree)"

    def prepare(self) -> None:
        hop = f"smtp:127.0.0.1:{self.sink_port}" if self.workload == "relay" else "hold:"
        self._config = self.folder / "mta.toml"
        self._config.write_text(
            f"""\
[server]
hostname = "peer.test"
state_dir = "{self.folder}/state"
runtime_dir = "{self.folder}/run"
receivers = {self.receivers}
couriers = {self.couriers}

[[listener]]
address = "127.0.0.1:{self.port}"
role = "mx"
tls = "{self.tls}"
{self._certificate()}
[relay]
networks = ["127.0.0.0/8"]

[[domain]]
name = "virt.test"
deliver = "maildir:{self.mail}/{{local}}"

[[route]]
domain = "*"
next_hop = "{hop}"

[log]
path = "{self.folder}/mail.log"
"""
        )

    def command(self) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-m", "mta.cli.main", "serve", "-c", str(self._config)], dict(os.environ)

    def connect(self) -> socket.socket:
        plain = super().connect()
        return client_context().wrap_socket(plain) if self.tls == "implicit" else plain

    def _certificate(self) -> str:
        """A fresh one with a P-256 key, and what the configuration says of it."""
        if self.tls == "off":
            return ""
        files = self.folder / "cert.pem", self.folder / "key.pem"
        command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-subj", "/CN=peer.test", "-days", "2", "-out", str(files[0]), "-keyout", str(files[1])]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BenchError(f"no certificate can be made: {error}") from None
        return f'\n[tls]\ncertificate = "{files[0]}"\nkey = "{files[1]}"\n'

    def says_ready(self) -> bool:
        return "ready" in (self.folder / "output").read_text(errors="replace").splitlines()

    def queued(self) -> int:
        words = ["queue", "count", "all", "--json", "-c", str(self._config)]
        done = subprocess.run(
            [sys.executable, "-m", "mta.cli.main", *words], capture_output=True, text=True, cwd=REPOSITORY, check=False
        )
        if done.returncode:
            raise BenchError(f"mta queue count: {done.stderr.strip()}")
        return int(json.loads(done.stdout)["messages"])
