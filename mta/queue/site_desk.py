"""Sites as operators see them, and what they do with them: words in, rows out. ValueError: the words are wrong, how.

A pattern names sites by their name (`mx:mx1.example.net,mx2.example.net`, `smtp:relay.example.net:25`), by one of their
hosts, or as "SOURCE/NAME"; "*" and "?" stand for any text. Who means several with a verb that changes something writes
such a pattern; who names none that is known is told so.

Every change is on record (`mta.queue.audit`), and outlives a restart (`mta.queue.learned`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import Final

from mta.config import values
from mta.config.settings import Rate
from mta.model import Change
from mta.observe.maillog import printable
from mta.queue import _arena
from mta.queue.audit import Audit, Doer
from mta.queue.limits import NEVER
from mta.queue.manager import QueueManager
from mta.queue.regulator import SiteState
from mta.queue.sites import SiteQueue

Row = dict[str, object]
_SLICE: Final = 2000  # slots looked at in one turn of the loop
_MOST: Final = 100_000  # connections
_LONGEST: Final = 200  # characters of a reason


class SiteDesk:
    """What the control socket offers."""

    def __init__(self, manager: QueueManager, audit: Audit) -> None:
        self._manager = manager
        self._audit = audit

    # ---- looking

    async def rows(self, pattern: str = "*") -> AsyncIterator[Row]:
        """A row a site that had mail in this life of the server; the longest queue first."""
        states = [self._manager.regulator.state(queue) for queue in self._manager.regulator.sites(pattern or "*")]
        for state in sorted(states, key=lambda state: (-state.ready - state.in_hand, state.name, state.source)):
            yield _row(state)

    async def show(self, pattern: str) -> list[Row]:
        """All that is known of some sites: how their mail stands, and each limit with the rule that says it."""
        found = []
        for queue in self._named(pattern):
            state = self._manager.regulator.state(queue)
            limits = asdict(state.limits)
            limits["until"] = None if state.limits.until in (0.0, NEVER) else state.limits.until
            found.append(
                {
                    **_row(state),
                    "hosts": [printable(host) for host in state.hosts],
                    "deferred": await self._deferred(queue),
                    "window": state.window,
                    "limits": limits,
                    "shares": {str(worker): share for worker, share in queue.shares.items()},
                }
            )
        return found

    # ---- acting; each tells how many sites it was

    async def pause(self, pattern: str, seconds: float, why: str, doer: Doer) -> int:
        """Nothing more is given out for so long; 0: until it is resumed. What couriers have in hand goes on."""
        if len(why) > _LONGEST or not why.isprintable():
            raise ValueError(f"a reason is a line of at most {_LONGEST} characters")
        until = self._manager.clock() + seconds if seconds else NEVER
        regulator, reason = self._manager.regulator, why or "no reason was given"
        told = {"seconds": seconds, "reason": why}
        return await self._on(pattern, "pause", doer, told, lambda q: regulator.pause(q, until, reason, doer.name))

    async def resume(self, pattern: str, doer: Doer) -> int:
        """End the pause of an operator."""
        regulator = self._manager.regulator
        return await self._on(pattern, "resume", doer, {}, lambda q: regulator.resume(q, doer.name))

    async def flush(self, pattern: str, doer: Doer) -> int:
        """End what replies and failures have begun, and try all that is deferred now; a pause by hand stays."""
        regulator, queues = self._manager.regulator, self._named(pattern)
        count = await self._on(pattern, "flush", doer, {}, lambda q: regulator.flush(q, doer.name))
        for queue in queues:
            await self._hasten(queue)
        return count

    async def limit(self, pattern: str, connections: int, rate: str, doer: Doer) -> int:
        """In the place of rules and learning: 0 connections, and the rate "", give the word back to them."""
        if not 0 <= connections <= _MOST:
            raise ValueError(f"connections are 1 to {_MOST}, or 0 for what is learned")
        given: Rate | None = values.rate(rate) if rate else None
        regulator, told = self._manager.regulator, {"connections": connections, "rate": rate}
        act: Callable[[SiteQueue], None] = lambda q: regulator.set_limits(q, connections, given, doer.name)  # noqa: E731
        return await self._on(pattern, "limits", doer, told, act)

    async def forget(self, pattern: str, doer: Doer) -> int:
        """Learn anew, as if the site had never been met; pauses and what was set by hand stay."""
        regulator = self._manager.regulator
        return await self._on(pattern, "forget", doer, {}, lambda q: regulator.forget(q, doer.name))

    # ---- inside

    def _named(self, pattern: str) -> list[SiteQueue]:
        found = self._manager.regulator.sites(pattern)
        if not found:
            raise ValueError(f"there is no site {printable(pattern)!r}; `mta site list` names those that have had mail")
        return found

    async def _on(
        self, pattern: str, verb: str, doer: Doer, told: Mapping[str, object], act: Callable[[SiteQueue], None]
    ) -> int:
        queues = self._named(pattern)
        number = await self._audit.begin(doer, f"site {verb}", [pattern], told)
        for queue in queues:
            act(queue)
        self._audit.end(number, 0, f"{len(queues)} sites")
        await self._audit.settle()
        self._manager.dispatch()
        return len(queues)

    async def _deferred(self, queue: SiteQueue) -> int:
        """Deliveries that wait for a time."""
        count = cursor = 0
        while cursor >= 0:
            slots, cursor = self._manager.arena.scan(cursor, _SLICE, 1 << _arena.DEFERRED)
            count += sum(self._manager.arena.site(slot) == queue.number for slot in slots)
            await asyncio.sleep(0)
        return count

    async def _hasten(self, queue: SiteQueue) -> None:
        """Make ready what is deferred, but not what its sender has put off; recorded in the turn that did it."""
        manager, arena, cursor = self._manager, self._manager.arena, 0
        while cursor >= 0:
            slots, cursor = arena.scan(cursor, _SLICE, 1 << _arena.DEFERRED)
            mine = [s for s in slots if arena.site(s) == queue.number and not arena.marks(s) & _arena.EMBARGOED]
            changes: list[Change] = [manager.by_hand.retry_now(slot) for slot in mine]
            if changes:
                manager.store.record_soon(changes)
                manager.dispatch()
            await asyncio.sleep(0)


def _row(state: SiteState) -> Row:
    limits = state.limits
    return {
        "site": printable(state.name),
        "source": state.source,
        "kind": state.kind,
        "state": limits.gate,
        "ready": state.ready,
        "in_hand": state.in_hand,
        "open": state.open,
        "connections": limits.connections,
        "rate": limits.rate,
        "service": round(limits.service, 3),
        "why": printable(state.sentence),
    }
