"""Whose turn it is in a line: tenants by weight, classes within them, urgent mail ahead, nobody left behind."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.queue._arena import ACTIVE, BULK, HELD, READY, URGENT, Arena
from tests.kit.turns import Line

RANKS = (URGENT, 0, BULK)  # marks of the classes


class Both:
    """A line of an arena, and the plain one; whatever is done is done to both."""

    def __init__(self, weights: dict[int, int]) -> None:
        self.arena = Arena()
        self.line = self.arena.new_line()
        self.plain = Line(weights)
        self.number = 0
        self.ready: list[int] = []
        for tenant, weight in weights.items():
            self.arena.set_weight(tenant, weight)

    def push(self, tenant: int, rank: int, *, front: bool = False) -> int:
        self.number += 1
        slot = self.arena.add(self.number, self.number, 0, 0)
        self.arena.mark(slot, RANKS[rank])
        self.arena.assign(slot, tenant, 0)
        self.arena.push(self.line, slot, READY, front)
        self.plain.push(slot, tenant, rank, front=front)
        self.ready.append(slot)
        return slot

    def pop(self) -> int:
        slot = self.arena.pop(self.line)
        assert slot == self.plain.pop()
        self.ready.remove(slot)
        return slot

    def leave(self, slot: int) -> None:
        self.arena.remove(slot)
        self.plain.remove(slot)
        self.ready.remove(slot)

    def check(self) -> None:
        assert self.arena.length(self.line) == len(self.plain) == len(self.ready)


pushes = st.tuples(st.just("push"), st.sampled_from([0, 0, 1, 2, 3, 9]), st.integers(0, 2), st.booleans())
many = st.tuples(st.just("many"), st.integers(0, 3), st.integers(0, 2), st.booleans())
pops = st.tuples(st.just("pop"), st.integers(1, 60), st.just(0), st.just(False))
leaves = st.tuples(st.just("leave"), st.integers(0, 99), st.just(0), st.just(False))


@settings(max_examples=300, deadline=None)
@given(st.lists(pushes | many | pops | leaves, max_size=60), st.dictionaries(st.integers(0, 3), st.integers(1, 9)))
def test_the_turns_are_those_of_the_plain_line(
    steps: list[tuple[str, int, int, bool]], weights: dict[int, int]
) -> None:
    both = Both(weights)
    for what, number, rank, front in steps:
        if what == "push":
            both.push(number, rank, front=front)
        elif what == "many":
            for _ in range(20):
                both.push(number, rank)
        elif what == "leave" and number < len(both.ready):
            both.leave(both.ready[number])
        elif what == "pop":
            for _ in range(min(number, len(both.ready))):
                both.pop()
        both.check()
    while both.ready:
        both.pop()
    assert both.arena.pop(both.line) == -1
    assert both.arena.shares_in_use() <= 1


def test_a_long_life_with_many_tenants() -> None:
    """The hash table grows, the scale begins anew, idle tenants are forgotten; the plain line agrees all the way."""
    chance = random.Random(7)
    both = Both({tenant: chance.randint(1, 20) for tenant in range(40)})
    for tenant in range(300):
        both.push(tenant, chance.choice((0, 1, 1, 2)))
    for _ in range(2500):
        if len(both.ready) < 400:
            both.push(min(int(chance.expovariate(0.02)), 400), chance.choice((0, 1, 1, 2)))
        if chance.random() < 0.5 or len(both.ready) >= 400:
            both.pop()
        if chance.random() < 0.02:
            both.leave(chance.choice(both.ready))
    both.check()
    assert both.arena.shares_in_use() == len(both.plain.shares) < 400
    while both.ready:
        both.pop()
    assert both.arena.shares_in_use() == 1


def filled(weights: dict[int, int], each: int, *, rank: int = 1) -> tuple[Arena, int, dict[int, int]]:
    """A line in which each tenant has so many; whose each slot is."""
    arena = Arena()
    line = arena.new_line()
    whose = {}
    for tenant, weight in weights.items():
        arena.set_weight(tenant, weight)
        for n in range(each):
            slot = arena.add(n, n, 0, 0)
            arena.assign(slot, tenant, 0)
            arena.mark(slot, RANKS[rank])
            arena.push(line, slot, READY)
            whose[slot] = tenant
    return arena, line, whose


@pytest.mark.parametrize(
    "weights", [{1: 1, 2: 1}, {1: 1, 2: 3}, {1: 2, 2: 3, 5: 7}, {n: n for n in range(1, 12)}, {1: 1, 2: 1000}]
)
def test_weights_are_exact_at_every_moment_of_a_long_run(weights: dict[int, int]) -> None:
    """Never more than one turn beside what the weights say, in batches that end anywhere."""
    rounds = 20_000 // sum(weights.values())
    arena, line, whose = filled(weights, (rounds + 1) * max(weights.values()))
    active = arena.new_list()
    total = sum(weights.values())
    had: Counter[int] = Counter()
    done = 0
    while done < rounds * total:
        for slot, *_ in arena.take(line, min(7, rounds * total - done), active):
            had[whose[slot]] += 1
            done += 1
        for tenant, weight in weights.items():
            assert abs(had[tenant] - done * weight / total) < len(weights)
    assert had == {tenant: rounds * weight for tenant, weight in weights.items()}


def test_who_comes_late_gets_no_more_than_his_share_and_no_less() -> None:
    arena, line, whose = filled({1: 1, 2: 1}, 1000)
    for _ in range(500):
        arena.pop(line)
    for n in range(1000):
        slot = arena.add(n, n, 0, 0)
        arena.assign(slot, 3, 0)
        arena.push(line, slot, READY)
        whose[slot] = 3
    had = Counter(whose[arena.pop(line)] for _ in range(300))
    assert had == {1: 100, 2: 100, 3: 100}


def test_who_was_alone_owes_nothing() -> None:
    arena, line, whose = filled({1: 1, 2: 1}, 600)
    slots = [slot for slot, tenant in whose.items() if tenant == 2]
    for slot in slots:
        arena.detach(slot)
    for _ in range(500):
        assert whose[arena.pop(line)] == 1
    for slot in slots:
        arena.push(line, slot, READY)
    assert Counter(whose[arena.pop(line)] for _ in range(100)) == {1: 50, 2: 50}


def urgent(arena: Arena, line: int, tenant: int) -> int:
    slot = arena.add(7, 7, 0, 0)
    arena.assign(slot, tenant, 0)
    arena.mark(slot, URGENT)
    arena.push(line, slot, READY)
    return slot


@pytest.mark.parametrize("tenant", [1, 2, 9])
def test_an_urgent_one_passes_a_hundred_thousand(tenant: int) -> None:
    """Bulk ones of the same tenant, of others, of both; at once, whatever happened before."""
    arena, line, _ = filled({1: 1, 2: 5}, 50_000, rank=2)
    for _ in range(1234):
        arena.pop(line)
    slot = urgent(arena, line, tenant)
    assert slot in (arena.pop(line), arena.pop(line)), "one other may have been passed over long enough"


def test_a_tenant_whose_mail_is_all_urgent_gets_his_share() -> None:
    arena, line, whose = filled({1: 1, 2: 1}, 4000)
    for _ in range(4000):
        whose[urgent(arena, line, 3)] = 3
    had = Counter(whose[arena.pop(line)] for _ in range(3000))
    assert 1000 <= had[3] <= 1000 + 33
    assert abs(had[1] - had[2]) <= 1


@pytest.mark.parametrize(
    ("ranks", "shares"), [((0, 1), {1: 9}), ((0, 2), {2: 17}), ((1, 2), {2: 17}), ((0, 1, 2), {1: 10, 2: 19})]
)
def test_no_class_starves(ranks: tuple[int, ...], shares: dict[int, int]) -> None:
    """Each has a turn at least every so many."""
    arena = Arena()
    line = arena.new_line()
    rank_of = {}
    for rank in ranks:
        for n in range(2000):
            slot = arena.add(n, n, 0, 0)
            arena.mark(slot, RANKS[rank])
            arena.push(line, slot, READY)
            rank_of[slot] = rank
    order = [rank_of[arena.pop(line)] for _ in range(1500)]
    for rank, most in shares.items():
        turns = [n for n, other in enumerate(order) if other == rank]
        assert max(b - a for a, b in pairwise(turns)) <= most
    assert order.count(ranks[0]) > 0.8 * len(order)
    assert not any(a == b != ranks[0] for a, b in pairwise(order)), "never two such turns in a row"


def test_who_stands_ahead() -> None:
    arena, line, whose = filled({1: 1, 2: 1}, 10)
    last = max(slot for slot, tenant in whose.items() if tenant == 1)
    urgent(arena, line, 1)
    assert arena.ahead(last) == (9, 1, 10)
    assert arena.ahead(urgent(arena, line, 1)) == (1, 0, 10)
    arena.detach(last)
    with pytest.raises(ValueError, match="in no line"):
        arena.ahead(last)


def test_lines_and_their_lists_are_no_other_lists() -> None:
    arena, line, _ = filled({1: 1}, 3)
    slot = arena.add(1, 1, 0, 0)
    with pytest.raises(ValueError, match="what is in a line is ready"):
        arena.push(line, slot, HELD)
    with pytest.raises(ValueError, match="no list of what is active"):
        arena.take(line, 1, line)
    with pytest.raises(IndexError):
        arena.pop(line + 1)  # the list of its tenant
    with pytest.raises(ValueError, match="at least 1"):
        arena.set_weight(1, 0)
    assert arena.take(line, 9, active := arena.new_list())
    assert arena.length(active) == 3
    assert arena.count(ACTIVE) == 3
