"""Seats: a file that outlives processes, and that a boot makes void."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mta.net.seats import DELIVERED, DOTTED, GIVEN, SEATS, SeatTable

JOBS = [(7, 1 << 59, 800, 65535, 65535), (8, 12, 808, 0, 3)]


def test_jobs_come_back_as_they_were_filled_in() -> None:
    (row,) = SeatTable(None, 1, "").rows
    vacant = row.vacant()
    assert len(vacant) == SEATS - 1
    assert row.fill(JOBS, vacant) == [1, 2]
    row.states[2] = DOTTED
    assert list(row.used()) == [(1, 1 << 59, 65535, 65535, GIVEN), (2, 12, 0, 3, DOTTED)]
    assert row.vacant() == vacant


def test_seat_0_is_for_those_who_find_no_other() -> None:
    (row,) = SeatTable(None, 1, "").rows
    assert row.fill(JOBS, [5]) == [5, 0]
    row.states[0] = DELIVERED
    assert [seat for seat, *_ in row.used()] == [5]


def test_children_and_later_servers_see_what_was_written(tmp_path: Path) -> None:
    table = SeatTable(tmp_path / "seats", 2, "a")
    table.rows[1].life = 77
    seats = table.rows[1].fill(JOBS, table.rows[1].vacant())
    child = os.fork()
    if child == 0:
        table.rows[1].states[seats[0]] = DELIVERED
        os._exit(0)
    os.waitpid(child, 0)
    again = SeatTable(tmp_path / "seats", 1, "a")
    assert len(again.rows) == 2, "what more couriers had is not lost"
    assert again.rows[1].life == 77
    assert [state for *_, state in again.rows[1].used()] == [DELIVERED, GIVEN]
    assert len(SeatTable(tmp_path / "seats", 5, "a").rows) == 5
    assert [state for *_, state in again.rows[1].used()] == [DELIVERED, GIVEN]


@pytest.mark.parametrize("how", ["boot", "owner", "size", "text"])
def test_seats_of_another_boot_or_spool_are_void(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seats"
    row = SeatTable(path, 1, "a").rows[0]
    row.fill(JOBS, row.vacant())
    if how == "boot":
        (tmp_path / "boot").write_text("another\n")
        monkeypatch.setattr("mta.net.seats._BOOT", tmp_path / "boot")
    elif how == "size":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "text":
        path.write_text("something else")
    (row,) = SeatTable(path, 1, "b" if how == "owner" else "a").rows
    assert list(row.used()) == []


def test_the_file_has_no_holes_and_is_nobody_elses(tmp_path: Path) -> None:
    SeatTable(tmp_path / "seats", 2, "a")
    there = (tmp_path / "seats").stat()
    assert there.st_blocks * 512 >= there.st_size
    assert there.st_mode & 0o777 == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "seats").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="seats"):
        SeatTable(tmp_path / "seats", 1, "a")
