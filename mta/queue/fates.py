"""Whom a notice is about: what became of each recipient, and whether its sender wants to hear of it. Pure.

    failed      NOTIFY unset, or with FAILURE       (RFC 3461 §4.1)
    delayed     NOTIFY with DELAY; unset: as `[notices] warn` says, which RFC 3461 §4.1 leaves to us
    delivered   NOTIFY with SUCCESS, at the end of the way: a Maildir, LMTP
    relayed     NOTIFY with SUCCESS, and the next host has no DSN: what it does with the mail nobody will tell;
                with the trace of RFC 2852 whatever it has, and with a time in by-mode N where it has no DELIVERBY
                (§4.1.4), unless NOTIFY is NEVER

Invariant: a null reverse-path is told nothing (RFC 5321 §4.5.5, RFC 3461 §6); the postmaster may be, in its place
(`mta.queue.notices`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mta.mail.dsn import Action, Fate
from mta.model import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS, Envelope, HopKind
from mta.queue.outcome import Group, Verdict

Warn = Literal["users", "all", "asked"]
_LOCAL = frozenset({"maildir", "lmtp", "discard"})  # kinds of sites behind which mail goes no further


@dataclass(frozen=True, slots=True)
class Telling:
    """What to tell, and all recipients that failed, told or not."""

    told: tuple[Fate, ...]
    untold: tuple[Fate, ...]  # failed ones of which the sender does not want to hear
    failed: frozenset[int]


def choose(
    envelope: Envelope, verdict: Verdict, left: Sequence[int], *, kind: HopKind, until: float, warn: Warn
) -> Telling:
    """What an attempt at a site of this kind means. `left` are its recipients; `until` is when it is given up."""
    failed = list(_each(envelope, verdict.failures, left, "failed"))
    told = [fate for notify, _, fate in failed if not notify or notify & NOTIFY_FAILURE]
    untold = [fate for notify, _, fate in failed if notify and not notify & NOTIFY_FAILURE]
    told += _succeeded(envelope, verdict.successes, left, kind)
    if verdict.warn:
        told += delayed(envelope, Group(verdict.waiting or (), verdict.reply, verdict.hop), left, until, warn)
    if not envelope.sender:
        told, untold = [], [fate for _, _, fate in failed]
    return Telling(tuple(told), tuple(untold), frozenset(index for _, index, _ in failed))


def _succeeded(envelope: Envelope, groups: Sequence[Group], left: Sequence[int], kind: HopKind) -> list[Fate]:
    """The delivered recipients of whom the sender wants to hear, and nobody else will tell him."""
    relayed = kind not in _LOCAL
    traced = relayed and envelope.options is not None and envelope.options.by_trace
    done = _each(envelope, groups, left, "relayed" if relayed else "delivered")
    if traced:
        return [fate for notify, _, fate in done if notify != NOTIFY_NEVER]
    mute = {index for group in groups if group.handed_on for index in group.recipients or left}
    untimed = {index for group in groups if relayed and group.untimed for index in group.recipients or left}
    return [
        fate
        for notify, index, fate in done
        if (index in untimed and notify != NOTIFY_NEVER) or (notify & NOTIFY_SUCCESS and index not in mute)
    ]


def delayed(envelope: Envelope, group: Group, left: Sequence[int], until: float, warn: Warn) -> list[Fate]:
    """The recipients of a group of whose delay the sender wants to hear."""
    logged_in = envelope.options is not None and bool(envelope.options.user)
    unasked = warn == "all" or (warn == "users" and logged_in)
    waiting = _each(envelope, (group,), left, "delayed", int(until))
    return [
        fate for notify, _, fate in waiting if envelope.sender and (notify & NOTIFY_DELAY or (unasked and not notify))
    ]


def _each(
    envelope: Envelope, groups: Iterable[Group], left: Sequence[int], action: Action, until: int = 0
) -> Iterable[tuple[int, int, Fate]]:
    """NOTIFY, index and fate of each recipient of some groups, each recipient once."""
    met: set[int] = set()
    for group in groups:
        for index in group.recipients or left:
            if index not in met:
                met.add(index)
                one = envelope.recipients[index]
                yield one.notify, index, Fate(one.address, group.reply, group.hop, action, one.orcpt, until)
