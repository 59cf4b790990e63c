"""What a courier has learnt of hosts that cannot do what they offer, so that it does not learn it with every message.

    TLS          the handshake fails: mail goes there without, unless TLS is required
    PIPELINING   replies are missing or out of step: one command at a time
    EHLO         the connection is closed at EHLO: HELO

Forgotten after a time, for hosts are mended; bounded, for there are many. Not shared between couriers, not kept over a
restart: each learns for the price of one connection.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

_MOST_HOSTS = 10_000


class Lesson(enum.Enum):
    """What a host was found unable to do."""

    TLS = "TLS"
    PIPELINING = "PIPELINING"
    EHLO = "EHLO"


BELIEVED = 600.0  # seconds; a host that was only unlucky once is not spoken to in the old way for long


@dataclass(frozen=True, slots=True)
class Manner:
    """How to speak to a host."""

    starttls: bool = True
    pipelining: bool = True
    esmtp: bool = True


_USUAL = Manner()


class Manners:
    """Hosts by the text of their `Target`. `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[str, Lesson], float] = {}

    def of(self, host: str) -> Manner:
        if not self._until:  # nearly always
            return _USUAL
        return Manner(
            starttls=not self._holds(host, Lesson.TLS),
            pipelining=not self._holds(host, Lesson.PIPELINING),
            esmtp=not self._holds(host, Lesson.EHLO),
        )

    def learn(self, host: str, lesson: Lesson) -> None:
        if len(self._until) >= _MOST_HOSTS:
            del self._until[next(iter(self._until))]
        self._until.pop((host, lesson), None)
        self._until[host, lesson] = self._clock() + BELIEVED

    def _holds(self, host: str, lesson: Lesson) -> bool:
        until = self._until.get((host, lesson))
        if until is None:
            return False
        if until > self._clock():
            return True
        del self._until[host, lesson]
        return False
