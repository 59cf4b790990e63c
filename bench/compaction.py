"""Most of a long queue goes, a tenth stays: how fast the disk comes back, and what new mail feels meanwhile.

    python -m bench compaction [--messages 300000] [--size 4096] [--folder /var/tmp]

The spool is filled as for `backlog`, to ten domains in turn, and the mail of nine of them is deleted, so that every log
file keeps a tenth of its messages. Then these are copied on, at the rate of `[spool] compact_rate`. New mail is relayed
in rounds of a few seconds during it, and again when it is over, on the same server.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from bench.backlog import Backlogged, fill, new_mail
from bench.large import Figure
from bench.measure import Sink
from bench.server import BenchError
from mta.control.client import Client

_DOMAINS = 10
_BEGINS_SECONDS = 600.0  # a segment must be full for a minute, and most are read, one in five seconds, before it begins
_ENDS_SECONDS = 1800.0
_STILL = 20.0  # seconds without a copy: it is over
_ROUNDS = 3  # at least, on each side
_GIBIBYTE = 2**30


def spool(server: Backlogged) -> dict[str, float]:
    found = server.status()["spool"]
    assert isinstance(found, dict)
    return found


def delete(server: Backlogged) -> float:
    """Nine tenths of the queue; the seconds it took."""
    began = time.perf_counter()
    with Client(server.folder / "run") as client:
        for number in range(1, _DOMAINS):
            client.call("queue.delete", filter=[f"domain=domain{number:05d}.test"])
    return time.perf_counter() - began


def used(server: Backlogged) -> int:
    """Octets that the spool has on the disk, spare segments included."""
    return sum(path.stat().st_blocks * 512 for path in (server.folder / "state").rglob("*") if path.is_file())


def measure(options: argparse.Namespace, place: Path) -> Iterator[Figure]:
    sink = Sink(None)
    folder = place / "server"
    folder.mkdir()
    server = Backlogged(folder, "relay", sink.port)
    (folder / "state").mkdir()
    try:
        uvloop.run(fill(folder / "state", options.messages, _DOMAINS, options.size))
        server.start()
        server.await_recovery()
        yield Figure("on disk, all of it queued", used(server) / _GIBIBYTE, "GiB")
        yield Figure(f"{options.messages * 9 // 10} deleted in", delete(server), "s")
        yield from watch(server, sink, options)
        server.quit(signal.SIGTERM)
    finally:
        server.stop()
        sink.close()


def watch(server: Backlogged, sink: Sink, options: argparse.Namespace) -> Iterator[Figure]:
    began = time.monotonic()
    while not spool(server)["moved_messages"]:
        if time.monotonic() > began + _BEGINS_SECONDS:
            raise BenchError(f"nothing is copied within {_BEGINS_SECONDS:.0f} s: are there enough segments?")
        time.sleep(0.5)
    first = time.monotonic()
    during: list[dict[str, float]] = []
    moved, since = 0.0, time.monotonic()
    while time.monotonic() < since + _STILL:
        figures = new_mail(server, sink, options.load)
        now = spool(server)["moved_messages"]
        if now > moved:
            during.append(figures)
            moved, since = now, time.monotonic()
        if since > first + _ENDS_SECONDS:
            raise BenchError(f"it goes on after {_ENDS_SECONDS:.0f} s")
    after = [new_mail(server, sink, options.load) for _ in range(max(_ROUNDS, len(during)))]
    found = spool(server)
    live = found["live_octets"]
    yield Figure("messages copied", moved, "")
    yield Figure("in", since - first, "s")
    yield Figure("live", live / _GIBIBYTE, "GiB")
    yield Figure("on disk at the end", used(server) / _GIBIBYTE, "GiB", (1.5 * live + _GIBIBYTE) / _GIBIBYTE)
    yield Figure("write amplification", found["write_amplification"], "times")
    for name in ("new mail: p50 ms", "new mail: p99 ms"):
        quiet, busy = (statistics.median(round[name] for round in rounds) for rounds in (after, during))
        yield Figure(f"{name}, while copying", busy, "")
        yield Figure(f"{name}, afterwards", quiet, "")
        yield Figure("  ratio", busy / quiet, "times")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench compaction", description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=4096, help="octets of a message")
    parser.add_argument("--load", type=int, default=10_000, help="new messages in a round")
    parser.add_argument("--folder", default="/var/tmp", help="a disk with room for all of it")
    options = parser.parse_args(words)
    place = Path(tempfile.mkdtemp(prefix="mta-compaction-", dir=options.folder))
    try:
        for figure in measure(options, place):
            print(figure, flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 0
