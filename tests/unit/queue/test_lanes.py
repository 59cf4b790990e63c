"""Whose deliveries are, and by which pool they leave: from the arrival through checkpoints and restarts."""

from __future__ import annotations

import msgspec
import pytest

from mta.model import Options, Outcome, Queued, Status
from mta.queue import _arena, lanes
from mta.queue.lanes import Lanes
from mta.queue.snapshot import Housekeeping
from tests.kit.queue import FIRST, LATER, World

NEWS = Options(tenant="news", rank=-3)
DEFERRED = Outcome(Status.DEFERRED, LATER, "hop")


def laned(world: World) -> dict[tuple[int, int], tuple[object, int]]:
    """Lane and marks of each delivery."""
    arena = world.manager.arena
    rows, _ = arena.rows(0, 100)
    return {
        (row[1] - FIRST, row[4]): (
            world.manager.lanes.lane(*arena.lane(row[0])),
            row[9] & (_arena.URGENT | _arena.BULK),
        )
        for row in rows
    }


def test_names_have_numbers_and_there_are_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = _arena.Arena()
    known = Lanes(arena, {"b": 3}, None)
    assert known.numbers(("a", "")) == (1, 0)
    assert known.numbers(("b", "p")) == (2, 1)
    assert known.numbers(("a", "p")) == (1, 1)
    assert [known.lane(*n) for n in ((0, 0), (1, 0), (2, 1), (0, 1))] == [None, ("a", ""), ("b", "p"), ("", "p")]
    monkeypatch.setattr(lanes, "MOST", 3)
    assert known.numbers(("c", "q")) == (0, 2)
    line = arena.new_line()
    whose = {}
    for n in range(80):
        slot = arena.add(n, n, 0, 0)
        arena.assign(slot, 1 + n % 2, 0)
        arena.push(line, slot, _arena.READY)
        whose[slot] = 1 + n % 2
    assert [whose[arena.pop(line)] for _ in range(40)].count(2) == 30, "three of four"


def test_a_lane_is_kept_by_checkpoints() -> None:
    """Fresh, deferred, in several parts; and what is nobody's has none."""
    world = World()
    world.arrive(1, b"a@x.example", options=NEWS)
    world.arrive(2, b"a@x.example")
    world.arrive(3, b"a@x.example", b"b@y.example", options=Options(tenant="shop", pool="fast", priority=4))
    world.result(world.couriers.given[0], DEFERRED)
    expected = {
        (1, 0): (("news", ""), _arena.BULK),
        (2, 0): (None, 0),
        (3, 0): (("shop", "fast"), _arena.URGENT),
        (3, 1): (("shop", "fast"), _arena.URGENT),
    }
    assert laned(world) == expected
    kept = msgspec.msgpack.decode(
        msgspec.msgpack.encode(list(Housekeeping(world.manager).snapshot())), type=list[Queued]
    )
    after = World(opened=False)
    after.store.envelopes = world.store.envelopes
    for queued in kept:
        after.manager.admission.admit(queued)
    assert laned(after) == expected


def test_no_envelope_is_read_for_a_class() -> None:
    world = World()
    message = Queued(id=FIRST + 1, ref=8, size=1, domains=(b"x.example",), wants=4, lane=("news", ""))
    world.manager.admission.admit(message)  # its envelope cannot be had
    assert laned(world) == {(1, 0): (("news", ""), _arena.BULK)}


def test_what_is_in_a_line_keeps_its_lane() -> None:
    arena = _arena.Arena()
    slot = arena.add(1, 1, 0, 0)
    arena.assign(slot, 3, 4)
    assert arena.lane(slot) == (3, 4)
    arena.push(arena.new_line(), slot, _arena.READY)
    with pytest.raises(ValueError, match="is in a line"):
        arena.assign(slot, 0, 0)
    arena.remove(slot)
    assert arena.lane(arena.add(2, 2, 0, 0)) == (0, 0)
