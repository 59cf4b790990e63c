"""What the outcomes of an attempt add up to. Pure.

Recipients are indexes into the envelope; an empty tuple means all that the job named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mta.model import Outcome, Reply, Status

Members = tuple[int, ...]
_SILENCE = Reply(0, "", "")


@dataclass(frozen=True, slots=True)
class Group:
    """Recipients that had the same end, with the words of the host that said so.

    Of delivered ones: `handed_on`, that host tells their sender, if he wants to hear of it; `untimed`, it does not know
    by when they were to get it.
    """

    recipients: Members
    reply: Reply
    hop: str = ""
    handed_on: bool = False
    untimed: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sum of an attempt. `reply` is what to tell a person; `waiting` are the recipients to be tried again.

    `successes` are the delivered ones again, in groups. `warn`: their sender is to be told of those that wait.
    """

    delivered: Members = ()
    waiting: Members | None = None
    failures: tuple[Group, ...] = ()
    successes: tuple[Group, ...] = ()
    warn: bool = False
    reply: Reply = _SILENCE
    hop: str = ""
    untried: bool = False
    back: int = 0  # the state of the arena in which those that wait go on, untouched; 0: they are deferred
    unknown: bool = False  # some of those that wait may have been delivered

    @property
    def deferred(self) -> bool:
        return self.waiting is not None

    def expired(self, cause: str = "not delivered in the time allowed") -> Verdict:
        """The same when there is no more time: what would wait has failed."""
        text = f"{cause}; the last answer was: {self.reply}"
        group = Group(self.waiting or (), Reply(0, "5.4.7", text), self.hop)
        return replace(self, waiting=None, failures=(*self.failures, group), reply=group.reply)


def judge(outcomes: Sequence[Outcome] = (), *, failed: Reply | None = None, deferred: Reply | None = None) -> Verdict:
    """The verdict on an attempt, or on none: the domain has no place (`failed`), or none for now (`deferred`)."""
    if failed is not None:
        return Verdict(failures=(Group((), failed),), reply=failed)
    if deferred is not None:
        return Verdict(waiting=(), reply=deferred)
    if all(o.status is Status.UNTRIED for o in outcomes):
        return Verdict(untried=True)
    delivered: list[int] = []
    waiting: list[int] = []
    deferral: Outcome | None = None
    failures: list[Group] = []
    successes: list[Group] = []
    for outcome in outcomes:
        if outcome.status is Status.DELIVERED:
            delivered.extend(outcome.recipients)
            successes.append(
                Group(outcome.recipients, outcome.reply, outcome.hop, outcome.dsn_handed_on, outcome.untimed)
            )
        elif outcome.status is Status.FAILED:
            failures.append(Group(outcome.recipients, outcome.reply, outcome.hop))
        else:
            waiting.extend(outcome.recipients)
            if deferral is None or deferral.status is not Status.UNKNOWN:
                deferral = outcome
    spoke = deferral or outcomes[-1]
    return Verdict(
        delivered=tuple(delivered),
        waiting=tuple(waiting) if deferral is not None else None,
        failures=tuple(failures),
        successes=tuple(successes),
        reply=spoke.reply,
        hop=spoke.hop,
        unknown=deferral is not None and deferral.status is Status.UNKNOWN,
    )
