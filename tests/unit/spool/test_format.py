"""The layout on disk: the native code and its plain reference say the same."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mta.spool._commit as native
from mta.model import Change
from mta.spool import format as reference
from mta.spool.format import FIRST_OFFSET, MESSAGE, STATE, SegmentHeader
from mta.spool.state import Replay, pack_changes, unpack_changes


def test_the_extension_is_built_from_this_source() -> None:
    source = Path(native.__file__).with_name("_commit.pyx")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == native.SOURCE_HASH, "stale: run `make build`"


def test_the_stub_names_what_the_module_has() -> None:
    stub = (Path(native.__file__).with_name("_commit.pyi")).read_text()
    names = {n for n in dir(native) if not n.startswith("__")} | {
        n for n in dir(native.Committer) if not n.startswith("__")
    }
    assert {n for n in names if n not in stub} == set()


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_checksums_agree(data: bytes, start: int) -> None:
    assert native.crc32c(data, start) == reference.crc32c(data, start)


def test_the_checksum_is_the_well_known_one() -> None:
    assert native.crc32c(b"123456789") == 0xE3069283  # RFC 3720 §B.4 names the polynomial


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 2**63))
def test_the_native_walk_reads_what_the_reference_writes(payloads: list[bytes], generation: int) -> None:
    data = bytes(FIRST_OFFSET)
    expected = []
    for n, payload in enumerate(payloads):
        expected.append((MESSAGE, n & 1, len(data), len(payload), n))
        data += reference.pack_record(MESSAGE, n & 1, generation, n, 5, payload)
    stale = reference.pack_record(STATE, 0, generation + 1, 1, 1, b"of another life")
    found, end = native.scan(data + stale, generation, FIRST_OFFSET)
    assert found == expected
    assert end == len(data)


def test_segment_headers_and_names() -> None:
    header = SegmentHeader(3, 77, 12345678901234, 1_795_000_000_000)
    packed = reference.pack_segment(header)
    assert reference.unpack_segment(packed) == header
    for place in range(44):
        damaged = bytearray(packed)
        damaged[place] ^= 4
        assert reference.unpack_segment(bytes(damaged)) is None
    key = 3 << 32 | 77
    assert reference.segment_name(key) == "03-0000004d.seg"
    assert reference.parse_segment_name("03-0000004d.seg") == key
    assert reference.ref_segment(reference.make_ref(3, 77, 4096)) == key
    assert reference.ref_offset(reference.make_ref(3, 77, 4096)) == 4096


@pytest.mark.parametrize("name", ["", "x", "03-4d.seg", "03-0000004d.tmp", "zz-0000004d.seg", "03-0000004d.seg.1"])
def test_other_names_are_not_ours(name: str) -> None:
    assert reference.parse_segment_name(name) is None


CHANGES = st.builds(
    Change,
    ref=st.integers(0, 2**64 - 1),
    id=st.integers(0, 2**60),
    part=st.integers(0, 65535),
    kind=st.sampled_from(["waiting", "held"]),
    attempts=st.integers(0, 65535),
    due=st.integers(0, 2**40),
    done=st.lists(st.integers(0, 50_000), max_size=20).map(tuple),
    why=st.text(max_size=50),
) | st.builds(Change, ref=st.integers(0, 9), id=st.just(1), part=st.integers(0, 3), kind=st.just("finished"))


@given(st.lists(CHANGES, max_size=20))
def test_changes_survive(changes: list[Change]) -> None:
    packed = pack_changes(changes)
    assert [c for part, _ in packed for c in part] == changes
    assert [c for _, payload in packed for c in unpack_changes(payload)] == changes


def test_many_changes_are_cut_into_records_that_fit_a_segment() -> None:
    changes = [Change(ref=n << 24, id=n, part=0, kind="held", why="x" * (n % 3000)) for n in range(20_000)]
    packed = pack_changes(changes)
    assert max(len(payload) for _, payload in packed) < 512 << 10
    assert [c for part, _ in packed for c in part] == changes
    longest = Change(ref=1, id=1, part=0, kind="held", done=tuple(range(65_536)), why="\U0001f4ec" * 1_000_000)
    ((_, payload),) = pack_changes([longest])
    assert len(payload) < 1 << 19
    (back,) = unpack_changes(payload)
    assert back.done == longest.done
    assert longest.why.startswith(back.why)
    assert len(back.why) == 65_536


def replayed(*changes: Change) -> Replay:
    replay = Replay({c.ref >> 24 for c in changes})
    for change in changes:
        ((_, payload),) = pack_changes([change])
        assert replay.feed(payload) == 1
    return replay


def test_finished_is_for_ever() -> None:
    replay = replayed(
        Change(ref=1, id=1, part=0, kind="waiting", attempts=1),
        Change(ref=1, id=1, part=0, kind="finished"),
        Change(ref=1, id=1, part=0, kind="waiting", attempts=2),
    )
    assert replay.take(1, 1, 0) == Change(ref=1, id=1, part=0, kind="finished")
    assert replay.take(1, 1, 0) is None


def test_the_newest_change_of_each_part_is_kept() -> None:
    changes = [
        Change(ref=8, id=5, part=part, kind="waiting", attempts=n, why=f"{part}.{n}")
        for n in range(3)
        for part in (0, 3)
    ]
    replay = replayed(*changes, Change(ref=8, id=5, part=3, kind="finished", why="250 taken"))
    assert replay.take(8, 5, 0) == changes[4]
    assert replay.take(8, 5, 3) == Change(ref=8, id=5, part=3, kind="finished", why="250 taken")


def test_a_reference_that_comes_again_does_not_bring_the_fate_of_another_message() -> None:
    replay = replayed(Change(ref=1 << 24, id=1, part=0, kind="finished"))
    assert replay.take(1 << 24, 2, 0) is None


def test_changes_in_segments_that_are_gone_cost_nothing() -> None:
    replay = Replay({7})
    ((_, payload),) = pack_changes([Change(ref=s << 24, id=s, part=0, kind="held") for s in range(20)])
    assert replay.feed(payload) == 20
    assert replay.take(7 << 24, 7, 0) is not None
    assert len(replay._newest) == 1


def test_the_next_valid_record_is_found_behind_damage() -> None:
    records = [reference.pack_record(MESSAGE, 0, 9, n, 5, b"payload %d" % n) for n in range(4)]
    data = bytearray(b"".join(records))
    data[3] ^= 1
    size = len(records[0])
    assert native.scan(data, 9, 0) == ([], 0)
    assert native.find(data, 9, 0) == native.find(data, 9, size) == size
    assert native.find(data, 9, size + 1) == 2 * size
    assert native.find(data, 8, 0) == -1
    assert native.find(data[: 4 * size - 8], 9, 3 * size) == -1
    assert native.find(b"", 9, 0) == -1
