"""How many messages a second a site is given: by a rule, or learned from its complaints. PURE.

Without a rule there is no limit until the site first answers that there is too much; then it is half of what it took,
but not less than half of what it took in the last minute: one that counts by the minute is not left with a trickle when
its number is reached.
While it does not complain, the limit grows by a sixtieth of what it was cut from each second, `_GRACE` after the last
complaint, and is forgotten at twice that.

Tokens gather for half a second at most (and one more, as they are looked at now and then), so that a rate is even, and
is kept over any longer time.
"""

from __future__ import annotations

from mta.config.settings import Rate

_GRACE = 30.0
_DEAF = 5.0  # seconds: complaints about what was on its way when the first came
_SLOWEST = 0.1  # messages a second that learning goes down to
_BURST = 0.5
_AVERAGE = 5.0  # seconds over which the throughput is looked at
_MINUTE = 60.0


class Pace:
    """One site's. `learned` is in messages a second, 0 for none, `taken` the throughput."""

    __slots__ = (
        "_at",
        "_deaf_until",
        "_fixed",
        "_grown_at",
        "_grows_from",
        "_peak",
        "_rates",
        "_steady",
        "_steady_at",
        "_tokens",
        "learned",
        "taken",
        "why",
    )

    def __init__(self, fixed: Rate) -> None:
        self._fixed = _per_second(fixed)
        self.learned = 0.0
        self.taken = 0.0
        self.why = ""
        self._peak = 0.0
        self._rates: dict[int, tuple[float, float]] = {}  # of each courier, and when it told of it
        self._steady = 0.0  # the throughput over a minute
        self._steady_at = 0.0
        self._grows_from = 0.0
        self._grown_at = 0.0
        self._deaf_until = 0.0
        self._tokens = 1.0
        self._at = 0.0

    @property
    def per_second(self) -> float:
        """What holds now; 0: any number."""
        if self._fixed and self.learned:
            return min(self._fixed, self.learned)
        return self._fixed or self.learned

    def fix(self, fixed: Rate) -> None:
        """The rules have changed."""
        self._fixed = _per_second(fixed)

    def set(self, learned: float, peak: float) -> None:
        """As it was learned in an earlier life."""
        self.learned, self._peak = learned, peak

    @property
    def peak(self) -> float:
        """What the learned rate was cut from."""
        return self._peak

    def worked(self, now: float, taken: int, seconds: float, courier: int = 0) -> None:
        """So many messages of a courier were taken in the last `seconds`; who tells nothing any more has none taken."""
        if seconds > 0:
            rate, at = self._rates.get(courier, (0.0, 0.0))
            rate += (taken / seconds - rate) * min(1.0, max(seconds, now - at) / _AVERAGE)
            self._rates[courier] = rate, now
            self._settle(now)
            self.taken = sum(rate for rate, at in self._rates.values() if now - at < _AVERAGE)
        if self.learned and now >= self._grows_from:
            self.learned += max(self._peak, _SLOWEST) / 60 * min(now - max(self._grown_at, self._grows_from), _AVERAGE)
            self._grown_at = now
            if self.learned >= 2 * max(self._peak, _SLOWEST):
                self.learned = self._peak = 0.0

    def complained(self, now: float, why: str) -> None:
        """The site says that it is given too much."""
        self._grows_from = now + _GRACE
        if now < self._deaf_until:
            return
        self._deaf_until = now + _DEAF
        taken = min(self.taken, self.learned) if self.learned else self.taken
        self._peak = max(taken, self._steady)
        self.learned = max(_SLOWEST, self._peak / 2)
        self.why = why

    def allowed(self, now: float) -> int:
        """Messages that may be given out now; asked only where there is a rate."""
        self._tokens = self._gathered(now)
        self._at = now
        return int(self._tokens)

    def spend(self, count: int) -> None:
        self._tokens -= count

    def ready_at(self, now: float) -> float:
        """When the next one may go."""
        return now + max(0.0, 1.0 - self._gathered(now)) / self.per_second

    def _settle(self, now: float) -> None:
        """Count what was taken since this was last asked into the minute; who has not told for long took nothing."""
        told = min(now - self._steady_at, _AVERAGE)
        silent = now - self._steady_at - told
        self._steady += (self.taken - self._steady) * told / _MINUTE
        self._steady *= max(0.0, 1.0 - silent / _MINUTE)
        self._steady_at = now

    def _gathered(self, now: float) -> float:
        rate = self.per_second
        return min(self._tokens + max(0.0, now - self._at) * rate, 1.0 + rate * _BURST)


def _per_second(rate: Rate) -> float:
    return rate.count / rate.seconds


def rate_text(per_second: float) -> str:
    """A rate as people say it."""
    if per_second >= 1:
        return f"{per_second:.3g} a second"
    return f"{per_second * 60:.3g} a minute" if per_second * 60 >= 1 else f"{per_second * 3600:.3g} an hour"
