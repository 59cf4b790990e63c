"""What deliveries queue for, and how much of it each courier has in hand.

Invariant: `in_flight[worker]` is the number of slots of this site in the active list of that courier.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mta.model import ANYWHERE, Site, Source
from mta.queue._arena import Arena


class SiteQueue:
    """One site, from one source: its number on the links, its ready list, what is out."""

    __slots__ = ("in_flight", "number", "ready", "site", "source", "told", "window")

    def __init__(self, number: int, site: Site, ready: int, couriers: list[int], source: Source = ANYWHERE) -> None:
        self.number = number
        self.site = site
        self.source = source
        self.ready = ready
        self.in_flight = dict.fromkeys(couriers, 0)
        self.told: set[int] = set()  # couriers that know the number, in their present life
        # Enough for every connection to have its next envelopes at hand, few enough to stay in order.
        self.window = max(64, 8 * self.share(len(couriers)))

    def share(self, couriers: int) -> int:
        """Connections that one courier may open."""
        return max(1, self.site.connections // max(1, couriers))

    def description(self, couriers: int) -> Site:
        """The site as a courier is told of it: with its share of the connections."""
        return msgspec.structs.replace(self.site, connections=self.share(couriers))

    def freest(self, alive: Sequence[int]) -> tuple[int, int]:
        """Of some couriers, the one with the least of this site in hand, and how much more it may have."""
        worker = min(alive, key=self.in_flight.__getitem__)
        return worker, self.window - self.in_flight[worker]


class SiteTable:
    """All queues, by number and by what they are for: a site, by its canonical name, and a source, by its name."""

    def __init__(self, arena: Arena, couriers: list[int]) -> None:
        self._arena = arena
        self._couriers = couriers
        self._by_name: dict[str, SiteQueue] = {}  # from anywhere
        self._by_source: dict[tuple[str, str], SiteQueue] = {}
        self.by_number: list[SiteQueue] = []
        # Number 0 is what a slot has before it was routed: after our restart a courier may have such a one in hand.
        self.get(Site(name="(not routed)", kind="hold"))

    def get(self, site: Site) -> SiteQueue:
        """The queue of a site, from anywhere; a new one if it was not met before."""
        known = self._by_name.get(site.name)
        if known is None:
            known = self._by_name[site.name] = self._made(site, ANYWHERE)
        return known

    def get_from(self, site: Site, source: Source) -> SiteQueue:
        """The queue of a site from one source."""
        if source is ANYWHERE:
            return self.get(site)
        key = site.name, source.name
        known = self._by_source.get(key)
        if known is None:
            known = self._by_source[key] = self._made(site, source)
        return known

    def _made(self, site: Site, source: Source) -> SiteQueue:
        queue = SiteQueue(len(self.by_number), site, self._arena.new_line(), self._couriers, source)
        self.by_number.append(queue)
        return queue

    def forget_courier(self, worker: int) -> None:
        """A courier was restarted: it has nothing in hand and knows no site."""
        for queue in self.by_number:
            queue.in_flight[worker] = 0
            queue.told.discard(worker)
