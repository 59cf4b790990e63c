"""The ring of transcripts: it wraps, it survives its writer, and nobody sees half of one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mta.observe.transcripts import SLOT, Line, Place, Ring, Shelf, Transcript


def transcript(
    session: str, peer: str = "site.test", *, kept: int = 1, lines: list[Line | None] | None = None
) -> Transcript:
    return Transcript(
        side="out", peer=peer, host="mx[192.0.2.1]:25", session=session, why="failed", ended="", began=1, kept=kept,
        over=True, messages=[], tls="", certificate="", dropped=0, lost=0, lines=lines or [(0, 1, 5, b"220 x")],
    )  # fmt: skip


def sessions(folder: Path) -> list[str]:
    return [each.session for each in Shelf(folder).read()]


def ring(folder: Path, *, slots: int = 4, per_peer: int = 100, worker: int = 1) -> Ring:
    return Ring(folder / f"transcripts-{worker}", (slots + 1) * SLOT, per_peer)


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    kept = transcript("S1", lines=[(0, 1, 5, b"220 \xff"), None, (7, 0, 4, b"QUIT")])
    ring(tmp_path).put(kept)
    assert Shelf(tmp_path).read() == [kept]


def test_the_oldest_makes_room(tmp_path: Path) -> None:
    written = ring(tmp_path)
    for number in range(11):
        written.put(transcript(f"S{number}", kept=number))
    assert sessions(tmp_path) == ["S7", "S8", "S9", "S10"]


def test_a_peer_takes_its_own_slots_first(tmp_path: Path) -> None:
    written = ring(tmp_path, per_peer=2)
    written.put(transcript("quiet", "quiet.test", kept=0))
    for number in range(9):
        written.put(transcript(f"S{number}", kept=number + 1))
    assert sessions(tmp_path) == ["quiet", "S7", "S8"]


def test_a_session_has_one_place_as_long_as_it_is_there(tmp_path: Path) -> None:
    written = ring(tmp_path)
    place = written.put(transcript("S0", kept=1))
    place = written.put(transcript("S0 and more", kept=2), place)
    assert sessions(tmp_path) == ["S0 and more"]
    for number in range(4):
        written.put(transcript(f"T{number}", kept=3 + number))
    assert written.put(transcript("S0 at last", kept=9), place) != place
    assert sessions(tmp_path) == ["T1", "T2", "T3", "S0 at last"]


def test_a_new_life_goes_on_where_the_old_one_ended(tmp_path: Path) -> None:
    written = ring(tmp_path, per_peer=2)
    for number in range(3):
        written.put(transcript(f"S{number}", kept=number))
    again = ring(tmp_path, per_peer=2)
    again.put(transcript("new", kept=9))
    assert sessions(tmp_path) == ["S2", "new"]


def test_another_size_begins_anew(tmp_path: Path) -> None:
    ring(tmp_path).put(transcript("S0"))
    ring(tmp_path, slots=9)
    assert sessions(tmp_path) == []


def test_workers_are_read_together_by_time(tmp_path: Path) -> None:
    one, two = ring(tmp_path), ring(tmp_path, worker=2)
    one.put(transcript("S0", kept=5))
    two.put(transcript("S1", kept=4))
    assert sessions(tmp_path) == ["S1", "S0"]


def test_following(tmp_path: Path) -> None:
    one, two = ring(tmp_path), ring(tmp_path, worker=2)
    one.put(transcript("S0"))
    shelf = Shelf(tmp_path)
    behind = shelf.newest()
    assert shelf.read(behind) == []
    two.put(transcript("S1"))
    place = one.put(transcript("S2"))
    assert {each.session for each in shelf.read(behind)} == {"S1", "S2"}
    one.put(transcript("S2 again"), place)
    assert [each.session for each in shelf.read(behind)] == ["S2 again"]
    assert shelf.read(behind) == []


@pytest.mark.parametrize("at", [0, 8, 12, 16, 40])
def test_what_is_torn_is_passed_over(tmp_path: Path, at: int) -> None:
    """Whatever octet of a slot is not the one that was written."""
    written = ring(tmp_path)
    written.put(transcript("S0", kept=0))
    written.put(transcript("S1", kept=1))
    with (tmp_path / "transcripts-1").open("r+b") as file:
        file.seek(2 * SLOT + at)
        octet = file.read(1)[0]
        file.seek(2 * SLOT + at)
        file.write(bytes([octet ^ 1]))
    assert sessions(tmp_path) == ["S0"]
    assert ring(tmp_path).put(transcript("S2", kept=2)).number > 1
    assert sessions(tmp_path) == ["S0", "S2"]


def test_other_files_and_half_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "transcripts-7").write_bytes(b"mta transcripts 0\n" + bytes(9000))
    (tmp_path / "transcripts-8").write_bytes(b"mta")
    assert Shelf(tmp_path).read() == []
    assert Shelf(tmp_path).omitted() == 0


def test_a_long_one_is_made_to_fit(tmp_path: Path) -> None:
    lines: list[Line | None] = [(n, 0, 400, b"%d" % n + b"x" * 390) for n in range(20)]
    ring(tmp_path).put(transcript("S0", lines=lines))
    kept = Shelf(tmp_path).read()[0]
    assert kept.lines[0] == (0, 0, 400, b"0" + b"x" * 390)
    assert kept.lines[-1] == (19, 0, 400, b"19" + b"x" * 390)
    assert kept.lines.count(None) == 1
    assert kept.dropped + len(kept.lines) - 1 == 20


def test_a_flood_is_counted(tmp_path: Path) -> None:
    written = ring(tmp_path, slots=500)
    assert sum(written.allows("noisy.test", 1) for _ in range(1000)) == 20
    assert sum(written.allows(f"{n}.test", 2) for n in range(1000)) == 200
    assert written.allows("noisy.test", 3)
    assert Shelf(tmp_path).omitted() == 1780


def test_a_reader_beside_a_writer_sees_whole_ones(tmp_path: Path) -> None:
    """A process writes as fast as it can until it is killed, and its successor finds all but one of its slots."""
    pid = os.fork()
    if pid == 0:
        _write_for_ever(tmp_path)
    try:
        shelf, seen, behind = Shelf(tmp_path), 0, dict[str, int]()
        while seen < 300:
            for each in shelf.read(behind):
                seen += 1
                assert each.lines == [(0, 1, 5, each.session.encode() * 20)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(sessions(tmp_path)) >= 3
    assert ring(tmp_path).put(transcript("new")).number > 300


def _write_for_ever(folder: Path) -> None:
    try:
        written = ring(folder)
        number, place = 0, None
        while True:
            number += 1
            name = f"S{number}"
            kept = transcript(name, f"{number % 3}.test", kept=number, lines=[(0, 1, 5, name.encode() * 20)])
            place = written.put(kept, place if number % 4 == 0 else None)
    finally:
        os._exit(1)


def test_a_place_in_memory() -> None:
    written = Ring(None, 5 * SLOT, 3)
    assert written.put(transcript("S0")) == Place(0, 1)
