"""How fast mail goes to each site: what couriers tell comes in, shares and gates go out, sleepers are woken.

    a courier's Traffic   what was taken, how long it took, connections refused or broken: to the site's limits
    a result              a reply that a rule answers, or that tells of a rate; mail that ended for the site's sake
    shares                couriers are told when theirs change (SiteNews)
    a gate                paused, cooling, down, paced (`mta.queue.limits`): the site's mail stays in its ready list and
                          costs nothing, until the time that the limits name, or until what is out comes back

Invariants
- A site whose mail waits for a time is in the heap of sleepers with that time; any other event makes it dirty.
- What a site does hits that site alone. Mail for others is looked at as if it were not there.
- A reply about one recipient (greylisting, a full mailbox) is a sign of life, never one against the site.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mta.config.settings import Delivery, Rate, Shape
from mta.mail.replyclass import ReplyClass, classify
from mta.model import HopKind, Reply, Site, SiteNews, SiteTraffic, Source, Traffic, Trouble
from mta.observe.maillog import printable, quoted
from mta.queue import _arena
from mta.queue.explain import span
from mta.queue.learned import EVERY, Learned
from mta.queue.limits import NEVER, LimitState, SiteLimits
from mta.queue.outcome import Verdict
from mta.queue.retry import wait_after
from mta.queue.shapes import Shaping, shaping
from mta.queue.sites import SiteQueue

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

_MOST = 1 << 30
_AGAINST_THE_SITE = frozenset({ReplyClass.CONNECTION, ReplyClass.SYSTEM, ReplyClass.TLS})
_UNREACHABLE = "4.4.1"  # with no basic code: our own words for a host that does not answer
_MOST_KEPT = 200  # sites written in one turn of the loop: a millisecond or two
_CROWD = 10.0  # seconds in which results of mail come that found no room


@dataclass(frozen=True, slots=True)
class SiteState:
    """One queue: a site, from a source ("" for any)."""

    name: str
    source: str
    kind: HopKind
    hosts: tuple[str, ...]
    ready: int  # deliveries that wait for their turn
    in_hand: int  # with couriers
    window: int  # so many of them may be
    open: int  # connections
    sentence: str  # why nothing, or no more, goes there now; "" where nothing holds it
    limits: LimitState


class Regulator:
    """That of one queue manager."""

    def __init__(self, manager: QueueManager, shapes: Sequence[Shape], delivery: Delivery, learned: Learned) -> None:
        self._manager = manager
        self._learned = learned
        self._keep_at = 0.0
        self._touched: set[SiteQueue] = set()  # sites that may know more than is written of them
        self._crowded: dict[tuple[int, int], tuple[Reply, float]] = {}  # by courier and site: refused, others were not
        self._shapes = shapes
        self._delivery = delivery
        self._by_domain = any(shape.domain for shape in shapes)
        self._sleepers: list[tuple[float, int]] = []  # a heap: when, number of the site

    # ---- new sites

    def limits(self, site: Site, source: Source) -> SiteLimits:
        """What holds for a site that is met for the first time, from that source."""
        limits = SiteLimits(self._shaping(site, source, ()))
        self._learned.recall((site.name, source.name), limits)
        return limits

    def met(self, queue: SiteQueue, domain: str) -> None:
        """Mail for this domain goes there; a rule may want to know."""
        if self._by_domain and domain not in queue.domains:
            queue.domains |= {domain}
            queue.limits.shape(self._shaping(queue.site, queue.source, queue.domains))
            self._share_out(queue)

    def _shaping(self, site: Site, source: Source, domains: Iterable[str]) -> Shaping:
        rules = shaping(self._shapes, site, tuple(domains), site.connections, source.name)
        return rules if self._delivery.learn else rules.unlearned()

    # ---- gates

    def may_take(self, queue: SiteQueue) -> int:
        """How many deliveries of a gated site may be given out now; where none may, it sleeps."""
        now = self._manager.clock()
        most = queue.limits.allowed(now, queue.out)
        if most <= 0:
            self._sleep(queue, now)
        return most

    def took(self, queue: SiteQueue, count: int) -> None:
        """So many of a gated site were given out."""
        queue.limits.spend(count)
        self._sleep(queue, self._manager.clock())

    def advance(self, now: float) -> None:
        """Wake those whose time has come."""
        sleepers, sites = self._sleepers, self._manager.sites.by_number
        while sleepers and sleepers[0][0] <= now:
            when, number = heapq.heappop(sleepers)
            queue = sites[number]
            if queue.wakes_at == when:  # else it sleeps longer by now, or was woken
                queue.wakes_at = 0.0
                self._manager.places.dirty.add(queue)
        if now >= self._keep_at:
            self.keep(_MOST_KEPT)
            if not self._touched:
                self._keep_at = now + EVERY

    def keep(self, most: int) -> None:
        """Write what was learned of so many sites of which something was heard."""
        some = [self._touched.pop() for _ in range(min(most, len(self._touched)))]
        self._learned.keep((_key(queue), queue.limits) for queue in some)

    def close(self) -> None:
        self.keep(len(self._touched))
        self._learned.close()

    def _sleep(self, queue: SiteQueue, now: float) -> None:
        when = queue.limits.wakes(now)
        if when != NEVER and (not queue.wakes_at or when < queue.wakes_at or queue.wakes_at <= now):
            queue.wakes_at = when
            heapq.heappush(self._sleepers, (when, queue.number))

    # ---- what couriers tell

    def heard(self, worker: int, traffic: Traffic) -> None:
        """A courier told of some sites."""
        sites = self._manager.sites.by_number
        for news in traffic.sites:
            if 0 < news.site < len(sites):  # else it is a number of our predecessor
                self._heard_of(worker, sites[news.site], news)

    def _heard_of(self, worker: int, queue: SiteQueue, news: SiteTraffic) -> None:
        limits, now = queue.limits, self._manager.clock()
        queue.open[worker] = news.open
        self._touched.add(queue)
        was_down = limits.down is not None
        limits.worked(now, news.taken, news.answered, news.seconds, news.busy, limited=news.limited, courier=worker)
        for trouble in news.troubles:
            self._troubled(worker, queue, trouble, now)
        if was_down and limits.down is None:
            self._up(queue)
        self._share_out(queue)

    def _troubled(self, worker: int, queue: SiteQueue, trouble: Trouble, now: float) -> None:
        limits, why = queue.limits, str(trouble.reply)
        if trouble.reply.code and limits.heard(now, trouble.reply):
            self._log(queue, "cooling", f"rule={quoted(limits.state(now).place)} reason={quoted(why)}")
        others = sum(count for courier, count in queue.open.items() if courier != worker)
        if trouble.kind == "unreachable" and not others:
            self._down(queue, now, trouble.reply)
        elif trouble.kind in ("unreachable", "refused"):
            if not trouble.alive:
                self._crowded[worker, queue.number] = trouble.reply, now
            limits.refused(now, trouble.alive + others, why)
        else:
            limits.pushed_back(now, why)

    def crowded_out(self, worker: int, queue: SiteQueue, verdict: Verdict) -> bool:
        """Whether a delivery only found no room beside the connections of other couriers: it is to be tried again."""
        known = self._crowded.get((worker, queue.number))
        if known is None or not verdict.deferred or verdict.delivered or verdict.failures:
            return False
        reply, when = known
        if self._manager.clock() - when > _CROWD:
            del self._crowded[worker, queue.number]
            return False
        return verdict.reply == reply

    def judged(self, queue: SiteQueue, verdict: Verdict) -> None:
        """A delivery came back with something else than "all have it"."""
        limits, now, reply = queue.limits, self._manager.clock(), verdict.reply
        self._touched.add(queue)
        if verdict.delivered or verdict.successes:
            self.delivered(queue)
            return
        held = limits.cooling
        if reply.code and limits.heard(now, reply):
            if limits.cooling is not held:
                self._log(queue, "cooling", f"rule={quoted(limits.state(now).place)} reason={quoted(str(reply))}")
        elif verdict.deferred:
            self._weigh(queue, reply, now)
        elif reply.code:
            self.delivered(queue)  # it was refused by a host that lives
        self._share_out(queue)

    def _weigh(self, queue: SiteQueue, reply: Reply, now: float) -> None:
        """What a deferral says about the site."""
        kind = classify(reply)
        about_the_site = not reply.enhanced.startswith(("4.1.", "4.2."))
        if not reply.code and reply.enhanced == _UNREACHABLE:
            self._down(queue, now, reply)
        elif kind is ReplyClass.RATE and about_the_site:
            if reply.code != 421:  # that ended a connection: it was told
                queue.limits.complained(now, str(reply))
        elif kind in _AGAINST_THE_SITE and about_the_site:
            if queue.limits.failed():
                self._down(queue, now, reply)
        else:
            self.delivered(queue)  # it speaks with us: what is the matter is the mail, or its recipient

    def delivered(self, queue: SiteQueue) -> None:
        """The site has had a say about a mail."""
        was_down = queue.limits.down is not None
        queue.limits.reached()
        if was_down:
            self._up(queue)
            self._share_out(queue)

    # ---- down, and up again

    def _down(self, queue: SiteQueue, now: float, reply: Reply) -> None:
        limits = queue.limits
        failures = limits.failures
        wait = wait_after(self._manager.retry, failures + 1, self._manager.random())
        limits.unreachable(now, min(wait, self._delivery.probe_cap), str(reply))
        if limits.failures != failures:
            self._sleep(queue, now)
            if limits.down is not None:
                wait = limits.down.until - now
                fields = f"failures={limits.failures} probe={wait:.1f} reason={quoted(str(reply))}"
                self._log(queue, "down", fields)

    def _up(self, queue: SiteQueue) -> None:
        self._manager.places.dirty.add(queue)
        self._log(queue, "up", f"connections={queue.limits.connections}")

    # ---- shares

    def share_out_all(self) -> None:
        """Couriers came or went."""
        for queue in self._manager.sites.by_number:
            queue.windows.clear()  # dealt out anew when something is given out
            queue.shares.clear()

    def _share_out(self, queue: SiteQueue) -> None:
        """Tell couriers at once that know the site: those too many connections are closed."""
        couriers = self._manager.couriers
        if not queue.told or not couriers.alive:
            return
        if queue.share_out(couriers.alive):
            for worker in [w for w in queue.told if w in queue.descriptions]:
                site = queue.descriptions[worker]
                if queue.told[worker] is not site:
                    queue.told[worker] = site
                    couriers.by_worker[worker].link.send(SiteNews(queue.number, site, queue.source))
        self._manager.places.dirty.add(queue)

    # ---- by hand

    def pause(self, queue: SiteQueue, until: float, why: str, who: str) -> None:
        """Nothing more is given out until then (NEVER: until it is resumed); what couriers have goes on."""
        queue.limits.pause(until, why, who)
        self._sleep(queue, self._manager.clock())
        self._log(queue, "paused", f"by={printable(who)} reason={quoted(why)}")

    def resume(self, queue: SiteQueue, who: str) -> None:
        queue.limits.resume()
        self._manager.places.dirty.add(queue)
        self._log(queue, "resumed", f"by={printable(who)}")

    def probe(self, queue: SiteQueue) -> None:
        """Somebody wants mail of a site to be tried: if it is down, that is now."""
        if queue.limits.down is not None:
            queue.limits.probe(self._manager.clock())
            self._manager.places.dirty.add(queue)

    def flush(self, queue: SiteQueue, who: str) -> None:
        """End what a reply, or failures, have begun; a pause by hand stays, and deferred mail waits for its time."""
        queue.limits.flush(self._manager.clock())
        self._manager.places.dirty.add(queue)
        self._log(queue, "flushed", f"by={printable(who)}")

    def set_limits(self, queue: SiteQueue, connections: int, rate: Rate | None, who: str) -> None:
        """In the place of rules and learning; 0 and None give the word back to them."""
        queue.limits.set_by_hand(connections, rate)
        self._share_out(queue)
        self._manager.places.dirty.add(queue)
        self._log(
            queue, "limited", f"by={printable(who)} connections={connections or 'learned'} rate={rate or 'learned'}"
        )

    def forget(self, queue: SiteQueue, who: str) -> None:
        """Learn anew."""
        queue.limits.forget()
        self._share_out(queue)
        self._manager.places.dirty.add(queue)
        self._log(queue, "forgotten", f"by={printable(who)}")

    # ---- to look at

    def why(self, slot: int) -> str:
        """Why a delivery that is ready does not go; "" where nothing holds its site."""
        manager = self._manager
        if manager.arena.state(slot) != _arena.READY:
            return ""
        limits = manager.sites.by_number[manager.arena.site(slot)].limits
        return limits.state(manager.clock()).why if limits.gated else ""

    def sentence(self, queue: SiteQueue) -> str:
        """The same of a site, with who spoke, what the next event is, and the command that would hasten it."""
        now = self._manager.clock()
        state = queue.limits.state(now)
        if not state.why:
            return ""
        rule = f" ({state.place})" if state.place else ""
        return f"{state.why}{rule}; {_next_event(state, queue, now)}"

    def state(self, queue: SiteQueue) -> SiteState:
        """All that there is to tell of a site."""
        manager = self._manager
        return SiteState(
            name=queue.site.name,
            source=queue.source.name,
            kind=queue.site.kind,
            hosts=tuple(hop.host for hop in queue.site.hops),
            ready=manager.arena.length(queue.ready),
            in_hand=queue.out,
            window=queue.window,
            open=sum(queue.open.values()),
            sentence=self.sentence(queue),
            limits=queue.limits.state(manager.clock()),
        )

    def sites(self, pattern: str = "*") -> list[SiteQueue]:
        """The queues whose site, or "source/site", or one of whose hosts, is like that."""
        found: list[SiteQueue] = []
        for queue in self._manager.sites.by_number[1:]:
            names = [queue.site.name, f"{queue.source.name}/{queue.site.name}", *(hop.host for hop in queue.site.hops)]
            if any(fnmatchcase(name.lower(), pattern.lower()) for name in names):
                found.append(queue)
        return found

    def _log(self, queue: SiteQueue, event: str, fields: str) -> None:
        """Something happened that people want to know of, now and after a restart."""
        self._learned.keep(((_key(queue), queue.limits),))
        self._manager.maillog("-", f"site-{event}", f"site={quoted(queue.site.name)}{_from(queue.source)} {fields}")


def _next_event(state: LimitState, queue: SiteQueue, now: float) -> str:
    name = queue.site.name
    match state.gate:
        case "paused":
            end = "until somebody resumes it" if state.until == NEVER else f"for {span(state.until - now)}"
            return f"it waits {end}: `mta site resume {name}`"
        case "cooling":
            return f"it goes on in {span(state.until - now)}, and `mta site flush {name}` lets it go on now"
        case "down" if state.until <= now:
            return "one message is on its way there as a probe" if queue.out else "a probe is due"
        case "down":
            return f"the next probe is in {span(state.until - now)}, and `mta site flush {name}` makes it now"
    return f"the next one may go in {span(state.until - now)}"


def _key(queue: SiteQueue) -> tuple[str, str]:
    return queue.site.name, queue.source.name


def _from(source: Source) -> str:
    return f" source={quoted(source.name)}" if source.name else ""
