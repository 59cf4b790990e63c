"""Where an idle delivery waits next: the ready list of a site, the held list, or one of those waiting for DNS.

Routes are kept: those of the configuration for good, those from MX records for a while.

Invariant: before the queue is open nothing is looked up and nothing fails: what would need that waits in `resolving`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from mta.model import LookupFailure, Resolver, Source
from mta.queue import _arena
from mta.queue._arena import Arena
from mta.queue.reasons import Reasons
from mta.queue.routing import Lookup, Router
from mta.queue.sites import SiteQueue, SiteTable

_ROUTE_SECONDS = 60.0  # how long an MX route is taken without asking the resolver's cache
_HELD_BY_ROUTE = "held: the route for this domain is hold:"
_ROUTES_KEPT = 200_000


class _LookingUp(NamedTuple):
    """A question to the name servers, and the list of those that wait for the answer."""

    task: asyncio.Task[None]
    waiting: int


class Places:
    """Routes deliveries. `failed` hears of those whose domain has no place; `routed` that some may go out,
    `met` where the mail for a domain goes."""

    def __init__(
        self,
        *,
        arena: Arena,
        sites: SiteTable,
        reasons: Reasons,
        router: Router,
        resolver: Resolver,
        clock: Callable[[], float],
        failed: Callable[[int, LookupFailure], None],
        routed: Callable[[], None],
        met: Callable[[SiteQueue, str], None],
        source_of: Callable[[int, str], Source] | None = None,
    ) -> None:
        self._arena = arena
        self._sites = sites
        self._reasons = reasons
        self._router = router
        self._resolver = resolver
        self._clock = clock
        self._failed = failed
        self._routed = routed
        self._met = met
        self._source_of = source_of  # a slot's at a site; None: there is only one
        self.held = arena.new_list()
        self.resolving = arena.new_list()
        self.domains: list[bytes] = []
        self.gate: Callable[[int], bool] | None = (
            None  # takes deliveries that must not go out (`mta.queue.suppression`)
        )
        self.dirty: set[SiteQueue] = set()  # sites that may have something to give out
        self.rerouted: dict[int, str] = {}  # slots that an operator sent another way
        self._numbers: dict[bytes, int] = {}
        self._routes: dict[int, tuple[SiteQueue, float]] = {}
        self._lookups: dict[int, _LookingUp] = {}  # by domain
        self._lists: list[int] = []  # of lookups that are over
        self._open = False

    def open(self) -> None:
        """Decisions may be made: route what waits for that."""
        self._open = True
        waiting = []
        while (slot := self._arena.pop(self.resolving)) >= 0:
            waiting.append(slot)
        for slot in waiting:
            self.route(slot)

    def close(self) -> None:
        for lookup in self._lookups.values():
            lookup.task.cancel()

    def domain(self, domain: bytes) -> int:
        """The number of a domain."""
        number = self._numbers.get(domain)
        if number is None:
            number = self._numbers[domain] = len(self.domains)
            self.domains.append(domain)
        return number

    def route(self, slot: int, *, afresh: bool = False) -> None:
        """Put an idle slot where it waits next. `afresh`: whatever is known of its domain."""
        if self.gate is not None and self._open and self.gate(slot):
            return
        number = self._arena.domain(slot)
        if self.rerouted and slot in self.rerouted:
            self.enqueue(slot, self._sites.get(self._router.by_hand(self.rerouted[slot])))
            return
        if afresh:
            self._routes.pop(number, None)
        known = self._routes.get(number)
        if known is not None and known[1] > self._clock():
            self._place(slot, known[0])
            return
        if not self._open:
            # A failure would be settled, which recovery must not see half-way: decided when the queue is open.
            self._arena.push(self.resolving, slot, _arena.RESOLVING)
            return
        try:
            decision = self._router.decide(self.domains[number])
        except LookupFailure as failure:
            self._failed(slot, failure)
            return
        if isinstance(decision, Lookup):
            self._await_route(slot, number, decision.domain)
        else:
            queue = self._sites.get(decision)
            self._keep_route(number, queue, float("inf"))
            self._place(slot, queue)

    def rule(self, slot: int) -> str:
        """What decides where a delivery goes, with file and line where it is written."""
        if slot in self.rerouted:
            return f"an operator: mta queue reroute --to {self.rerouted[slot]}"
        return self._router.rule(self.domains[self._arena.domain(slot)])

    def enqueue(self, slot: int, queue: SiteQueue, *, front: bool = False) -> None:
        """Put an idle slot into the list of its site."""
        arena = self._arena
        arena.set_site(slot, queue.number)
        if queue.site.kind == "hold":
            arena.set_why(slot, self._reasons.number(_HELD_BY_ROUTE))
            arena.push(self.held, slot, _arena.HELD)
        else:
            arena.push(queue.ready, slot, _arena.READY, front)
            self.dirty.add(queue)

    # ---- inside

    def _place(self, slot: int, queue: SiteQueue) -> None:
        """Put an idle slot into the list of a site, from the source that it has."""
        if self._source_of is not None and queue.site.kind == "smtp":
            queue = self._sites.get_from(queue.site, self._source_of(slot, queue.site.name))
            self._met(queue, self.domains[self._arena.domain(slot)].decode("ascii", "backslashreplace"))
        self.enqueue(slot, queue)

    def _keep_route(self, number: int, queue: SiteQueue, until: float) -> None:
        if len(self._routes) > _ROUTES_KEPT:
            self._routes.clear()
        self._routes[number] = queue, until
        self._met(queue, self.domains[number].decode("ascii", "backslashreplace"))

    def _await_route(self, slot: int, number: int, domain: str) -> None:
        lookup = self._lookups.get(number)
        if lookup is None:
            # A list of its own, as a search for those that wait would look at the whole queue.
            waiting = self._lists.pop() if self._lists else self._arena.new_list()
            task = asyncio.get_running_loop().create_task(self._look_up(number, domain, waiting))
            lookup = self._lookups[number] = _LookingUp(task, waiting)
        self._arena.push(lookup.waiting, slot, _arena.RESOLVING)

    async def _look_up(self, number: int, domain: str, waiting: int) -> None:
        failure: LookupFailure | None = None
        try:
            queue = self._sites.get(self._router.by_mx(domain, await self._resolver.mx(domain)))
            self._keep_route(number, queue, self._clock() + _ROUTE_SECONDS)
        except LookupFailure as error:
            failure = error
        finally:
            del self._lookups[number]
        # What fails may be routed anew at once, to a lookup of its own: its list is another one.
        while (slot := self._arena.pop(waiting)) >= 0:
            if failure is not None:
                self._failed(slot, failure)
            else:
                self._place(slot, queue)
        self._lists.append(waiting)
        self._routed()
