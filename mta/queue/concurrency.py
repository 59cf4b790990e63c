"""How many connections a site is given at once: additive increase, multiplicative decrease, with hysteresis. PURE.

    no trouble yet     each delivery that was answered adds one, so that a round doubles it
    up to `threshold`  one more a round: it was right there before
    above it           one more as a trial, `probe_wait` after the last trouble; while trials go well every `_TRIAL`
                       seconds, and twice as rarely after each that was refused
    refused            a connection was turned away, or ended by 421, while others live: what lives is what the site has
                       room for, so that is the new limit (but never less than half of the old one)
    pushed back        connections that break, replies that tell of a rate: half
    slow               a delivery takes three times as long as it used to, and long: seven tenths, every two seconds
                       until it is better, or what is slow has become usual

Grows only where it is the limit that keeps mail waiting. Troubles within `_DEAF` of one that was acted on are its echo.
Time and everything else is given.
"""

from __future__ import annotations

import math

_TRIAL = 2.0  # seconds after which a trial that met no trouble was a good one
_FIRST_PROBE = 15.0  # seconds from the first trouble to the first trial above it
_LONGEST_PROBE = 600.0
_DEAF = 1.0
_SLOW_TIMES = 3.0
_SLOW_SECONDS = 0.5  # what is faster than that is not slow, whatever it was before
_SLOW_EVERY = 2.0
_USUAL_AFTER = 60.0  # seconds in which a new service time becomes (to two thirds) the usual one


