"""When a deferred delivery is tried again, and when no more. Pure: times and random numbers are given.

`Schedule` finds the times for a delivery: the first [[retry.rule]] that fits its domain, site and tenant and what the
last reply blames, and [retry] for what that rule does not say. They are asked for when an attempt has failed, so that
mail that is delivered at once costs nothing here.

A greylisting host wants to see its client again after some minutes, and often says when (`mta.mail.waithint`): such a
wait is kept to, and never cut short, as who comes too early begins anew with some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Protocol

from mta.config.settings import Retry, RetryRule, Seconds
from mta.mail.replyclass import ReplyClass, classify
from mta.mail.waithint import wait_hint
from mta.model import Reply

_MOST_KNOWN: Final = 10_000  # combinations of domain, site, tenant and class; there are few in one queue at a time
_LEAST_HINT: Final = 1.0  # seconds
_MARGIN: Final = 0.02  # a hint is met by so much of it later: clocks differ, and hosts round down


class Times(Protocol):
    """What is common to `Plan` and [retry] itself."""

    @property
    def first(self) -> Seconds: ...
    @property
    def factor(self) -> float: ...
    @property
    def cap(self) -> Seconds: ...
    @property
    def jitter(self) -> float: ...
    @property
    def expiry(self) -> Seconds: ...
    @property
    def delay_warning(self) -> Seconds: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The times for one delivery. `where` is the rule that had a say, with file and line; "" for [retry] alone."""

    first: Seconds
    factor: float
    cap: Seconds
    jitter: float
    expiry: Seconds
    delay_warning: Seconds
    where: str = ""
    quarantine: float = 0.0  # seconds that the source stays away from the site


_KEYS: Final = ("first", "factor", "cap", "jitter", "expiry", "delay_warning")


class Schedule:
    """The [retry] section and its rules."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._known: dict[tuple[bytes, str, str, ReplyClass], Plan] = {}

    def plan(self, domain: bytes, site: str, tenant: str, blame: ReplyClass) -> Plan:
        """The times for mail to a domain whose last attempt ended with a reply of this class."""
        known = self._known.get((domain, site, tenant, blame))
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[domain, site, tenant, blame] = self._made(domain, site, tenant, blame)
        return known

    @property
    def shortest(self) -> tuple[float, float]:
        """Of all rules the shortest expiry and the shortest delay warning; 0 for that: none is ever given."""
        expiries = [self._retry.expiry, *(rule.expiry for rule in self._retry.rule if rule.expiry is not None)]
        warnings = [self._retry.delay_warning, *(rule.delay_warning for rule in self._retry.rule)]
        return min(expiries), min((warning for warning in warnings if warning), default=0.0)

    @property
    def quarantines(self) -> bool:
        """Whether any rule wants another source."""
        return any(rule.quarantine for rule in self._retry.rule)

    def wait(self, plan: Plan, attempts: int, reply: Reply, random: float) -> float:
        """Seconds until the next attempt, after so many; `random` lies in [0, 1)."""
        if classify(reply) is ReplyClass.GREYLIST and (hint := wait_hint(reply.text)) is not None:
            asked = max(_LEAST_HINT, min(hint, self._retry.greylist_most))
            return asked * (1.0 + _MARGIN + plan.jitter * random)
        return wait_after(plan, attempts, random)

    def _made(self, domain: bytes, site: str, tenant: str, blame: ReplyClass) -> Plan:
        name = domain.decode("utf-8", "backslashreplace")
        rule = next((r for r in self._retry.rule if _fits(r, name, site, tenant, blame)), None)
        times = {key: getattr(self._retry, key) for key in _KEYS}
        if blame is ReplyClass.GREYLIST:
            times["first"] = min(times["first"], self._retry.greylist_first)
        if rule is not None:
            times |= {key: value for key in _KEYS if (value := getattr(rule, key)) is not None}
        if rule is None:
            return Plan(**times)
        return Plan(**times, where=rule.where, quarantine=rule.quarantine or 0.0)


def _fits(rule: RetryRule, domain: str, site: str, tenant: str, blame: ReplyClass) -> bool:
    return (
        _matches(rule.domain, domain)
        and _matches(rule.site, site)
        and _matches(rule.tenant, tenant)
        and (not rule.classes or blame.value in rule.classes)
    )


def _matches(patterns: Sequence[str], name: str) -> bool:
    return not patterns or any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def wait_after(times: Times, attempts: int, random: float) -> float:
    """Seconds to wait after so many failed attempts (1 or more); `random` lies in [0, 1)."""
    # The exponent is bounded so that a huge count cannot overflow: beyond, the cap holds anyway.
    wait = min(times.cap, times.first * times.factor ** min(attempts - 1, 64))
    return wait * (1.0 + times.jitter * (2.0 * random - 1.0))


def is_expired(times: Times, arrived: float, now: float) -> bool:
    """Whether mail that came at `arrived` has waited long enough (both in seconds)."""
    return now - arrived >= times.expiry


def is_slow(times: Times, arrived: float, now: float) -> bool:
    """Whether its sender should hear that it takes long."""
    return bool(times.delay_warning) and now - arrived >= times.delay_warning
