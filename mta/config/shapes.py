"""What is wrong with a [[shape]] as a whole, and where the rules are that come with the program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mta.config.settings import Shape

PROVIDERS: Final = Path(__file__).with_name("providers.toml")
_LEARNED: Final = ("connections_floor", "connections_ceiling", "connections_start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The whole of a file that has nothing but rules."""

    shape: tuple[Shape, ...] = ()


def problems(rule: Shape) -> Iterator[tuple[str, str]]:
    """(key, what is wrong)."""
    floor, ceiling, start = (getattr(rule, name) for name in _LEARNED)
    if rule.connections is not None:
        for name in _LEARNED:
            if getattr(rule, name) is not None:
                yield name, "means nothing beside `connections`, which is a fixed number"
    if floor and ceiling and floor > ceiling:
        yield "connections_floor", f"{floor} is above connections_ceiling, {ceiling}"
    if start and not (floor or 1) <= start <= (ceiling or start):
        yield "connections_start", f"{start} is not between floor and ceiling"
