"""What addresses have open and how often they come, over several receivers, some of which die."""

import os

import pytest

from mta.config.settings import Rate
from mta.policy.tally import CONNECTIONS, MESSAGES, TallyTable

MINUTE = Rate(10, 60)
NOW = 600_000


def test_what_is_open_is_summed_over_receivers() -> None:
    table = TallyTable(2)
    one, two = table.born(0), table.born(1)
    tag = one.tag("a")
    rows = [one.enter(tag, NOW), one.enter(tag, NOW)]
    other = two.enter(tag, NOW)
    assert one.present(tag) == two.present(tag) == 3
    one.leave(rows[0])
    two.leave(other)
    assert one.present(tag) == two.present(tag) == 1
    assert one.present(one.tag("b")) == 0


def test_what_a_dead_receiver_had_open_is_forgotten_and_its_rates_are_not() -> None:
    table = TallyTable(2)
    one, two = table.born(0), table.born(1)
    tag = one.tag("a")
    for _ in range(5):
        one.enter(tag, NOW)
        one.add(tag, CONNECTIONS, MINUTE, NOW)
    successor = table.born(0)
    assert two.present(tag) == successor.present(tag) == 0
    assert two.recent(tag, CONNECTIONS, MINUTE, NOW) == 5
    row = successor.enter(tag, NOW)
    assert two.present(tag) == 1
    successor.leave(row)
    assert two.present(tag) == 0


def test_a_window_slides() -> None:
    tally = TallyTable(1).born(0)
    tag = tally.tag("a")
    tally.add(tag, MESSAGES, MINUTE, NOW + 30, 12)
    assert tally.recent(tag, MESSAGES, MINUTE, NOW + 59) == 12
    assert tally.recent(tag, MESSAGES, MINUTE, NOW + 60) == 12
    assert tally.recent(tag, MESSAGES, MINUTE, NOW + 90) == 6
    assert tally.recent(tag, MESSAGES, MINUTE, NOW + 119) == 0
    assert tally.recent(tag, MESSAGES, MINUTE, NOW + 120) == 0
    tally.add(tag, MESSAGES, MINUTE, NOW + 90, 1)
    assert tally.recent(tag, MESSAGES, MINUTE, NOW + 90) == 7
    assert tally.recent(tag, CONNECTIONS, MINUTE, NOW + 90) == 0


def test_rates_are_summed_over_receivers() -> None:
    table = TallyTable(3)
    tallies = [table.born(n) for n in range(3)]
    tag = tallies[0].tag("a")
    for tally in tallies:
        tally.add(tag, MESSAGES, MINUTE, NOW, 4)
    assert {tally.recent(tag, MESSAGES, MINUTE, NOW + 1) for tally in tallies} == {12}


@pytest.mark.parametrize("amount", [1 << 20, 1 << 40])
def test_a_count_ends_at_its_largest_value(amount: int) -> None:
    tally = TallyTable(1).born(0)
    tag = tally.tag("a")
    tally.add(tag, MESSAGES, MINUTE, NOW, amount)
    tally.add(tag, MESSAGES, MINUTE, NOW, amount)
    assert tally.recent(tag, MESSAGES, MINUTE, NOW) == (1 << 20) - 1


def test_an_address_with_open_connections_keeps_its_row_whatever_comes() -> None:
    tally = TallyTable(1).born(0)
    held = [tally.tag(f"held {n}") for n in range(1000)]
    for tag in held:
        tally.enter(tag, NOW)
    for n in range(100_000):
        tally.add(tally.tag(f"passing {n}"), CONNECTIONS, MINUTE, NOW + 1 + n)
    assert [tally.present(tag) for tag in held] == [1] * 1000


def test_processes_share_what_they_count() -> None:
    table = TallyTable(2)
    mine = table.born(0)
    tag = mine.tag("a")
    child = os.fork()
    if child == 0:
        theirs = table.born(1)
        theirs.enter(tag, NOW)
        theirs.add(tag, MESSAGES, MINUTE, NOW, 3)
        os._exit(0)
    os.waitpid(child, 0)
    assert mine.present(tag) == 1
    assert mine.recent(tag, MESSAGES, MINUTE, NOW) == 3
