"""The real server: a configuration, a process, and ways to ask and to hurt it.

    with Server(tmp_path, routes={"*": "hold:"}) as server:
        server.send("a@x.test", ["b@y.test"], b"text\\r\\n")
        assert server.count() == 1

Leaving the block stops it by SIGTERM, which must end with exit code 0, and then nothing on its standard error may look
like a traceback.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from mta.cli.main import main
from mta.control.client import Client, NoServer
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

COMMAND = [sys.executable, "-m", "mta.cli.main"]
ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0
STOP_SECONDS = 30.0
LOCAL = "home.test"  # the domain whose Maildirs `Server.letters` reads

Section = Mapping[str, object]


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def render(tables: Mapping[str, Section | Sequence[Section]]) -> str:
    """A TOML text: a mapping becomes [name], a list of them [[name]]."""
    lines: list[str] = []
    for name, table in tables.items():
        for section in [table] if isinstance(table, Mapping) else table:
            lines.append(f"[{name}]" if isinstance(table, Mapping) else f"[[{name}]]")
            plain = {key: value for key, value in section.items() if not isinstance(value, Mapping)}
            lines += [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
            for key in section.keys() - plain.keys():
                lines.append(f"[{name}.{key}]")
                lines += [f"{json.dumps(k)} = {json.dumps(value)}" for k, value in cast(Section, section[key]).items()]
            lines.append("")
    return "\n".join(lines)


class Server:
    """One server in `folder`. `sections` replace or extend tables of the configuration, `listening` its listener."""

    def __init__(
        self,
        folder: Path,
        *,
        domains: Mapping[str, str] | None = None,
        routes: Mapping[str, str] | None = None,
        receivers: int = 1,
        couriers: int = 1,
        dns: str = "127.0.0.1:9",
        **sections: Section | Sequence[Section],
    ) -> None:
        self.folder = folder
        self.maildirs = folder / "mail"
        # A unix socket's path has 108 octets at most, and folders of tests are deep.
        self.runtime = Path(tempfile.mkdtemp(prefix="mta-run-"))
        self.config = folder / "mta.toml"
        self.errors = folder / "stderr"
        self.log = folder / "mail.log"
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self._sent: list[str] = []
        self._server: dict[str, object] = {
            "hostname": "mx.test",
            "receivers": receivers,
            "couriers": couriers,
            "drain": "5s",
        }
        where = {LOCAL: f"maildir:{self.maildirs}/{{domain}}/{{local}}"} if domains is None else domains
        self._sections: dict[str, Section | Sequence[Section]] = {
            "relay": {"networks": ["127.0.0.0/8"]},
            "domain": [{"name": name, "deliver": hop} for name, hop in where.items()],
            "route": [{"domain": name, "next_hop": hop} for name, hop in (routes or {}).items()],
            "dns": {"nameservers": [dns], "timeout": "2s"},
            "log": {"path": str(self.log)},
            **sections,
        }
        self._listener = self._sections.pop("listening", {})
        # Tests make errors and try much on purpose, and have no time to be held back for it.
        self._sections["limits"] = {"error_delay": 0, "idle_commands": 1_000_000, **_section(sections.get("limits"))}
        self._sections["spool"] = {"segment_size": "4M", "min_free": 0, **_section(sections.get("spool"))}

    # ---- life

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.discard()

    def configure_server(self, **keys: object) -> None:
        """Replace keys of [server]; counts from the next start on."""
        self._server.update(keys)

    def configure(self, **sections: Section | Sequence[Section]) -> None:
        """Write the file, with some sections replaced."""
        self._sections.update(sections)
        own = {"state_dir": str(self.folder / "state"), "runtime_dir": str(self.runtime), **self._server}
        listener = [{"address": f"127.0.0.1:{self.port}", "role": "mx", **self._listener}]
        self.config.write_text(render({"server": own, "listener": listener, **self._sections}))

    def start(self) -> None:
        """Returns when it has said `ready`. The port stays the same over restarts."""
        for _ in range(5):
            fresh = not self.port
            self.port = self.port or free_port()
            self.configure()
            self.process = self.spawn()
            if self._said_ready():
                return
            if not (fresh and "in use" in self.stderr()):
                break
            self.port = 0
        code = self.process.poll() if self.process else None
        raise AssertionError(f"the server did not become ready (exit code {code}): {self.stderr()}")

    def spawn(self, **more: Any) -> subprocess.Popen[str]:
        with self.errors.open("a") as errors:
            return subprocess.Popen(
                [*COMMAND, "serve", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                **more,
            )

    def stop(self) -> None:
        """SIGTERM; it must end well, and have nothing to be ashamed of."""
        self.signal(signal.SIGTERM)
        self.ended()

    def signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def ended(self) -> None:
        """Wait for a good end."""
        process = self._running()
        code = process.wait(STOP_SECONDS)
        self._reaped(process)
        assert code == 0, f"exit code {code} after SIGTERM: {self.stderr()}"
        assert "Traceback" not in self.stderr(), self.stderr()

    def kill(self) -> None:
        """SIGKILL for the supervisor: all others must die with it."""
        process = self._running()
        children = _children(process.pid)
        process.kill()
        process.wait()
        self._reaped(process)
        wait_for(lambda: not any(_alive(pid) for pid in children), 10, "end of the children of a killed supervisor")

    def discard(self) -> None:
        """Leave nothing behind, whatever happened."""
        process, self.process = self.process, None
        if process is not None:
            children = _children(process.pid)
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def reload(self) -> None:
        """SIGHUP; returns when all processes are new ones."""
        before = {pid for pids in self.children().values() for pid in pids}
        self.signal(signal.SIGHUP)
        wait_for(lambda: not before & set(_children(self._running().pid)), 30, "new processes after a reload")

    def children(self) -> dict[str, list[int]]:
        """Process ids by role, as the server tells them, of those that live."""
        found: dict[str, list[int]] = {}
        for row in self.status()["processes"]:
            found.setdefault(row["role"], []).append(row["pid"])
        return found

    def stderr(self) -> str:
        return self.errors.read_text(errors="replace") if self.errors.exists() else ""

    def kill_child(self, pid: int) -> None:
        """SIGKILL for one process."""
        os.kill(pid, signal.SIGKILL)

    # ---- mail

    def talk(self) -> Talk:
        return Talk(self.port, ids=self._sent)

    def sent(self, message_id: str) -> None:
        """Somebody else's client gave this one: `wait_empty` is to wait for it too."""
        self._sent.append(message_id)

    def send(self, sender: str, recipients: Sequence[str], text: bytes, parameters: str = "") -> str:
        """One message over a connection of its own; its id."""
        with self.talk() as talk:
            talk.hello()
            message_id = talk.mail(sender, recipients, text, parameters)
            talk.expect("QUIT", "221")
        return message_id

    def letters(self, local: str, domain: str = LOCAL) -> list[bytes]:
        """What lies in `new` of a Maildir."""
        folder = self.maildirs / domain / local / "new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []

    def wait_letters(self, local: str, count: int = 1, domain: str = LOCAL, timeout: float = 20.0) -> list[bytes]:
        return wait_for(
            lambda: found if len(found := self.letters(local, domain)) >= count else None,
            timeout,
            f"letter {count} for {local}@{domain}",
        )

    def wait_for_log(self, words: str, timeout: float = 20.0) -> None:
        """Until the mail log has these words."""
        wait_for(lambda: self.log.exists() and words in self.log.read_text(), timeout, f"{words!r} in the mail log")

    # ---- the command line

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words, "-c", str(self.config)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            check=False,
        )

    def ctl(self, *words: str) -> str:
        """Output of a command that must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, f"mta {' '.join(words)}: exit code {done.returncode}: {done.stderr}"
        return done.stdout

    def inside(self, *words: str) -> tuple[int, str, str]:
        """A command, run in this process: exit code, output and errors."""
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = main([*words, "-c", str(self.config)])
        return code, out.getvalue(), errors.getvalue()

    # ---- the control socket: what the command line would say, without the price of a process each time

    def status(self) -> dict[str, Any]:
        return dict(self._ask(lambda client: client.call("status")))

    def count(self, *words: str) -> int:
        return int(self._ask(lambda client: client.call("queue.count", filter=words or ("all",)))["messages"])

    def rows(self, *words: str) -> list[dict[str, Any]]:
        return [dict(row) for row in self._ask(lambda client: [*client.rows("queue.list", filter=words or ("all",))])]

    def show(self, message_id: str) -> dict[str, Any] | None:
        """All about a message; None when it is no longer queued."""
        return next((dict(row) for row in self._ask(lambda client: [*client.rows("queue.show", id=message_id)])), None)

    def _ask(self, question: Callable[[Client], Any]) -> Any:
        """Ask the queue manager; one that was killed comes back in a moment."""

        def answer() -> tuple[Any, ...]:
            try:
                with Client(self.runtime) as client:
                    return (question(client),)
            except NoServer:
                return ()

        return wait_for(answer, 20, "a queue manager that answers")[0]

    def wait_part(self, message_id: str, state: str, domain: str = "", timeout: float = 20.0) -> dict[str, Any]:
        """The part of a message for a domain (the only one, if none is named), once it is in a state and says why."""

        def part() -> dict[str, Any] | None:
            for row in (self.show(message_id) or {"parts": []})["parts"]:
                if domain in ("", row["domain"]) and row["state"] == state and row["reason"]:
                    return dict(row)
            return None

        return wait_for(part, timeout, f"{message_id} {state} (it is {self.show(message_id)})")

    def wait_empty(self, timeout: float = 20.0) -> None:
        """Until nothing is queued. A message that was just accepted counts as well: the queue manager hears of it a
        moment after the client, so the mail log must have more to tell of it than that it came."""
        wait_for(lambda: self._seen_all() and self.count() == 0, timeout, f"an empty queue (it has {self.rows()})")

    def _seen_all(self) -> bool:
        lines = [line.split(" ", 3) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return set(self._sent) <= {fields[1] for fields in lines if len(fields) > 2 and fields[2] != "received"}

    # ---- inside

    def _running(self) -> subprocess.Popen[str]:
        assert self.process is not None, "the server does not run"
        return self.process

    def _said_ready(self) -> bool:
        process = self._running()
        assert process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                line = process.stdout.readline()
                if line == "ready\n":
                    return True
                if not line:
                    process.wait(5)
                    self._reaped(process)
                    return False
        return False

    def _reaped(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        process.stdout.close()
        self.process = None


def _section(given: Section | Sequence[Section] | None) -> Section:
    return given if isinstance(given, Mapping) else {}


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _alive(pid: int) -> bool:
    """A zombie is dead: whoever adopted it has only not looked yet."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
