"""Counters are shared by forked processes and summed by name."""

import os

import pytest

from mta.observe.counters import INDEX, NAMES, Table


def test_a_child_counts_where_the_parent_sees_it() -> None:
    table = Table(3)
    table.row(1)[INDEX["commits"]] = 2
    child = os.fork()
    if child == 0:
        table.row(2)[INDEX["commits"]] += 5
        os._exit(0)
    os.waitpid(child, 0)
    assert table.totals()["commits"] == 7
    assert set(table.totals()) == set(NAMES)


def test_there_is_no_row_beyond_the_table() -> None:
    with pytest.raises(IndexError):
        Table(3).row(3)
