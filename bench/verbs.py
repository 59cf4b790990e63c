"""What operators' verbs cost on a long queue, and what new mail feels meanwhile.

    python -m bench verbs [--messages 1000000] [--domains 10000] [--folder /var/tmp]

The queue of `python -m bench backlog`: small messages to many domains, deferred. Counted and listed over the control
socket, listed by the command too, held, deleted and released by filters of the index and of the envelope; the latency
of new mail is taken without and during each of these. The queue is the only load besides.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from bench.backlog import Backlogged, fill
from bench.measure import Bench, Job, Sink
from bench.server import REPOSITORY, BenchError
from mta.control.client import Client

# Seconds at most, or a rate at least.
BARS = {
    "count all": 1.0,
    "count domain=domain0*": 1.0,
    "count reply~others.do age>1s attempts>2": 1.0,
    "lines/s, list over the socket": 100_000.0,
    "deleted/s, by domain": 50_000.0,
    "deleted/s, by sender": 50_000.0,
}
_COUNTS = ("all", "domain=domain0*", "reply~others.do age>1s attempts>2", "sender=sender@source.test", "size>1K")


def timed(work: Callable[[], int]) -> tuple[int, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


class Figures:
    """Printed as they come."""

    def __init__(self) -> None:
        self.missed = 0

    def tell(self, name: str, value: float, unit: str = "") -> None:
        bar = BARS.get(name)
        verdict = ""
        if bar is not None:
            reached = value >= bar if name.startswith(("lines", "deleted")) else value <= bar
            self.missed += not reached
            verdict = f"   bar {bar:g}: {'reached' if reached else 'MISSED'}"
        print(f"  {name:<46} {value:12.3f} {unit}{verdict}", flush=True)


class Feeling:
    """The p99 of accepting new mail while something else happens."""

    def __init__(self, server: Backlogged, messages: int) -> None:
        self._bench = Bench(server.folder, server.folder / "lock", None)
        self._server = server
        self._job = Job("accept", messages, sessions=4)

    def alone(self) -> float:
        return self._bench.send(self._server, self._job).p99_ms or 0.0

    def during(self, work: Callable[[], int]) -> tuple[int, float, list[float]]:
        """What the work gave, its seconds, and the p99 of each round of new mail that began in it."""
        found: list[float] = []
        done = threading.Event()

        def feel() -> None:
            while not done.is_set():
                found.append(self.alone())

        thread = threading.Thread(target=feel)
        thread.start()
        try:
            count, seconds = timed(work)
        finally:
            done.set()
            thread.join()
        return count, seconds, found


def look(client: Client, server: Backlogged, figures: Figures) -> None:
    for words in _COUNTS:
        count, seconds = timed(lambda words=words: client.count(words))  # type: ignore[misc]
        figures.tell(f"count {words}", seconds, f"s ({count} messages)")
    lines, seconds = timed(lambda: sum(1 for _ in client.typed_rows("queue.list", msgspec.Raw, filter=["all"])))
    figures.tell("lines/s, list over the socket", lines / seconds)
    for words in (["all"], ["all", "--json"]):
        command = [sys.executable, "-m", "mta.cli.main", "queue", "list", *words, "-c", str(server.folder / "mta.toml")]
        deliveries, seconds = timed(lambda command=command: _lines(command))  # type: ignore[misc]
        figures.tell(f"lines/s, mta queue list {' '.join(words)}", deliveries / seconds)


def _lines(command: list[str]) -> int:
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        lines = 0
        while data := process.stdout.read1(1 << 20):  # type: ignore[attr-defined]
            lines += data.count(b"\n")
    if process.returncode:
        raise BenchError(f"{' '.join(command)}: exit code {process.returncode}")
    return lines


def act(client: Client, server: Backlogged, figures: Figures, load: int) -> None:
    feeling = Feeling(server, load)
    feeling.alone()
    quiet = min(feeling.alone() for _ in range(3))
    figures.tell("p99 of accept, nothing else happens", quiet, "ms")
    listed = lambda: sum(1 for _ in client.typed_rows("queue.list", msgspec.Raw, filter=["all"]))  # noqa: E731
    verbs: list[tuple[str, Callable[[], int]]] = [
        ("listed/s", listed),
        ("held/s, by domain", lambda: client.hold("domain=domain01*").messages),
        ("deleted/s, by domain", lambda: client.delete("domain=domain00* or domain=domain02*").messages),
        ("deleted/s, by sender", lambda: client.delete("sender=sender@source.test not state=held").messages),
        ("released/s, and delivered", lambda: client.release("state=held").messages),
    ]
    for name, verb in verbs:
        count, seconds, felt = feeling.during(verb)
        figures.tell(name, count / seconds, f"({count} in {seconds:.1f} s)")
        worst = sorted(felt)[len(felt) // 2] if felt else 0.0
        figures.tell(f"p99 of accept meanwhile: {name}", worst, f"ms, x{worst / quiet:.1f} ({len(felt)} rounds)")


def measure(options: argparse.Namespace, place: Path) -> int:
    figures = Figures()
    sink = Sink(None)
    try:
        server = Backlogged(place, "relay", sink.port)
        (place / "state").mkdir()
        uvloop.run(fill(place / "state", options.messages, options.domains, options.size))
        server.start()
        server.await_recovery()
        with Client(place / "run", timeout=300) as client:
            look(client, server, figures)
            act(client, server, figures, options.load)
        server.quit(signal.SIGTERM)
    finally:
        sink.close()
    return figures.missed


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench verbs", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=1024, help="octets of a message")
    parser.add_argument("--load", type=int, default=1000, help="new messages in a round of measuring latency")
    parser.add_argument("--folder", default="/var/tmp", help="a disk with room for all of it")
    options = parser.parse_args(words)
    place = Path(tempfile.mkdtemp(prefix="mta-verbs-", dir=options.folder))
    try:
        measure(options, place)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 0
