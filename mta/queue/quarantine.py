"""Sources that a site does not like: their mail for it leaves from others of their pool, for a time.

A host that blames the address of its client (a block list, its name in DNS) says nothing about the mail. Where a
[[retry.rule]] with `quarantine` fits such a reply, and the pool has another source, the source is in quarantine at that
site for so long. The recipients that were refused, for good or for now, are tried from another source at once; what
waits for its turn at the same site moves on to others, too. Two sources with one family each make a rule of families.

Invariants
- A mail is refused by each of its sources once, before the reply counts as any other does: who is in quarantine is not
  chosen while another is left.
- What a reply says of others of the same mail (delivered, no such user) counts as ever.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mta.mail.replyclass import classify
from mta.model import Reply
from mta.observe.maillog import quoted
from mta.queue.egress import DEFAULT
from mta.queue.outcome import Group, Members, Verdict
from mta.queue.sites import SiteQueue

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

_AT_ONCE: Final = 2000  # deliveries that move in one go
_MOST: Final = 10_000  # pairs that are remembered; beyond, those that are over are forgotten


class Quarantine:
    """Those of one queue."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._until: dict[str, dict[str, float]] = {}  # by site and source
        self._moving: list[SiteQueue] = []

    def at(self, site: str) -> frozenset[str]:
        """The sources that are in quarantine at a site now."""
        held = self._until.get(site)
        if not held:
            return frozenset()
        now = self._manager.clock()
        return frozenset(source for source, until in held.items() if until > now)

    def until(self, site: str, source: str) -> float:
        """When the quarantine of a source at a site ends, in seconds; 0: there is none."""
        until = self._until.get(site, {}).get(source, 0.0)
        return until if until > self._manager.clock() else 0.0

    def turned(self, slot: int, queue: SiteQueue, verdict: Verdict) -> Verdict:
        """What an attempt means where another source may do better: those that were refused count as untried."""
        refused, reply = self._refused(slot, verdict)
        if reply is None or not self._may_turn(slot, queue):
            return verdict
        self._hold(slot, queue, reply)
        manager = self._manager
        left = set(manager.left(slot))
        again = set(refused or left)
        failures = tuple(
            Group(tuple(sorted(rest)), group.reply, group.hop)
            for group in verdict.failures
            if (rest := set(group.recipients or left) - again)
        )
        manager.arena.set_why(slot, manager.reasons.number(str(reply)))
        manager.arena.set_site(slot, 0)  # so that it is placed anew
        return replace(verdict, failures=failures, waiting=None, untried=True)

    def advance(self) -> None:
        """Move on what waits at sites for sources that are in quarantine there now."""
        manager, moved = self._manager, 0
        while self._moving:
            queue = self._moving[-1]
            slot = manager.arena.pop(queue.ready)
            if slot < 0:
                self._moving.pop()
                continue
            manager.places.route(slot)
            moved += 1
            if moved >= _AT_ONCE:
                return

    # ---- inside

    def _refused(self, slot: int, verdict: Verdict) -> tuple[Members, Reply | None]:
        """The recipients for whom a rule wants another source, () for all, and the reply that says why."""
        manager = self._manager
        found: list[int] = []
        why: Reply | None = None
        groups = list(verdict.failures)
        if verdict.waiting is not None and not verdict.unknown:
            groups.append(Group(verdict.waiting, verdict.reply, verdict.hop))
        for group in groups:
            if not group.reply.code or not manager.plan(slot, classify(group.reply)).quarantine:
                continue
            why = why or group.reply
            if not group.recipients:
                return (), why
            found += group.recipients
        # Others that wait would be tried at once as well: they go along, as a source has nothing to do with them.
        return (tuple(found) + tuple(verdict.waiting or ()) if why else ()), why

    def _may_turn(self, slot: int, queue: SiteQueue) -> bool:
        """Whether this source is one of a pool that has others, not in quarantine there."""
        lanes = self._manager.lanes
        if lanes.egress is None or not queue.source.name:
            return False
        held = self.at(queue.site.name) | {queue.source.name}
        members = lanes.egress.members(lanes.pool_of(slot)) or lanes.egress.members(DEFAULT)
        return any(name not in held for name in members)

    def _hold(self, slot: int, queue: SiteQueue, reply: Reply) -> None:
        manager, site, source = self._manager, queue.site.name, queue.source.name
        plan = manager.plan(slot, classify(reply))
        known = self.until(site, source)
        if sum(map(len, self._until.values())) >= _MOST:
            self._forget()
        self._until.setdefault(site, {})[source] = manager.clock() + plan.quarantine
        if not known:
            self._moving.append(queue)
            why = f"class={classify(reply)} rule={quoted(plan.where)} reason={quoted(str(reply))}"
            manager.log(slot, "quarantined", f"source={source} site={site} seconds={plan.quarantine:g} {why}")

    def _forget(self) -> None:
        now = self._manager.clock()
        for site, held in list(self._until.items()):
            left = {source: until for source, until in held.items() if until > now}
            if left:
                self._until[site] = left
            else:
                del self._until[site]


def quarantine_of(manager: QueueManager) -> Quarantine | None:
    """That of a queue; None where no rule asks for it, or there is nothing to choose from."""
    if manager.lanes.egress is None or not manager.schedule.quarantines:
        return None
    made = Quarantine(manager)
    manager.lanes.quarantined = made.at
    return made
