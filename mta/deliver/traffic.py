"""What a courier tells the queue manager of its sites, so that it can learn how much they take.

    every `_TELL_AFTER`   what was taken and answered, how many connections are busy; only of sites where it moves
    at once               a trouble: before the results of the mail that it hit

A pool counts in its `Tally`, which costs an addition a mail; everything else happens a few times a second.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Literal, Protocol

from mta.model import Reply, Site, SiteTraffic, Source, Traffic, Trouble

_TELL_AFTER = 0.25
_MANY = 64  # sites at once from which on they are told of more rarely
_TELL_MANY_AFTER = 1.0
_MOST_TROUBLES = 16  # of one site in one record

# Ends a connection that had its share, and tells nothing of how many there may be at once: a 421 by which Exim, Postfix
# and others end what has carried enough messages, or has been idle.
_ENOUGH = re.compile(r"messages?\b.*\b(connection|session)|time-?d? ?out|idle|shutting down", re.IGNORECASE)


Key = tuple[str, str, str]


def key_of(site: Site, source: Source) -> Key:
    """What tells one site from another in a courier, and from the same one from another source."""
    return site.kind, site.name, source.name


class Tally:
    """What one pool has to tell since it last did."""

    __slots__ = ("_collector", "_marked", "_owner", "answered", "limited", "since", "taken", "troubles")

    def __init__(self, collector: Collector, owner: Told) -> None:
        self._collector = collector
        self._owner = owner
        self._marked = False
        self.taken = 0
        self.answered = 0
        self.limited = False
        self.troubles: list[Trouble] = []
        self.since = collector.now

    def took(self) -> None:
        """A transaction that all recipients came through."""
        self.taken += 1
        if not self._marked:
            self.mark()

    def heard(self) -> None:
        """Another transaction that was answered."""
        self.answered += 1
        if not self._marked:
            self.mark()

    def trouble(self, kind: Literal["unreachable", "refused", "cut"], reply: Reply, hop: str, alive: int) -> None:
        if kind == "refused" and _ENOUGH.search(reply.text):
            return
        if len(self.troubles) < _MOST_TROUBLES:
            self.troubles.append(Trouble(kind, reply, hop, alive))
        self._collector.tell(self._owner, self)

    def begin(self) -> None:
        """A mail goes to a connection: what is told next is of the time from now on, or from when it was told last."""
        if not self._marked:
            self.since = self._collector.now
            self.mark()

    def mark(self) -> None:
        """There is something to tell."""
        self._marked = True
        self._collector.add(self._owner, self)

    def take(self, number: int) -> SiteTraffic:
        """All of it; it is told now."""
        now, busy = self._collector.now, self._owner.busy_connections
        told = SiteTraffic(
            site=number,
            taken=self.taken,
            answered=self.taken + self.answered,
            seconds=now - self.since,
            busy=busy,
            open=self._owner.open_connections,
            limited=self.limited,
            troubles=tuple(self.troubles),
        )
        self.taken = self.answered = 0
        self.limited = self._marked = False
        self.troubles.clear()
        self.since = now
        return told

    @property
    def moving(self) -> bool:
        """Whether there will be something to tell even if nothing ends."""
        return self._owner.busy_connections > 0


class Told(Protocol):
    """Of what a tally is."""

    @property
    def site(self) -> Site: ...
    @property
    def source(self) -> Source: ...
    @property
    def apart(self) -> bool: ...
    @property
    def busy_connections(self) -> int: ...
    @property
    def open_connections(self) -> int: ...


class Collector:
    """All tallies of one courier. `numbers` are those by which the queue manager knows the sites."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[Traffic], None]) -> None:
        self._loop = loop
        self._send = send
        self._news: dict[Tally, Told] = {}
        self._timed = False
        self.numbers: dict[Key, int] = {}

    @property
    def now(self) -> float:
        return self._loop.time()

    def add(self, owner: Told, tally: Tally) -> None:
        self._news[tally] = owner
        if not self._timed:
            self._timed = True
            self._loop.call_later(_TELL_AFTER if len(self._news) < _MANY else _TELL_MANY_AFTER, self._tell_all)

    def tell(self, owner: Told, tally: Tally) -> None:
        """Now."""
        number = self._number(owner)
        self._news.pop(tally, None)
        told = tally.take(number)
        if number:  # else the queue manager is a new one, and does not know the site yet
            self._send(Traffic((told,)))
        if tally.moving:
            tally.mark()

    def _number(self, owner: Told) -> int:
        """0: nothing is told of it."""
        return 0 if owner.apart else self.numbers.get(key_of(owner.site, owner.source), 0)

    def _tell_all(self) -> None:
        self._timed = False
        news, self._news = self._news, {}
        told: list[SiteTraffic] = []
        for tally, owner in news.items():
            told.append(tally.take(self._number(owner)))
            if tally.moving:
                tally.mark()
        if told := [one for one in told if one.site]:
            self._send(Traffic(tuple(told)))
