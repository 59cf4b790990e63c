"""Whose deliveries are, and where they leave from: names to the small numbers that slots of the arena have.

Number 0 is nobody, and no pool. Names stay known for the life of the queue manager; there may be `MOST` of each kind,
and what comes beyond counts as nobody's (its envelope still says whose it is).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mta.model import ANYWHERE, Lane, Source
from mta.queue._arena import Arena
from mta.queue.egress import Egress

MOST: Final = 65_536


class Lanes:
    """Those of one queue. `egress` is None where mail leaves from anywhere."""

    def __init__(self, arena: Arena, weights: Mapping[str, int], egress: Egress | None) -> None:
        self._arena = arena
        self._weights = weights
        self.egress = egress
        self.quarantined: Callable[[str], frozenset[str]] | None = None  # sources that are not for a site now
        self.tenants = [""]
        self.pools = [""]
        self._tenants = {"": 0}
        self._pools = {"": 0}
        self._known: dict[Lane, tuple[int, int]] = {}

    def numbers(self, lane: Lane) -> tuple[int, int]:
        """Of tenant and pool."""
        known = self._known.get(lane)
        if known is None:
            tenant, pool = lane
            met = len(self.tenants)
            known = _number(tenant, self.tenants, self._tenants), _number(pool, self.pools, self._pools)
            if len(self.tenants) > met and (weight := self._weights.get(tenant, 1)) != 1:
                self._arena.set_weight(known[0], weight)
            if len(self._known) < 2 * MOST:
                self._known[lane] = known
        return known

    def lane(self, tenant: int, pool: int) -> Lane | None:
        """What they are the numbers of."""
        return (self.tenants[tenant], self.pools[pool]) if tenant or pool else None

    def pool_of(self, slot: int) -> str:
        """The pool whose sources a delivery has."""
        return self.pools[self._arena.lane(slot)[1]]

    def source_of(self, slot: int, site: str) -> Source:
        """Where a delivery leaves from for a site."""
        if self.egress is None:
            return ANYWHERE
        without = self.quarantined(site) if self.quarantined is not None else ()
        return self.egress.choose(self.pool_of(slot), self._arena.id(slot), without)


def _number(name: str, names: list[str], known: dict[str, int]) -> int:
    number = known.get(name)
    if number is None:
        if len(names) >= MOST:
            return 0
        number = known[name] = len(names)
        names.append(name)
    return number
