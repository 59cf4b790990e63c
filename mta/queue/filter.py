"""The filter language of all queue verbs: which deliveries.

    filter := term | not filter | filter and filter | filter or filter | ( filter )
    term   := all | KEY=VALUE | KEY!=VALUE | KEY~VALUE | KEY!~VALUE | KEY>VALUE | KEY>=VALUE | KEY<VALUE | KEY<=VALUE

Words that stand side by side are joined by "and"; "not" binds closest, then "and", then "or". A value with a space or a
parenthesis in it stands in double quotes.

    key                              value                          operators
    id, state                        an id; a state                 = !=
    sender recipient domain site     a glob: * ? [...]              = !=      without regard to case
    reply                            a regular expression           ~ !~
    attempts                         a number                       = != > >= < <=
    age next                         "90s", "1h30m", "5d"           = != > >= < <=
    size                             "64K", "1M"                    = != > >= < <=

`sender=` with an empty value is the null reverse-path. `recipient` is asked of each recipient that is not finished: a
delivery is chosen when the whole filter holds for one of them, and a verb that can concerns only these.

Here is what was written, as a tree; `mta.queue.choice` looks it up in the queue.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Final, TypeVar

from mta.config.values import octets, seconds
from mta.model import parse_id
from mta.queue import _arena
from mta.queue.explain import State

STATES: dict[State, int] = {
    "ready": _arena.READY,
    "active": _arena.ACTIVE,
    "deferred": _arena.DEFERRED,
    "held": _arena.HELD,
    "resolving": _arena.RESOLVING,
}
AMBIGUOUS: Final = "ambiguous"  # deferred, and marked: an attempt may have delivered it
STATE_NAMES: dict[int, State] = {number: name for name, number in STATES.items()} | {_arena.IDLE: "ready"}

T = TypeVar("T")
Pattern = re.Pattern[str]
Compare = Callable[[float, float], bool]
_COMPARE: dict[str, Compare] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_EQUALITY = ("=", "!=")
_MATCH = ("~", "!~")
NUMBERS: dict[str, Callable[[str], float]] = {
    "attempts": lambda text: _whole(text),
    "age": lambda text: seconds(_number(text)),
    "next": lambda text: seconds(_number(text)),
    "size": lambda text: octets(_number(text)),
}
_TOKEN = re.compile(r'\s*([()]|(?:[^\s()"]|"(?:[^"\\]|\\.)*")+)')
_TERM = re.compile(r"([a-z]+)(!=|!~|>=|<=|=|~|>|<)(.*)", re.DOTALL)
_JOINTS = ("and", "or", "not", "(", ")")
_DEEPEST = 50  # levels of brackets and nots


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that may be asked of one kind of thing: its states, what has a text, what has a number."""

    states: Sequence[str]
    texts: Sequence[str]
    numbers: Mapping[str, Callable[[str], float]]

    @property
    def keys(self) -> tuple[str, ...]:
        return ("id", *(("state",) if self.states else ()), *self.texts, "reply", *self.numbers)


QUEUE: Final = Vocabulary((*STATES, AMBIGUOUS), ("sender", "recipient", "domain", "site"), NUMBERS)


@dataclass(frozen=True, slots=True)
class Everything:
    """All deliveries."""


@dataclass(frozen=True, slots=True)
class Is:
    """The delivery's id or state is this one."""

    key: str
    value: str | int


@dataclass(frozen=True, slots=True)
class Matches:
    """The text matches. `exact`: it is this one, but for case; None where it may be one of several."""

    key: str
    pattern: Pattern
    exact: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Compares:
    """The number stands so to the value: octets, seconds, or times."""

    key: str
    compare: Compare
    value: float


@dataclass(frozen=True, slots=True)
class Not:
    inner: Filter


@dataclass(frozen=True, slots=True)
class Both:
    """All of them hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them holds."""

    parts: tuple[Filter, ...]


Filter = Everything | Is | Matches | Compares | Not | Both | Either


