"""What the `[[shape]]` rules say about a site, and which of them says it. PURE.

A rule matches a site when each kind of pattern that it names (site, mx, domain, source) has one that fits. For each key
the first matching rule that has it counts: those of the file in its order, then those that come with the program. So a
rule of one's own changes just what it says. `connections` in an earlier rule hides floor, ceiling and start of later
ones, and the other way round.

A cool-down names replies by code, enhanced code and words, of which the last two may be left out ("421", "4.7.28",
"421 4.7.28", "451 4.7.5* S3140", "4xx"), and says what follows: "pause DURATION" or "slow". All cool-downs of all
matching rules hold; the first that fits a reply counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase, translate
from functools import lru_cache

from mta.config.settings import NO_RATE, CoolDown, Rate, Shape
from mta.model import Reply, Site

START = 5  # connections to a site of which nothing is known


@dataclass(frozen=True, slots=True)
class Shaping:
    """What holds for one site. `places` says for each key that a rule has set where ("FILE:LINE: reason")."""

    floor: int
    ceiling: int
    start: int
    rate: Rate = NO_RATE
    messages_per_connection: int = 0  # 0: any number
    recipients_per_message: int = 0
    cool_downs: tuple[tuple[CoolDown, str], ...] = ()  # with the place of each
    places: dict[str, str] = field(default_factory=dict)

    @property
    def fixed(self) -> bool:
        """Nothing is learned about connections."""
        return self.floor == self.ceiling

    def unlearned(self) -> Shaping:
        """The same where nothing is to be learned: as many connections as there may be, at once."""
        return replace(self, floor=self.ceiling, start=self.ceiling)

    def cool_down(self, reply: Reply) -> tuple[CoolDown, str] | None:
        """What a reply calls for, and the place of the rule."""
        for rule, place in self.cool_downs:
            if fits(rule.pattern, reply):
                return rule, place
        return None


_KEYS = ("rate", "messages_per_connection", "recipients_per_message")


def shaping(shapes: Sequence[Shape], site: Site, domains: Collection[str], ceiling: int, source: str = "") -> Shaping:
    """What some rules say about a site. `ceiling` is the most connections where none says anything.

    What the configuration names as next hop is known to its operator: it begins at its ceiling.
    """
    known = not site.name.startswith("mx:")
    hosts = [hop.host.lower() for hop in site.hops]
    matching = [shape for shape in shapes if _matches(shape, site.name, hosts, domains, source)]
    return _merged(matching, ceiling, known=known) if matching else _plain(ceiling, known=known)


@lru_cache(64)
def _plain(ceiling: int, *, known: bool) -> Shaping:
    """Nearly all sites share this one."""
    return _merged((), ceiling, known=known)


def _merged(shapes: Sequence[Shape], ceiling: int, *, known: bool) -> Shaping:
    """What rules say that all match."""
    given: dict[str, int | Rate] = {}
    places: dict[str, str] = {}
    cool_downs: list[tuple[CoolDown, str]] = []
    for shape in shapes:
        found = {name: value for name in _KEYS if (value := getattr(shape, name)) is not None}
        if not given.keys() & {"floor", "ceiling", "start", "connections"}:
            found |= _connections(shape)
        for name, value in found.items():
            if name not in given:
                given[name] = value
                places[name] = _place(shape)
        cool_downs += [(rule, _place(shape)) for rule in shape.cool_down]
    low, high, first = _bounds(given, ceiling, known=known)
    return Shaping(
        floor=low,
        ceiling=high,
        start=first,
        cool_downs=tuple(cool_downs),
        places=places,
        **{name: given[name] for name in _KEYS if name in given},  # type: ignore[arg-type]
    )


def fits(pattern: str, reply: Reply) -> bool:
    """Whether a reply is one that a cool-down names."""
    code, enhanced, words = parse_pattern(pattern)
    if code and not fnmatchcase(str(reply.code), code):
        return False
    if enhanced and not fnmatchcase(reply.enhanced, enhanced):
        return False
    return not words or words in reply.text.lower()


_CODE = re.compile(r"[245x][0-9x]{2}")
_ENHANCED = re.compile(r"[245x*]\.[0-9*]{1,3}\.[0-9*]{1,3}")


def parse_pattern(pattern: str) -> tuple[str, str, str]:
    """Code and enhanced code as globs ("" for any), and words in lower case."""
    parts = pattern.split()
    code = parts.pop(0).replace("x", "?") if parts and _CODE.fullmatch(parts[0]) else ""
    enhanced = parts.pop(0).replace("x", "?") if parts and _ENHANCED.fullmatch(parts[0]) else ""
    return code, enhanced, " ".join(parts).lower()


# ---- inside


def _connections(shape: Shape) -> dict[str, int]:
    if shape.connections is not None:
        return {"connections": shape.connections}
    named = {"floor": shape.connections_floor, "ceiling": shape.connections_ceiling, "start": shape.connections_start}
    return {name: value for name, value in named.items() if value is not None}


def _bounds(given: dict[str, int | Rate], ceiling: int, *, known: bool) -> tuple[int, int, int]:
    """Floor, ceiling and start."""
    fixed = given.get("connections")
    if isinstance(fixed, int):
        return fixed, fixed, fixed
    high = given.get("ceiling", ceiling)
    assert isinstance(high, int)
    low = given.get("floor", 1)
    assert isinstance(low, int)
    low = min(low, high)
    first = given.get("start", high if known and "ceiling" not in given else START)
    assert isinstance(first, int)
    return low, high, max(low, min(first, high))


def _matches(shape: Shape, name: str, hosts: Sequence[str], domains: Collection[str], source: str) -> bool:
    return (
        _fit(shape.site, (name,))
        and _fit(shape.mx, hosts)
        and _fit(shape.domain, domains)
        and _fit(shape.source, (source,))
    )


def _fit(patterns: tuple[str, ...], candidates: Collection[str]) -> bool:
    return not patterns or any(map(_compiled(patterns).match, candidates))


@lru_cache(1024)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all of them: a hundred thousand sites are looked at by each rule."""
    return re.compile("|".join(map(translate, patterns)), re.IGNORECASE)


def _place(shape: Shape) -> str:
    return f"{shape.where}: {shape.reason}" if shape.reason else shape.where
