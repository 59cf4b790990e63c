"""What a start finds: everything acknowledged, whatever state the files are in."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from mta.model import Arrival, Arrivals, Change, IdSource, Position
from mta.spool.format import ref_offset, ref_segment
from mta.spool.segments import Folder
from tests.kit.spool import Log, Manager, finished


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 60))


async def filled(tmp_path: Path, count: int = 25, size: int = 90_000) -> tuple[Log, list[Arrival]]:
    """A log over several segments of 1 MiB."""
    log = Log(tmp_path)
    for n in range(count):
        log.put(b"%06d" % n + bytes(size))
    return log, await log.settled()


def damage(tmp_path: Path, arrival: Arrival, place: int = 30) -> None:
    with Folder(tmp_path).path(ref_segment(arrival.ref)).open("r+b") as file:
        file.seek(ref_offset(arrival.ref) + place)
        octet = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([octet[0] ^ 1]))


def test_damage_inside_a_segment_costs_one_message_and_the_file_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, arrivals = await filled(tmp_path)
        await log.writer.close()
        dice = random.Random(1)
        for number, victim in ((3, arrivals[3]), (7, arrivals[7])):
            damage(tmp_path, victim, dice.randrange(victim.length - 8) if number == 7 else 2)
        manager = Manager(tmp_path)
        assert [q.id for q in manager.queue.values()] == [a.id for n, a in enumerate(arrivals) if n not in (3, 7)]
        assert manager.store.report.damaged == 2
        assert any("damaged at" in note for note in manager.store.report.notes)
        hurt = ref_segment(arrivals[3].ref)
        await manager.finish(list(manager.queue.values()))
        folder = Folder(tmp_path)
        assert hurt not in folder.in_use()
        assert [p.name for p in folder.lost.iterdir()] == [folder.path(hurt).name]
        await manager.store.close()

    play(scenario)


def test_damage_found_by_a_claim_costs_one_message_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(tmp_path)
        log, arrivals = await filled(tmp_path)
        damage(tmp_path, arrivals[3])
        claimed = manager.claim(Position(1, log.writer.position))
        assert [q.id for q in claimed] == [a.id for n, a in enumerate(arrivals) if n != 3]
        assert manager.store.statistics["damaged_segments"] == 1
        await manager.finish(claimed)
        assert Folder(tmp_path).path(ref_segment(arrivals[3].ref)).name in os.listdir(Folder(tmp_path).lost)
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_a_segment_that_is_gone_or_unreadable_does_not_stop_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager = Manager(tmp_path)
        log, arrivals = await filled(tmp_path)
        first = ref_segment(arrivals[0].ref)
        path = Folder(tmp_path).path(first)
        path.unlink()
        path.mkdir()  # opens, but cannot be read
        expected = [a.id for a in arrivals if ref_segment(a.ref) != first]
        assert [q.id for q in manager.claim(Position(1, log.writer.position))] == expected
        await log.writer.close()
        await manager.store.close()
        again = Manager(tmp_path)
        assert [q.id for q in again.queue.values()] == expected
        assert path.exists()
        assert any("cannot be read" in note for note in again.store.report.notes)
        await again.store.close()

    play(scenario)


def test_a_batch_on_its_way_to_the_end_of_a_segment_is_not_overlooked(tmp_path: Path) -> None:
    """The writer has begun the next segment, but the last batch of this one is not in the file yet."""

    async def scenario() -> None:
        log, arrivals = await filled(tmp_path, count=5)
        log.writer._roll()
        last = arrivals[-1]
        path = Folder(tmp_path).path(ref_segment(last.ref))
        whole = path.read_bytes()
        start = ref_offset(last.ref)
        path.write_bytes(whole[:start] + bytes(len(whole) - start))
        manager = Manager(tmp_path)
        assert [q.id for q in manager.queue.values()] == [a.id for a in arrivals[:-1]]
        path.write_bytes(whole)
        assert [q.id for q in manager.claim(Arrivals(1, (last,)))] == [last.id]
        log.put(b"in the next segment")
        newest = (await log.settled())[-1]
        assert [q.id for q in manager.claim(Arrivals(1, (newest,)))] == [newest.id]
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_a_hole_in_the_segment_that_is_being_written_is_not_stepped_over(tmp_path: Path) -> None:
    """A page of a batch under way may be seen before an earlier one: what comes later will be announced."""

    async def scenario() -> None:
        log, arrivals = await filled(tmp_path, count=5)
        path = Folder(tmp_path).path(ref_segment(arrivals[0].ref))
        whole = path.read_bytes()
        start, end = ref_offset(arrivals[2].ref), ref_offset(arrivals[3].ref)
        path.write_bytes(whole[:start] + bytes(end - start) + whole[end:])
        manager = Manager(tmp_path)
        assert [q.id for q in manager.queue.values()] == [a.id for a in arrivals[:2]]
        path.write_bytes(whole)
        assert [q.id for q in manager.claim(Arrivals(1, tuple(arrivals[2:])))] == [a.id for a in arrivals[2:]]
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_torn_tails_are_counted_and_old_records_are_no_tail(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        for n in range(25):
            log.put(b"%06d" % n + bytes(90_000))
        await manager.finish(manager.claim(await log.news()))
        await log.writer.close()
        await manager.store.close()
        for path in Folder(tmp_path).free.glob("spare-*"):
            path.unlink()
        log = Log(tmp_path)  # on a file full of old records
        log.put(b"one")
        log.put(b"two")
        arrivals = await log.settled()
        await log.writer.close()
        manager = Manager(tmp_path)
        assert (len(manager.queue), manager.store.report.torn) == (2, 0)
        manager.store.snapshot = None  # no checkpoint that knows them
        await manager.store.close()
        damage(tmp_path, arrivals[1], 60)
        manager = Manager(tmp_path)
        assert (len(manager.queue), manager.store.report.torn) == (1, 1)
        await manager.store.close()

    play(scenario)


def test_a_reference_that_comes_again_brings_nobody_elses_fate(tmp_path: Path) -> None:
    """The newest segment was lost, so its number and its references are given again."""

    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put(b"old")
        (old,) = manager.claim(await log.news())
        await manager.finish([old])
        await log.writer.close()
        await manager.store.close()
        Folder(tmp_path).path(ref_segment(old.ref)).unlink()
        (tmp_path / "spool" / "checkpoint").unlink()
        log = Log(tmp_path)
        log.ids = IdSource(1, old.id)  # for the clock of this test stands still
        log.put(b"new")
        (new,) = await log.settled()
        assert new.ref == old.ref
        await log.writer.close()
        manager = Manager(tmp_path)
        assert [q.id for q in manager.queue.values()] == [new.id]
        await manager.store.close()

    play(scenario)


def test_many_recipients_are_read_from_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put(recipients=[b"x@d%d.example" % n for n in range(200)])
        news = await log.news()
        assert news.messages[0].domains == ()
        (queued,) = manager.claim(news)
        assert queued.domains == tuple(b"d%d.example" % n for n in range(200))
        await manager.store.record([finished(queued.ref, queued.id, part) for part in range(199)])
        await manager.store.close()
        again = Manager(tmp_path)
        (queued,) = again.queue.values()
        assert sorted(c.part for c in queued.changes) == list(range(199))
        await again.finish([queued])
        assert again.store.statistics["live_messages"] == 0
        await again.store.close()
        await log.writer.close()

    play(scenario)


def test_changes_made_while_recovery_streams(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, arrivals = await filled(tmp_path)
        await log.writer.close()
        manager = Manager(tmp_path)
        await manager.store.close()
        store = Manager.opened(tmp_path)
        messages = store.recover()
        early = next(messages)
        await store.record([finished(early.ref, early.id)])
        rest = list(messages)
        assert [q.id for q in rest] == [a.id for a in arrivals[1:]]
        assert store.statistics["live_messages"] == len(arrivals) - 1
        await store.close()

    play(scenario)


LIFE = textwrap.dedent("""
    import asyncio, random, sys
    from pathlib import Path
    import uvloop
    from mta.model import Arrivals, Change
    from tests.kit.spool import Log, Manager, finished

    async def main():
        state, seed = Path(sys.argv[1]), int(sys.argv[2])
        dice = random.Random(seed)
        manager, log = Manager(state), Log(state)
        told = 0
        print("up", flush=True)
        while True:
            for _ in range(20):
                log.put(bytes(dice.randrange(20_000)))
            arrivals = await log.settled()
            new, told = arrivals[told:], len(arrivals)
            for arrival in new:
                print("put", arrival.id)
            if dice.random() < 0.8:  # else: the news is lost, the next batch finds it
                manager.claim(Arrivals(1, tuple(new)))
            queued = list(manager.queue.values())
            done = dice.sample(queued, min(len(queued), dice.randrange(40)))
            kept = dice.sample(queued, min(len(queued), 5))
            for q in done:
                print("end", q.id)
            sys.stdout.flush()
            await manager.store.record([
                Change(ref=q.ref, id=q.id, part=0, kind="waiting", attempts=told, why="x" * 20_000)
                for q in kept if q not in done
            ])
            await manager.store.record([finished(q.ref, q.id) for q in done])
            for q in done:
                del manager.queue[q.ref]
                print("done", q.id)

    uvloop.run(main())
