"""A filter applied to the queue: which deliveries it chooses, at what price.

Everything that the index knows is asked there, in C, a million slots in some hundredths of a second: texts that many
deliveries share (domain, site, last reply) are matched once each and become tables. Only where that leaves a delivery
unsure is its envelope read, many at once, by a thread beside the loop (`Store.glances`).

Invariants
- Nothing is read for a delivery that the rest of the filter decides.
- The loop has its turn after every batch, whatever the filter, and however long the queue.
- What cannot be read is not chosen by what only the spool knows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from struct import pack

from mta.mail.replyclass import classify
from mta.model import Envelope, Glance, Ref, Reply, StoreError, id_time_ms, part_members
from mta.queue import _arena
from mta.queue._arena import Query
from mta.queue.filter import (
    AMBIGUOUS,
    COMPARISONS,
    STATE_NAMES,
    Both,
    Compares,
    Either,
    Everything,
    Filter,
    Is,
    Matches,
    Not,
)
from mta.queue.manager import QueueManager

_EPOCH_MS = id_time_ms(0)  # type: ignore[arg-type]
_IN_THE_SPOOL = frozenset({"sender", "recipient", "size", "priority"})
_READ = 1000  # envelopes read at once
_BATCH = 5000  # deliveries
_BREATH = 2000  # texts matched in one turn of the loop
_REPLY = re.compile(r"(?:([2-5]\d\d)(?: |$))?(?:([245]\.\d{1,3}\.\d{1,3})(?: |$))?(.*)", re.DOTALL)
_HOLD = re.compile(r"\(hold (\d+)\)")

# slot, id, ref, domain, part, state, attempts, due, why, marks, site, and whether it is surely chosen: `Arena.choose`
Entry = tuple[int, int, int, int, int, int, int, int, int, int, int, bool]
Test = Callable[["Subject"], bool]
Found = tuple[Entry, Glance | None]


@dataclass(slots=True)
class Subject:
    """One delivery, and for one of its recipients."""

    entry: Entry
    glance: Glance | None = None
    recipient: int = -1


class Choice:
    """One filter, for one use."""

    def __init__(self, chosen: Filter, manager: QueueManager) -> None:
        self._filter = chosen
        self._manager = manager
        self._now = manager.clock()
        self._tables: dict[int, bytearray] = {}  # by the identity of a part of the filter
        self._query: Query | None = None
        self._known = (-1, -1, -1, -1)
        self._ambiguous = pack(f"{len(manager.extras.ambiguous)}I", *sorted(manager.extras.ambiguous))
        self._holds = self._test(chosen)
        self.everything = chosen == Everything()
        self.by_recipient = mentions(chosen, frozenset({"recipient"}))
        self.ids = _ids(chosen)
        self.indexed = not mentions(chosen, _IN_THE_SPOOL)

    # ---- choosing

    async def found(self, *, read: bool = False) -> AsyncGenerator[list[Found], None]:
        """The chosen deliveries, in batches; with `read` the envelope of each, as far as it can be read."""
        await self._prepare()
        arena, doomed = self._manager.arena, self._manager.extras.doomed
        if self.ids is not None:
            slots = [slot for message_id in sorted(self.ids) for slot in arena.find(message_id)]
            entries = [entry for slot in slots if (entry := arena.entry(slot, self.query())) is not None]
            yield await self._decided([e for e in entries if e[0] not in doomed], read=read)
            return
        cursor = 0
        while cursor >= 0:
            entries, cursor = arena.choose(cursor, _BATCH, self.query())
            if doomed:
                entries = [entry for entry in entries if entry[0] not in doomed]
            yield await self._decided(entries, read=read)
            await asyncio.sleep(0)

    async def _decided(self, entries: list[Entry], *, read: bool) -> list[Found]:
        if not read and all(entry[-1] for entry in entries):
            return [(entry, None) for entry in entries]
        decided: list[Found] = []
        glances = await self.glances([entry for entry in entries if read or not entry[-1]])
        arena = self._manager.arena
        for entry in entries:
            glance = glances.get(entry[0])
            if entry[-1] or (
                glance is not None and arena.holds(entry[0], entry[1], entry[4]) and self._fits(entry, glance)
            ):
                decided.append((entry, glance))
        return decided

    async def glances(self, entries: Sequence[Entry]) -> dict[int, Glance]:
        """The envelopes of deliveries, by slot."""
        found: dict[int, Glance] = {}
        store = self._manager.store
        for first in range(0, len(entries), _READ):
            some = entries[first : first + _READ]
            for entry, glance in zip(some, await store.glances([entry[2] for entry in some]), strict=True):
                if glance is None:
                    glance = self._again(entry)
                if glance is not None and glance.id == entry[1]:
                    found[entry[0]] = glance
        return found

    def _again(self, entry: Entry) -> Glance | None:
        """It may have been moved meanwhile."""
        arena, slot = self._manager.arena, entry[0]
        if not arena.holds(slot, entry[1], entry[4]) or arena.ref(slot) == entry[2]:
            return None
        try:
            stored = self._manager.store.read(Ref(arena.ref(slot)))
        except StoreError:
            return None
        return Glance(stored.id, stored.envelope, stored.size)

    def _fits(self, entry: Entry, glance: Glance) -> bool:
        """Whether the filter holds, once the envelope is known."""
        subject = Subject(entry, glance)
        if not self.by_recipient:
            return self._holds(subject)
        return next(self._recipients(subject), None) is not None

    def recipients(self, slot: int) -> list[int]:
        """Those of a delivery's recipients for which it holds; StoreError where they cannot be read."""
        entry = self._manager.arena.entry(slot, self.query())
        if entry is None:
            return []
        stored = self._manager.store.read(Ref(entry[2]))
        return list(self._recipients(Subject(entry, Glance(stored.id, stored.envelope, stored.size))))

    def _recipients(self, subject: Subject) -> Iterator[int]:
        assert subject.glance is not None
        for index in left(self._manager, subject.entry, subject.glance.envelope):
            subject.recipient = index
            if self._holds(subject):
                yield index

    # ---- the index's share

    async def count(self) -> int:
        """Messages, not deliveries, that are chosen."""
        if self.everything:
            return self._manager.messages
        if not self.indexed or self.ids is not None or self._manager.extras.doomed:
            ids: set[int] = set()
            async for batch in self.found():
                ids.update(entry[1] for entry, _ in batch)
            return len(ids)
        await self._prepare()
        several: set[int] = set()
        count = cursor = 0
        while cursor >= 0:
            more, found, cursor = self._manager.arena.tally(cursor, self.query(), self._manager.parts)
            count += more
            several.update(found)
            await asyncio.sleep(0)
        return count + len(several)

    async def prepared(self) -> Query:
        """`query`, when all texts that there are now have been matched."""
        await self._prepare()
        return self.query()

    def query(self) -> Query:
        """For the queue as it is now: domains, sites and reasons may have come since the last one."""
        known = self._limits()
        if self._query is None or known != self._known:
            self._known = known
            self._query = Query(self._nodes(self._filter), self._now, self._manager.seconds(0), _EPOCH_MS)
        return self._query

    def _limits(self) -> tuple[int, int, int, int]:
        manager = self._manager
        return len(manager.domains), len(manager.sites.by_number), manager.reasons.limit, len(manager.lanes.tenants)

    async def _prepare(self) -> None:
        """Match all texts that there are now, and let others have their turn meanwhile."""
        for part in _leaves(self._filter):
            texts = _field(part)
            if texts is None:
                continue
            limit = self._limits()[_FIELDS.index(texts)]
            for most in range(_BREATH, limit + _BREATH, _BREATH):
                self._table(part, min(most, limit))
                await asyncio.sleep(0)

    def _table(self, part: Filter, limit: int) -> bytearray:
        """An octet for each number of a domain, a site or a reason: whether this part of the filter holds for it."""
        table = self._tables.setdefault(id(part), bytearray())
        if len(table) < limit:
            text = self._text(part)
            test = _text_test(part)
            table += bytes(test(text(number)) for number in range(len(table), limit))
        return table

    def _text(self, part: Filter) -> Callable[[int], str]:
        manager = self._manager
        match _field(part):
            case "domain":
                return lambda number: text_of(manager.domains[number])
            case "site" if isinstance(part, Matches) and part.key == "source":
                return lambda number: manager.sites.by_number[number].source.name
            case "site":
                return manager.site_name
            case "tenant":
                return manager.lanes.tenants.__getitem__
        return manager.reasons.text

    def _nodes(self, part: Filter) -> list[tuple[object, ...]]:
        """The filter, as `Query` takes it."""
        match part:
            case Both(parts) | Either(parts):
                head = ("and" if isinstance(part, Both) else "or", len(parts))
                return [head, *(node for one in parts for node in self._nodes(one))]
            case Not(inner):
                return [("not",), *self._nodes(inner)]
            case Is("id", value):
                return [("id", value)]
            case Is(_, "ambiguous"):
                return [("slots", self._ambiguous)]
            case Is(_, value):
                return [("state", sum(1 << number for number, name in STATE_NAMES.items() if name == value))]
            case Compares("attempts" | "age" | "next" as key, compare, number):
                return [("number", key, COMPARISONS[compare], number)]
        if (field := _field(part)) is not None:
            table = self._table(part, self._limits()[_FIELDS.index(field)])
            return [("table", field, bytes(table))]
        return [("all",) if part == Everything() else ("unsure",)]

    # ---- what is left of it, for deliveries that were read

    def _test(self, part: Filter) -> Test:
        match part:
            case Both(parts):
                tests = tuple(map(self._test, parts))
                return lambda subject: all(test(subject) for test in tests)
            case Either(parts):
                tests = tuple(map(self._test, parts))
                return lambda subject: any(test(subject) for test in tests)
            case Not(inner):
                test = self._test(inner)
                return lambda subject: not test(subject)
            case Is(key, value):
                return self._is(key, value)
            case Compares(key, compare, value) if key in _NUMBER:
                number = _NUMBER[key]
                return lambda subject: (n := number(self, subject)) is not None and compare(n, value)
            case Matches("sender", pattern):
                return lambda subject: pattern.matches(text_of(_envelope(subject).sender))
            case Matches("recipient", pattern):
                return lambda subject: pattern.matches(
                    text_of(_envelope(subject).recipients[subject.recipient].address)
                )
        field = _field(part)
        if field is None:
            return lambda subject: True
        if field == "tenant":
            lane = self._manager.arena.lane
            return lambda subject: bool(self._table(part, (n := lane(subject.entry[0])[0]) + 1)[n])
        place = {"domain": 3, "site": 10, "why": 8}[field]

        def shared(subject: Subject) -> bool:
            number = subject.entry[place]
            return bool(self._table(part, number + 1)[number])

        return shared

    def _is(self, key: str, value: str | int) -> Test:
        if key == "id":
            return lambda subject: subject.entry[1] == value
        if value == AMBIGUOUS:
            ambiguous = self._manager.extras.ambiguous
            return lambda subject: subject.entry[0] in ambiguous
        return lambda subject: STATE_NAMES[subject.entry[5]] == value

    def _age(self, subject: Subject) -> float:
        return self._now - id_time_ms(subject.entry[1]) / 1000  # type: ignore[arg-type]

    def _next(self, subject: Subject) -> float | None:
        """None where there is none: no comparison holds then."""
        entry = subject.entry
        return self._manager.seconds(entry[7]) - self._now if entry[5] == _arena.DEFERRED else None


