"""The filter language of all queue verbs: which deliveries.

    filter := term | not filter | filter and filter | filter or filter | ( filter )
    term   := all | KEY=VALUE | KEY!=VALUE | KEY~VALUE | KEY!~VALUE | KEY>VALUE | KEY>=VALUE | KEY<VALUE | KEY<=VALUE

Words that stand side by side are joined by "and"; "not" binds closest, then "and", then "or". A value with a space or a
parenthesis in it stands in double quotes.

    key                              value                                  operators
    id, state                        an id; a state                         = !=
    sender recipient domain site     a glob: * ? [...]                      = !=      without regard to case
    source tenant                    a regular expression                   ~ !~      (`mta.queue.patterns`)
    class                            a glob: what the last reply blames     = !=
    reply                            a regular expression                   ~ !~
    attempts priority hold           a number                               = != > >= < <=
    age next                         "90s", "1h30m", "5d"                   = != > >= < <=
    size                             "64K", "1M"                            = != > >= < <=

`sender=` with an empty value is the null reverse-path, `tenant=` is mail of nobody, `source=` what leaves from anywhere
or has no site yet. `recipient` is asked of each recipient that is not finished: a delivery is chosen when the whole
filter holds for one of them, and a verb that can concerns only these.

Here is what was written, as a tree; `mta.queue.choice` looks it up in the queue. What is wrong is told with the place:
`FilterError` has the words, and the mark under the part of the filter that is meant.

Invariant: `written(parse_filter([text]))` is a filter that says the same, and is parsed to the same tree.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from mta.config.values import octets, seconds
from mta.model import id_text, parse_id
from mta.queue import _arena
from mta.queue.explain import State
from mta.queue.patterns import Pattern, expression, glob

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
Compare = Callable[[float, float], bool]
_COMPARE: dict[str, Compare] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
COMPARISONS = {compare: sign for sign, compare in _COMPARE.items()}
_EQUALITY = ("=", "!=")
_MATCH = ("~", "!~")
NUMBERS: dict[str, Callable[[str], float]] = {
    "attempts": lambda text: _whole(text),
    "age": lambda text: seconds(_number(text)),
    "next": lambda text: seconds(_number(text)),
    "size": lambda text: octets(_number(text)),
    "priority": lambda text: _whole(text, signed=True),
    "hold": lambda text: _whole(text),
}
_TOKEN = re.compile(r'\s*([()]|(?:[^\s()"]|"(?:[^"\\]|\\.)*")+)')
_TERM = re.compile(r"([a-z]+)(!=|!~|>=|<=|=|~|>|<)(.*)", re.DOTALL)
_PLAIN = re.compile(r'[^\s()"\\]*')
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


QUEUE: Final = Vocabulary(
    (*STATES, AMBIGUOUS), ("sender", "recipient", "domain", "site", "source", "tenant", "class"), NUMBERS
)


class FilterError(ValueError):
    """What is wrong with a filter, and where: the message ends with the filter, and a mark under what is meant."""

    def __init__(self, text: str, filter: str, start: int, end: int) -> None:
        mark = " " * start + "^" * max(1, end - start)
        super().__init__(f"{text}\n  {filter}\n  {mark}" if filter.strip() else text)
        self.text = text
        self.start = start
        self.end = end


class _Token(NamedTuple):
    text: str
    start: int  # in the whole filter
    end: int


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
    """The text matches."""

    key: str
    pattern: Pattern

    @property
    def exact(self) -> str | None:
        """The only text, but for case, that does; None where it may be one of several."""
        return self.pattern.exact


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
    """Read what was typed, in one word or several; FilterError says what is wrong, where, and what would be right."""
    whole = " ".join(words)
    tokens: list[_Token] = []
    start = 0
    for word in words:
        tokens += _tokens(word, start, whole)
        start += len(word) + 1
    if not tokens:
        raise FilterError("no filter given: say `all`, or words such as state=… domain=… age>1h", whole, 0, 0)
    reader = _Reader(tokens, vocabulary, whole)
    found = reader.alternatives(0)
    if (token := reader.token) is not None:
        raise FilterError(f"{token.text!r} has no opening bracket before it", whole, token.start, token.end)
    return found


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token], vocabulary: Vocabulary, whole: str) -> None:
        self._tokens = tokens
        self._vocabulary = vocabulary
        self._whole = whole
        self._at = 0

    @property
    def token(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    @property
    def here(self) -> str | None:
        return self._tokens[self._at].text if self._at < len(self._tokens) else None

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
        token = self.token
        if depth > _DEEPEST and token is not None:
            raise self._error(f"more than {_DEEPEST} brackets and nots in one another", token)
        if token is None or token.text in ("and", "or", ")"):
            raise self._missing(token)
        self._at += 1
        if token.text == "not":
            return Not(self._factor(depth + 1))
        if token.text == "(":
            inner = self.alternatives(depth + 1)
            if self.here != ")":
                raise self._error("a closing bracket is missing for this one", token)
            self._at += 1
            return inner
        try:
            return _term(token.text, self._vocabulary)
        except ValueError as error:
            raise self._error(str(error), token) from None

    def _missing(self, token: _Token | None) -> FilterError:
        before = self._tokens[self._at - 1] if self._at else None
        behind = f" behind {before.text!r}" if before else ""
        end = before.end + 1 if before else 0
        start, end = (token.start, token.end) if token else (end, end + 1)
        return FilterError(f"a filter word is missing{behind}", self._whole, start, end)

    def _error(self, text: str, token: _Token) -> FilterError:
        return FilterError(text, self._whole, token.start, token.end)


def _tokens(word: str, start: int, whole: str) -> Iterable[_Token]:
    at = 0
    while word[at:].strip():
        match = _TOKEN.match(word, at)
        if match is None:
            behind = start + at + len(word[at:]) - len(word[at:].lstrip())
            raise FilterError(f"{word[at:].strip()!r}: a closing quote is missing", whole, behind, start + len(word))
        yield _Token(match[1], start + match.start(1), start + match.end(1))
        at = match.end()


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
        found = _text_term(key, sign, text) if key in (*vocabulary.texts, "reply") else _is(key, sign, text, vocabulary)
    except ValueError as error:
        raise ValueError(f"{token}: {error}") from None
    return Not(found) if sign.startswith("!") else found


def _text_term(key: str, sign: str, text: str) -> Filter:
    kinds = {"=": glob, "!=": glob, "~": expression, "!~": expression}
    if key == "reply":
        kinds = {sign: kinds[sign] for sign in _MATCH}
    return Matches(key, _allowed(key, sign, kinds)(text))


def _is(key: str, sign: str, text: str, vocabulary: Vocabulary) -> Filter:
    _allowed(key, sign, dict.fromkeys(_EQUALITY, sign))
    return Is(key, parse_id(text) if key == "id" else _state(text, vocabulary.states))


def _allowed(key: str, sign: str, signs: dict[str, T]) -> T:
    if sign not in signs:
        raise ValueError(f"{key} is compared by {' '.join(signs)}")
    return signs[sign]


def _unquoted(text: str) -> str:
    """Quotes may stand around any part of a value; a backslash in them only before a quote or a backslash counts."""
    return re.sub(r'"((?:[^"\\]|\\.)*)"', lambda quoted: re.sub(r'\\(["\\])', r"\1", quoted[1]), text)


def _whole(text: str, *, signed: bool = False) -> float:
    if not re.fullmatch("-?[0-9]{1,9}" if signed else "[0-9]{1,9}", text):
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


# ---- back to words


def written(chosen: Filter) -> str:
    """A filter in words; what was typed, but for blanks, brackets and ways to write a value."""
    match chosen:
        case Both(parts):
            return " ".join(
                f"({written(part)})" if isinstance(part, Both | Either) else written(part) for part in parts
            )
        case Either(parts):
            return " or ".join(f"({written(part)})" if isinstance(part, Either) else written(part) for part in parts)
        case Not(Is(key, value)):
            return f"{key}!={_value(key, value)}"
        case Not(Matches(key, pattern)):
            return f"{key}{'!~' if pattern.kind == 'regex' else '!='}{_quoted(pattern.source)}"
        case Not(inner):
            return f"not {written(inner) if isinstance(inner, Not | Compares | Everything) else f'({written(inner)})'}"
        case Is(key, value):
            return f"{key}={_value(key, value)}"
        case Matches(key, pattern):
            return f"{key}{'~' if pattern.kind == 'regex' else '='}{_quoted(pattern.source)}"
        case Compares(key, compare, number):
            return f"{key}{COMPARISONS[compare]}{_figure(key, number)}"
    return "all"


def _value(key: str, value: str | int) -> str:
    return id_text(value) if isinstance(value, int) else value


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _figure(key: str, number: float) -> str:
    """Durations that are no whole seconds need their unit."""
    return f"{number:.0f}" if number == int(number) else f"{Decimal(repr(number)):f}s"
