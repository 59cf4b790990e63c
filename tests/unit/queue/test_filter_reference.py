"""Filters on random queues, against a reference in plain Python that reads everything and knows no index."""

from __future__ import annotations

import asyncio
import fnmatch
import operator
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.mail.replyclass import classify
from mta.model import Options, Outcome, Recipient, Reply, Status, id_text, part_members
from mta.queue import _arena
from mta.queue.choice import Choice
from mta.queue.filter import parse_filter
from tests.kit.queue import FIRST, NOW, Hand, World

REPLIES = [
    Reply(450, "4.2.0", "greylisted, come back later"),
    Reply(451, "4.7.1", "too many connections"),
    Reply(452, "4.2.2", "mailbox full"),
]
STATES = {_arena.READY: "ready", _arena.ACTIVE: "active", _arena.DEFERRED: "deferred", _arena.HELD: "held"}
SIGNS = {"=": "eq", "!=": "ne", ">": "gt", ">=": "ge", "<": "lt", "<=": "le"}
SENDERS = (b"ann@x.test", b"", b"Bob@y.test")
GLOBS = ["*", "a*", "*@one.test", "*o*", "ann@x.test", "", "[ab]*@*", "one.test", "*.test", "t?o.test", "smtp:*"]
EXPRESSIONS = ["^a", "test$", "o.e", "(a|b)@", "full", "x{2}|later"]
NUMBERS = {
    "attempts": ["0", "1", "2"],
    "priority": ["-3", "0", "4"],
    "hold": ["1", "2"],
    "age": ["0", "1h", "500ms"],
    "next": ["0", "1m", "59s", "2h"],
    "size": ["10", "20", "1K"],
}

LEAVES = (
    st.sampled_from(["all", *(f"state{s}{v}" for s in ("=", "!=") for v in (*STATES.values(), "ambiguous"))])
    | st.builds(
        "{}{}{}".format,
        st.sampled_from(["sender", "recipient", "domain", "site", "class"]),
        st.sampled_from(["=", "!="]),
        st.sampled_from(GLOBS),
    )
    | st.builds(
        '{}{}"{}"'.format,
        st.sampled_from(["sender", "recipient", "domain", "site", "class", "reply"]),
        st.sampled_from(["~", "!~"]),
        st.sampled_from(EXPRESSIONS),
    )
    | st.sampled_from(sorted(NUMBERS)).flatmap(
        lambda key: st.builds(
            "{}{}{}".format, st.just(key), st.sampled_from(list(SIGNS)), st.sampled_from(NUMBERS[key])
        )
    )
    | st.builds("id={}".format, st.integers(1, 30).map(lambda n: id_text(FIRST + n)))
)
WORDS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds("not ({})".format, inner)
        | st.builds("({}) ({})".format, inner, inner)
        | st.builds("({}) or ({})".format, inner, inner)
    ),
    max_leaves=8,
)


def queue(seed: int) -> World:
    """Some thirty messages to one or two domains, in all states."""
    dice, world = random.Random(seed), World()
    for number in range(1, 31):
        people = dice.sample(["ann", "bob", "a.b", "eve"], dice.randint(1, 3))
        to = [f"{one}@{dice.choice(['one.test', 'two.test'])}".encode() for one in people]
        options = Options(priority=dice.choice((-3, 4))) if number % 5 == 0 else None
        before = len(world.couriers.given)
        world.arrive(
            number, *map(Recipient, to), sender=dice.choice((b"ann@x.test", b"", b"Bob@y.test")), options=options
        )
        for given_job in world.couriers.given[before:]:
            if (what := dice.random()) < 0.6:
                outcome = Outcome(Status.UNKNOWN if what < 0.1 else Status.DEFERRED, dice.choice(REPLIES))
                world.result(given_job, outcome)
    by = Hand(world.manager, world.store)
    asyncio.run(by.do("hold", "sender=ann@* state=deferred"))
    asyncio.run(by.do("hold", "domain=two.test"))
    asyncio.run(by.do("delete", "recipient=eve@* state=deferred"))
    return world


