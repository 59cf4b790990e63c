"""Whether, and how much, mail may go to one site now, and why no more. PURE: `now` is given.

Five things hold mail back; each says why, who spoke, and until when:

    by hand      an operator paused the site
    cooling      a rule answers a reply of the site with a pause
    down         no host of the site can be reached: one delivery at a time is the probe, the rest waits
    pace         messages in a time, by a rule or learned (`mta.queue.pace`)
    connections  at once, by a rule or learned (`mta.queue.concurrency`)

Invariants
- `gated` is False exactly when neither of the first four holds anything back: then only the connections count, and
  nothing here is asked for a delivery.
- Where something waits for a time, `wakes` says which; where it waits for the probe or for a connection, what comes
  back from a courier is the event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from mta.config.settings import Rate
from mta.model import Reply
from mta.queue.concurrency import Concurrency
from mta.queue.pace import Pace, rate_text
from mta.queue.shapes import Shaping

NEVER = math.inf
_STREAK = 5  # deliveries in a row that ended for the site's sake, after which it counts as down

Gate = Literal["open", "paused", "cooling", "down", "paced"]


@dataclass(frozen=True, slots=True)
class Pause:
    """No mail until a time (NEVER: until somebody ends it). `place` is the rule, `who` the operator."""

    until: float
    why: str
    who: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Down:
    """Not to be reached. `until` is when the next probe goes, `failures` those so far, `since` the first."""

    until: float
    why: str
    failures: int
    since: float


@dataclass(frozen=True, slots=True)
class LimitState:
    """All that may be told of a site's limits; times in seconds since the epoch, 0 where there is none."""

    gate: Gate
    why: str  # a clause: "the site is down (...), next probe at ..."; "" while the gate is open
    until: float  # NEVER: for ever
    who: str
    place: str  # of the rule that spoke
    connections: int
    floor: int
    ceiling: int
    fixed: bool
    why_connections: str  # the last thing that changed them
    service: float  # seconds that a delivery takes; 0: not known
    rate: str  # "" for any
    rate_learned: bool
    failures: int  # probes without success
    down_since: float
    messages_per_connection: int
    recipients_per_message: int
    places: dict[str, str]  # what a rule says, and where it is written


