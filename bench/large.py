"""Large messages side by side, and one message to very many: memory, and how the rate compares with the bare disk.

    python -m bench large [--messages 200] [--size 26214400] [--recipients 50000] [--many 100000] [--folder /var/tmp]

All large messages arrive at once. In the same minute `dd oflag=dsync bs=1M` writes to the same disk, before and after,
because a disk in the cloud is not the same from minute to minute. Then one message goes to many recipients in one
domain, and many messages to one recipient each; all of them must arrive at the sink.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.measure import Bench, Job, Sink
from bench.server import BenchError, Mta
from mta.control.client import Client

_LINE = b"x" * 76 + b"\r\n"
_PIECE = _LINE * 3300  # some 256 KiB, as a client writes
_LOOK = 0.1  # seconds between two looks at the memory
_DD_MEGABYTES = 512


@dataclass(frozen=True)
class Figure:
    """One line of the report; `bar` is the least or, with `most`, the greatest value that is good."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    most: bool = True

    def __str__(self) -> str:
        line = f"{self.name:<44} {self.value:10.2f} {self.unit}"
        if self.bar is None:
            return line
        good = self.value <= self.bar if self.most else self.value >= self.bar
        return f"{line:<64} bar {self.bar:g}: {'reached' if good else 'MISSED'}"


class Roomy(Mta):
    """A server that takes as many recipients, and as much, as is asked of it."""

    recipients = 1000

    def prepare(self) -> None:
        super().prepare()
        with self._config.open("a") as config:
            config.write(f'\n[limits]\nmessage_size = "1G"\nrecipients = {self.recipients}\n')

    def memory(self) -> dict[str, float]:
        """Megabytes of each kind of process that it does not share with others."""
        processes = self.status()["processes"]
        assert isinstance(processes, list)
        found: dict[str, float] = {}
        for process in processes:
            text = Path(f"/proc/{process['pid']}/smaps_rollup").read_text()
            private = sum(int(n) for n in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))
            found[process["role"]] = found.get(process["role"], 0.0) + private / 1e3
        return found

    def status(self) -> dict[str, object]:
        with Client(self.folder / "run") as client:
            return client.call("status")


