"""A filter applied to the queue: which deliveries it chooses, at what price.

Invariants
- What the index knows is asked first. The spool is read only for a delivery of which the rest does not decide.
- Texts that many deliveries share (domain, site, last reply) are matched once each, however long the queue.
- `states`, `ids` and `domains` never leave out what the filter chooses: they only save looking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mta.model import Envelope, Ref, StoreError
from mta.queue import _arena
from mta.queue.filter import (
    AMBIGUOUS,
    STATE_NAMES,
    Both,
    Compares,
    Either,
    Everything,
    Filter,
    Is,
    Matches,
    Not,
    Pattern,
)
from mta.queue.manager import QueueManager

EVERY_STATE = sum(1 << number for number in STATE_NAMES)
_IN_THE_SPOOL = ("sender", "recipient", "size")


class Choice:
    """One filter, for one use."""

    def __init__(self, chosen: Filter, manager: QueueManager) -> None:
        self._filter = _cheap_first(chosen)
        self._manager = manager
        self._now = manager.clock()
        self._matched: dict[tuple[Pattern, int], bool] = {}
        self.everything = chosen == Everything()
        self.by_recipient = _mentions(chosen, ("recipient",))
        self.states = _states(chosen)
        self.ids = _ids(chosen)
        self._globs = [p.pattern for p in _conjuncts(chosen) if isinstance(p, Matches) and p.key == "domain"]
        self.only_ambiguous = Is("state", AMBIGUOUS) in _conjuncts(chosen)
        self.indexed = all(map(_in_the_index, _conjuncts(chosen)))

    def domains(self) -> bytes | None:
        """An octet for each domain that is known now: whether it can be chosen; None: all."""
        if not self._globs:
            return None
        texts = map(_text, self._manager.domains)
        return bytes(all(glob.search(text) for glob in self._globs) for text in texts)

    def takes(self, slot: int) -> bool:
        """Whether the filter holds for a delivery."""
        if not self.states >> self._manager.arena.state(slot) & 1:
            return False
        subject = _Subject(self._manager, slot)
        if not self.by_recipient:
            return self._holds(self._filter, subject)
        return any(self._holds(self._filter, subject.for_recipient(i)) for i in subject.left())

    def recipients(self, slot: int) -> list[int]:
        """Those of a delivery's recipients for which it holds."""
        subject = _Subject(self._manager, slot)
        return [i for i in subject.left() if self._holds(self._filter, subject.for_recipient(i))]

    def _holds(self, part: Filter, subject: _Subject) -> bool:
        match part:
            case Both(parts):
                return all(self._holds(p, subject) for p in parts)
            case Either(parts):
                return any(self._holds(p, subject) for p in parts)
            case Not(inner):
                return not self._holds(inner, subject)
            case Is(key, value):
                return self._is(key, value, subject.slot)
            case Matches(key, pattern):
                return self._matches(key, pattern, subject)
            case Compares(key, compare, value):
                number = self._number(key, subject)
                return number is not None and compare(number, value)
        return True

    def _is(self, key: str, value: str | int, slot: int) -> bool:
        manager, arena = self._manager, self._manager.arena
        if key == "id":
            return arena.id(slot) == value
        if value == AMBIGUOUS:
            return slot in manager.extras.ambiguous
        return STATE_NAMES[arena.state(slot)] == value

    def _matches(self, key: str, pattern: Pattern, subject: _Subject) -> bool:
        manager, arena, slot = self._manager, self._manager.arena, subject.slot
        match key:
            case "domain":
                return self._known(pattern, arena.domain(slot), self._domain)
            case "site":
                return self._known(pattern, arena.site(slot), manager.site_name)
            case "reply":
                return self._known(pattern, arena.why(slot), manager.reasons.text)
        text = subject.sender() if key == "sender" else subject.recipient_text()
        return text is not None and pattern.search(text) is not None

    def _known(self, pattern: Pattern, number: int, text: Callable[[int], str]) -> bool:
        key = (pattern, number)
        found = self._matched.get(key)
        if found is None:  # a glob's pattern ends with its text, and is a search anchored at both ends
            found = self._matched[key] = pattern.search(text(number)) is not None
        return found

    def _domain(self, number: int) -> str:
        return _text(self._manager.domains[number])

    def _number(self, key: str, subject: _Subject) -> float | None:
        """None where there is none: no comparison holds then."""
        manager, arena, slot = self._manager, self._manager.arena, subject.slot
        match key:
            case "attempts":
                return arena.attempts(slot)
            case "age":
                return self._now - manager.arrival(slot)
            case "next":
                due = manager.seconds(arena.due(slot)) if arena.state(slot) == _arena.DEFERRED else None
                return due - self._now if due is not None else None
        return subject.size()


