"""A filter, as a condition of SQL: the words that may be asked of what has ended and of what was refused. Pure.

Texts with wildcards and regular expressions are matched by functions that the query brings with it
(`Question.functions`); a text without them is compared by the database, which has an index of recipients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from mta.history.steps import STATES
from mta.model import MessageId, id_text
from mta.queue.filter import (
    COMPARISONS,
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
from mta.queue.patterns import Pattern


def moment(text: str) -> float:
    """Seconds since the epoch; without a zone it is the local time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; write 2026-11-27, 2026-11-27T09:30 or 2026-11-27T09:30:00Z") from None


_TIMES: Final = {"age": NUMBERS["age"], "time": moment}
ENDED: Final = Vocabulary(
    STATES,
    ("sender", "recipient", "domain", "site", "client", "class"),
    {"attempts": NUMBERS["attempts"], "size": NUMBERS["size"], **_TIMES},
)
REFUSED: Final = Vocabulary((), ("session", "client", "helo", "verb", "sender", "recipient", "domain", "class"), _TIMES)

_COLUMNS = {"site": "hop", "domain": "recipient"}  # of words that are not named as their columns


@dataclass(slots=True)
class Question:
    """A condition, its parameters, and the functions of one text that are in it, by name."""

    condition: str = ""
    parameters: list[object] = field(default_factory=list)
    functions: dict[str, Callable[[object], bool]] = field(default_factory=dict)
    ids: frozenset[str] | None = None  # the only messages that it can be about; None: any


def ask(words: Sequence[str], vocabulary: Vocabulary, now: float) -> Question:
    """ValueError: the filter is wrong, and how."""
    chosen = parse_filter(words, vocabulary)
    question = Question(ids=_ids(chosen))
    question.condition = _condition(chosen, question, now)
    return question


def _condition(part: Filter, question: Question, now: float) -> str:
    match part:
        case Both(parts):
            return f"({' AND '.join(_condition(p, question, now) for p in parts)})"
        case Either(parts):
            return f"({' OR '.join(_condition(p, question, now) for p in parts)})"
        case Not(inner):
            return f"NOT {_condition(inner, question, now)}"
        case Is("id", value):
            question.parameters.append(id_text(MessageId(int(value))))
            return "(id = ?)"
        case Is("state", value):
            return f"(state = {STATES.index(str(value))})"
        case Matches(key, pattern):
            return _match(key, pattern, question)
        case Compares(key, compare, value):
            question.parameters.append(value)
            return f"coalesce({_number(key, now)} {COMPARISONS[compare]} ?, 0)"
        case Everything():
            return "1"
    raise AssertionError(part)


def _match(key: str, pattern: Pattern, question: Question) -> str:
    exact = pattern.exact
    column = _COLUMNS.get(key, key)
    if key == "class":
        column = "class_of(reply)"
    elif exact is not None and exact.isascii() and key not in ("domain", "site"):
        question.parameters.append(exact)
        return f"(coalesce({column} = ? COLLATE NOCASE, 0))" if key != "recipient" else "(recipient = ? COLLATE NOCASE)"
    name = f"matches_{len(question.functions)}"
    question.functions[name] = _matcher(pattern, _of_domain if key == "domain" else _whole)
    return f"{name}({column})"


def _matcher(pattern: Pattern, part: Callable[[str], str]) -> Callable[[object], bool]:
    return lambda text: isinstance(text, str) and pattern.matches(part(text))


def _of_domain(address: str) -> str:
    return address.rpartition("@")[2]


def _whole(text: str) -> str:
    return text


def _number(key: str, now: float) -> str:
    match key:
        case "age":
            return f"({int(now * 1000)} - at) / 1000.0"
        case "time":
            return "at / 1000.0"
        case "attempts":
            return "attempts_of(id, recipient, at, state)"
    return key


def _ids(chosen: Filter) -> frozenset[str] | None:
    match chosen:
        case Is("id", value):
            return frozenset((id_text(MessageId(int(value))),))
        case Both(parts):
            known = [ids for part in parts if (ids := _ids(part)) is not None]
            return frozenset.intersection(*known) if known else None
        case Either(parts):
            several = [_ids(part) for part in parts]
            known = [ids for ids in several if ids is not None]
            return frozenset().union(*known) if len(known) == len(several) else None
    return None