class Concurrency:
    """Of one site. `limit` is what it may have now, `service` the seconds of a delivery, `usual` those before."""

    __slots__ = (
        "_credit",
        "_deaf_until",
        "_limit",
        "_quiet",
        "_trial",
        "ceiling",
        "floor",
        "no_growth_before",
        "probe_wait",
        "service",
        "start",
        "threshold",
        "untroubled",
        "usual",
        "why",
    )

    def __init__(self, floor: int, ceiling: int, start: int) -> None:
        self.floor = floor
        self.ceiling = ceiling
        self.start = start
        self._limit = float(start)
        self.threshold = float(ceiling)
        self.untroubled = True
        self.probe_wait = _FIRST_PROBE
        self.no_growth_before = 0.0
        self.service = 0.0
        self.usual = 0.0
        self.why = ""  # what the limit was last changed for
        self._deaf_until = 0.0
        self._credit = 0.0
        self._quiet: dict[int, float] = {}  # seconds without an answer, of each courier with mail on the wire
        self._trial = False

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    def bound(self, floor: int, ceiling: int, start: int) -> None:
        """The rules have changed."""
        if (floor, ceiling, start) == (self.floor, self.ceiling, self.start):
            return
        self.threshold = float(ceiling) if self.threshold == self.ceiling else min(self.threshold, float(ceiling))
        self.floor, self.ceiling, self.start = floor, ceiling, start
        self._limit = min(max(self._limit, float(floor)), float(ceiling))

    @property
    def learned(self) -> bool:
        """Whether it knows anything that a new one does not."""
        return not self.untroubled or (self.limit > self.start)

    def set(self, limit: int, threshold: int, probe_wait: float, now: float) -> None:
        """As it was learned in an earlier life; the next trial above it is not sooner for a restart."""
        self._limit = float(min(max(limit, self.floor), self.ceiling))
        self.threshold = float(min(max(threshold, limit), self.ceiling))
        self.untroubled = self.threshold >= self.ceiling
        self.probe_wait = max(_FIRST_PROBE, min(probe_wait, _LONGEST_PROBE))
        self.no_growth_before = now if self.untroubled else now + self.probe_wait

    def restart(self) -> None:
        """The site was down and is back: begin low, and grow as if nothing was known, up to what was right before."""
        self._limit = float(self.floor)
        self.untroubled = True
        self.service = self.usual = self._credit = 0.0
        self._quiet.clear()
        self._trial = False

    def worked(self, now: float, answered: int, seconds: float, busy: int, *, limited: bool, courier: int = 0) -> None:
        """What a courier did in the last `seconds`: deliveries answered, connections busy, whether mail waited for
        more connections than there may be."""
        self._clock(courier, answered, seconds, busy)
        if self._is_slow(now):
            self._fall(now, self._limit * 0.7, _SLOW_EVERY, f"a delivery takes {self.service:.1f} s")
            self.no_growth_before = max(self.no_growth_before, now + 2 * _SLOW_EVERY)
            return
        if not limited or not answered or self._limit >= self.ceiling or now < self.no_growth_before:
            return
        self._credit += answered
        if self._limit < self.threshold:
            self._grow_below()
        elif self._credit >= self._limit:
            self._try_more(now)

    def refused(self, now: float, alive: int, why: str) -> None:
        """A connection was turned away, or ended, by the site, and `alive` others live."""
        if self._trial:
            self.probe_wait = min(2 * self.probe_wait, _LONGEST_PROBE)
        self.no_growth_before = now + self.probe_wait
        self._trial = False
        if alive >= self._limit:
            if now >= self._deaf_until:
                self._fall(now, self._limit - 1, _DEAF, why)
        elif self._limit > alive:
            self._fall(now, max(float(alive), self._limit / 2), _DEAF, why)
        self.threshold = self._limit

    def pushed_back(self, now: float, why: str) -> None:
        """The site, or the way to it, has enough."""
        if now < self._deaf_until:
            return
        before = self._limit
        self.no_growth_before = now + _TRIAL
        self._fall(now, before / 2, max(_DEAF, 2 * self.service), why)
        self.threshold = max(self._limit, before * 0.75)

    # ---- inside

    def _grow_below(self) -> None:
        if self.untroubled:
            self._limit = min(self._limit + min(self._credit, self._limit), self.threshold)
            self._credit = 0.0
        elif self._credit >= self._limit:
            self._limit = min(self._limit + 1.0, self.threshold)
            self._credit = 0.0

    def _try_more(self, now: float) -> None:
        if self._trial:
            self.probe_wait = _FIRST_PROBE
        self.threshold = self._limit  # so much is known to be right
        self._limit = min(self._limit + 1.0, float(self.ceiling))
        self._credit = 0.0
        self._trial = True
        self.no_growth_before = now + _TRIAL

    def _fall(self, now: float, limit: float, deaf: float, why: str) -> None:
        self._limit = max(limit, float(self.floor))
        self._deaf_until = now + deaf
        self._credit = 0.0
        self.untroubled = False
        self.why = why

    def _clock(self, courier: int, answered: int, seconds: float, busy: int) -> None:
        """Little's law: what is on the wire, by how much of it ends in a second, is the time that one takes."""
        if answered and not busy:  # the last ones are through: how long they took cannot be told from that
            self._quiet.pop(courier, None)
        elif answered:
            taken = busy * (seconds + self._quiet.pop(courier, 0.0)) / answered
            share = 1.0 - math.exp(-seconds) if self.service else 1.0
            self.service += (taken - self.service) * max(0.3, share)
        elif busy:
            quiet = self._quiet[courier] = self._quiet.get(courier, 0.0) + seconds
            self.service = max(self.service, quiet)
        else:
            self._quiet.pop(courier, None)
        if answered and self.service and (not self.usual or self.service < self.usual):
            self.usual = self.service
        elif (
            self.usual
        ):  # else nothing is known yet: what is on the wire has taken so long already, and may take longer
            self.usual += (self.service - self.usual) * min(1.0, seconds / _USUAL_AFTER)

    def _is_slow(self, now: float) -> bool:
        if self.service < _SLOW_SECONDS or self.service < _SLOW_TIMES * self.usual:
            return False
        return now >= self._deaf_until and self._limit > self.floor
