"""What stays is copied on: each step of the table in mta.spool.compact is cut off, and every message is there once."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from mta.model import Change, Draft, Queued, StoreError
from mta.spool import compact, upkeep
from mta.spool.check import SpoolCheck
from mta.spool.format import COPY, MESSAGE, RECORD, STATE, ref_segment
from mta.spool.scan import SegmentView
from mta.spool.segments import Folder
from tests.kit.spool import Log, Manager, finished

EVERY = 12  # one message in so many stays
LARGE_TEXT = b"a large text" * 25_000


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 60))


def at_once(self: compact.Compaction, sealed: list[int], now: float) -> int | None:
    return next((k for k in sealed if k not in self._weights and self._ledger.live(k)), None)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of 1 MiB are few: begin at once, and only when a test says so."""
    monkeypatch.setattr(compact, "_SLACK", 1)
    monkeypatch.setattr(compact.Compaction, "_unweighed", at_once)
    monkeypatch.setattr(upkeep, "_OLD", 0.0)
    monkeypatch.setattr(upkeep, "_LOOK_EVERY", 3600.0)
    monkeypatch.setattr(upkeep, "_IDLE_EVERY", 3600.0)


class Mover(Manager):
    """A queue manager that lets messages move, those apart that it has in hand."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.busy: set[int] = set()
        self.store.relocate = self.relocate

    def relocate(self, moves: dict[int, int]) -> tuple[set[int], list[Change]]:
        moved = {ref for ref in moves if ref in self.queue and self.queue[ref].id not in self.busy}
        changes: list[Change] = []
        for ref in moved:
            old = self.queue.pop(ref)
            new = moves[ref]
            kept = tuple(
                Change(ref=new, id=c.id, part=c.part, kind=c.kind, attempts=c.attempts, due=c.due, why=c.why)
                for c in old.changes
            )
            self.queue[new] = Queued(id=old.id, ref=new, size=old.size, domains=old.domains, changes=kept)
            changes += [c for c in kept if c.kind != "finished"]
        return moved, changes

    async def defer(self, queued: Queued, part: int, why: str) -> None:
        change = Change(ref=queued.ref, id=queued.id, part=part, kind="waiting", attempts=2, due=9, why=why)
        others = tuple(c for c in queued.changes if c.part != part)
        self.queue[queued.ref] = Queued(
            id=queued.id, ref=queued.ref, size=queued.size, domains=queued.domains, changes=(*others, change)
        )
        await self.store.record([change])

    async def compact(self) -> None:
        """Steps until there is nothing to do."""
        work = self.store._upkeep
        for _ in range(100):
            in_use = work._folder.in_use()
            movable = work._movable(in_use)
            if not self.store._compaction.due(movable, in_use, asyncio.get_running_loop().time()):
                break
            await self.store._compaction.step(movable, in_use)
        work.look()
        await work.settle()

    def ids(self) -> list[int]:
        return sorted(q.id for q in self.queue.values())


async def aged(tmp_path: Path) -> tuple[Mover, Log, list[Queued]]:
    """Some segments of mail of which one message in twelve stays, each deferred with a reason of its own."""
    log, manager = Log(tmp_path), Mover(tmp_path)
    for n in range(120):
        log.put(b"%06d" % n + bytes(60_000), (b"a@one.example", b"b@two.example") if n % 24 == 0 else (b"a@x",))
    await log.settled()
    large = log.draft()
    text = log.writer.body(large.id)
    text.write(LARGE_TEXT)
    log.writer.put(Draft(large.id, large.envelope, large.head, text), large.id)
    await log.settled()
    for n in range(40):
        log.put(b"later %d" % n + bytes(60_000))
    claimed = manager.claim(await log.news())
    stay = [q for n, q in enumerate(claimed) if n % EVERY == 0]
    await manager.finish([q for n, q in enumerate(claimed) if n % EVERY])
    for q in stay:
        await manager.defer(q, len(q.domains) - 1, f"reason of {q.id}")
        if len(q.domains) > 1:
            await manager.store.record([finished(q.ref, q.id, 0)])
    return manager, log, stay


def crash(tmp_path: Path, number: int) -> Path:
    """What is on the disk at this moment, elsewhere."""
    target = tmp_path.with_name(f"{tmp_path.name}-{number}")
    shutil.copytree(tmp_path, target)
    return target


async def verify(state_dir: Path, stay: Sequence[Queued]) -> None:
    """Two starts: each finds every message once, with its state and its text; what is finished stays so."""
    expected = sorted(q.id for q in stay)
    for _ in range(2):
        again = Mover(state_dir)
        assert again.ids() == expected
        for q in again.queue.values():
            whys = [c.why for c in q.changes if c.kind == "waiting"]
            assert whys == [f"reason of {q.id}"]
            assert [c.part for c in q.changes if c.kind == "finished"] == ([0] if len(q.domains) > 1 else [])
            assert again.read(q.ref).id == q.id
        await again.store._writer.drain()
        await again.store._upkeep.settle()
        again.store._upkeep.close()
    verdicts = [f.text for f in SpoolCheck(state_dir).findings() if f.verdict == "ok"]
    assert any(text.startswith(f"{len(stay)} messages are unfinished") for text in verdicts)
    await again.finish(list(again.queue.values()))
    await again.store.close()
    assert Mover(state_dir).queue == {}


def test_survivors_move_and_their_segments_are_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager, log, stay = await aged(tmp_path)
        before = Folder(tmp_path).in_use(1)
        figures = manager.store.statistics
        await manager.compact()
        after = manager.store.statistics
        assert len(Folder(tmp_path).in_use(1)) < len(before) / 2
        assert after["moved_messages"] > 5
        assert after["space_amplification"] < figures["segments"]
        assert after["write_amplification"] > 1.0
        assert manager.ids() == sorted(q.id for q in stay)
        await verify(crash(tmp_path, 1), stay)
        await manager.store.close()
        await verify(crash(tmp_path, 2), stay)
        await log.writer.close()

    play(scenario)


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_a_crash_behind_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    async def scenario() -> None:
        manager, log, stay = await aged(tmp_path)
        owner, name = {
            2: (manager.store._compaction, "_take_over"),
            3: (manager.store, "record_moves"),
            4: (manager.store, "left"),
            5: (manager.store._upkeep, "emptied"),
        }[step]

        def cut(*_: object) -> None:
            raise StoreError("the power fails")

        monkeypatch.setattr(owner, name, cut)
        with pytest.raises(StoreError, match="power"):
            await manager.compact()
        await manager.store._writer.drain()
        copies = [f for f in messages(tmp_path, 0) if f[1] & COPY]
        assert copies
        await verify(crash(tmp_path, step), stay)
        await log.writer.close()

    play(scenario)


def messages(state_dir: Path, log: int) -> list[tuple[int, int, int, int, int]]:
    found = []
    for key in Folder(state_dir).in_use(log):
        view = SegmentView(Folder(state_dir), key)
        found += [(f[0], f[1], key << 24 | f[2] >> 3, f[3], f[4]) for f in view.walk(final=True).found]
        view.close()
    return [f for f in found if f[0] == MESSAGE]


def test_a_torn_copy_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        manager, log, stay = await aged(tmp_path)

        async def cut(*_: object) -> None:
            raise StoreError("the power fails")

        monkeypatch.setattr(manager.store._compaction, "_take_over", cut)
        with pytest.raises(StoreError):
            await manager.compact()
        last = [f for f in messages(tmp_path, 0) if f[1] & COPY][-1]
        for number, left in enumerate((1, RECORD.size - 1, RECORD.size, last[3] // 2, last[3])):
            state_dir = crash(tmp_path, number)
            with Folder(state_dir).path(last[2] >> 24).open("r+b") as file:
                file.seek(((last[2] & 0xFFFFFF) << 3) + left)
                file.write(bytes(last[3] + RECORD.size - left))
            await verify(state_dir, stay)
        await log.writer.close()

    play(scenario)


def test_a_later_checkpoint_knows_the_copies(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager, log, stay = await aged(tmp_path)
        await manager.store._upkeep.checkpoint()  # knows the originals
        await manager.compact()
        await verify(crash(tmp_path, 1), stay)
        await manager.store._upkeep.checkpoint()
        await verify(crash(tmp_path, 2), stay)
        await manager.compact()  # from there a second time
        await verify(crash(tmp_path, 3), stay)
        await log.writer.close()

    play(scenario)


def test_a_copy_whose_move_is_lost_is_not(tmp_path: Path) -> None:
    """No checkpoint, the record of the moves damaged, the originals gone: the copies are all there is."""

    async def scenario() -> None:
        manager, log, stay = await aged(tmp_path)
        await manager.compact()
        state_dir = crash(tmp_path, 1)
        folder = Folder(state_dir)
        for key in folder.in_use(0):
            view = SegmentView(folder, key)
            found = [f for f in view.walk(final=True).found if f[0] == STATE]
            moves = [f for f in found if bytes(view.payload(f))[34] == 255]
            view.close()
            for record in moves:
                with folder.path(key).open("r+b") as file:
                    file.seek(record[2] + 50)
                    file.write(b"\xff\xff")
        again = Mover(state_dir)
        assert again.ids() == sorted(q.id for q in stay)
        assert any("damaged" in note for note in again.store.report.notes)
        await log.writer.close()

    play(scenario)


def test_what_is_in_hand_stays_and_may_end_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager, log, stay = await aged(tmp_path)
        manager.busy = {q.id for q in stay}
        in_use = Folder(tmp_path).in_use()
        for _ in range(len(in_use) + 1):
            await manager.store._compaction.step(manager.store._upkeep._movable(in_use), in_use)
        assert manager.store.statistics["moved_messages"] == 0
        copies = [f[4] for f in messages(tmp_path, 0) if f[1] & COPY]
        assert copies
        assert len(set(copies)) == len(copies)  # not again and again
        await verify(crash(tmp_path, 1), stay)
        await manager.finish(list(manager.queue.values()))
        await manager.store._upkeep.settle()
        again = Mover(crash(tmp_path, 2))
        assert again.queue == {}
        await log.writer.close()

    play(scenario)


def test_a_large_text_stays_where_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager, log, stay = await aged(tmp_path)
        names = sorted(os.listdir(Folder(tmp_path).bodies))
        assert names
        await manager.compact()
        assert sorted(os.listdir(Folder(tmp_path).bodies)) == names
        (large,) = [q for q in stay if Folder(tmp_path).body(q.id).name in names]
        (moved,) = [q for q in manager.queue.values() if q.id == large.id]
        assert ref_segment(moved.ref) >> 32 == 0
        assert Path(manager.read(moved.ref).path).read_bytes() == LARGE_TEXT
        await manager.finish([moved])
        assert os.listdir(Folder(tmp_path).bodies) == []
        await log.writer.close()

    play(scenario)
