"""The spool stays small, and what makes it small loses nothing."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from mta.model import Change, Position, Queued
from mta.spool import upkeep
from mta.spool.checkpoint import CheckpointWriter
from mta.spool.format import ref_segment
from mta.spool.segments import Folder
from tests.kit.spool import Log, Manager, finished


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 60))


async def grow(manager: Manager, segments: int = 6) -> None:
    """Write state until the log of the queue manager has so many segments more."""
    ballast = Change(ref=1 << 56 | 9 << 24, id=1, part=0, kind="held", why="x" * 60_000)
    for _ in range(17 * segments):
        await manager.store.record([ballast])
    await manager.store._upkeep.settle()


def test_a_grown_state_log_is_cut_by_a_checkpoint(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        for n in range(50):
            log.put(b"%d" % n)
        claimed = manager.claim(await log.news())
        await manager.finish(claimed[::2])
        await grow(manager, 20)
        assert manager.store.statistics["checkpoints"] >= 3
        assert len(Folder(tmp_path).in_use(0)) <= 7
        await log.writer.close()
        await manager.store._writer.drain()
        again = Manager(tmp_path)  # as after a kill: without the checkpoint of a clean stop
        assert [q.id for q in again.queue.values()] == [q.id for q in claimed[1::2]]
        assert again.store.statistics["live_messages"] == 25
        await again.store.close()
        await manager.store.close()

    play(scenario)


def test_without_a_snapshot_no_checkpoint_is_made(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(tmp_path)
        manager.store.snapshot = None
        await grow(manager)
        assert not (tmp_path / "spool" / "checkpoint").exists()
        assert len(Folder(tmp_path).in_use(0)) >= 6
        await manager.store.close()

    play(scenario)


def test_a_snapshot_that_forgets_loses_nothing(tmp_path: Path) -> None:
    """The queue manager may have let go of a message whose end is not on disk yet: a notice is on its way."""

    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put(b"one")
        log.put(b"two", recipients=[b"a@1.example", b"b@2.example", b"c@3.example"])
        one, two = manager.claim(await log.news())
        await manager.store.record([finished(two.ref, two.id, 1)])
        manager.queue.clear()
        await grow(manager)
        assert manager.store.statistics["forgotten_by_snapshots"] >= 2
        await manager.store.close()
        await log.writer.close()
        again = Manager(tmp_path)
        assert {q.id: q.changes for q in again.queue.values()} == {one.id: (), two.id: (finished(two.ref, two.id, 1),)}
        await again.store.close()

    play(scenario)


def test_what_happens_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_SLICE", 2)

    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        store = manager.store
        for _ in range(10):
            log.put()
        first = manager.claim(await log.news())
        late: list[Queued] = []

        def snapshot() -> Iterator[Queued]:
            for number, queued in enumerate(first):
                if number == 4:
                    for _ in range(4):
                        log.put()
                if number == 8:
                    late.extend(manager.claim(Position(1, log.writer.position)))
                    store.record_soon([finished(q.ref, q.id) for q in (*first[:3], *late[:1])])
                yield queued
            yield from late[1:3]

        store.snapshot = snapshot
        task = asyncio.get_running_loop().create_task(store._upkeep.checkpoint())
        await log.settled()
        await task
        store.snapshot = None
        await store.close()
        await log.writer.close()
        again = Manager(tmp_path)
        arrivals = await log.settled()
        expected = {a.id for a in arrivals} - {q.id for q in (*first[:3], *late[:1])}
        assert {q.id for q in again.queue.values()} == expected
        await again.store.close()

    play(scenario)


def test_a_checkpoint_that_fails_changes_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = CheckpointWriter.commit
    fails = [True]

    def sometimes(self: CheckpointWriter) -> None:
        if fails[0]:
            raise OSError(28, "No space left on device")
        commit(self)

    monkeypatch.setattr(CheckpointWriter, "commit", sometimes)
    monkeypatch.setattr(upkeep, "_PATIENCE", 0.0)

    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put()
        (queued,) = manager.claim(await log.news())
        held = Change(ref=queued.ref, id=queued.id, part=0, kind="held", why="by hand")
        await manager.store.record([held])
        manager.queue[queued.ref] = Queued(
            id=queued.id, ref=queued.ref, size=1, domains=queued.domains, changes=(held,)
        )
        await grow(manager)
        assert len(Folder(tmp_path).in_use(0)) >= 6
        assert sorted(os.listdir(tmp_path / "spool")) == ["bodies", "free", "lost+found", "segments"]
        fails[0] = False
        await grow(manager, 1)
        assert (tmp_path / "spool" / "checkpoint").exists()
        assert len(Folder(tmp_path).in_use(0)) <= 3
        await log.writer.close()
        await manager.store.close()
        again = Manager(tmp_path)
        assert [q.changes for q in again.queue.values()] == [(held,)]
        await again.store.close()

    play(scenario)


def test_a_damaged_checkpoint_is_set_aside_and_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put()
        manager.claim(await log.news())
        await manager.store.close()
        await log.writer.close()
        path = tmp_path / "spool" / "checkpoint"
        whole = path.read_bytes()
        for damaged in (b"", whole[:-1], whole[:-9], whole[:20], bytes([*whole[:12], whole[12] ^ 1, *whole[13:]])):
            path.write_bytes(damaged)
            again = Manager(tmp_path)
            assert len(again.queue) == 1
            assert "checkpoint" in again.store.report.notes[0]
            assert not path.exists()
            again.store.snapshot = None
            await again.store.close()
        assert len(list(Folder(tmp_path).lost.iterdir())) == 5

    play(scenario)


def test_segments_of_short_lives_without_mail_are_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(tmp_path)
        for _ in range(6):
            log = Log(tmp_path)
            manager.claim(Position(1, log.writer.position))
            await log.writer.close()
        log = Log(tmp_path)
        manager.claim(Position(1, log.writer.position))
        await manager.finish([])
        assert len(Folder(tmp_path).in_use(1)) == 1
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_the_segment_that_is_being_written_is_never_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        for _ in range(3):
            log.put()
            claimed = manager.claim(await log.news())
            told = len(log.reports)
            await manager.finish(claimed[-1:])
            log.reports.clear()
            assert told
        assert ref_segment(claimed[0].ref) in Folder(tmp_path).in_use(1)
        log.put(b"still here")
        (queued,) = manager.claim(await log.news())
        assert manager.read(queued.ref).content.endswith(b"still here")
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_few_free_segments_are_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        for _ in range(150):
            log.put(bytes(90_000))
        await manager.finish(manager.claim(await log.news()))
        assert len(Folder(tmp_path).in_use(1)) == 1
        assert manager.store.statistics["free_segments"] <= 9
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_the_next_segment_is_made_in_advance(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        assert log.writer.statistics["unprepared_segments"] == 1, "the first one cannot wait"
        for _ in range(3):
            thread = log.writer._supply._thread
            assert thread is not None
            thread.join()
            log.writer._roll()
        assert log.writer.statistics["unprepared_segments"] == 1
        await log.writer.close()
        assert {p.stat().st_blocks * 512 >= 1 << 20 for p in Folder(tmp_path).segments.iterdir()} == {True}

    play(scenario)


def test_statistics_for_people(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put()
        manager.claim(await log.news())
        told = manager.store.statistics
        assert told["segments"] == 2
        assert told["live_messages"] == 1
        assert {"commits", "mean_seconds", "longest_seconds", "free_segments", "failures"} <= set(told)
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_a_stop_does_not_wait_for_a_spare(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        thread = log.writer._supply._thread
        assert thread is not None
        log.writer._supply._closing.set()
        thread.join()
        await log.writer.close()
        spare = Folder(tmp_path).free / "spare-01"
        assert not spare.exists() or spare.stat().st_size == 1 << 20
        assert not spare.with_suffix(".part").exists()
        again = Log(tmp_path)
        again.put()
        assert len(await again.settled()) == 1
        await again.writer.close()

    play(scenario)