def parse_filter(words: Sequence[str], vocabulary: Vocabulary = QUEUE) -> Filter:
    """Read what was typed, in one word or several; ValueError says what is wrong and what would be right."""
    tokens = [token for word in words for token in _tokens(word)]
    if not tokens:
        raise ValueError("no filter given: say `all`, or words such as state=… domain=… age>1h")
    reader = _Reader(tokens, vocabulary)
    found = reader.alternatives(0)
    if reader.here is not None:
        raise ValueError(f"{reader.here!r} has no opening bracket before it")
    return found


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[str], vocabulary: Vocabulary) -> None:
        self._tokens = tokens
        self._vocabulary = vocabulary
        self._at = 0

    @property
    def here(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def alternatives(self, depth: int) -> Filter:
        parts = [self._conjunction(depth)]
        while self.here == "or":
            self._at += 1
            parts.append(self._conjunction(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _conjunction(self, depth: int) -> Filter:
        parts = [self._factor(depth)]
        while self.here not in (None, "or", ")"):
            if self.here == "and":
                self._at += 1
            parts.append(self._factor(depth))
        parts = [part for part in parts if part != Everything()] or [Everything()]
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _factor(self, depth: int) -> Filter:
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} brackets and nots in one another")
        token = self.here
        if token is None or token in ("and", "or", ")"):
            before = f" behind {self._tokens[self._at - 1]!r}" if self._at else ""
            raise ValueError(f"a filter word is missing{before}")
        self._at += 1
        if token == "not":
            return Not(self._factor(depth + 1))
        if token == "(":
            inner = self.alternatives(depth + 1)
            if self.here != ")":
                raise ValueError("a closing bracket is missing")
            self._at += 1
            return inner
        return _term(token, self._vocabulary)


def _tokens(word: str) -> list[str]:
    found: list[str] = []
    at = 0
    while word[at:].strip():
        match = _TOKEN.match(word, at)
        if match is None:
            raise ValueError(f"{word[at:].strip()!r}: a closing quote is missing")
        found.append(match[1])
        at = match.end()
    return found


def _term(token: str, vocabulary: Vocabulary) -> Filter:
    if token == "all":
        return Everything()
    match = _TERM.fullmatch(token)
    if match is None or match[1] not in vocabulary.keys:
        raise ValueError(_unknown(token, match[1] if match is not None else token, vocabulary))
    key, sign, text = match[1], match[2], _unquoted(match[3])
    try:
        if key in vocabulary.numbers:
            return Compares(key, _allowed(key, sign, _COMPARE), vocabulary.numbers[key](text))
        if key == "reply":
            found: Filter = Matches(key, _expression(text))
            return found if _allowed(key, sign, dict.fromkeys(_MATCH, sign)) == "~" else Not(found)
        _allowed(key, sign, dict.fromkeys(_EQUALITY, sign))
        if key in vocabulary.texts:
            exact = None if re.search(r"[*?\[]", text) else text
            found = Matches(key, re.compile(r"\A" + translate(text), re.IGNORECASE), exact)
        else:
            found = Is(key, parse_id(text) if key == "id" else _state(text, vocabulary.states))
    except ValueError as error:
        raise ValueError(f"{token}: {error}") from None
    return found if sign == "=" else Not(found)


def _allowed(key: str, sign: str, signs: dict[str, T]) -> T:
    if sign not in signs:
        raise ValueError(f"{key} is compared by {' '.join(signs)}")
    return signs[sign]


def _unquoted(text: str) -> str:
    """Quotes may stand around any part of a value; a backslash in them only before a quote or a backslash counts."""
    return re.sub(r'"((?:[^"\\]|\\.)*)"', lambda quoted: re.sub(r'\\(["\\])', r"\1", quoted[1]), text)


def _expression(text: str) -> Pattern:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None


def _whole(text: str) -> float:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is no whole number")
    return float(text)


def _number(text: str) -> str | int:
    """Without a unit: seconds, or octets."""
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else text


def _state(text: str, states: Sequence[str]) -> str:
    if text not in states:
        raise ValueError(f"states are {', '.join(states)}")
    return text


def _unknown(token: str, name: str, vocabulary: Vocabulary) -> str:
    near = difflib.get_close_matches(name, (*vocabulary.keys, "all", *_JOINTS), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{token!r} is no filter word: use all, or one of {', '.join(vocabulary.keys)} with a value{hint}"