_NUMBER: dict[str, Callable[[Choice, Subject], float | None]] = {
    "attempts": lambda choice, subject: subject.entry[6],
    "age": Choice._age,
    "next": Choice._next,
    "size": lambda choice, subject: subject.glance.size if subject.glance is not None else None,
    "priority": lambda choice, subject: priority_of(_envelope(subject)),
}


def left(manager: QueueManager, entry: Entry, envelope: Envelope) -> Sequence[int]:
    """The recipients of a delivery that are not finished."""
    pending = manager.extras.pending.get(entry[0])
    return pending if pending is not None else part_members(envelope.recipients, entry[4])


def priority_of(envelope: Envelope) -> int:
    """That which counts here."""
    options = envelope.options
    return (options.priority or options.rank) if options is not None else 0


def text_of(address: bytes) -> str:
    return address.decode("utf-8", "backslashreplace")


def class_of(reason: str) -> str:
    """What a reason blames, where it is a reply; "" where there is none."""
    if not reason or reason.startswith("held"):
        return ""
    match = _REPLY.fullmatch(reason)
    assert match is not None  # it takes anything
    return classify(Reply(int(match[1] or 0), match[2] or "", match[3]))


def mentions(chosen: Filter, keys: frozenset[str]) -> bool:
    return any(isinstance(part, Is | Matches | Compares) and part.key in keys for part in _leaves(chosen))