async def _converse(port: int, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def replied(code: bytes) -> None:
        while (line := await reader.readline())[3:4] == b"-":
            pass
        if not line.startswith(code):
            raise BenchError(f"wanted {code.decode()}, the server said {line!r}")

    await replied(b"220")
    for command, code in (
        (b"EHLO bench.test", b"250"),
        (b"MAIL FROM:<sender@source.test>", b"250"),
        (b"RCPT TO:<user@destination.test>", b"250"),
        (b"DATA", b"354"),
    ):
        writer.write(command + b"\r\n")
        await replied(code)
    left = size
    while left > 0:
        piece = _PIECE if left >= len(_PIECE) else _LINE * (left // len(_LINE) + 1)
        left -= len(piece)
        writer.write(piece)
        await writer.drain()
    writer.write(b".\r\n")
    await replied(b"250")
    writer.close()


async def _all_at_once(server: Roomy, messages: int, size: int) -> tuple[dict[str, float], float]:
    """The most memory seen in each kind of process, and the seconds it took."""
    peak: dict[str, float] = {}
    began = time.perf_counter()
    sessions = asyncio.gather(*(_converse(server.port, size) for _ in range(messages)))
    while not sessions.done():
        for role, megabytes in (await asyncio.to_thread(server.memory)).items():
            peak[role] = max(peak.get(role, 0.0), megabytes)
        await asyncio.wait([sessions], timeout=_LOOK)
    await sessions
    return peak, time.perf_counter() - began


def disk_rate(folder: Path) -> float:
    """Megabytes a second that dd writes, each megabyte synced."""
    target = folder / "dd"
    command = ["dd", "if=/dev/zero", f"of={target}", "bs=1M", f"count={_DD_MEGABYTES}", "oflag=dsync"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    target.unlink(missing_ok=True)
    if done.returncode:
        raise BenchError(f"dd: {done.stderr.strip()}")
    return _DD_MEGABYTES * 1.048576 / seconds


def large(place: Path, messages: int, size: int) -> Iterator[Figure]:
    server = Roomy(_folder(place, "large"), "hold", 0)
    before = disk_rate(place)
    server.start()
    try:
        base = server.memory()
        peak, seconds = uvloop.run(_all_at_once(server, messages, size))
        queued = server.queued()
    finally:
        server.stop()
    after = disk_rate(place)
    if queued != messages:
        raise BenchError(f"{queued} of {messages} messages are queued")
    rate, disk = messages * size / 1e6 / seconds, (before + after) / 2
    yield Figure(f"receiver with {messages} x {size / 2**20:.0f} MiB at once", peak["receiver"], "MB")
    yield Figure("over its base, for each of them", (peak["receiver"] - base["receiver"]) / messages, "MB", 1.048576)
    yield Figure("queue manager meanwhile", peak["queue"], "MB")
    yield Figure("accepted and synced", rate, "MB/s")
    yield Figure("dd oflag=dsync bs=1M, before and after", disk, "MB/s")
    yield Figure("rate beside dd", rate / disk, "times", 0.5, most=False)


def many(place: Path, recipients: int, messages: int) -> Iterator[Figure]:
    sink = Sink(None)
    Roomy.recipients = recipients
    server = Roomy(_folder(place, "many"), "relay", sink.port)
    server.start()
    try:
        began = time.perf_counter()
        _one_to_many(server.port, recipients)
        accepted = time.perf_counter() - began
        _until_empty(server)
        yield Figure(f"one message to {recipients} recipients: accepted", accepted, "s")
        yield Figure("  and delivered", time.perf_counter() - began, "s")
        before = sink.count
        sent = Bench(server.folder, server.folder / "lock", None).send(server, Job("relay", messages))
        if sent.errors:
            raise BenchError(f"the load generator met {'; '.join(sent.errors)}")
        ended = sink.wait(before + messages)
        yield Figure(f"{messages} messages to one recipient each", messages / (ended - sent.began), "/s")
        for role, megabytes in server.memory().items():
            yield Figure(f"  {role} after it", megabytes, "MB")
    finally:
        server.stop()
        sink.close()


def _one_to_many(port: int, recipients: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 60) as connection, connection.makefile("rwb") as stream:

        def replied(times: int) -> None:
            for _ in range(times):
                while (line := stream.readline())[3:4] == b"-":
                    pass
                if line[:1] not in (b"2", b"3"):
                    raise BenchError(f"the server said {line!r}")

        replied(1)
        stream.write(b"EHLO bench.test\r\nMAIL FROM:<sender@source.test>\r\n")
        stream.flush()
        replied(2)
        for first in range(0, recipients, 500):
            group = range(first, min(first + 500, recipients))
            stream.write(b"".join(b"RCPT TO:<user%d@destination.test>\r\n" % n for n in group))
            stream.flush()
            replied(len(group))
        stream.write(b"DATA\r\n")
        stream.flush()
        replied(1)
        stream.write(b"Subject: to all\r\n\r\nHello.\r\n.\r\n")
        stream.flush()
        replied(1)


def _until_empty(server: Roomy) -> None:
    deadline = time.monotonic() + 300
    while server.queued():
        if time.monotonic() > deadline:
            raise BenchError("the message to many is not delivered within 300 s")
        time.sleep(0.1)


def _folder(place: Path, name: str) -> Path:
    folder = place / name
    folder.mkdir()
    return folder


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench large", description=__doc__)
    parser.add_argument("--messages", type=int, default=200, help="large ones, all at once")
    parser.add_argument("--size", type=int, default=25 << 20, help="octets of each")
    parser.add_argument("--recipients", type=int, default=50_000, help="of the one message to many")
    parser.add_argument("--many", type=int, default=100_000, help="messages to one recipient each")
    parser.add_argument("--folder", default="/var/tmp", help="a disk with room for all of it")
    options = parser.parse_args(words)
    place = Path(tempfile.mkdtemp(prefix="mta-large-", dir=options.folder))
    try:
        for figure in large(place, options.messages, options.size):
            print(figure, flush=True)
        for figure in many(place, options.recipients, options.many):
            print(figure, flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 0