class Memo(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What of a site's limits outlives a restart. Fields are only ever appended."""

    limit: int = 0  # connections; 0: nothing was learned
    threshold: int = 0
    probe_wait: float = 0.0
    rate: float = 0.0  # learned
    peak: float = 0.0
    paused: Pause | None = None
    cooling: Pause | None = None
    down: Down | None = None
    connections: int = 0  # set by hand
    hand_rate: Rate | None = None


class SiteLimits:
    """Those of one site."""

    __slots__ = (
        "_by_hand",
        "_streak",
        "concurrency",
        "cooling",
        "down",
        "gated",
        "pace",
        "paused",
        "proven",
        "rules",
    )

    def __init__(self, rules: Shaping) -> None:
        self.rules = rules
        self.concurrency = Concurrency(rules.floor, rules.ceiling, rules.start)
        self.pace = Pace(rules.rate)
        self.paused: Pause | None = None
        self.cooling: Pause | None = None
        self.down: Down | None = None
        self.proven = False  # it took something in this life
        self._by_hand: tuple[int, Rate | None] = 0, None  # connections and rate that an operator set
        self._streak = 0
        self._regate()

    # ---- what may go

    @property
    def connections(self) -> int:
        """At once, over all couriers."""
        return self.concurrency.limit

    def allowed(self, now: float, in_flight: int) -> int:
        """How many deliveries may be given out now, while so many are out; asked where the site is gated."""
        if self.paused is not None:
            if now < self.paused.until:
                return 0
            self.resume()
        if self.cooling is not None:
            if now < self.cooling.until:
                return 0
            self._warm()
        if self.down is not None:
            return 0 if now < self.down.until or in_flight else 1
        return self.pace.allowed(now) if self.pace.per_second else 1 << 30

    def spend(self, count: int) -> None:
        """So many were given out."""
        if self.pace.per_second:
            self.pace.spend(count)

    def wakes(self, now: float) -> float:
        """When to ask again, if nothing happens; NEVER: when something comes back, or somebody acts."""
        for hold in (self.paused, self.cooling, self.down):
            if hold is not None and now < hold.until:
                return hold.until
        if self.down is not None or not self.pace.per_second:
            return NEVER
        return self.pace.ready_at(now)

    # ---- what happened

    def worked(
        self,
        now: float,
        taken: int,
        answered: int,
        seconds: float,
        busy: int,
        *,
        limited: bool,
        fixed: bool = False,
        courier: int = 0,
    ) -> None:
        """What a courier tells of the last `seconds`: messages taken, transactions answered, connections busy."""
        if taken:
            self.proven = True
            self.reached()
        self.pace.worked(now, taken, seconds, courier)
        if not (fixed or self.concurrency.floor == self.concurrency.ceiling):
            self.concurrency.worked(now, answered, seconds, busy, limited=limited, courier=courier)
        self._regate()

    def reached(self) -> None:
        """A host of the site gave an answer that is about a mail."""
        self._streak = 0
        if self.down is not None:
            self.down = None
            self.concurrency.restart()
            self._regate()

    def refused(self, now: float, alive: int, why: str) -> None:
        """One connection was turned away or ended by 421, and so many others live."""
        self.concurrency.refused(now, alive, why)

    def pushed_back(self, now: float, why: str) -> None:
        """Connections break."""
        self.concurrency.pushed_back(now, why)

    def complained(self, now: float, why: str) -> None:
        """A reply tells of a rate."""
        self.concurrency.pushed_back(now, why)
        self.pace.complained(now, why)
        self._regate()

    def failed(self) -> bool:
        """A delivery ended for the site's sake, not its own; True: so many did that the site counts as down."""
        self._streak += 1
        return self._streak >= _STREAK

    def unreachable(self, now: float, wait: float, why: str) -> None:
        """No host will have us: wait for so long. What comes while that is known already changes nothing."""
        if self.down is not None and now < self.down.until:
            return
        failures, since = (self.down.failures + 1, self.down.since) if self.down is not None else (1, now)
        self.down = Down(now + wait, why, failures, since)
        self._streak = 0
        self._regate()

    @property
    def failures(self) -> int:
        """Times in a row that the site was not to be reached."""
        return self.down.failures if self.down is not None else 0

    def heard(self, now: float, reply: Reply) -> bool:
        """A reply that is no success: whether a rule has an answer to it."""
        found = self.rules.cool_down(reply) if self.rules.cool_downs else None
        if found is None:
            return False
        rule, place = found
        if rule.pause:
            until = now + rule.pause
            if self.cooling is None or until > self.cooling.until:
                self.cooling = Pause(until, str(reply), place=f"{place}: {rule}")
            self._regate()
        else:
            self.complained(now, str(reply))
        return True

    # ---- by hand

    def pause(self, until: float, why: str, who: str) -> None:
        self.paused = Pause(until, why, who)
        self._regate()

    def resume(self) -> None:
        """End the pause of an operator."""
        self.paused = None
        self._regate()

    def probe(self, now: float) -> None:
        """Try a site that is down now, not at its time; a pause stays."""
        if self.down is not None:
            self.down = replace(self.down, until=now)

    def flush(self, now: float) -> None:
        """End what a rule, or failures, have begun; a pause by hand stays."""
        self.probe(now)
        self.cooling = None
        self._regate()

    def set_by_hand(self, connections: int, rate: Rate | None) -> None:
        """Until it is set otherwise: 0 connections, and no rate (None), give the word back to rules and learning."""
        self._by_hand = connections, rate
        self.shape(self.rules)

    @property
    def by_hand(self) -> tuple[int, Rate | None]:
        return self._by_hand

    def forget(self) -> None:
        """Learn anew."""
        self.concurrency = Concurrency(self.rules.floor, self.rules.ceiling, self.rules.start)
        self.pace = Pace(self.rules.rate)
        self.down = self.cooling = None
        self.shape(self.rules)

    def shape(self, rules: Shaping) -> None:
        """Other rules hold from now on."""
        self.rules = rules
        connections, rate = self._by_hand
        bounds = (connections,) * 3 if connections else (rules.floor, rules.ceiling, rules.start)
        self.concurrency.bound(*bounds)
        self.pace.fix(rules.rate if rate is None else rate)
        self._regate()

    # ---- over restarts

    def memo(self, now: float) -> Memo | None:
        """What is worth remembering; None: it is like any new site."""
        learned = self.concurrency.learned
        connections, rate = self._by_hand
        memo = Memo(
            limit=self.concurrency.limit if learned else 0,
            threshold=int(self.concurrency.threshold) if learned else 0,
            probe_wait=self.concurrency.probe_wait if learned else 0.0,
            rate=round(self.pace.learned, 3),
            peak=round(self.pace.peak, 3) if self.pace.learned else 0.0,
            paused=self.paused if self.paused is not None and now < self.paused.until else None,
            cooling=self.cooling if self.cooling is not None and now < self.cooling.until else None,
            down=self.down,
            connections=connections,
            hand_rate=rate,
        )
        return memo if memo != Memo() else None

    def recall(self, memo: Memo, now: float) -> None:
        """What was remembered holds again, within the rules of today."""
        if memo.limit:
            self.concurrency.set(memo.limit, memo.threshold, memo.probe_wait, now)
        self.pace.set(memo.rate, memo.peak)
        self.paused, self.cooling, self.down = memo.paused, memo.cooling, memo.down
        self.set_by_hand(memo.connections, memo.hand_rate)

    # ---- to look at

    def state(self, now: float) -> LimitState:
        gate, hold = self._gate(now)
        place = hold.place if isinstance(hold, Pause) else self.rules.places.get("rate", "") if gate == "paced" else ""
        connections, rate = self._by_hand
        per_second = self.pace.per_second
        return LimitState(
            gate=gate,
            why=self._clause(gate, hold),
            until=hold.until if hold is not None else self.pace.ready_at(now) if gate == "paced" else 0.0,
            who=hold.who if isinstance(hold, Pause) else "",
            place=place,
            connections=self.connections,
            floor=self.concurrency.floor,
            ceiling=self.concurrency.ceiling,
            fixed=self.concurrency.floor == self.concurrency.ceiling,
            why_connections="set by hand" if connections else self.concurrency.why,
            service=self.concurrency.service,
            rate=rate_text(per_second) if per_second else "",
            rate_learned=bool(self.pace.learned) and per_second == self.pace.learned,
            failures=self.failures,
            down_since=self.down.since if self.down is not None else 0.0,
            messages_per_connection=self.rules.messages_per_connection,
            recipients_per_message=self.rules.recipients_per_message,
            places={**self.rules.places, **({"connections": "set by hand"} if connections else {})}
            | ({} if rate is None else {"rate": "set by hand"}),
        )

    # ---- inside

    def _warm(self) -> None:
        self.cooling = None
        self._regate()

    def _regate(self) -> None:
        held = self.paused is not None or self.cooling is not None or self.down is not None
        self.gated = held or bool(self.pace.per_second)

    def _gate(self, now: float) -> tuple[Gate, Pause | Down | None]:
        if self.paused is not None and now < self.paused.until:
            return "paused", self.paused
        if self.cooling is not None and now < self.cooling.until:
            return "cooling", self.cooling
        if self.down is not None:
            return "down", self.down
        if self.pace.per_second and self.pace.ready_at(now) > now:
            return "paced", None
        return "open", None

    def _clause(self, gate: Gate, hold: Pause | Down | None) -> str:
        if isinstance(hold, Down):
            times = "" if hold.failures == 1 else f" {hold.failures} times in a row"
            return f"the site is down: it could not be reached{times}, at last because of: {hold.why}"
        if isinstance(hold, Pause):
            who = f" by {hold.who}" if hold.who else ""
            return f"the site is paused{who}: {hold.why}" if gate == "paused" else f"the site cools down: {hold.why}"
        if gate == "paced":
            learned = f", learned from: {self.pace.why}" if self.pace.learned else ""
            return f"the site is given {rate_text(self.pace.per_second)} at most{learned}"
        return ""
