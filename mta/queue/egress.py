"""Which source a delivery leaves from: by its pool and its id. PURE.

Each source is in the pool of its own name and in those that it names. Mail without a pool, or of one that is no more,
takes the pool "default"; where there is none it leaves from anywhere, as without any source.

Invariant: the same message has the same source while the pool stays what it is: greylisting and reputation go by
address. Over many messages the sources of a pool have shares as their weights say, since the choice goes by a hash
that knows no pattern.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Final

from mta.config import settings
from mta.model import ANYWHERE, Source

DEFAULT: Final = "default"
_MASK: Final = (1 << 64) - 1


class Egress:
    """The pools of one configuration."""

    def __init__(self, sources: Sequence[settings.Source]) -> None:
        self._pools: dict[str, list[tuple[Source, int]]] = {}
        for declared in sources:
            made = Source(name=declared.name, ipv4=declared.ipv4, ipv6=declared.ipv6, ehlo=declared.ehlo)
            for pool in dict.fromkeys((declared.name, *declared.pools)):
                self._pools.setdefault(pool, []).append((made, declared.weight))
        self._bounds = {pool: _bounds(members) for pool, members in self._pools.items()}

    def choose(self, pool: str, key: int, without: Collection[str] = ()) -> Source:
        """The source for a message. `without`: names of sources that are not to be had, unless there is no other."""
        if pool not in self._pools:
            pool = DEFAULT
        members = self._pools.get(pool)
        if members is None:
            return ANYWHERE
        bounds = self._bounds[pool]
        if without and (left := [member for member in members if member[0].name not in without]):
            members, bounds = left, _bounds(left)
        if len(members) == 1:
            return members[0][0]
        return members[bisect_right(bounds, _mixed(key) % bounds[-1])][0]

    def members(self, pool: str) -> list[str]:
        """The names of those in a pool."""
        return [source.name for source, _ in self._pools.get(pool, ())]


def _bounds(members: Sequence[tuple[Source, int]]) -> list[int]:
    return list(accumulate(weight for _, weight in members))


def _mixed(key: int) -> int:
    """A number without the patterns of ids, which count up."""
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    key = (key ^ key >> 27) * 0x94D049BB133111EB & _MASK
    return key ^ key >> 31
