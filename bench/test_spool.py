"""The spool's share of a message: put and commit, changes of state, recovery. `extra_info` has microseconds each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from mta.config.settings import Octets, Spool
from mta.model import Arrival, Arrivals, Change, Draft, Envelope, IdSource, Recipient, Ref, StoreError
from mta.spool.format import make_ref
from mta.spool.reader import SpoolReader
from mta.spool.recovery import Recovery
from mta.spool.segments import Folder
from mta.spool.state import Replay, pack_changes
from mta.spool.store import LocalStore
from mta.spool.writer import LogWriter

BATCH = 20
BODY = bytes(4096)
SETTINGS = Spool(min_free=Octets(0))
ENVELOPE = Envelope(
    sender=b"sender@example.org", recipients=(Recipient(b"recipient@example.net"),), client="192.0.2.1", helo=b"mx"
)
HEAD = (
    b"Received: from mx.example.org (192.0.2.1) by mx.example.net with ESMTP id 1; Mon, 1 Jan 2029 00:00:00 +0000\r\n"
)


class Bed:
    """A writer in its loop, and what it reported."""

    def __init__(self, state_dir: Path) -> None:
        self.loop = uvloop.new_event_loop()
        self.state_dir = state_dir
        self.told = asyncio.Event()
        self.ids = IdSource(1)
        self.arrivals: list[Arrival] = []
        self.messages = 0
        self.put_seconds = 0.0
        self.writer = self.loop.run_until_complete(self._open())

    async def _open(self) -> LogWriter:
        return LogWriter(SETTINGS, self.state_dir, 1, asyncio.get_running_loop(), self._committed)

    def _committed(self, tokens: Sequence[object], arrivals: Sequence[Arrival], error: StoreError | None) -> None:
        assert error is None
        self.arrivals += arrivals
        self.messages += len(arrivals)
        self.told.set()

    async def commit(self, count: int) -> None:
        self.told.clear()
        drafts = [Draft(self.ids.next(1_900_000_000_000), ENVELOPE, HEAD, BODY) for _ in range(count)]
        began = time.perf_counter()
        for draft in drafts:
            self.writer.put(draft, draft)
        self.put_seconds += time.perf_counter() - began
        await self.told.wait()

    def close(self) -> None:
        self.loop.run_until_complete(self.writer.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    bed.close()


def test_put_and_commit(benchmark: BenchmarkFixture, bed: Bed) -> None:
    """Twenty messages of 4 KiB in one batch, until they are durable."""
    benchmark(lambda: bed.loop.run_until_complete(bed.commit(BATCH)))
    benchmark.extra_info["us_of_put"] = round(bed.put_seconds / bed.messages * 1e6, 2)
    benchmark.extra_info["octets_written_per_message"] = round(bed.writer.statistics["octets"] / bed.messages)


def test_read(benchmark: BenchmarkFixture, bed: Bed) -> None:
    bed.loop.run_until_complete(bed.commit(1))
    reader = SpoolReader(bed.state_dir)
    benchmark(reader.read, Ref(bed.arrivals[0].ref))
    reader.close()


def test_changes_are_packed(benchmark: BenchmarkFixture) -> None:
    changes = [Change(ref=make_ref(1, 1, n * 4096 % 2**25), id=n, part=0, kind="finished") for n in range(1, 513)]
    benchmark(pack_changes, changes)
    _per_item(benchmark, len(changes))


def test_changes_are_replayed(benchmark: BenchmarkFixture) -> None:
    changes = [
        Change(ref=1 << 24, id=n, part=0, kind="waiting", attempts=n, due=n, why="451 4.7.1 try again later")
        for n in range(5000)
    ]
    records = [payload for _, payload in pack_changes(changes)]

    def replay() -> None:
        replayed = Replay({1})
        for payload in records:
            replayed.feed(payload)

    benchmark(replay)
    _per_item(benchmark, len(changes))


def test_claim_and_finish(benchmark: BenchmarkFixture, bed: Bed) -> None:
    """What the queue manager pays to the store for 256 messages: claimed, recorded as finished, durable."""

    async def open_store() -> LocalStore:
        return LocalStore(SETTINGS, bed.state_dir, asyncio.get_running_loop(), bed._committed)

    store = bed.loop.run_until_complete(open_store())
    assert list(store.recover()) == []

    def fill() -> tuple[tuple[Arrivals], dict[str, object]]:
        bed.arrivals.clear()
        bed.loop.run_until_complete(bed.commit(256))
        return (Arrivals(1, tuple(bed.arrivals)),), {}

    def life(news: Arrivals) -> None:
        finished = [Change(ref=q.ref, id=q.id, part=0, kind="finished") for q in store.claim(news)]
        bed.loop.run_until_complete(store.record(finished))

    benchmark.pedantic(life, setup=fill, rounds=30, warmup_rounds=1)
    assert store.statistics["live_messages"] == 0
    bed.loop.run_until_complete(store.close())
    _per_item(benchmark, 256)


def test_recovery(benchmark: BenchmarkFixture, bed: Bed) -> None:
    """20,000 messages of 4 KiB, from the page cache."""
    for _ in range(200):
        bed.loop.run_until_complete(bed.commit(100))

    def recover() -> int:
        return sum(1 for _ in Recovery(Folder(bed.state_dir), 0).messages(before=0))

    assert benchmark.pedantic(recover, rounds=3, warmup_rounds=1) == 20_000
    _per_item(benchmark, 20_000)


def _per_item(benchmark: BenchmarkFixture, count: int) -> None:
    if benchmark.stats is not None:
        benchmark.extra_info["us_each"] = round(benchmark.stats.stats.min / count * 1e6, 3)
