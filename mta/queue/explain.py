"""Why a delivery is where it is, and what happens next, in one sentence a person understands.

Pure: what is known is gathered by the caller in `Facts`. Invariant: a sentence names the cause first, then the next
event, and the command that would hasten it where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mta.model import HopKind

State = Literal["ready", "active", "deferred", "held", "resolving", "ambiguous"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the queue manager knows of one delivery. Times in seconds."""

    id: str
    state: State
    domain: str
    site: str  # "" where none was found yet
    kind: HopKind
    attempts: int
    reason: str  # the last reply, or why it is held
    wait: float  # until the next attempt
    expiry: float  # until it goes back to its sender
    ready_here: int  # deliveries that wait for their turn at the site, this one included
    in_hand: int  # of the site, with couriers
    window: int  # so many of the site couriers may have in hand
    couriers: int  # that are up
    recovered: bool  # the queue is open
    trouble: str  # why the store takes no notes of attempts; "" where it does
    embargo: bool = False  # it waits for the time that its sender has set
    gate: str = ""  # why nothing, or no more, goes to the site now, as a whole sentence without its end


def explain(facts: Facts) -> str:
    """The sentence, without the id."""
    match facts.state:
        case "held":
            how = "" if facts.reason.startswith("held") else "held: "
            return f"It is {how}{_cause(facts)}; `mta queue release id={facts.id}` lets it go."
        case "ambiguous":
            return (
                "Its last attempt was cut short after the text was sent, so that it may have been delivered;"
                f" it is sent again in {span(facts.wait)}, so that it is not lost."
            )
        case "deferred":
            return _deferred(facts)
        case "active":
            return f"A courier has it in hand for {facts.site}, in attempt {facts.attempts + 1}."
        case "resolving":
            return _resolving(facts)
        case "ready":
            return _ready(facts)


def _deferred(facts: Facts) -> str:
    if facts.embargo:
        return f"It is {_cause(facts)}: in {span(facts.wait)}; `mta queue retry id={facts.id}` sends it now."
    if facts.wait >= facts.expiry:
        then = f"it goes back to its sender in {span(facts.expiry)}, as then its time is over"
    else:
        then = f"the next attempt is in {span(facts.wait)}, and `mta queue retry id={facts.id}` makes it now"
    return f"{_ordinal(facts.attempts)} attempt at {_target(facts)} ended with: {_cause(facts)}; {then}."


def _resolving(facts: Facts) -> str:
    if not facts.recovered:
        return "The queue manager started a moment ago and still reads the spool; it is sent after that."
    return f"The name servers are being asked where mail for {facts.domain} goes."


def _ready(facts: Facts) -> str:
    if not facts.recovered:
        return "The queue manager started a moment ago and still reads the spool; it is sent after that."
    if facts.trouble:
        return f"It is ready, but nothing is sent while the spool cannot note that it is: {facts.trouble}."
    if not facts.couriers:
        return "It is ready, but no courier process is up to send it; `mta status` and the log of the server say why."
    before = facts.ready_here - 1
    queue = "it is next" if not before else f"{before} more {_are(before)} ready for it"
    if facts.gate:
        return f"It is ready, but {facts.gate}; {queue}."
    if facts.in_hand >= facts.window:
        return f"It waits for its turn at {facts.site}: {facts.in_hand} are on their way there, and {queue}."
    return f"It is about to be sent to {facts.site}: {queue}."


def _target(facts: Facts) -> str:
    return facts.site or f"finding a host for {facts.domain}"


def _cause(facts: Facts) -> str:
    return facts.reason.rstrip(". ") or "nothing is known of the cause"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _ordinal(number: int) -> str:
    if number < 1:
        return "The"
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"The {number}{ending}"


def span(seconds: float) -> str:
    """A duration as people say it, two units at most."""
    left = max(0, round(seconds))
    if left < 1:
        return "a moment"
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0"))
