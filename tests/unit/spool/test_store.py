"""The spool: what is acknowledged is found again, what is finished is not, and nothing else is ever given out."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from mta.config.settings import Octets, Spool
from mta.model import WANTS_BULK, WANTS_HASTE, WANTS_TIME, Arrivals, Change, Options, Position, Ref, StoreError
from mta.spool.format import FIRST_OFFSET, ref_offset, ref_segment
from mta.spool.reader import SpoolReader
from mta.spool.segments import Folder
from tests.kit.spool import Log, Manager, finished


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 60))


def test_what_was_committed_is_read_back_and_recovered(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        drafts = [log.put(b"text %d\r\n" % n) for n in range(50)]
        news = await log.news()
        assert [a.id for a in news.messages] == [d.id for d in drafts]
        reader = SpoolReader(tmp_path)
        for draft, arrival in zip(drafts, news.messages, strict=True):
            stored = reader.read(Ref(arrival.ref))
            assert (stored.id, stored.envelope) == (draft.id, draft.envelope)
            assert stored.content == draft.head + bytes(draft.body)  # type: ignore[arg-type]
            assert stored.size == arrival.size == len(stored.content)
        await log.writer.close()
        manager = Manager(tmp_path)
        assert [q.id for q in manager.queue.values()] == [d.id for d in drafts]
        assert all(q.domains == (b"y.example",) for q in manager.queue.values())
        await manager.store.close()

    play(scenario)


def test_what_a_message_wants_of_the_queue_is_told_on_every_way(tmp_path: Path) -> None:
    """By the news, by a look into the log, by a recovery from the log and from a checkpoint."""

    async def scenario() -> None:
        log = Log(tmp_path)
        for options in (
            None,
            Options(user="ann"),
            Options(user="ann", priority=-9, tenant="news"),
            Options(rank=1, pool="fast"),
            Options(hold_until=1),
            Options(deliver_by=1, priority=9),
        ):
            log.put(options=options)
            log.put(recipients=[b"a@x", b"b@y"], options=options)
        news, fast = (WANTS_BULK, ("news", "")), (WANTS_HASTE, ("", "fast"))
        time = (WANTS_TIME, None)
        each = [(0, None), (0, None), news, fast, time, (WANTS_TIME | WANTS_HASTE, None)]
        expected = [one for one in each for _ in range(2)]
        told = await log.news()
        assert [(a.wants, a.lane) for a in told.messages] == expected
        manager = Manager(tmp_path)
        recovered = [(q.wants, q.lane) for q in manager.queue.values()]
        assert recovered == expected
        held = [Change(ref=q.ref, id=q.id, part=0, kind="held") for q in manager.queue.values()]
        await manager.store.record(held)
        log.put(options=Options(hold_until=2))
        await log.settled()
        (late,) = manager.claim(Position(1, log.writer.position))
        assert late.wants == WANTS_TIME
        await log.writer.close()
        await manager.store._writer.drain()
        from_the_log = Manager(tmp_path)
        assert [(q.wants, q.lane) for q in from_the_log.queue.values()] == [*expected, time]
        assert len(from_the_log.queue[held[-1].ref].changes) == 1
        await from_the_log.store.close()
        assert (tmp_path / "spool" / "checkpoint").exists()
        again = Manager(tmp_path)
        assert [(q.wants, q.lane) for q in again.queue.values()] == [*expected, time]
        await again.store.close()

    play(scenario)


def test_a_message_with_many_parts_is_decoded_once_for_all_of_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        log.put(b"few\r\n", [b"a@x", b"b@y"])
        log.put(b"many\r\n", [b"r%d@domain%d" % (i, i % 40) for i in range(80)])
        few, many = await log.settled()
        reader = SpoolReader(tmp_path)
        assert reader.read(Ref(few.ref)).parts == ()
        stored = reader.read(Ref(many.ref))
        assert stored.parts == tuple((i, i + 40) for i in range(40))
        assert reader.read(Ref(many.ref)) is stored
        reader.close()
        await log.writer.close()

    play(scenario)


def test_messages_of_one_turn_share_a_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        for _ in range(20):
            log.put()
        await log.settled()
        assert [len(tokens) for tokens, _, _ in log.reports] == [20]
        assert log.writer.statistics["commits"] == 1
        await log.writer.close()

    play(scenario)


def test_a_log_goes_on_over_many_segments(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        body = os.urandom(100_000)
        for _ in range(45):
            log.put(body)
            await log.settled()
        keys = Folder(tmp_path).in_use(1)
        assert len(keys) == 5
        await log.writer.close()
        manager = Manager(tmp_path)
        assert manager.contents() == [b"Received: here\r\n" + body] * 45
        await manager.store.close()

    play(scenario)


def test_a_finished_message_is_not_recovered_and_its_segment_is_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        body = os.urandom(100_000)
        for _ in range(3):
            for _ in range(10):
                log.put(body)
            await log.settled()
        claimed = manager.claim(await log.news())
        assert len(claimed) == 30
        first = ref_segment(claimed[0].ref)
        await manager.finish(claimed[:-1])
        assert first not in Folder(tmp_path).in_use(1)
        assert any(p.name.startswith("old-") for p in Folder(tmp_path).free.iterdir())
        await manager.store.close()
        await log.writer.close()
        again = Manager(tmp_path)
        assert [q.id for q in again.queue.values()] == [claimed[-1].id]
        await again.store.close()

    play(scenario)


def test_records_of_an_earlier_life_of_a_file_are_never_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        for n in range(30):
            log.put(b"old %d " % n + bytes(90_000))
        claimed = manager.claim(await log.news())
        await manager.finish(claimed)
        await log.writer.close()
        for path in Folder(tmp_path).free.glob("spare-*"):
            path.unlink()
        log = Log(tmp_path)  # takes an emptied file, full of old records
        log.put(b"new")
        await log.settled()
        await log.writer.close()
        await manager.store.close()
        again = Manager(tmp_path)
        assert [c[-3:] for c in again.contents()] == [b"new"]
        await again.store.close()

    play(scenario)


def test_a_message_with_several_parts_lives_until_the_last_is_finished(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put(recipients=[b"1@a.example", b"2@b.example", b"3@A.example", b"4@c.example"])
        (queued,) = manager.claim(await log.news())
        assert queued.domains == (b"a.example", b"b.example", b"c.example")
        waiting = Change(
            ref=queued.ref, id=queued.id, part=2, kind="waiting", attempts=3, due=77, done=(3,), why="451 later"
        )
        await manager.store.record([finished(queued.ref, queued.id, 1), waiting])
        await manager.store.close()
        again = Manager(tmp_path)
        (found,) = again.queue.values()
        assert {c.part: c for c in found.changes} == {1: finished(queued.ref, queued.id, 1), 2: waiting}
        await again.store.record([finished(queued.ref, queued.id, part) for part in (0, 2)])
        await again.store.close()
        last = Manager(tmp_path)
        assert last.queue == {}
        await last.store.close()
        await log.writer.close()

    play(scenario)


def test_missed_and_repeated_news(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        log.put(b"before")
        await log.settled()
        manager = Manager(tmp_path)
        assert len(manager.queue) == 1
        for n in range(30):
            log.put(b"%d" % n + bytes(70_000))
            await log.settled()
        messages = (await log.news()).messages
        claim = manager.claim
        assert claim(Arrivals(1, messages[:1])) == [], "known from recovery"
        assert [q.id for q in claim(Arrivals(1, messages[1:3]))] == [m.id for m in messages[1:3]]
        assert claim(Arrivals(1, messages[:3])) == [], "known already"
        assert [q.id for q in claim(Arrivals(1, messages[20:21]))] == [m.id for m in messages[3:21]], "over segments"
        assert [q.id for q in claim(Position(1, log.writer.position))] == [m.id for m in messages[21:]]
        assert claim(Position(1, log.writer.position)) == []
        log.put(b"next")
        assert len(claim(Arrivals(1, tuple((await log.news()).messages[-1:])))) == 1
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_large_bodies(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        draft = log.draft()
        body = log.writer.body(draft.id)
        for _ in range(5):
            body.write(b"x" * 100_000)
        log.writer.put(type(draft)(draft.id, draft.envelope, draft.head, body), draft.id)
        given_up = log.writer.body(log.ids.next(1))
        given_up.write(b"y")
        given_up.discard()
        (queued,) = manager.claim(await log.news())
        stored = manager.read(queued.ref)
        assert stored.content == draft.head
        assert stored.size == len(draft.head) + 500_000
        assert Path(stored.path).read_bytes()[stored.offset :] == b"x" * 500_000
        assert len(list(Folder(tmp_path).bodies.iterdir())) == 1
        await manager.finish([queued])
        assert list(Folder(tmp_path).bodies.iterdir()) == []
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_a_checkpoint_makes_old_state_unnecessary(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        kept = log.put(b"kept")
        gone = log.put(b"gone")
        queued = {q.id: q for q in manager.claim(await log.news())}
        manager.queue = {queued[kept.id].ref: queued[kept.id]}
        await manager.store.record([finished(queued[gone.id].ref, gone.id)])
        deferral = Change(
            ref=queued[kept.id].ref, id=kept.id, part=0, kind="waiting", attempts=1, due=5, why="x" * 60_000
        )
        for _ in range(100):
            await manager.store.record([deferral])
        manager.queue = {
            queued[kept.id].ref: type(queued[kept.id])(
                id=kept.id, ref=queued[kept.id].ref, size=1, domains=(b"y.example",), changes=(deferral,)
            )
        }
        async with asyncio.timeout(20):
            while not (tmp_path / "spool" / "checkpoint").exists():
                await manager.store.record([deferral])
                await manager.store._upkeep.settle()
        assert len(Folder(tmp_path).in_use(0)) <= 5
        late = log.put(b"late")
        await log.settled()
        await manager.store.close()
        again = Manager(tmp_path)
        assert sorted(q.id for q in again.queue.values()) == sorted([kept.id, late.id])
        (found,) = [q for q in again.queue.values() if q.id == kept.id]
        assert found.changes == (deferral,)
        await again.store.close()
        await log.writer.close()

    play(scenario)


def test_a_tail_cut_anywhere_costs_only_the_last_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        for n in range(4):
            log.put(b"message %d" % n)
        arrivals = await log.settled()
        await log.writer.close()
        (key,) = Folder(tmp_path).in_use(1)
        path = Folder(tmp_path).path(key)
        whole = path.read_bytes()
        start, end = ref_offset(arrivals[-1].ref), ref_offset(arrivals[-1].ref) + arrivals[-1].length
        expected = [b"Received: here\r\nmessage %d" % n for n in range(3)]
        last_octet = len(whole[:end].rstrip(b"\0"))
        for cut in range(start, last_octet):
            path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
            manager = Manager(tmp_path)
            assert manager.contents() == expected, cut
            await manager.store.close()

    play(scenario)


def test_flipped_bits_never_give_wrong_mail(tmp_path: Path) -> None:
    dice = random.Random(7)

    async def scenario() -> None:
        log = Log(tmp_path)
        for n in range(5):
            log.put(b"message %d" % n)
        arrivals = await log.settled()
        await log.writer.close()
        (key,) = Folder(tmp_path).in_use(1)
        path = Folder(tmp_path).path(key)
        whole = path.read_bytes()
        end = ref_offset(arrivals[-1].ref) + arrivals[-1].length
        right = [b"Received: here\r\nmessage %d" % n for n in range(5)]
        for _ in range(150):
            damaged = bytearray(whole)
            damaged[dice.randrange(FIRST_OFFSET, end)] ^= 1 << dice.randrange(8)
            path.write_bytes(damaged)
            reader = SpoolReader(tmp_path)
            for arrival, text in zip(arrivals, right, strict=True):
                with contextlib.suppress(StoreError):
                    assert reader.read(Ref(arrival.ref)).content == text
            reader.close()
            manager = Manager(tmp_path)
            for queued in manager.queue.values():
                with contextlib.suppress(StoreError):
                    assert manager.read(queued.ref).content in right
            await manager.store.close()

    play(scenario)


def test_what_is_no_segment_is_set_aside_not_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        log.put()
        await log.settled()
        await log.writer.close()
        folder = Folder(tmp_path)
        (folder.segments / "01-00000009.seg").write_bytes(b"garbage" * 100)
        (folder.segments / "notes.txt").write_text("hello")
        orphan = folder.body(5)
        orphan.write_bytes(b"half a text")
        os.utime(orphan, (1, 1))
        manager = Manager(tmp_path)
        assert len(manager.queue) == 1
        assert sorted(p.name for p in folder.lost.iterdir()) == ["0000000000000005", "01-00000009.seg", "notes.txt"]
        assert len(manager.store.report.notes) == 3
        await manager.store.close()

    play(scenario)


def test_a_failed_write_is_never_a_success_and_the_log_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        log.put(b"good")
        await log.settled()
        segment = log.writer._segment
        assert segment is not None
        with open("/dev/full", "wb") as full:
            spare = os.dup(segment.fd)
            os.dup2(full.fileno(), segment.fd)
            log.put(b"bad")
            await log.settled()
            assert log.reports[-1][1] == []
            error = log.reports[-1][2]
            assert error is not None
            assert error.full
            os.dup2(spare, segment.fd)
            os.close(spare)
        log.put(b"good again")
        await log.settled()
        assert log.reports[-1][2] is None
        assert ref_segment(log.reports[-1][1][0].ref) != segment.key, "the segment is left behind"
        await log.writer.close()
        manager = Manager(tmp_path)
        assert [c.split(b"\r\n")[1] for c in manager.contents()] == [b"good", b"good again"]
        await manager.store.close()

    play(scenario)


def test_below_the_low_water_mark_mail_is_refused_and_state_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = Spool(segment_size=Octets(1 << 20), min_free=Octets(1 << 60))
        log = Log(tmp_path, settings=settings)
        refusing = log.writer.refusing
        assert refusing is not None
        assert refusing.full
        with pytest.raises(StoreError):
            log.put()
        manager = Manager(tmp_path, settings)
        await manager.store.record([Change(ref=8, id=1, part=0, kind="held")])
        await manager.store.close()
        await log.writer.close()

    play(scenario)


def test_ids_of_an_earlier_life_are_not_made_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        newest = max(log.put().id for _ in range(100))
        await log.settled()
        await log.writer.close()
        again = Log(tmp_path)
        assert again.writer.floor >= newest
        assert again.put().id > newest
        await again.writer.close()

    play(scenario)


WRITER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    import uvloop
    from tests.kit.spool import Log

    async def main():
        log = Log(Path(sys.argv[1]))
        while True:
            for _ in range(10):
                log.put(bytes(5000))
            before = len(log.reports)
            await log.settled()
            for _, arrivals, _ in log.reports[before:]:
                for arrival in arrivals:
                    print(arrival.id, flush=True)

    uvloop.run(main())
""")


def test_a_writer_that_is_killed_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    acknowledged: list[int] = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=root, text=True
        )
        assert process.stdout is not None
        for line, _ in zip(process.stdout, range(700), strict=False):
            acknowledged.append(int(line))
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
        process.stdout.close()
        process.wait()

    async def scenario() -> None:
        manager = Manager(tmp_path)
        found = [q.id for q in manager.queue.values()]
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found)
        assert len(set(acknowledged)) == len(acknowledged) >= 2100
        await manager.store.close()

    play(scenario)
