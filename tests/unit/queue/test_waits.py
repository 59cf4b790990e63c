"""How long mail waits for its first attempt."""

from __future__ import annotations

import pytest

from mta.model import EPOCH_MS, WANTS_BULK, WANTS_HASTE, IdSource
from mta.queue._arena import READY, TIMED, Arena
from mta.queue.waits import Waits, longest, percentile
from tests.kit.queue import NOW

MS = int(NOW * 1000)


def counted(*waits: int, marks: int = 0, attempts: int = 0) -> list[int]:
    """The counts of normal mail when these have waited so many milliseconds."""
    arena = Arena()
    take(arena, waits, marks=marks, attempts=attempts)
    return arena.waits(1)


def take(arena: Arena, waits: tuple[int, ...], *, marks: int = 0, attempts: int = 0) -> None:
    line, active = arena.new_line(), arena.new_list()
    for wait in waits:
        slot = arena.add(IdSource(1).next(MS - wait), 0, 0, 0)
        arena.mark(slot, marks)
        arena.set_attempts(slot, attempts)
        arena.push(line, slot, READY)
    arena.take(line, len(waits), active, MS - EPOCH_MS)


@pytest.mark.parametrize("wait", [0, 1, 6, 7, 8, 9, 15, 100, 999, 1000, 12_345, 86_400_000, 5 * 86_400_000])
def test_a_wait_is_counted_where_it_belongs(wait: int) -> None:
    [bucket] = [n for n, count in enumerate(counted(wait)) if count]
    assert longest(bucket - 1) * 1000 < wait + 1 <= longest(bucket) * 1000
    assert longest(bucket) * 1000 <= max(8, 1.25 * (wait + 1))


def test_bounds_grow() -> None:
    bounds = [longest(n) for n in range(128)]
    assert bounds == sorted(set(bounds))


def test_only_first_attempts_of_what_goes_at_once_are_counted() -> None:
    assert sum(counted(5, 6, 7)) == 3
    assert sum(counted(5, attempts=1)) == 0
    assert sum(counted(5, marks=TIMED)) == 0
    assert counted(-50)[1] == 1, "a clock that was set back"


def test_percentiles() -> None:
    counts = counted(*[10] * 98, *[1000] * 2)
    assert percentile(counts, 0.5) == pytest.approx(0.011)
    assert percentile(counts, 0.98) == pytest.approx(0.011)
    assert percentile(counts, 0.99) == pytest.approx(1.023)
    assert percentile([0] * 128, 0.5) == 0.0


def test_the_report_is_of_the_last_minutes() -> None:
    arena = Arena()
    waits = Waits(arena, 0.0)
    assert waits.report(1.0) == {}
    take(arena, (100_000,) * 10, marks=WANTS_BULK << 2)
    take(arena, (0,), marks=WANTS_HASTE << 2)
    first = waits.report(5.0)
    assert list(first) == ["urgent", "bulk"]
    assert first["bulk"]["p50"] == pytest.approx(100, rel=0.2)
    for minute in range(1, 12):
        waits.look(60.0 * minute)
        waits.look(60.0 * minute + 1)
    take(arena, (10,), marks=WANTS_BULK << 2)
    last = waits.report(700.0)
    assert (last["bulk"]["begun"], last["bulk"]["lately"]) == (11, 1)
    assert last["bulk"]["p99"] == pytest.approx(0.011)
    assert last["bulk"]["seconds"] <= 660
    assert (last["urgent"]["lately"], last["urgent"]["p99"]) == (0, 0.0)