@dataclass(slots=True)
class _Subject:
    """One delivery, and what was read of it."""

    manager: QueueManager
    slot: int
    recipient: int | None = None
    _read: bool = False
    _envelope: Envelope | None = None
    _size: int | None = None
    _left: list[int] = field(default_factory=list)

    def for_recipient(self, index: int) -> _Subject:
        self.recipient = index
        return self

    def left(self) -> list[int]:
        return self.manager.left(self.slot) if self._stored() is not None else []

    def sender(self) -> str | None:
        envelope = self._stored()
        return _text(envelope.sender) if envelope is not None else None

    def recipient_text(self) -> str | None:
        envelope = self._stored()
        if envelope is None or self.recipient is None:
            return None
        return _text(envelope.recipients[self.recipient].address)

    def size(self) -> int | None:
        self._stored()
        return self._size

    def _stored(self) -> Envelope | None:
        if not self._read:
            self._read = True
            try:
                stored = self.manager.store.read(Ref(self.manager.arena.ref(self.slot)))
            except StoreError:
                return None  # damaged: nothing that only the spool knows holds for it
            self._envelope, self._size = stored.envelope, stored.size
        return self._envelope


def _conjuncts(chosen: Filter) -> tuple[Filter, ...]:
    return chosen.parts if isinstance(chosen, Both) else (chosen,)


def _cheap_first(chosen: Filter) -> Filter:
    """The same filter, with what needs the spool behind what does not."""
    match chosen:
        case Both(parts) | Either(parts):
            ordered = tuple(sorted(map(_cheap_first, parts), key=lambda p: _mentions(p, _IN_THE_SPOOL)))
            return type(chosen)(ordered)
        case Not(inner):
            return Not(_cheap_first(inner))
    return chosen


def _mentions(chosen: Filter, keys: tuple[str, ...]) -> bool:
    match chosen:
        case Both(parts) | Either(parts):
            return any(_mentions(part, keys) for part in parts)
        case Not(inner):
            return _mentions(inner, keys)
        case Is(key) | Matches(key) | Compares(key):
            return key in keys
    return False


def _in_the_index(part: Filter) -> bool:
    """Whether `states` and `domains` say all there is to say about it."""
    match part:
        case Everything():
            return True
        case Is("state", value):
            return value != AMBIGUOUS
        case Matches("domain"):
            return True
    return False


def _states(chosen: Filter) -> int:
    """A bit for each state in which a chosen delivery may be."""
    match chosen:
        case Is("state", value):
            wanted = "deferred" if value == AMBIGUOUS else value
            return sum(1 << number for number, name in STATE_NAMES.items() if name == wanted)
        case Not(Is("state", value)) if value != AMBIGUOUS:
            return EVERY_STATE & ~_states(Is("state", value))
        case Both(parts):
            mask = EVERY_STATE
            for part in parts:
                mask &= _states(part)
            return mask
        case Either(parts):
            mask = 0
            for part in parts:
                mask |= _states(part)
            return mask
    return EVERY_STATE


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


def _text(address: bytes) -> str:
    return address.decode("utf-8", "backslashreplace")
