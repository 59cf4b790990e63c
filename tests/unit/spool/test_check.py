"""`mta spool check`: what it finds in a spool, and what it puts in order."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from mta.model import Arrival, id_text
from mta.spool.check import Finding, SpoolCheck
from mta.spool.format import ref_offset, ref_segment, segment_name
from mta.spool.segments import Folder
from tests.kit.spool import Log, Manager


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 60))


def check(tmp_path: Path, *, repair: bool = False) -> list[Finding]:
    return list(SpoolCheck(tmp_path, repair=repair).findings())


def told(findings: list[Finding], verdict: str) -> list[str]:
    return [f.text for f in findings if f.verdict == verdict]


async def filled(tmp_path: Path, count: int = 25) -> tuple[Log, list[Arrival]]:
    """A log over several segments of 1 MiB."""
    log = Log(tmp_path)
    for n in range(count):
        log.put(b"%06d" % n + bytes(90_000))
    return log, await log.settled()


def flip(tmp_path: Path, arrival: Arrival, place: int = 100) -> None:
    with Folder(tmp_path).path(ref_segment(arrival.ref)).open("r+b") as file:
        octet = os.pread(file.fileno(), 1, ref_offset(arrival.ref) + place)
        os.pwrite(file.fileno(), bytes([octet[0] ^ 1]), ref_offset(arrival.ref) + place)


def snapshot(tmp_path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in (tmp_path / "spool").rglob("*") if p.is_file() and "free" not in p.parts}


def test_no_spool_is_no_damage(tmp_path: Path) -> None:
    assert [f.verdict for f in check(tmp_path)] == ["note"]


def test_a_sound_spool_beside_its_writer(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, arrivals = await filled(tmp_path)
        manager = Manager(tmp_path)
        await manager.finish([q for q in manager.queue.values() if q.ref in {a.ref for a in arrivals[:10]}])
        findings = check(tmp_path)
        assert {f.verdict for f in findings} == {"ok"}
        assert any(text.startswith("15 messages are unfinished") for text in told(findings, "ok"))
        await manager.store.close()
        await log.writer.close()
        assert {f.verdict for f in check(tmp_path)} == {"ok"}
        assert any(text.startswith("15 messages are unfinished") for text in told(check(tmp_path), "ok"))

    play(scenario)


def test_damage_is_named_left_alone_and_repaired_on_demand(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, arrivals = await filled(tmp_path)
        await log.writer.close()
        victim = arrivals[3]
        flip(tmp_path, victim)
        before = snapshot(tmp_path)
        (damage,) = told(check(tmp_path), "damage")
        assert segment_name(ref_segment(victim.ref)) in damage
        assert id_text(victim.id) in damage
        assert snapshot(tmp_path) == before

        (fixed,) = told(check(tmp_path, repair=True), "fixed")
        assert damage in fixed
        saved = Folder(tmp_path).lost / f"{segment_name(ref_segment(victim.ref))}.{ref_offset(victim.ref)}"
        assert saved.stat().st_size == victim.length
        findings = check(tmp_path)
        assert told(findings, "damage") == []
        assert len(told(findings, "note")) == 1  # that lost+found keeps something

        manager = Manager(tmp_path)
        assert set(manager.queue) == {a.ref for a in arrivals if a is not victim}
        assert manager.store.report.damaged == 0
        await manager.store.close()

    play(scenario)


def test_strangers_and_leftovers_are_set_aside_on_demand(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, _ = await filled(tmp_path, 2)
        await log.writer.close()
        folder = Folder(tmp_path)
        (folder.segments / "notes.txt").write_text("mine")
        (folder.segments / "01-00000077.seg").write_bytes(bytes(100))
        stray = folder.bodies / "00000000000000ff"
        stray.write_bytes(b"text")
        young = folder.bodies / "00000000000000fe"
        young.write_bytes(b"text")
        os.utime(stray, (time.time() - 7200,) * 2)
        (folder.root / "checkpoint").write_bytes(b"no checkpoint")
        findings = check(tmp_path)
        assert len(told(findings, "damage")) == 3
        assert [str(stray) in text for text in told(findings, "note")] == [True]
        assert len(told(check(tmp_path, repair=True), "fixed")) == 4
        assert sorted(os.listdir(folder.lost)) == sorted(["notes.txt", "01-00000077.seg", stray.name, "checkpoint"])
        assert young.exists()
        assert told(check(tmp_path), "damage") == []

    play(scenario)


def test_a_large_text_that_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        drafts = []
        for _ in range(2):
            draft = log.draft()
            body = log.writer.body(draft.id)
            body.write(bytes(300_000))
            draft = type(draft)(draft.id, draft.envelope, draft.head, body)
            log.writer.put(draft, draft.id)
            drafts.append(draft)
        arrivals = await log.settled()
        manager = Manager(tmp_path)
        by_id = {a.id: a for a in arrivals}
        await manager.finish([manager.queue[by_id[drafts[0].id].ref]])
        assert {f.verdict for f in check(tmp_path)} == {"ok"}  # the text of a finished message is not missed
        Folder(tmp_path).body(drafts[1].id).unlink()
        (damage,) = told(check(tmp_path), "damage")
        assert id_text(drafts[1].id) in damage
        await manager.store.close()
        await log.writer.close()

    play(scenario)


def test_a_torn_tail_is_worth_a_note(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, arrivals = await filled(tmp_path)
        await log.writer.close()
        last = [a for a in arrivals if ref_segment(a.ref) == ref_segment(arrivals[0].ref)][-1]
        flip(tmp_path, last)
        findings = check(tmp_path)
        assert told(findings, "damage") == []
        assert len(told(findings, "note")) == 1

    play(scenario)
