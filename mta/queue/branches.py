"""What stands under the sentence of `mta queue explain`: a branch for each thing that has a say in it.

Each branch is a label and a function of a case, which gives its text, "" where there is nothing to say. What is added
to the queue adds its row to `BRANCHES`. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mta.mail.replyclass import classify_text
from mta.model import Envelope
from mta.observe.maillog import printable
from mta.queue.choice import class_of
from mta.queue.explain import Facts, span
from mta.queue.manager import QueueManager
from mta.queue.sites import SiteQueue

_EVENTS: Final = {"active": "the courier's report", "resolving": "the answer of the name servers"}
_SHOWN: Final = 5  # recipients, hosts
_MANY: Final = 100_000  # as far as `Arena.ahead` counts


@dataclass(frozen=True, slots=True)
class Case:
    """One delivery. `envelope` is None where its record cannot be read."""

    facts: Facts
    manager: QueueManager
    slot: int
    queue: SiteQueue
    envelope: Envelope | None
    now: float


Branch = tuple[str, Callable[[Case], str]]


def tree(case: Case) -> list[dict[str, object]]:
    """The branches that have something to say, in order."""
    return [{"label": label, "text": text} for label, look in BRANCHES if (text := look(case))]


def _message(case: Case) -> str:
    if case.envelope is None:
        return "its record in the spool cannot be read"
    age = span(case.now - case.manager.arrival(case.slot))
    return f"from <{printable(case.envelope.sender)}>, here for {age}"


def _recipients(case: Case) -> str:
    if case.envelope is None:
        return ""
    left = case.manager.left(case.slot)
    shown = ", ".join(f"<{printable(case.envelope.recipients[i].address)}>" for i in left[:_SHOWN])
    return shown + (f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else "")


def _state(case: Case) -> str:
    attempts = case.facts.attempts
    return f"{case.facts.state}, {attempts or 'no'} attempt{'' if attempts == 1 else 's'}"


def _reason(case: Case) -> str:
    return "" if case.facts.attempts else case.facts.reason


def _last(case: Case) -> str:
    return case.facts.reason if case.facts.attempts else ""


def _class(case: Case) -> str:
    return class_of(case.facts.reason) if case.facts.attempts else ""


def _rule(case: Case) -> str:
    return printable(case.manager.places.rule(case.slot))


def _site(case: Case) -> str:
    site = case.queue.site
    hosts = [hop.host for hop in site.hops]
    more = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
    return case.facts.site + (f" ({', '.join(hosts[:_SHOWN])}{more})" if case.facts.site and len(hosts) > 1 else "")


def _source(case: Case) -> str:
    source = case.queue.source
    addresses = ", ".join(str(address) for address in (source.ipv4, source.ipv6) if address)
    return source.name + (f" ({addresses})" if addresses else "") if source.name else ""


def _quarantine(case: Case) -> str:
    """The sources that do not go to the site for now, as it blamed them."""
    quarantine, site = case.manager.quarantine, case.queue.site.name
    if quarantine is None:
        return ""
    return ", ".join(
        f"{name} for {span(quarantine.until(site, name) - case.now)}" for name in sorted(quarantine.at(site))
    )


def _tenant(case: Case) -> str:
    return printable(case.manager.lanes.tenants[case.manager.arena.lane(case.slot)[0]])


def _retry(case: Case) -> str:
    if case.facts.state not in ("deferred", "ambiguous"):
        return ""
    plan = case.manager.plan(case.slot, classify_text(case.facts.reason))
    rule = f" ({plan.where})" if plan.where else ""
    return f"first {span(plan.first)}, then {plan.factor:g} times longer each, up to {span(plan.cap)}{rule}"


def _limits(case: Case) -> str:
    if not case.facts.site or case.queue.site.kind == "hold":
        return ""
    state = case.manager.regulator.state(case.queue)
    limits = state.limits
    parts = [f"{limits.connections} connections" + (f" ({limits.why_connections})" if limits.why_connections else "")]
    parts += [f"{limits.rate}{' (learned)' if limits.rate_learned else ''}"] if limits.rate else []
    parts += [f"{key}: {place}" for key, place in limits.places.items()]
    return "; ".join(map(printable, parts))


def _held_up(case: Case) -> str:
    return case.facts.gate


def _ahead(case: Case) -> str:
    if case.facts.state != "ready":
        return ""
    before, urgent, others = case.manager.arena.ahead(case.slot)
    known = f"more than {before}" if before >= _MANY else str(before)
    return (
        f"{known} of its tenant and priority, {urgent} more urgent ones of its tenant, {others} of other tenants;"
        f" {case.facts.in_hand} of {case.facts.window} places at the site are taken"
    )


def _next(case: Case) -> str:
    facts = case.facts
    if facts.state in ("deferred", "ambiguous"):
        return f"{'it is sent' if facts.embargo else 'the next attempt'} in {span(facts.wait)}"
    if facts.state == "held":
        return "nothing, until somebody releases it"
    return _EVENTS.get(facts.state, "its turn")


def _expiry(case: Case) -> str:
    how = "goes back to its sender" if case.envelope is None or case.envelope.sender else "is given up, untold"
    return f"it {how} in {span(case.facts.expiry)}"


def _now(case: Case) -> str:
    """What would happen if it were let go now."""
    facts = case.facts
    if facts.state not in ("deferred", "held", "ambiguous"):
        return ""
    if case.queue.site.kind == "hold" and facts.site:
        return "it would be held again, for its route says so; `mta queue reroute` sends it elsewhere"
    if facts.gate:
        return f"it would wait: {facts.gate}"
    if not facts.couriers:
        return "it would wait, for no courier is up"
    ready = case.manager.arena.length(case.queue.ready) if facts.site else 0
    if ready or facts.in_hand >= facts.window:
        return f"it would wait for its turn among {ready} that are ready for {facts.site}"
    return f"it would be sent at once to {facts.site}" if facts.site else "its way would be looked for, at once"


BRANCHES: Final[tuple[Branch, ...]] = (
    ("message", _message),
    ("recipients", _recipients),
    ("state", _state),
    ("reason", _reason),
    ("last reply", _last),
    ("class", _class),
    ("rule", _rule),
    ("site", _site),
    ("source", _source),
    ("quarantine", _quarantine),
    ("tenant", _tenant),
    ("limits", _limits),
    ("held up", _held_up),
    ("ahead", _ahead),
    ("retry", _retry),
    ("next", _next),
    ("expiry", _expiry),
    ("if released now", _now),
)
