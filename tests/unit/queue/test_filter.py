"""The filter language: what is typed, and what is chosen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config import settings
from mta.model import Options, Outcome, Reply, Status, id_text
from mta.queue.choice import Choice, Entry
from mta.queue.egress import Egress
from mta.queue.filter import (
    NUMBERS,
    Both,
    Compares,
    Either,
    Everything,
    Filter,
    Is,
    Matches,
    Not,
    Vocabulary,
    parse_filter,
)
from tests.kit.queue import FIRST, LATER, NOW, World

GREY = Outcome(Status.DEFERRED, Reply(450, "4.2.0", "greylisted, come back later"))
HELD, DEFERRED, ACTIVE = Is("state", "held"), Is("state", "deferred"), Is("state", "active")


@pytest.mark.parametrize(
    ("typed", "tree"),
    [
        ("all", Everything()),
        ("all and state=held", HELD),
        ("state=held", HELD),
        ("state!=held", Not(HELD)),
        ("not state=held", Not(HELD)),
        ("state=held state=active", Both((HELD, ACTIVE))),
        ("state=held or state=active and state=deferred", Either((HELD, Both((ACTIVE, DEFERRED))))),
        ("(state=held or state=active) state=deferred", Both((Either((HELD, ACTIVE)), DEFERRED))),
        ("not (state=held or not state=active)", Not(Either((HELD, Not(ACTIVE))))),
        ("((state=held))", HELD),
        ('"state=held"', None),
        ('state="held"', HELD),
    ],
)
def test_joining(typed: str, tree: Filter | None) -> None:
    if tree is None:
        with pytest.raises(ValueError, match="is no filter word"):
            parse_filter([typed])
        return
    assert parse_filter([typed]) == tree
    assert parse_filter(typed.split()) == tree


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [("age>1h30m", "age", 5400), ("next<=90", "next", 90), ("size>=64K", "size", 65536), ("attempts=3", "attempts", 3)],
)
def test_numbers(typed: str, key: str, value: float) -> None:
    found = parse_filter([typed])
    assert isinstance(found, Compares)
    assert (found.key, found.value) == (key, value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no filter given"),
        (["  "], "no filter given"),
        (["everything"], "'everything' is no filter word"),
        (["sendr=x"], "did you mean 'sender'"),
        (["state=waiting"], "state=waiting: states are ready, active, deferred, held, resolving"),
        (["state>held"], "state is compared by = !="),
        (["id=12"], "is not a message id"),
        (["age=long"], "'long' is no duration"),
        (["age~x"], "age is compared by = != > >= < <="),
        (["size>many"], "'many' is no size"),
        (["attempts>-1"], "'-1' is no whole number"),
        (["reply=x"], "reply is compared by ~ !~"),
        (["reply~["], "no regular expression"),
        (["not"], "a filter word is missing behind 'not'"),
        (["state=held", "and"], "a filter word is missing behind 'and'"),
        (["or", "state=held"], "a filter word is missing"),
        (["(state=held"], "a closing bracket is missing"),
        (["state=held)"], "no opening bracket"),
        (['reply~"x'], "a closing quote is missing"),
        (["not " * 60 + "all"], "more than 50 brackets and nots"),
    ],
)
def test_wrong_words_are_told(words: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("(", r"\(")):
        parse_filter(words)


@given(st.text(alphabet='aeinot=~<>!()" \\1hK*[].@', max_size=30))
def test_no_text_breaks_it(typed: str) -> None:
    with contextlib.suppress(ValueError):  # said in words, whatever was typed
        parse_filter([typed])


@pytest.fixture
def world() -> World:
    """1: deferred by greylisting, 2: held, 3: active, 4: deferred, to two people of one domain."""
    world = World()
    world.arrive(1, b"ann@one.example")
    world.result(world.couriers.given[-1], GREY)
    world.arrive(2, b"bob@two.example")
    slot = world.couriers.given[-1][1].slot
    world.result(world.couriers.given[-1], Outcome(Status.DEFERRED, LATER))
    world.manager.settling.record(world.manager.by_hand.hold(slot))  # type: ignore[arg-type]
    world.arrive(3, b"Cy@Three.example")
    world.arrive(4, b"dan@two.example", b"eve@two.example")
    world.result(world.couriers.given[-1], Outcome(Status.DEFERRED, LATER))
    return world


def chosen(world: World, *words: str) -> list[int]:
    """The numbers of the messages a filter chooses."""
    choice = Choice(parse_filter(words), world.manager)
    arena = world.manager.arena

    async def found() -> list[Entry]:
        return [entry async for batch in choice.found() for entry, _ in batch]

    entries = asyncio.run(found())
    assert asyncio.run(choice.count()) == len({entry[1] for entry in entries})
    if choice.ids is not None:
        assert {entry[1] for entry in entries} <= choice.ids
    if choice.indexed:
        assert all(entry[-1] for entry in entries), "nothing was read"
    assert all(arena.holds(entry[0], entry[1], entry[4]) for entry in entries)
    return sorted(entry[1] - FIRST for entry in entries)


@pytest.mark.parametrize(
    ("typed", "numbers"),
    [
        ("all", [1, 2, 3, 4]),
        ("not all", []),
        ("state=deferred", [1, 4]),
        ("state!=deferred", [2, 3]),
        ("state=deferred or state=held", [1, 2, 4]),
        ("state=deferred state=held", []),
        ("state=ambiguous", []),
        ("not state=ambiguous", [1, 2, 3, 4]),
        ("domain=*.example", [1, 2, 3, 4]),
        ("domain=TWO.example", [2, 4]),
        ("domain=two", []),
        ("domain!=two.* domain=t*", [3]),
        ("recipient=cy@three.EXAMPLE", [3]),
        ("recipient=e* or recipient=ann@*", [1, 4]),
        ("not recipient=d*", [1, 2, 3, 4]),
        ("recipient=d* recipient=e*", []),
        ("sender=s@x", [1, 2, 3, 4]),
        ("sender=", []),
        ("site=*hop.example*", [1, 2, 3, 4]),
        ("reply~greylist", [1]),
        ('reply~"come back"', [1]),
        ("reply!~grey state=deferred", [4]),
        ("reply~^451", [4]),
        ("attempts>0", [1, 2, 4]),
        ("attempts<1", [3]),
        ("age<1h", [1, 2, 3, 4]),
        ("age>=1h", []),
        ("next<=1m", [1, 4]),
        ("next>1m", []),
        ("size>10", [1, 2, 3, 4]),
        ("size>1M", []),
    ],
)
def test_choosing(world: World, clock: list[float], typed: str, numbers: list[int]) -> None:
    assert clock == [NOW]
    if typed.startswith("next"):
        clock[0] += 1  # jitter is off: the next attempt is a minute after the first
    assert chosen(world, typed) == numbers


@pytest.mark.parametrize(
    ("typed", "numbers"),
    [
        ("tenant=acme", [1, 3]),
        ("tenant=A*", [1, 3]),
        ("tenant=", [2]),
        ("tenant!=acme", [2]),
        ("tenant~^ac", [1, 3]),
        ("source=one", [2]),
        ("source!=one", [1, 3]),
        ("source=t*", [1, 3]),
        ("tenant=acme sender=s@x source=two", [1, 3]),
        ("sender=s@x or tenant=acme", [1, 2, 3]),
        ("sender=nobody@* or source=one", [2]),
        ("priority<0", [3]),
        ("priority>0", [1]),
    ],
)
def test_choosing_by_tenant_and_source(clock: list[float], typed: str, numbers: list[int]) -> None:
    """By the index, and where the spool must be asked too."""
    assert clock == [NOW]
    sources = [settings.Source(name="one", ipv4="192.0.2.1"), settings.Source(name="two", ipv4="192.0.2.2", pools=())]
    world = World(egress=Egress(sources))
    world.arrive(1, b"a@x.example", options=Options(tenant="acme", pool="two", priority=3))
    world.arrive(2, b"a@x.example")
    world.arrive(3, b"a@x.example", options=Options(tenant="acme", pool="two", rank=-3))
    assert chosen(world, typed) == numbers


def test_choosing_by_id(world: World) -> None:
    one, two = id_text(FIRST + 1), id_text(FIRST + 2).lower()
    assert chosen(world, f"id={one}") == [1]
    assert chosen(world, f"id={one} or id={two}") == [1, 2]
    assert chosen(world, f"id={one} id={two}") == []
    assert chosen(world, f"id!={one}") == [2, 3, 4]


def test_recipients_are_asked_one_by_one(world: World) -> None:
    slot = world.manager.arena.find(FIRST + 4)[0]

    def recipients(*words: str) -> Sequence[int]:
        return Choice(parse_filter(words), world.manager).recipients(slot)

    assert recipients("recipient=e*") == [1]
    assert recipients("not recipient=e*", "domain=two.example") == [0]
    assert recipients("recipient=x*") == []
    assert recipients("state=deferred") == [0, 1]


def test_what_cannot_be_read_is_not_chosen_by_it(world: World) -> None:
    world.store.envelopes.clear()
    assert chosen(world, "sender=s@x") == []
    assert chosen(world, "recipient=*") == []
    assert chosen(world, "size<1M") == []
    assert chosen(world, "state=held or size<1M") == [2]


def test_other_things_have_words_of_their_own() -> None:
    words = Vocabulary(("done",), ("client",), {"size": NUMBERS["size"]})
    found = parse_filter(["client=192.0.2.1"], words)
    assert isinstance(found, Matches)
    assert found.exact == "192.0.2.1"
    assert parse_filter(["state=done"], words) == Is("state", "done")
    with pytest.raises(ValueError, match="states are done"):
        parse_filter(["state=held"], words)
    with pytest.raises(ValueError, match="use all, or one of id, state, client, reply, size with a value"):
        parse_filter(["sender=a@b"], words)


def test_a_text_without_wildcards_is_known_to_be_exact() -> None:
    exact = [
        part.exact for part in map(parse_filter, (["site=a.b"], ["site=a*"], ["site="])) if isinstance(part, Matches)
    ]
    assert exact == ["a.b", None, ""]
