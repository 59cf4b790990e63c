"""What deliveries queue for, and how much of it each courier has in hand.

Invariants
- `in_flight[worker]` is the number of slots of this site in the active list of that courier.
- The shares of all couriers together are the connections that the site's limits allow. A courier with no share is given
  nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mta.model import ANYWHERE, Site, Source
from mta.queue._arena import Arena
from mta.queue.limits import SiteLimits

_LEAST_WINDOW = 64
_WINDOW = 8  # deliveries for each connection: enough for each to have its next envelopes at hand
_AHEAD = 0.5  # seconds of work that a courier has at hand of a slow site, few enough to stay in order
_NO_ROOM = 1 << 30
_UNKNOWN = 16  # deliveries that a courier is given of a site that has taken none yet


class SiteQueue:
    """One site, from one source: its number on the links, its ready list, what is out, its limits.

    `shares` are the connections of each courier, `windows` the deliveries that it may have in hand, `told` the site as
    it knows it in its present life, `open` the connections that it has.
    """

    __slots__ = (
        "descriptions",
        "domains",
        "in_flight",
        "limits",
        "number",
        "open",
        "ready",
        "shares",
        "site",
        "source",
        "told",
        "wakes_at",
        "windows",
    )

    def __init__(
        self, number: int, site: Site, ready: int, couriers: list[int], limits: SiteLimits, source: Source = ANYWHERE
    ) -> None:
        self.number = number
        self.site = site
        self.source = source
        self.ready = ready
        self.limits = limits
        self.domains: frozenset[str] = frozenset()  # whose mail goes there, as far as rules ask for them
        self.in_flight = dict.fromkeys(couriers, 0)
        self.open: dict[int, int] = {}
        self.told: dict[int, Site] = {}
        self.shares: dict[int, int] = {}
        self.windows: dict[int, int] = {}
        self.descriptions: dict[int, Site] = {}
        self.wakes_at = 0.0  # when it is to be looked at again; 0: no time is set

    @property
    def out(self) -> int:
        """Deliveries with couriers."""
        return sum(self.in_flight.values())

    @property
    def window(self) -> int:
        """Deliveries that couriers may have in hand, all together."""
        return sum(self.windows.values())

    def share_out(self, couriers: Sequence[int]) -> bool:
        """Deal the connections out to some couriers; whether anything is not as it was.

        Which of them gets more than the others depends on the number of the site, so that it is not always the same.
        """
        before = self.descriptions
        each, more = divmod(self.limits.connections, len(couriers))
        for place, worker in enumerate(couriers):
            share = each + ((place + self.number) % len(couriers) < more)
            self.shares[worker] = share
            self.windows[worker] = self._window(share)
        for worker in self.shares.keys() - set(couriers):
            del self.shares[worker], self.windows[worker]
        self.descriptions = {worker: self._description(worker, before.get(worker)) for worker in self.shares}
        return any(before.get(worker) is not site for worker, site in self.descriptions.items())

    def freest(self, alive: Sequence[int]) -> tuple[int, int]:
        """Of some couriers, the one that may have most more of this site, and how much; it gives out shares first."""
        windows, in_flight = self.windows, self.in_flight
        if not windows:
            self.share_out(alive)
        best, room = alive[0], -_NO_ROOM
        for worker in alive:
            window = windows.get(worker, 0)
            if window and window - in_flight[worker] > room:
                best, room = worker, window - in_flight[worker]
        return best, room

    def _window(self, share: int) -> int:
        if not share:
            return 0
        full = max(_LEAST_WINDOW, _WINDOW * share)
        limits = self.limits
        if not limits.proven and limits.concurrency.start < limits.concurrency.ceiling:
            return min(full, max(_UNKNOWN, 2 * share))
        if not limits.concurrency.service:
            return full
        return int(min(full, share * (2 + _AHEAD / limits.concurrency.service)))

    def _description(self, worker: int, known: Site | None) -> Site:
        """The site as a courier is told of it; the same object as long as it says the same."""
        rules = self.limits.rules
        if (
            known is not None
            and known.connections == self.shares[worker]
            and known.messages_per_connection == rules.messages_per_connection
            and known.recipients_per_message == rules.recipients_per_message
        ):
            return known
        return msgspec.structs.replace(
            self.site,
            connections=self.shares[worker],
            messages_per_connection=rules.messages_per_connection,
            recipients_per_message=rules.recipients_per_message,
        )


class SiteTable:
    """All queues, by number and by what they are for: a site, by its canonical name, and a source, by its name.

    `limits` makes those of a new one.
    """

    def __init__(self, arena: Arena, couriers: list[int], limits: Callable[[Site, Source], SiteLimits]) -> None:
        self._arena = arena
        self._couriers = couriers
        self._by_name: dict[str, SiteQueue] = {}  # from anywhere
        self._by_source: dict[tuple[str, str], SiteQueue] = {}
        self._limits = limits
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
        ready, limits = self._arena.new_line(), self._limits(site, source)
        queue = SiteQueue(len(self.by_number), site, ready, self._couriers, limits, source)
        self.by_number.append(queue)
        return queue

    def forget_courier(self, worker: int) -> None:
        """A courier was restarted: it has nothing in hand and knows no site."""
        for queue in self.by_number:
            queue.in_flight[worker] = 0
            queue.open.pop(worker, None)
            queue.told.pop(worker, None)