""")


def test_a_server_that_is_killed_loses_nothing_and_forgets_nothing(tmp_path: Path) -> None:
    told: dict[str, set[int]] = {"put": set(), "end": set(), "done": set()}
    checkpoints = 0
    for seed in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", LIFE, str(tmp_path), str(seed)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
            text=True,
        )
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            if number == 1500 + 200 * seed:
                process.send_signal(signal.SIGKILL)
            if line.endswith("\n") and line != "up\n":
                what, message_id = line.split()
                told[what].add(int(message_id))
        process.stdout.close()
        process.wait()
        checkpoints += (tmp_path / "spool" / "checkpoint").exists()

    async def scenario() -> None:
        manager = Manager(tmp_path)
        ids = [q.id for q in manager.queue.values()]
        assert len(ids) == len(set(ids))
        assert told["put"] - told["end"] <= set(ids), "acknowledged, and not finished: still queued"
        assert not told["done"] & set(ids), "finished is for ever"
        for queued in manager.queue.values():
            manager.read(queued.ref)
        assert len(Folder(tmp_path).in_use()) < 60, "what is done with is used again"
        await manager.store.close()

    assert len(told["put"]) > 1000
    assert checkpoints
    play(scenario)


def test_the_newest_state_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put()
        (queued,) = manager.claim(await log.news())
        states = [
            Change(ref=queued.ref, id=queued.id, part=0, kind="waiting", attempts=n, due=n * 60, why=f"451 {n}")
            for n in range(1, 4)
        ]
        for change in states:
            manager.store.record_soon([change])
            await manager.store.record([])
        await manager.store.close()
        again = Manager(tmp_path)
        assert [q.changes for q in again.queue.values()] == [(states[-1],)]
        await again.store.close()
        await log.writer.close()

    play(scenario)


async def cut(tmp_path: Path) -> tuple[list[Arrival], list[int]]:
    """A stopped spool with a checkpoint and a cut state log; all arrivals, and the ids that are unfinished."""
    log, arrivals = await filled(tmp_path)
    manager = Manager(tmp_path)
    await manager.finish([q for n, q in enumerate(manager.queue.values()) if n % 3])
    ballast = Change(ref=1 << 56 | 9 << 24, id=1, part=0, kind="held", why="x" * 60_000)
    for _ in range(120):
        await manager.store.record([ballast])
    await manager.store._upkeep.settle()
    assert Folder(tmp_path).in_use(0)[0] > 1
    left = [q.id for q in manager.queue.values()]
    await manager.store.close()
    await log.writer.close()
    return arrivals, left


def test_a_lost_checkpoint_is_told_and_costs_no_mail(tmp_path: Path) -> None:
    async def scenario() -> None:
        arrivals, left = await cut(tmp_path)
        Folder(tmp_path).checkpoint.unlink()
        again = Manager(tmp_path)
        assert set(left) <= {q.id for q in again.queue.values()} <= {a.id for a in arrivals}
        assert [n for n in again.store.report.notes if "its checkpoint is gone" in n] == again.store.report.notes
        await again.store.close()
        assert Manager(tmp_path).store.report.notes == []

    play(scenario)


def test_an_old_checkpoint_is_told_and_costs_no_mail(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, arrivals = await filled(tmp_path, count=12)
        manager = Manager(tmp_path)
        await manager.store.close()
        await log.writer.close()
        old = Folder(tmp_path).checkpoint.read_bytes()
        more, left = await cut(tmp_path)
        Folder(tmp_path).checkpoint.write_bytes(old)
        again = Manager(tmp_path)
        found = [q.id for q in again.queue.values()]
        assert set(left) <= set(found) <= {a.id for a in (*arrivals, *more)}
        assert len(set(found)) == len(found)
        assert any("of the state log are gone" in note for note in again.store.report.notes)
        await again.store.close()

    play(scenario)


def test_a_missing_segment_of_mail_is_told_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        arrivals, left = await cut(tmp_path)
        first = ref_segment(next(a.ref for a in arrivals if a.id == left[0]))
        Folder(tmp_path).path(first).unlink()
        there = [a.id for a in arrivals if a.id in left and ref_segment(a.ref) != first]
        again = Manager(tmp_path)
        assert [q.id for q in again.queue.values()] == there
        (note,) = again.store.report.notes
        assert note.endswith(f"is gone, and {len(left) - len(there)} messages with it")
        await again.store.close()

    play(scenario)


def test_a_segment_that_was_emptied_after_the_checkpoint_is_not_missed(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, _ = await filled(tmp_path)
        manager = Manager(tmp_path)
        await manager.store._upkeep.checkpoint()
        before = set(Folder(tmp_path).in_use(log.log))
        await manager.finish(list(manager.queue.values())[:-1])
        await manager.store._upkeep.settle()
        assert before - set(Folder(tmp_path).in_use(log.log)), "segments are used again"
        again = Manager(tmp_path)  # as after a kill: the checkpoint still has all of it
        assert list(again.queue) == list(manager.queue)
        assert again.store.report.notes == []
        await again.store.close()
        await log.writer.close()

    play(scenario)


def test_changes_that_contradict_the_logs_harm_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, arrivals = await filled(tmp_path, count=3)
        manager = Manager(tmp_path)
        first, second, third = arrivals
        changes = [
            finished(first.ref, second.id),  # the reference of one, the id of another
            Change(ref=third.ref, id=third.id, part=7, kind="held"),  # a part that it does not have
            Change(ref=third.ref + 8, id=12345, part=0, kind="waiting"),  # nobody
        ]
        await manager.store.record(changes)
        await log.writer.close()
        await manager.store._writer.drain()
        again = Manager(tmp_path)
        assert [q.id for q in again.queue.values()] == [first.id, third.id]  # changes go by id
        assert all(q.changes == () for q in again.queue.values())
        await again.store.close()
        await manager.store.close()

    play(scenario)
