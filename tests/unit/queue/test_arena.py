"""The arena against a plain-Python reference: lists, states and the timer wheel."""

import hashlib
import random
import struct
from array import array
from collections import deque
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import mta.queue._arena as native
from mta import model
from mta.queue._arena import (
    ACTIVE,
    BULK,
    DEFERRED,
    EMBARGOED,
    HELD,
    IDLE,
    READY,
    TIMED,
    TOLD,
    TOLD_DELAY,
    TOLD_LATE,
    URGENT,
    Arena,
    Query,
)


def test_the_extension_is_built_from_this_source() -> None:
    source = Path(native.__file__).with_name("_arena.pyx")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == native.SOURCE_HASH, "stale: run `make build`"


def test_the_stub_names_what_the_module_has() -> None:
    stub = Path(native.__file__).with_name("_arena.pyi").read_text()
    names = {n for n in [*dir(native), *dir(Arena), *dir(Query)] if not n.startswith("__")}
    assert {n for n in names if n not in stub} == set()


class Reference:
    """What the arena does, in the plainest way."""

    def __init__(self) -> None:
        self.lists: dict[int, deque[int]] = {}
        self.states: dict[int, int] = {}
        self.due: dict[int, int] = {}
        self.now = 0

    def leave(self, slot: int) -> None:
        for members in self.lists.values():
            if slot in members:
                members.remove(slot)
        self.due.pop(slot, None)
        self.states[slot] = IDLE

    def advance(self, tick: int) -> set[int]:
        self.now = tick
        due = {slot for slot, when in self.due.items() if when <= tick}
        for slot in due:
            self.leave(slot)
        return due


class ArenaMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena()
        self.model = Reference()
        self.chains = [self.arena.new_list() for _ in range(3)]
        self.model.lists = {chain: deque() for chain in self.chains}
        self.ids = 0

    @rule()
    def add(self) -> None:
        self.ids += 1
        slot = self.arena.add(self.ids, self.ids * 8, 3, 1)
        assert slot not in self.model.states
        self.model.states[slot] = IDLE
        assert self.arena.holds(slot, self.ids, 1)
        assert not self.arena.holds(slot, self.ids, 0)

    @precondition(lambda self: self.model.states)
    @rule(data=st.data(), chain=st.integers(0, 2), state=st.sampled_from([READY, ACTIVE, HELD]), front=st.booleans())
    def push(self, data: st.DataObject, chain: int, state: int, front: bool) -> None:
        slot = data.draw(st.sampled_from(sorted(self.model.states)))
        self.arena.push(self.chains[chain], slot, state, front)
        self.model.leave(slot)
        members = self.model.lists[self.chains[chain]]
        (members.appendleft if front else members.append)(slot)
        self.model.states[slot] = state

    @rule(chain=st.integers(0, 2))
    def pop(self, chain: int) -> None:
        slot = self.arena.pop(self.chains[chain])
        members = self.model.lists[self.chains[chain]]
        if members:
            assert slot == members.popleft()
            self.model.states[slot] = IDLE
        else:
            assert slot == -1

    @rule(limit=st.integers(0, 4))
    def take(self, limit: int) -> None:
        source, target = self.chains[0], self.chains[1]
        taken = self.arena.take(source, limit, target)
        assert [t[0] for t in taken] == list(self.model.lists[source])[:limit]
        for slot, message_id, ref, part, _ in taken:
            assert (ref, part) == (message_id * 8, 1)
            self.model.leave(slot)
            self.model.lists[target].append(slot)
            self.model.states[slot] = ACTIVE

    @precondition(lambda self: self.model.states)
    @rule(data=st.data(), ahead=st.one_of(st.integers(0, 600), st.integers(0, 200_000), st.integers(0, 40_000_000)))
    def schedule(self, data: st.DataObject, ahead: int) -> None:
        slot = data.draw(st.sampled_from(sorted(self.model.states)))
        due = self.model.now + ahead
        self.arena.schedule(slot, due)
        self.model.leave(slot)
        self.model.due[slot] = max(due, self.model.now + 1)
        self.model.states[slot] = DEFERRED

    @rule(ahead=st.one_of(st.integers(0, 300), st.integers(0, 70_000)))
    def advance(self, ahead: int) -> None:
        tick = self.model.now + ahead
        assert set(self.arena.advance(tick)) == self.model.advance(tick)

    @precondition(lambda self: self.model.states)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.model.states)))
        self.arena.remove(slot)
        self.model.leave(slot)
        del self.model.states[slot]
        with pytest.raises(IndexError):
            self.arena.id(slot)

    @invariant()
    def agree(self) -> None:
        assert len(self.arena) == len(self.model.states)
        for state in (IDLE, READY, ACTIVE, DEFERRED, HELD):
            assert self.arena.count(state) == sum(s == state for s in self.model.states.values())
        for chain in self.chains:
            assert self.arena.length(chain) == len(self.model.lists[chain])


ArenaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestArena = ArenaMachine.TestCase


def test_everything_scheduled_comes_once_and_in_time() -> None:
    dice = random.Random(5)
    arena = Arena()
    due = {
        arena.add(n, n, 0, 0): dice.choice([1, 300, 70_000, 20_000_000]) * dice.randrange(1, 100) for n in range(3000)
    }
    for slot, tick in due.items():
        arena.schedule(slot, tick)
    moments = sorted({*due.values(), 1, 255, 256, 257, 65_535, 65_536, 65_537})
    seen = 0
    for moment in moments:
        early = arena.advance(moment - 1)
        assert all(due[slot] <= moment - 1 for slot in early)
        on_time = arena.advance(moment)
        assert all(due[slot] == moment for slot in on_time)
        seen += len(early) + len(on_time)
    assert seen == len(due)


def test_a_limit_leaves_the_rest_for_the_next_call() -> None:
    arena = Arena()
    for n in range(100):
        arena.schedule(arena.add(n, n, 0, 0), n + 1)
    got: list[int] = []
    while batch := arena.advance(200, 7):
        assert len(batch) <= 7
        got += batch
    assert len(got) == 100


def test_wrong_numbers_are_errors_and_never_stray_writes() -> None:
    arena = Arena()
    slot = arena.add(1, 1, 0, 0)
    with pytest.raises(IndexError):
        arena.push(0, slot, READY)  # a bucket of the wheel is nobody's list
    with pytest.raises(IndexError):
        arena.push(5000, slot, READY)
    with pytest.raises(IndexError):
        arena.schedule(slot + 1, 5)
    with pytest.raises(ValueError):
        arena.push(arena.new_list(), slot, 99)
    assert not arena.holds(slot + 1, 1, 0)


