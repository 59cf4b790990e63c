"""The filter words of all queue verbs: `all`, `id=`, `sender=`, `recipient=`, `domain=`, `state=`.

Words are joined by "and": each narrows the choice. Values are globs (`*`, `?`, `[...]`), compared without regard to
case. `sender=` with an empty value is the null reverse-path.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate

from mta.model import MessageId, parse_id
from mta.queue import _arena

STATES = {
    "ready": _arena.READY,
    "active": _arena.ACTIVE,
    "deferred": _arena.DEFERRED,
    "held": _arena.HELD,
    "resolving": _arena.RESOLVING,
}
AMBIGUOUS = "ambiguous"  # deferred, and marked: an attempt may have delivered it
STATE_NAMES = {number: name for name, number in STATES.items()} | {_arena.IDLE: "ready"}
_KEYS = ("id", "sender", "recipient", "domain", "state")
EVERY_STATE = sum(1 << number for number in STATE_NAMES)

Glob = re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Filter:
    """A choice of deliveries. None and empty mean: any."""

    ids: frozenset[MessageId] | None = None
    states: int = EVERY_STATE
    ambiguous: bool = False  # only what is marked
    domains: tuple[Glob, ...] = ()
    senders: tuple[Glob, ...] = ()
    recipients: tuple[Glob, ...] = ()

    @property
    def everything(self) -> bool:
        return self == Filter()

    @property
    def needs_envelope(self) -> bool:
        """Whether the spool must be asked."""
        return bool(self.senders or self.recipients)


def parse_filter(words: Sequence[str]) -> Filter:
    """Read filter words; ValueError says which one is wrong and what would be right."""
    if not words:
        raise ValueError("no filter given: say `all`, or words such as id=… sender=… recipient=… domain=… state=…")
    globs: dict[str, list[Glob]] = {"domain": [], "sender": [], "recipient": []}
    ids: frozenset[MessageId] | None = None
    states = EVERY_STATE
    ambiguous = False
    for word in words:
        if word == "all":
            continue
        name, equals, value = word.partition("=")
        if not equals or name not in _KEYS:
            raise ValueError(_unknown(word, name))
        if name == "id":
            one = frozenset({parse_id(value)})
            ids = one if ids is None else ids & one
        elif name == "state":
            ambiguous = ambiguous or value == AMBIGUOUS
            states &= 1 << _state(value)
        else:
            globs[name].append(re.compile(translate(value), re.IGNORECASE))
    return Filter(ids, states, ambiguous, *(tuple(globs[name]) for name in ("domain", "sender", "recipient")))


def _state(value: str) -> int:
    if value == AMBIGUOUS:
        return _arena.DEFERRED
    try:
        return STATES[value]
    except KeyError:
        raise ValueError(f"state={value}: states are {', '.join((*STATES, AMBIGUOUS))}") from None


def _unknown(word: str, name: str) -> str:
    near = difflib.get_close_matches(name, (*_KEYS, "all"), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{word!r} is no filter word: use all, {', '.join(k + '=…' for k in _KEYS)}{hint}"