def facts(world: World, slot: int) -> list[dict[str, Any]]:
    """All that is known of a delivery, once for each recipient that is not finished."""
    arena, manager = world.manager.arena, world.manager
    envelope = world.store.envelopes[arena.ref(slot)]
    reason = manager.reasons.text(arena.why(slot))
    shown = {
        "id": id_text(arena.id(slot)),
        "state": STATES[arena.state(slot)],
        "ambiguous": slot in manager.extras.ambiguous,
        "sender": envelope.sender.decode(),
        "domain": manager.domains[arena.domain(slot)].decode(),
        "site": manager.site_name(arena.site(slot)),
        "reply": reason,
        "class": "",
        "attempts": arena.attempts(slot),
        "priority": envelope.options.priority if envelope.options else 0,
        "age": NOW - manager.arrival(slot),
        "next": manager.seconds(arena.due(slot)) - NOW if arena.state(slot) == _arena.DEFERRED else None,
        "size": 20,
        "hold": int(found[1]) if (found := re.search(r"\(hold (\d+)\)", reason)) else None,
    }
    if reason and not reason.startswith("held"):
        match = re.fullmatch(r"(?:(\d\d\d) )?(?:(\d\.\d+\.\d+) )?(.*)", reason)
        assert match
        shown["class"] = classify(Reply(int(match[1] or 0), match[2] or "", match[3]))
    done = manager.extras.done.get(slot, ())
    left = [i for i in part_members(envelope.recipients, arena.part(slot)) if i not in done]
    return [{**shown, "recipient": envelope.recipients[i].address.decode()} for i in left]


def holds(words: str, one: dict[str, Any]) -> bool:
    """The words as Python: not with its brackets binds closest, then a blank, then or; all brackets are there."""
    words = words.strip()
    if words.startswith("not ("):
        return not holds(words[5:-1], one)
    if words.startswith("("):
        depth = end = 0
        for end, letter in enumerate(words):
            depth += (letter == "(") - (letter == ")") if letter in "()" and not _quoted(words, end) else 0
            if not depth:
                break
        first, rest = holds(words[1:end], one), words[end + 1 :].strip()
        if rest.startswith("or "):
            return first or holds(rest[3:].strip()[1:-1], one)
        return first and holds(rest[1:-1], one)
    if words == "all":
        return True
    match = re.fullmatch(r"([a-z]+)(!=|!~|>=|<=|=|~|>|<)(.*)", words)
    assert match, words
    return leaf(match[1], match[2], match[3].strip('"'), one)


def _quoted(words: str, place: int) -> bool:
    return words[:place].count('"') % 2 == 1


def leaf(key: str, sign: str, value: str, one: dict[str, Any]) -> bool:
    if key in NUMBERS:
        number = {"1h": 3600, "500ms": 0.5, "1m": 60, "59s": 59, "2h": 7200, "1K": 1024}.get(value)
        number = float(value) if number is None else number
        return one[key] is not None and bool(getattr(operator, SIGNS[sign])(one[key], number))
    if key == "state":
        same = one["ambiguous"] if value == "ambiguous" else one["state"] == value
    elif "~" in sign:
        same = re.search(value, one[key], re.IGNORECASE) is not None
    elif key == "id":
        same = one["id"] == value
    else:
        same = fnmatch.fnmatchcase(one[key].lower(), value.lower())
    return bool(same) != sign.startswith("!")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 5), WORDS)
def test_a_filter_chooses_what_the_reference_chooses(seed: int, words: str) -> None:
    world = WORLDS.setdefault(seed, None) or WORLDS.__setitem__(seed, queue(seed)) or WORLDS[seed]
    assert world is not None
    choice = Choice(parse_filter([words]), world.manager)

    async def found() -> set[int]:
        return {entry[0] for batch in [b async for b in choice.found()] for entry, _ in batch}

    arena = world.manager.arena
    slots, _ = arena.scan(0, 1000, 0xFF)
    told = {slot: [one for one in facts(world, slot) if holds(words, one)] for slot in slots}
    wanted = {slot for slot, some in told.items() if some}
    assert asyncio.run(found()) == wanted
    assert asyncio.run(choice.count()) == len({arena.id(slot) for slot in wanted})
    if choice.by_recipient:
        for slot in wanted:
            envelope = world.store.envelopes[arena.ref(slot)]
            chosen = [envelope.recipients[i].address.decode() for i in choice.recipients(slot)]
            assert chosen == [one["recipient"] for one in told[slot]]


WORLDS: dict[int, World | None] = {}


@pytest.fixture(autouse=True)
def still(clock: list[float]) -> None:
    assert clock == [NOW]