_FIELDS = ("domain", "site", "why", "tenant")


def _field(part: Filter) -> str | None:
    """Whose numbers decide a part of a filter; None: they do not."""
    match part:
        case Matches("domain" | "site" | "tenant" as key):
            return key
        case Matches("source"):
            return "site"
        case Matches("reply" | "class") | Compares("hold"):
            return "why"
    return None


def _text_test(part: Filter) -> Callable[[str], bool]:
    match part:
        case Matches("class", pattern):
            return lambda text: pattern.matches(class_of(text))
        case Matches(_, pattern):
            return pattern.matches
        case Compares(_, compare, value):
            return lambda text: (match := _HOLD.search(text)) is not None and compare(int(match[1]), value)
    raise TypeError(f"{part} has no text")


def _envelope(subject: Subject) -> Envelope:
    assert subject.glance is not None
    return subject.glance.envelope


def _leaves(chosen: Filter) -> Iterator[Filter]:
    match chosen:
        case Both(parts) | Either(parts):
            for part in parts:
                yield from _leaves(part)
        case Not(inner):
            yield from _leaves(inner)
        case _:
            yield chosen


def _ids(chosen: Filter) -> frozenset[int] | None:
    """The ids among which all chosen deliveries are; None: any."""
    match chosen:
        case Is("id", value):
            return frozenset((int(value),))
        case Both(parts):
            known = [ids for part in parts if (ids := _ids(part)) is not None]
            return frozenset.intersection(*known) if known else None
        case Either(parts):
            several = [_ids(part) for part in parts]
            if any(ids is None for ids in several):
                return None
            return frozenset().union(*(ids for ids in several if ids is not None))
    return None
