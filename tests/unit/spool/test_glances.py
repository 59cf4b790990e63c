"""Many envelopes at once: the same as one by one, whatever lies between them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

from mta.model import Ref
from mta.spool.format import ref_offset, ref_segment
from mta.spool.segments import Folder
from tests.kit.spool import Log, Manager


def play(scenario: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(scenario, 60))


async def _filled(folder: Path) -> tuple[Manager, list[int]]:
    manager, log, dice = Manager(folder), Log(folder), random.Random(7)
    for number in range(600):
        to = [b"u%d@d%d.test" % (number, n) for n in range(1 + (number % 7 == 0) * 60)]
        log.put(b"x" * dice.choice((3, 100, 2000, 9000, 200_000 if number % 50 == 0 else 1)), to)
    queued = manager.claim(await log.news())
    await log.writer.close()
    return manager, [q.ref for q in queued]


def test_they_are_what_a_reader_gives(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager, refs = await _filled(tmp_path)
        assert len({ref_segment(ref) for ref in refs}) > 1
        random.Random(1).shuffle(refs)
        for ref, glance in zip(refs, await manager.store.glances(refs), strict=True):
            stored = manager.read(ref)
            assert glance is not None
            assert (glance.id, glance.envelope, glance.size) == (stored.id, stored.envelope, stored.size)
        assert await manager.store.glances([]) == []
        await manager.store.close()

    play(scenario())


def test_what_is_damaged_or_gone_is_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager, refs = await _filled(tmp_path)
        broken = refs[5]
        with Folder(tmp_path).path(ref_segment(broken)).open("r+b") as file:
            file.seek(ref_offset(broken) + 60)
            file.write(b"\xff")
        nowhere = [broken + 1, Ref(7 << 56 | 1 << 24 | 8), (refs[0] & ~0xFFFFFF) | 0xFFFFFF]
        found = await manager.store.glances([refs[4], broken, refs[6], *nowhere])
        assert [glance is not None for glance in found] == [True, False, True, False, False, False]
        await manager.store.close()

    play(scenario())


def test_a_segment_that_is_another_one_now_is_opened_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        manager, refs = await _filled(tmp_path)
        assert None not in await manager.store.glances(refs)
        path = Folder(tmp_path).path(ref_segment(refs[0]))
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        os.truncate(path, len(data))
        assert None not in await manager.store.glances(refs)
        await manager.store.close()

    play(scenario())