def test_find_and_scan() -> None:
    arena = Arena()
    held = arena.new_list()
    slots = [arena.add(n // 2, n, 0, n % 2) for n in range(5000)]
    for slot in slots[::5]:
        arena.push(held, slot, HELD)
    assert arena.find(1234) == slots[2468:2470]
    assert arena.find(9999) == []
    assert arena.locate({1234, 9999}) == {(1234, 0): slots[2468], (1234, 1): slots[2469]}
    found: list[int] = []
    cursor = 0
    while cursor >= 0:
        some, cursor = arena.scan(cursor, 300, 1 << HELD)
        found += some
    assert found == slots[::5]


def test_rows_tell_all_of_a_slot_in_slices() -> None:
    arena = Arena(0)
    slots = [arena.restore(100 + n, 200 + n, n, 0, 3, 7, 50 + n, 1) for n in range(5)]
    arena.remove(slots[2])
    first, cursor = arena.rows(0, 3)
    rest, end = arena.rows(cursor, 3)
    assert first + rest == [(n, 100 + n, 200 + n, n, 0, DEFERRED, 3, 50 + n, 7, 1) for n in (0, 1, 3, 4)]
    assert end == -1
    assert arena.advance(60) == [0, 1, 3, 4]


def test_a_choice_by_domain_is_scanned_and_counted() -> None:
    arena = Arena(0)
    for n in range(9):
        arena.restore(n // 2, n, n % 3, n % 2, 0, 0, 9)
    chosen = bytes([0, 1])  # domain 1; 2 is beyond the end

    def numbers(*nodes: tuple[object, ...]) -> list[int]:
        entries, cursor = arena.choose(0, 100, query(*nodes))
        assert cursor == -1
        return [entry[0] for entry in entries]

    deferred, of_one = ("state", 1 << DEFERRED), ("table", "domain", chosen)
    assert numbers(("and", 2), deferred, of_one) == [1, 4, 7]
    assert numbers(("and", 2), ("state", 1 << HELD), of_one) == []
    assert arena.tally(0, query(of_one), {}) == (3, [], -1)
    assert arena.tally(0, query(of_one), {0: 2, 3: 2}) == (1, [0, 3], -1)
    assert arena.tally(0, query(deferred), {}) == (9, [], -1)


def query(*nodes: tuple[object, ...]) -> Query:
    return Query(list(nodes), 100.0, 0.0, 0.0)


def test_a_query_knows_what_it_does_not_know() -> None:
    arena = Arena(0)
    slots = [arena.restore(n << 19, n, n, 0, n, n, 80 + 8 * n) for n in range(4)]  # due 10, 11, 12, 13 s

    def answers(*nodes: tuple[object, ...]) -> dict[int, bool]:
        return {entry[0]: entry[-1] for entry in arena.choose(0, 100, query(*nodes))[0]}

    some, sure = ("number", "attempts", ">", 1.0), dict.fromkeys(slots[2:], True)
    assert answers(some) == sure
    assert answers(("unsure",)) == dict.fromkeys(slots, False)
    assert answers(("and", 2), some, ("unsure",)) == dict.fromkeys(slots[2:], False)
    assert answers(("or", 2), some, ("unsure",)) == sure | dict.fromkeys(slots[:2], False)
    assert answers(("not",), ("or", 2), some, ("unsure",)) == dict.fromkeys(slots[:2], False)
    assert answers(("and", 2), ("not",), some, ("not",), ("id", 0)) == {slots[1]: True}
    assert answers(("number", "next", "<=", -89.0)) == dict.fromkeys(slots[:2], True)
    assert answers(("number", "age", ">=", 99.998)) == dict.fromkeys(slots[:3], True)
    assert answers(("slots", struct.pack("2I", slots[1], slots[3]))) == {slots[1]: True, slots[3]: True}
    assert answers(("table", "why", b"\1\0\1")) == {slots[0]: True, slots[2]: True}
    assert answers(("and", 0)) == dict.fromkeys(slots, True)
    arena.push(arena.new_list(), slots[3], HELD)
    assert slots[3] not in answers(("number", "next", "!=", 5.0)), "it waits for no time"


@pytest.mark.parametrize(
    "nodes",
    [[], [("and", 2), ("all",)], [("not",)], [("all",), ("all",)], [("and", 9)], [("all",)] * 2001],
)
def test_no_query(nodes: list[tuple[object, ...]]) -> None:
    with pytest.raises(ValueError):
        Query(nodes, 0.0, 0.0, 0.0)


def test_references_change_unless_a_part_is_in_hand() -> None:
    arena = Arena(0)
    active, held = arena.new_list(), arena.new_list()
    slots = [arena.restore(n // 2, 8 * (n // 2), 0, n % 2, 0, 0, 9) for n in range(8)]
    arena.push(active, slots[2], ACTIVE)
    arena.push(held, slots[4], HELD)
    arena.detach(slots[7])
    moved, busy = arena.relocate({0: 1000, 8: 1008, 16: 1016, 24: 1024, 99: 5})
    assert moved == [slots[0], slots[1], slots[4], slots[5]]
    assert busy == {8, 24}
    assert [arena.ref(slot) for slot in slots] == [1000, 1000, 8, 8, 1016, 1016, 24, 24]
    assert arena.relocate({}) == ([], set())


def test_an_urgent_delivery_is_so_in_ready_lists_only() -> None:
    arena = Arena()
    held = arena.new_list()
    slots = [arena.add(n, n, 0, 0) for n in range(3)]
    arena.mark(slots[1], URGENT)
    for slot in slots:
        arena.push(held, slot, HELD)
    assert [arena.pop(held) for _ in slots] == slots


def test_an_embargo_ends_with_the_wait() -> None:
    arena = Arena(100)
    ready = arena.new_list()
    slots = [arena.add(n, n, 0, 0) for n in range(3)]
    for slot in slots:
        arena.mark(slot, TIMED)
        arena.embargo(slot, 100 + 70_000, 5)
        assert (arena.state(slot), arena.marks(slot), arena.why(slot)) == (DEFERRED, TIMED | EMBARGOED, 5)
    arena.push(ready, slots[1], READY)
    arena.schedule(slots[2], 120)
    assert [(arena.marks(slot), arena.why(slot)) for slot in slots] == [(TIMED | EMBARGOED, 5), (TIMED, 0), (TIMED, 0)]
    assert arena.advance(70_099) == [slots[2]]
    assert arena.marks(slots[0]) == TIMED | EMBARGOED, "through all levels of the wheel"
    assert arena.advance(70_101) == [slots[0]]
    assert (arena.marks(slots[0]), arena.why(slots[0])) == (TIMED, 0)


def test_marks_are_those_of_the_model() -> None:
    assert (TOLD_DELAY, TOLD_LATE, TOLD) == (model.TOLD_DELAY, model.TOLD_LATE, 3)
    asked = (model.WANTS_TIME, model.WANTS_HASTE, model.WANTS_BULK)
    assert asked == (TIMED >> 2, URGENT >> 2, BULK >> 2)


def test_a_census_counts_sites_and_states() -> None:
    arena = Arena()
    line, held = arena.new_line(), arena.new_list()
    for number in range(300_000):  # more than one call looks at
        slot = arena.add(number + 1, 0, 0, 0)
        arena.set_site(slot, number % 3)
        arena.push(held, slot, HELD)
    for number in range(5):
        arena.push(line, number, READY)
    arena.remove(7)
    counts = array("I", bytes(4 * 8 * 2))  # of sites 0 and 1; who came meanwhile is not counted
    cursor, calls = 0, 0
    while cursor >= 0:
        cursor = arena.census(cursor, counts)
        calls += 1
    assert calls == 2
    assert counts[HELD] == 100_000 - 2
    assert counts[READY] == 2
    assert counts[8 + HELD] == 100_000 - 2 - 1
    assert counts[8 + READY] == 2
    assert sum(counts) == 200_000 - 1
