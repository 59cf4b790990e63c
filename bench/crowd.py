"""Many clients that do nothing, or next to nothing: memory, and what they cost the others.

    python -m bench crowd [--idle 10000] [--slow 1000] [--messages 2000] [--folder /var/tmp]

First so many connections are greeted and stay silent, from as many loopback addresses as ports allow, on one receiver:
its memory, and how long further clients wait for their greeting. Then others are in the middle of a text of which an
octet comes now and then, while 20 sessions send messages: how long these wait for their 250, without the slow ones and
with.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from bench.large import Figure, Roomy
from bench.measure import _permit_files
from bench.server import BenchError

_PER_ADDRESS = 5000  # connections from one loopback address, well within its ports
_PROBES = 500
_SENDERS = 20
_TEXT = b"Subject: bench\r\n\r\n" + (b"x" * 76 + b"\r\n") * 50
_PAUSE = 0.5  # seconds between two octets of a slow sender
_ADDRESS_SLOW = "127.0.9.1"


def connect(port: int, number: int = 0) -> socket.socket:
    """A greeted connection; its address depends on its number."""
    source = f"127.0.1.{1 + number // _PER_ADDRESS}"
    connection = socket.create_connection(("127.0.0.1", port), 30, (source, 0))
    if not connection.recv(500).startswith(b"220"):
        raise BenchError(f"connection {number} was not greeted")
    return connection


def _resident(server: Roomy) -> float:
    """Megabytes of the receiver, with what it shares."""
    processes = server.status()["processes"]
    assert isinstance(processes, list)
    pid = next(process["pid"] for process in processes if process["role"] == "receiver")
    found = re.search(r"^Rss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1e3


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def idle(server: Roomy, count: int) -> Iterator[Figure]:
    before = server.memory()["receiver"]
    with contextlib.ExitStack() as stack:
        for number in range(count):
            stack.enter_context(connect(server.port, number))
        time.sleep(2.5)  # some sweeps over them all
        waits = []
        for number in range(_PROBES):
            began = time.perf_counter()
            connect(server.port, number + count).close()
            waits.append(1e3 * (time.perf_counter() - began))
            time.sleep(0.01)
        after = server.memory()["receiver"]
        resident = _resident(server)
    yield Figure(f"receiver with {count} idle connections, resident", resident, "MB", 100)
    yield Figure("of that its own", after, "MB")
    yield Figure("of that what a connection adds", 1e3 * (after - before) / count, "kB")
    yield Figure("wait for a greeting, median", percentile(waits, 0.5), "ms")
    yield Figure("wait for a greeting, p99", percentile(waits, 0.99), "ms", 100)


async def _send(port: int, messages: int, waits: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask(octets: bytes, code: bytes) -> None:
        writer.write(octets)
        while (line := await reader.readline())[3:4] == b"-":
            pass
        if not line.startswith(code):
            raise BenchError(f"wanted {code.decode()}, the server said {line!r}")

    await ask(b"", b"220")
    await ask(b"EHLO bench.test\r\n", b"250")
    for _ in range(messages):
        await ask(b"MAIL FROM:<sender@source.test>\r\n", b"250")
        await ask(b"RCPT TO:<user@destination.test>\r\n", b"250")
        await ask(b"DATA\r\n", b"354")
        began = time.perf_counter()
        await ask(_TEXT + b".\r\n", b"250")
        waits.append(1e3 * (time.perf_counter() - began))
    writer.close()


def latencies(port: int, messages: int) -> list[float]:
    waits: list[float] = []

    async def all_of_them() -> None:
        await asyncio.gather(*(_send(port, messages // _SENDERS, waits) for _ in range(_SENDERS)))

    uvloop.run(all_of_them())
    return waits


def trickle(port: int, count: int) -> None:
    """A process of its own: says `ready` when all are in their text, and goes on until its input ends."""
    _permit_files(count)
    slow = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), 30, (_ADDRESS_SLOW, 0))
        for octets in (b"EHLO slow.test\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@d.test>\r\n", b"DATA\r\n"):
            connection.recv(1000)
            connection.sendall(octets)
        connection.recv(1000)
        slow.append(connection)
    print("ready", flush=True)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while not over.is_set():
        for connection in slow:
            connection.sendall(b"x")
            over.wait(_PAUSE / count)


def slow(server: Roomy, count: int, messages: int) -> Iterator[Figure]:
    latencies(server.port, messages // 2)  # warm
    alone = latencies(server.port, messages)
    command = [sys.executable, "-c", f"from bench.crowd import trickle; trickle({server.port}, {count})"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise BenchError("the slow senders did not get into their texts")
        beside = latencies(server.port, messages)
        process.stdin.close()
        process.wait(30)
    normal = percentile(alone, 0.99)
    yield Figure("wait for a 250, p99, alone", normal, "ms")
    yield Figure(f"beside {count} slow senders", percentile(beside, 0.99), "ms", 2 * normal)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench crowd", description=__doc__.partition("\n")[0])
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    options = parser.parse_args(words)
    place = Path(tempfile.mkdtemp(prefix="mta-bench-", dir=options.folder))
    _permit_files(options.idle)
    server = Roomy(place, "accept", 0)
    figures: list[Figure] = []
    try:
        server.start()
        for figure in (*idle(server, options.idle), *slow(server, options.slow, options.messages)):
            figures.append(figure)
            print(figure, flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        server.stop()
        shutil.rmtree(place, ignore_errors=True)
    return 0 if all(f.bar is None or f.value <= f.bar for f in figures) else 1
