"""The table of what is queued: by site, domain, sender's domain or tenant, and by age."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.model import Options
from mta.queue import summary as module
from mta.queue.choice import Choice
from mta.queue.filter import parse_filter
from mta.queue.summary import AGES, BY, Line, summary
from tests.kit.queue import NOW, TIME, World

LATER = 100_000  # seconds after the first mail came
DOMAINS = (b"a.test", b"b.test", b"c.test")


@pytest.fixture(autouse=True)
def later() -> Iterator[None]:
    TIME[0] = NOW + LATER
    yield
    TIME[0] = NOW


def lines(world: World, by: str, *words: str) -> list[Line]:
    chosen = Choice(parse_filter(words or ["all"]), world.manager)
    return asyncio.run(summary(chosen, world.manager, by))


def aged(seconds: float, number: int = 0) -> int:
    """The number of a message that is so old now."""
    return (round((LATER - seconds) * 1000) << 19) + number


def ages(*which: int) -> list[int]:
    return [Counter(which)[column] for column in range(len(AGES) + 1)]


def test_each_age_begins_where_the_one_before_ends() -> None:
    world = World()
    for bound in AGES:
        world.arrive(aged(bound - 0.001), b"x@a.test")
        world.arrive(aged(bound), b"x@a.test")
    (line,) = lines(world, "domain")
    assert line.ages == [1, *[2] * (len(AGES) - 1), 1]


def test_by_what_there_is_in_common() -> None:
    world = World()
    world.arrive(aged(10), b"x@a.test", b"y@b.test", sender=b"news@Big.test")
    world.arrive(aged(20), b"x@a.test", sender=b"", options=Options(tenant="shop"))
    world.arrive(aged(99_999), b"z@a.test", sender=b"news@big.test")
    assert lines(world, "domain") == [Line("a.test", ages(0, 0, 9)), Line("b.test", ages(0))]
    assert lines(world, "site") == [Line("smtp:hop.example:25", ages(0, 0, 0, 9))]
    assert lines(world, "tenant") == [Line("(none)", ages(0, 0, 9)), Line("shop", ages(0))]
    assert lines(world, "sender-domain") == [Line("big.test", ages(0, 0, 9)), Line("<>", ages(0))]
    assert lines(world, "domain", "sender=news@*", "age<1h") == [Line("a.test", ages(0)), Line("b.test", ages(0))]
    assert lines(world, "domain", "age>1h") == [Line("a.test", ages(9))]
    with pytest.raises(ValueError, match="by site, domain, sender-domain, tenant, not by 'colour'"):
        lines(world, "colour")


one = st.tuples(st.integers(0, LATER), st.sampled_from(DOMAINS), st.sampled_from(["", "one", "two"]))
mail = st.lists(one, max_size=30)


@settings(max_examples=30, deadline=None)
@given(mail, st.sampled_from([by for by in BY if by != "sender-domain"]))
def test_counting_and_reading_agree(given: list[tuple[int, bytes, str]], by: str) -> None:
    world = World()
    for number, (age, domain, tenant) in enumerate(given):
        options = Options(tenant=tenant) if tenant else None
        world.arrive(aged(age, number), b"x@" + domain, options=options)
    chosen = Choice(parse_filter(["all"]), world.manager)
    counted = asyncio.run(module._counted(chosen, world.manager, by))
    assert counted == asyncio.run(module._read(chosen, world.manager, by))
    assert sum(map(sum, counted.values())) == len(given)
