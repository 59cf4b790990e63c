"""Cut and flip: the tail is cut at each octet of the last record, and single bits are flipped everywhere.

The rules: every state opens; what was not hit is there, octet for octet; what was hit is never given out altered; and
damage with readable records behind it is told, and its file kept. The last record of a segment, hit, is to every reader
one that a crash cut off.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from mta.spool.check import SpoolCheck
from mta.spool.format import FIRST_OFFSET, MESSAGE, RECORD, pack_record, padded, segment_name
from mta.spool.segments import Folder, read_header
from tests.crash.conftest import Figures
from tests.crash.damage import Opened, Record, Spool, make, opened
from tests.kit.spool import Manager

_MARGIN = 256  # octets behind the last record that are hit, too


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where the machine lends some: thousands of states are opened, and none needs a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as name:
        yield Path(name)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 100))


# ---- cut


def behind(path: Path, kind: str) -> bytes:
    """What a torn write leaves where it did not come to: nothing, zeros, or records of the file's earlier life."""
    size = path.stat().st_size
    if kind == "end of file":
        return b""
    if kind == "zeros":
        return bytes(size)
    header = read_header(path)
    assert header is not None
    stale = pack_record(MESSAGE, 0, header.generation - 256, 12345, 1, b"\0" * 16 + b"stale text\r\n" * 5)
    return (bytes(FIRST_OFFSET) + stale * (size // len(stale)))[:size]


@pytest.mark.parametrize("kind", ["end of file", "zeros", "stale records"])
@pytest.mark.parametrize("what", ["message", "message with a large text", "changes"])
def test_the_tail_is_cut(folder: Path, figures: Figures, kind: str, what: str) -> None:
    async def scenario() -> None:
        spool = await make(folder / "whole", ends_large=what == "message with a large text")
        last = spool.last(0 if what == "changes" else 1)
        path = Folder(spool.folder).path(last.key)
        whole, rest = path.read_bytes(), behind(path, kind)
        end = last.offset + padded(last.length - RECORD.size)
        for place in range(last.offset, end + 1):
            copy = spool.copy(folder / "copy")
            torn = whole[:place] + rest[place:]
            Folder(copy).path(last.key).write_bytes(torn)
            found = await opened(spool, copy)
            assert found.damaged == 0, (place, found.notes)
            # What is missing may have lain there by chance, zeros for instance: then the record is whole.
            assert_intact(spool, found, except_for=set() if torn[:end] == whole[:end] else set(last.ids))
            if torn[: last.offset + last.length] != whole[: last.offset + last.length]:
                assert not set(last.ids) & found.texts.keys(), place
        figures(f"cut: {what}, then {kind}", f"{end + 1 - last.offset} lengths: all earlier records intact")

    play(scenario)


def assert_intact(spool: Spool, found: Opened, except_for: set[int]) -> None:
    """All that should be there is, and nothing is altered."""
    expected = spool.texts.keys() - spool.dead - except_for
    missing = expected - found.texts.keys()
    assert not missing, (missing, found.notes)
    for known, text in found.texts.items():
        assert text == spool.texts[known] or (text is None and known in except_for), (known, found.notes)


# ---- flip


@pytest.mark.parametrize(("flips", "seed"), [(200, 1), pytest.param(1000, 2, marks=pytest.mark.slow)])
def test_a_bit_is_flipped_in_a_record(folder: Path, figures: Figures, flips: int, seed: int) -> None:
    async def scenario() -> None:
        spool = await make(folder / "whole")
        dice = random.Random(seed)
        for _ in range(flips):
            record = dice.choice(spool.records)
            bit = dice.randrange(8 * record.length)
            copy = spool.copy(folder / "copy")
            flip(Folder(copy).path(record.key), record.offset, bit)
            check_damaged_record(spool, record, bit, await opened(spool, copy))
        figures("flip", f"{flips} single bits: nothing altered is given out, all other records are there")

    play(scenario)


def check_damaged_record(spool: Spool, hit: Record, bit: int, found: Opened) -> None:
    if hit.ids:
        assert_intact(spool, found, except_for=set(hit.ids))
        assert not [known for known in hit.ids if found.texts.get(known) is not None], "damaged, and given out"
    else:  # changes that are lost make a message come again, never go
        assert_intact(spool, found, except_for=set())
    if not spool.is_last(hit):
        assert found.damaged == 1, (hit, bit, found.notes)
        assert any(segment_name(hit.key) in note for note in found.notes), found.notes
    elif hit == spool.last(hit.key >> 32) and bit >= 8 * 16:  # a record of this generation was begun, so much is known
        assert found.torn == 1 or found.damaged == 1, (hit, bit)


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset + bit // 8)
        octet = file.read(1)[0] ^ 1 << bit % 8
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([octet]))


def test_bits_are_flipped_outside_records(folder: Path) -> None:
    """In what lies between records and behind them, nothing can be hurt."""

    async def scenario() -> None:
        spool = await make(folder / "whole")
        for record in spool.records:
            end = record.offset + record.length
            behind = _MARGIN if record == spool.last(record.key >> 32) else -end % 8
            for place in range(0, 8 * behind, 61):
                copy = spool.copy(folder / "copy")
                flip(Folder(copy).path(record.key), end, place)
                found = await opened(spool, copy)
                assert_intact(spool, found, except_for=set())
                assert found.damaged == 0

    play(scenario)


def test_bits_of_a_segment_header_are_flipped(folder: Path) -> None:
    """The file is set aside whole: without its generation nothing in it can be told from what an earlier life left."""

    async def scenario() -> None:
        spool = await make(folder / "whole")
        for key in {record.key for record in spool.records}:
            held = {known for record in spool.records if record.key == key for known in record.ids}
            for bit in range(0, 8 * 44, 13):
                copy = spool.copy(folder / "copy")
                flip(Folder(copy).path(key), 0, bit)
                found = await opened(spool, copy)
                assert_intact(spool, found, except_for=held)
                assert not held & found.texts.keys()
                assert (Folder(copy).lost / segment_name(key)).exists()
                assert any("lost+found" in note for note in found.notes)

    play(scenario)


def test_what_is_damaged_is_kept_and_told(folder: Path) -> None:
    """When all else in it is finished the segment goes to lost+found; until then `mta spool check` tells of it."""

    async def scenario() -> None:
        spool = await make(folder / "whole")
        sealed = min(record.key for record in spool.records if record.key >> 32 == 1)
        for record in [r for r in spool.records if r.key == sealed][:-1]:
            copy = spool.copy(folder / "copy")
            flip(Folder(copy).path(record.key), record.offset, 8 * (RECORD.size + 20))
            findings = [one.text for one in SpoolCheck(copy).findings() if one.verdict == "damage"]
            assert len(findings) == 1
            assert segment_name(sealed) in findings[0]
            manager = Manager(copy)
            await manager.finish(list(manager.queue.values()))
            assert [path.name for path in Folder(copy).lost.iterdir()] == [segment_name(sealed)]
            await manager.store.close()

    play(scenario)


def test_a_bit_of_a_large_text_is_flipped(folder: Path) -> None:
    async def scenario() -> None:
        spool = await make(folder / "whole")
        dice = random.Random(3)
        for _ in range(20):
            copy = spool.copy(folder / "copy")
            (text,) = Folder(copy).bodies.iterdir()
            flip(text, 0, dice.randrange(8 * text.stat().st_size))
            found = await opened(spool, copy)
            hit = int(text.name, 16)
            assert_intact(spool, found, except_for={hit})
            assert found.texts[hit] is None, "damaged, and given out"
            findings = [one.text for one in SpoolCheck(copy).findings() if one.verdict == "damage"]
            assert [text.name in finding and "checksum" in finding for finding in findings] == [True]

    play(scenario)
