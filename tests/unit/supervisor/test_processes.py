"""When the dead may come back, and how deaths are told."""

from __future__ import annotations

import signal

import pytest

from mta.processes import Backoff, ProcessTable, describe


def test_who_lived_long_comes_back_at_once() -> None:
    assert Backoff().died(100.0, lived=10.1) == 0.0


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff()
    delays = [backoff.died(now * 100.0, lived=1.0) for now in range(9)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])
    assert not backoff.looping


def test_a_long_life_forgives() -> None:
    backoff = Backoff()
    for now in (0.0, 100.0, 200.0):
        backoff.died(now, lived=1.0)
    backoff.died(300.0, lived=50.0)
    assert backoff.died(400.0, lived=1.0) == pytest.approx(0.1)


def test_five_deaths_in_half_a_minute_are_a_loop() -> None:
    backoff = Backoff()
    for now in range(4):
        backoff.died(float(now), lived=0.5)
        assert not backoff.looping
    assert backoff.died(4.0, lived=0.5) == 10.0
    assert backoff.looping
    assert backoff.died(14.0, lived=0.5) == 10.0
    backoff.died(100.0, lived=60.0)
    assert not backoff.looping


def test_the_process_table_shows_the_living() -> None:
    table = ProcessTable([("queue", 0), ("receiver", 1), ("courier", 2)])
    table.set(0, 4711)
    table.set(2, 4712)
    assert table.rows() == [("queue", 0, 4711), ("courier", 2, 4712)]
    table.set(0, 0)
    assert table.rows() == [("courier", 2, 4712)]
    table.died(0)
    table.died(0)
    assert table.places() == [("queue", 0, 0, 2), ("receiver", 1, 0, 0), ("courier", 2, 4712, 0)]


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exit status 0"), (70 << 8, "exit status 70"), (int(signal.SIGKILL), "signal SIGKILL"), (40, "signal 40")],
)
def test_how_a_death_is_told(status: int, text: str) -> None:
    assert describe(status) == text
