"""A server that starts with a long queue: how soon it serves, what it needs, what its operators and new mail feel.

    python -m bench backlog [--messages 1000000] [--domains 10000] [--folder /var/tmp]

The spool is filled by the store's own writers: small messages to many domains, each tried three times and deferred
for half an hour to six hours, one in a thousand due at once. The server is started on it three times: after a kill
without a checkpoint, after a clean stop, and after a kill with the checkpoint of that stop still there. The same
server with an empty queue gives the latencies to compare with.

First delivery means mail out of the backlog, counted at the sink; new mail for that moment is held by a route.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.cpu import new_group
from bench.measure import Bench, Job, Sink
from bench.server import REPOSITORY, BenchError, Mta
from mta.config.settings import Octets, Spool
from mta.control.client import Client, NoServer
from mta.model import Arrival, Change, Draft, Envelope, IdSource, Recipient, StoreError
from mta.spool.format import STATE
from mta.spool.state import pack_changes
from mta.spool.writer import LogWriter

_SERVE_SECONDS = 120.0
_STOP_SECONDS = 120.0
_TURN = 2000  # messages written in a turn of the loop
_DUE_NOW = 1000  # one in so many is due at once
_REASONS = [f"451 4.7.{n} try again later, {n} others do so too" for n in range(40)]
_HEAD = b"Received: from source.test by peer.test; Mon, 02 Nov 2026 10:00:00 +0000\r\n"

# What an operator would wait for at most, and what the promise to him is.
BARS = {
    "accepting after": 1.0,
    "first delivery after": 15.0,
    "memory of the queue manager": 250.0,
    "its peak so far": 250.0,
    "count all": 1.0,
    "count domain=": 1.0,
    "count state=deferred": 1.0,
}


class Filler:
    """Writes a backlog into an empty spool."""

    def __init__(self, state_dir: Path, loop: asyncio.AbstractEventLoop) -> None:
        settings = Spool(min_free=Octets(0))
        self._mail = LogWriter(settings, state_dir, 1, loop, self._committed)
        self._state = LogWriter(settings, state_dir, 0, loop, self._committed, reserve=True)
        self._ids = IdSource(1)
        self._dice = random.Random(1)
        self._now = int(time.time())

    async def fill(self, messages: int, domains: int, size: int) -> None:
        body = b"Subject: backlog\r\n\r\n" + b"x" * max(0, size - len(_HEAD) - 22) + b"\r\n"
        for number in range(messages):
            recipient = Recipient(b"user%d@domain%05d.test" % (number, number % domains))
            envelope = Envelope(sender=b"sender@source.test", recipients=(recipient,), client="192.0.2.1", helo=b"a")
            self._mail.put(Draft(self._ids.next(self._now * 1000), envelope, _HEAD, body), None)
            if number % _TURN == _TURN - 1:
                await self._mail.drain()
        await self._mail.drain()
        await self._mail.close()
        await self._state.close()

    def _committed(self, tokens: Sequence[object], arrivals: Sequence[Arrival], error: StoreError | None) -> None:
        if error is not None:
            raise error
        for _, payload in pack_changes([self._deferral(arrival) for arrival in arrivals]):
            self._state.append(STATE, 0, (payload,), _checked)

    def _deferral(self, arrival: Arrival) -> Change:
        dice = self._dice
        wait = 0 if dice.randrange(_DUE_NOW) == 0 else dice.randrange(1800, 21600)
        why = dice.choice(_REASONS)
        return Change(ref=arrival.ref, id=arrival.id, part=0, kind="waiting", attempts=3, due=self._now + wait, why=why)


def _kilobytes(path: str, name: str) -> float:
    lines = Path(path).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1.024


def _checked(error: StoreError | None) -> None:
    if error is not None:
        raise error


class Backlogged(Mta):
    """The server, timed from its first instruction to its first 250."""

    accepting = 0.0

    def prepare(self) -> None:
        super().prepare()
        held = '[[route]]\ndomain = "held.test"\nnext_hop = "hold:"\n\n[[route]]'
        self._config.write_text(self._config.read_text().replace("[[route]]", held, 1))

    def start(self) -> None:
        self._began = time.perf_counter()
        super().start()

    def _await_greeting(self) -> None:
        deadline = time.monotonic() + _SERVE_SECONDS
        while time.monotonic() < deadline and self._alive():
            with contextlib.suppress(OSError), smtplib.SMTP("127.0.0.1", self.port, timeout=_SERVE_SECONDS) as client:
                client.sendmail("sender@source.test", ["user@held.test"], "Subject: first\r\n\r\ntext\r\n")
                self.accepting = self.since()
                return
            time.sleep(0.01)
        raise BenchError(f"no mail is accepted; it said: {(self.folder / 'output').read_text()[-2000:]}")

    def since(self) -> float:
        return time.perf_counter() - self._began

    def status(self) -> dict[str, object]:
        with Client(self.folder / "run") as client:
            return client.call("status")

    def retry(self, words: str) -> None:
        with Client(self.folder / "run") as client:
            client.call("queue.retry", filter=[words])

    def await_recovery(self) -> float:
        deadline = time.monotonic() + _SERVE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(NoServer):  # mail is accepted before the control socket is there
                if self.status()["recovered"]:
                    return self.since()
            time.sleep(0.1)
        raise BenchError(f"the queue is not recovered within {_SERVE_SECONDS:.0f} s")

    def count(self, words: str) -> tuple[int, float]:
        command = [sys.executable, "-m", "mta.cli.main", "queue", "count", words, "--json", "-c", str(self._config)]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise BenchError(f"mta queue count {words}: {done.stderr.decode().strip()}")
        return int(json.loads(done.stdout)["messages"]), seconds

    def manager_memory(self) -> dict[str, float]:
        """Megabytes of the queue manager: now, what is shared counted in part, and at most so far, counted whole."""
        processes = self.status()["processes"]
        assert isinstance(processes, list)
        pid = next(p["pid"] for p in processes if p["role"] == "queue")
        return {
            "memory of the queue manager": _kilobytes(f"/proc/{pid}/smaps_rollup", "Pss:") / 1e3,
            "its peak so far": _kilobytes(f"/proc/{pid}/status", "VmHWM:") / 1e3,
        }

    def quit(self, how: signal.Signals) -> float:
        """End it and all its processes; how long that took."""
        assert self._process is not None
        began = time.perf_counter()
        self._process.send_signal(how)
        self._process.wait(_STOP_SECONDS)
        took = time.perf_counter() - began
        self.stop()
        self.group = new_group(f"{self.name}-{time.monotonic_ns()}")
        return took


@dataclass
class Found:
    """Figures of one start."""

    title: str
    figures: dict[str, float] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        yield self.title
        for name, value in self.figures.items():
            bar = BARS.get(name)
            verdict = "" if bar is None else f"   bar {bar:g}: {'reached' if value <= bar else 'MISSED'}"
            yield f"  {name:<32} {value:10.3f}{verdict}"


def begin(server: Backlogged, sink: Sink, title: str) -> Found:
    """Start on a full queue, until it has all of it."""
    before = sink.count
    server.start()
    found = Found(title, {"accepting after": server.accepting})
    sink.wait(before + 1)
    found.figures["first delivery after"] = server.since()
    found.figures["recovered after"] = server.await_recovery()
    return found


def look(server: Backlogged, found: Found) -> None:
    """What operators feel."""
    for words in ("all", "domain=domain00007.test", "state=deferred"):
        count, seconds = server.count(words)
        name = words if "domain" not in words else "domain="
        found.figures[f"count {name}"] = seconds
        found.figures[f"messages of {name}"] = count
    found.figures |= server.manager_memory()


def new_mail(server: Backlogged, sink: Sink, messages: int) -> dict[str, float]:
    """What senders and readers of new mail feel."""
    job = Job("relay", messages)
    before = sink.count
    sent = Bench(server.folder, server.folder / "lock", None).send(server, job)
    if sent.errors:
        raise BenchError(f"the load generator met {'; '.join(sent.errors)}")
    ended = sink.wait(before + messages)
    return {
        "new mail: p50 ms": sent.p50_ms or 0.0,
        "new mail: p99 ms": sent.p99_ms or 0.0,
        "new mail: all delivered after": ended - sent.began,
    }


def measure(options: argparse.Namespace, place: Path) -> list[Found]:
    """All starts, in order."""
    sink = Sink(None)
    try:
        empty = Found("an empty queue")
        server = _server(place / "empty", sink)
        server.start()
        server.await_recovery()
        empty.figures["accepting after"] = server.accepting
        new_mail(server, sink, options.load // 5)
        empty.figures |= new_mail(server, sink, options.load)
        empty.figures |= server.manager_memory()
        server.quit(signal.SIGTERM)

        server = _server(place / "full", sink)
        began = time.perf_counter()
        (server.folder / "state").mkdir()
        uvloop.run(fill(server.folder / "state", options.messages, options.domains, options.size))
        print(f"filled in {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        first = begin(server, sink, "after a kill, no checkpoint")
        first.figures |= server.manager_memory()
        first.figures["clean stop took"] = server.quit(signal.SIGTERM)
        second = begin_again(server, sink, "after a clean stop")
        look(server, second)
        new_mail(server, sink, options.load // 5)
        second.figures |= new_mail(server, sink, options.load)
        server.quit(signal.SIGKILL)
        third = begin_again(server, sink, "after a kill, with an old checkpoint")
        third.figures["clean stop took"] = server.quit(signal.SIGTERM)
        return [empty, first, second, third]
    finally:
        sink.close()


def begin_again(server: Backlogged, sink: Sink, title: str) -> Found:
    """What was due is gone after the first start: a retry of one domain gives the next ones something to deliver."""
    before = sink.count
    server.start()
    found = Found(title, {"accepting after": server.accepting})
    found.figures["recovered after"] = server.await_recovery()
    server.retry("domain=domain00042.test" if "clean" in title else "domain=domain00043.test")
    sink.wait(before + 1)
    found.figures["first delivery after"] = server.since()
    return found


def _server(folder: Path, sink: Sink) -> Backlogged:
    folder.mkdir()
    return Backlogged(folder, "relay", sink.port)


async def fill(state_dir: Path, messages: int, domains: int, size: int) -> None:
    await Filler(state_dir, asyncio.get_running_loop()).fill(messages, domains, size)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench backlog", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=1024, help="octets of a message")
    parser.add_argument("--load", type=int, default=5000, help="new messages to measure latency with")
    parser.add_argument("--folder", default="/var/tmp", help="a disk with room for all of it")
    options = parser.parse_args(words)
    place = Path(tempfile.mkdtemp(prefix="mta-backlog-", dir=options.folder))
    try:
        for found in measure(options, place):
            print("\n".join(found.lines()), flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 0
