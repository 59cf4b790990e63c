"""Remote hosts as scripts: what a site says to a connection and to a transaction, at a time.

A host answers `connect` with the seconds that it takes and the reply that it refuses with (None: welcome), and
`transact` with the seconds and one reply a recipient. It counts what it saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mta.model import Reply

OK = Reply(250, "2.0.0", "taken")
BUSY = Reply(421, "4.7.0", "too many connections from your address")
GREY = Reply(451, "4.7.1", "greylisted, try again later")
FAST = Reply(450, "4.7.28", "too many messages, slow down")
NOBODY = Reply(550, "5.1.1", "no such user here")
SILENCE = Reply(0, "4.4.1", "connection timed out")
REFUSED = Reply(0, "4.4.1", "connection refused")
LOST = Reply(0, "4.4.2", "connection lost")  # of a transaction: the connection breaks under it
DOWN = 30.0  # seconds until a connection to a dead host is given up

Answer = tuple[float, Reply | None]
Answers = tuple[float, list[Reply]]


@dataclass(slots=True)
class Host:
    """A healthy one. `open` are the connections that it has now."""

    connecting: float = 0.05
    working: float = 0.1
    open: int = 0
    most_open: int = 0
    connects: int = 0
    refused: int = 0  # connections
    transactions: int = 0
    accepted: int = 0  # recipients
    times: list[float] = field(default_factory=list)  # of connection attempts

    def call(self, now: float) -> Answer:
        """Somebody connects."""
        self.connects += 1
        self.times.append(now)
        answer = self.connect(now)
        if answer[1] is None:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        else:
            self.refused += 1
        return answer

    def send(self, now: float, addresses: Sequence[bytes]) -> Answers:
        """Somebody sends a message."""
        self.transactions += 1
        answers = self.transact(now, addresses)
        self.accepted += sum(reply.code == 250 for reply in answers[1])
        return answers

    def connect(self, now: float) -> Answer:
        return self.connecting, None

    def transact(self, now: float, addresses: Sequence[bytes]) -> Answers:
        return self.working, [OK] * len(addresses)


@dataclass(slots=True)
class Dead(Host):
    """Nobody answers, until a time, if one is given."""

    until: float = float("inf")

    def connect(self, now: float) -> Answer:
        return (DOWN, SILENCE) if now < self.until else Host.connect(self, now)


@dataclass(slots=True)
class Flapping(Host):
    """Up for some time, then down for some."""

    up: float = 600.0
    down: float = 1200.0

    def connect(self, now: float) -> Answer:
        return Host.connect(self, now) if self._is_up(now) else (0.01, REFUSED)

    def transact(self, now: float, addresses: Sequence[bytes]) -> Answers:
        return self.working, [OK if self._is_up(now) else LOST] * len(addresses)

    def _is_up(self, now: float) -> bool:
        return now % (self.up + self.down) < self.up


@dataclass(slots=True)
class Crowded(Host):
    """Refuses connections above a number."""

    most: int = 8

    def connect(self, now: float) -> Answer:
        return Host.connect(self, now) if self.open < self.most else (self.connecting, BUSY)


@dataclass(slots=True)
class Slowing(Host):
    """Needs more time for each message from a moment on, and is quick again after another."""

    at: float = 60.0
    until: float = float("inf")
    then: float = 5.0

    def transact(self, now: float, addresses: Sequence[bytes]) -> Answers:
        return (self.then if self.at <= now < self.until else self.working), [OK] * len(addresses)


@dataclass(slots=True)
class Metered(Host):
    """Takes so many messages in a minute, and defers the others."""

    each_minute: int = 60
    minute: int = -1
    count: int = 0

    def transact(self, now: float, addresses: Sequence[bytes]) -> Answers:
        if int(now // 60) != self.minute:
            self.minute, self.count = int(now // 60), 0
        self.count += 1
        return self.working, [OK if self.count <= self.each_minute else FAST] * len(addresses)


@dataclass(slots=True)
class Greylisting(Host):
    """Takes what comes again after some minutes."""

    wait: float = 300.0
    seen: dict[bytes, float] = field(default_factory=dict)

    def transact(self, now: float, addresses: Sequence[bytes]) -> Answers:
        replies = [OK if now - self.seen.setdefault(a, now) >= self.wait else GREY for a in addresses]
        return self.working, replies


@dataclass(slots=True)
class Picky(Host):
    """Knows only some users."""

    def transact(self, now: float, addresses: Sequence[bytes]) -> Answers:
        return self.working, [NOBODY if a.startswith(b"nobody") else OK for a in addresses]
