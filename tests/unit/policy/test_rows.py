"""Rows in shared memory: found by name, never more of them, the oldest gives way."""

from mta.policy.rows import LAST, SharedRows


def test_a_row_is_found_by_its_tag_in_its_shard_only() -> None:
    rows = SharedRows(4, shards=2)
    tag = rows.tag("x")
    assert rows.find(tag, 0) == -1
    row = rows.claim(tag, 0)
    assert rows.find(tag, 0) == rows.claim(tag, 0) == row
    assert rows.find(tag, 1) == -1
    assert rows.claim(tag, 1) != row


def test_the_row_that_was_quiet_longest_gives_way_and_is_clean() -> None:
    rows = SharedRows(4, sets=1)
    for n in range(8):
        row = rows.claim(100 + n)
        rows.cells[row + LAST] = 50 - n
        rows.cells[row + 3] = 7
    new = rows.claim(200)
    assert rows.find(107) == -1
    assert list(rows.cells[new : new + 4]) == [200, 0, 0, 0]


def test_a_busy_row_is_never_taken() -> None:
    rows = SharedRows(4, sets=1)
    taken = {rows.claim(100 + n) for n in range(8)}
    assert rows.claim(200, busy=lambda row: row in taken) == -1
    spare = next(iter(taken))
    assert rows.claim(200, busy=lambda row: row != spare) == spare


def test_tags_depend_on_the_table() -> None:
    assert SharedRows(4).tag("x") != SharedRows(4).tag("x")
