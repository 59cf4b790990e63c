"""When a deferred delivery is tried again. Pure: times and random numbers are given."""

from __future__ import annotations

from mta.config.settings import Retry


def wait_after(retry: Retry, attempts: int, random: float) -> float:
    """Seconds to wait after so many failed attempts (1 or more); `random` lies in [0, 1)."""
    # The exponent is bounded so that a huge count cannot overflow: beyond, the cap holds anyway.
    wait = min(retry.cap, retry.first * retry.factor ** min(attempts - 1, 64))
    return wait * (1.0 + retry.jitter * (2.0 * random - 1.0))


def is_expired(retry: Retry, arrived: float, now: float) -> bool:
    """Whether mail that came at `arrived` has waited long enough (both in seconds)."""
    return now - arrived >= retry.expiry


def is_slow(retry: Retry, arrived: float, now: float) -> bool:
    """Whether its sender should hear that it takes long."""
    return bool(retry.delay_warning) and now - arrived >= retry.delay_warning
