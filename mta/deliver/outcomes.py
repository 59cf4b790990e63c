"""From the replies of one transaction to what became of each recipient. PURE.

    MAIL refused                          all recipients, by the class of the reply
    RCPT refused                          that recipient
    DATA or the final dot refused         the accepted recipients; LMTP: each by its own final reply
    connection lost before the final dot  deferred, 4.4.2
    lost behind it, without a reply       unknown, 4.4.2: the text may have been taken
                                          (RFC 5321 §4.5.3.2.6, RFC 1047)

2yz delivers, 4yz defers, 5yz fails (RFC 5321 §4.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from mta.model import Outcome, Reply, Status
from mta.observe.maillog import printable

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ \n]|$)")
_LONGEST_TEXT = 300  # characters of a reply that travel on; servers may say 64 KiB
_MOST_OUTCOMES = 32  # distinct ones of one job: a result must fit into one packet to the queue manager

SmtpReply = tuple[int, str]


class Replies(Protocol):
    """The part of a TransactionResult that counts here."""

    @property
    def mail(self) -> SmtpReply | None: ...
    @property
    def recipients(self) -> list[SmtpReply | None]: ...
    @property
    def data(self) -> SmtpReply | None: ...
    @property
    def finals(self) -> list[SmtpReply | None]: ...
    @property
    def dotted(self) -> bool: ...


def reply_of(code: int, text: str) -> Reply:
    """A peer's reply as it travels on: enhanced code apart, one printable line, of bounded length."""
    match = _ENHANCED.match(text)
    enhanced = match[1] if match else ""
    lines = (line.removeprefix(enhanced) for line in text[: 2 * _LONGEST_TEXT].split("\n"))
    plain = " ".join(" ".join(lines).split())[:_LONGEST_TEXT]
    return Reply(code, enhanced, plain if plain.isprintable() else printable(plain)[:_LONGEST_TEXT])


def all_delivered(result: Replies) -> bool:
    """Whether every recipient has its 2yz: the common case, without a list of outcomes."""
    for final in result.finals:
        if final is None or final[0] >= 300:
            return False
    for recipient in result.recipients:
        if recipient is None or recipient[0] >= 300:
            return False
    return bool(result.finals)


def untouched(result: Replies) -> bool:
    """Whether the transaction was cut short before its text, so that it is as if it had not been tried."""
    if result.finals:
        return False
    if _cut(result.mail):
        return True
    if result.mail is None or result.mail[0] >= 400:
        return False
    if any(_cut(r) for r in result.recipients):
        return True
    accepted = any(r is not None and r[0] < 300 for r in result.recipients)
    return accepted and _cut(result.data)


def outcomes_of(
    result: Replies,
    members: Sequence[int],
    hop: str,
    ended: Reply,
    *,
    dsn_handed_on: bool = False,
    untimed: bool = False,
) -> tuple[Outcome, ...]:
    """What to report; empty when all were delivered. `ended` says why missing replies are missing."""
    if all_delivered(result):
        return ()
    if result.mail is not None and result.mail[0] >= 400:
        return (_outcome(result.mail, ended, hop),)
    groups: dict[tuple[Status, Reply], list[int]] = {}
    for member, verdict in zip(members, _verdicts(result), strict=True):
        if verdict is None and result.dotted:
            groups.setdefault((Status.UNKNOWN, _unknown(ended)), []).append(member)
        else:
            groups.setdefault((_status(verdict), _reply(verdict, ended)), []).append(member)
    if len(groups) > _MOST_OUTCOMES:
        groups = _merged(groups)
    every = len(groups) == 1
    return tuple(
        Outcome(status, reply, hop, () if every else tuple(who), dsn_handed_on, untimed)
        if status is Status.DELIVERED
        else Outcome(status, reply, hop, () if every else tuple(who))
        for (status, reply), who in groups.items()
    )


def _verdicts(result: Replies) -> list[SmtpReply | None]:
    """The reply that decided about each recipient; None: it never came."""
    verdicts: list[SmtpReply | None] = []
    accepted = 0
    for reply in result.recipients:
        if reply is None or reply[0] >= 400:
            verdicts.append(reply)
        elif not result.finals:
            verdicts.append(result.data)
        else:
            verdicts.append(result.finals[accepted if len(result.finals) > 1 else 0])
            accepted += 1
    return verdicts


def _merged(groups: dict[tuple[Status, Reply], list[int]]) -> dict[tuple[Status, Reply], list[int]]:
    """One group a status, with the first reply of each."""
    keys: dict[Status, tuple[Status, Reply]] = {}
    merged: dict[tuple[Status, Reply], list[int]] = {}
    for key, who in groups.items():
        merged.setdefault(keys.setdefault(key[0], key), []).extend(who)
    return merged


def _cut(reply: SmtpReply | None) -> bool:
    return reply is None or reply[0] == 421


def _outcome(reply: SmtpReply, ended: Reply, hop: str) -> Outcome:
    return Outcome(_status(reply), _reply(reply, ended), hop)


def _status(reply: SmtpReply | None) -> Status:
    if reply is None or reply[0] < 200 or 300 <= reply[0] < 500:
        return Status.DEFERRED
    return Status.DELIVERED if reply[0] < 300 else Status.FAILED


def _reply(reply: SmtpReply | None, ended: Reply) -> Reply:
    # 354 decides nothing: the connection ended behind it.
    return ended if reply is None or (reply[0] < 400 and reply[0] >= 300) else reply_of(*reply)


def _unknown(ended: Reply) -> Reply:
    return Reply(0, "4.4.2", f"result unknown, the text may have been taken: {ended.text}"[:_LONGEST_TEXT])
