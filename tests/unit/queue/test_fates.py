"""Who is told what: NOTIFY against what became of a recipient."""

from __future__ import annotations

import pytest

from mta.model import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Envelope,
    HopKind,
    Options,
    Outcome,
    Recipient,
    Reply,
    Status,
)
from mta.queue.fates import Warn, choose
from mta.queue.outcome import Group, Verdict, judge
from tests.kit.queue import LATER, NO

OK = Reply(250, "2.0.0", "ok")
FAILED = Verdict(failures=(Group((0,), NO, "mx"),))
DONE = Verdict(successes=(Group((), OK, "mx"),))
SLOW = Verdict(waiting=(), reply=LATER, warn=True)
TO = b"r@y"


def told(
    verdict: Verdict,
    notify: int,
    *,
    sender: bytes = b"s@x",
    user: str = "",
    kind: HopKind = "smtp",
    warn: Warn = "users",
) -> list[str]:
    options = Options(user=user) if user else None
    envelope = Envelope(sender=sender, recipients=(Recipient(TO, notify),), options=options)
    return [fate.action for fate in choose(envelope, verdict, [0], kind=kind, until=9.5, warn=warn).told]


@pytest.mark.parametrize(
    ("notify", "failed", "delivered", "slow"),
    [
        (0, ["failed"], [], []),
        (NOTIFY_NEVER, [], [], []),
        (NOTIFY_SUCCESS, [], ["relayed"], []),
        (NOTIFY_FAILURE, ["failed"], [], []),
        (NOTIFY_DELAY, [], [], ["delayed"]),
        (NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY, ["failed"], ["relayed"], ["delayed"]),
    ],
)
def test_notify(notify: int, failed: list[str], delivered: list[str], slow: list[str]) -> None:
    assert told(FAILED, notify) == failed
    assert told(DONE, notify) == delivered
    assert told(SLOW, notify) == slow
    assert [told(v, notify, sender=b"") for v in (FAILED, DONE, SLOW)] == [[], [], []], "no notice to nobody"


@pytest.mark.parametrize(
    ("warn", "user", "expected"),
    [
        ("users", "", []),
        ("users", "ann", ["delayed"]),
        ("all", "", ["delayed"]),
        ("asked", "ann", []),
    ],
)
def test_who_said_nothing_is_warned_as_the_settings_say(warn: Warn, user: str, expected: list[str]) -> None:
    assert told(SLOW, 0, warn=warn, user=user) == expected
    assert told(SLOW, NOTIFY_FAILURE, warn=warn, user=user) == [], "what was said counts"


@pytest.mark.parametrize("kind", ["maildir", "lmtp", "discard"])
def test_the_end_of_the_way_is_delivered(kind: HopKind) -> None:
    assert told(DONE, NOTIFY_SUCCESS, kind=kind) == ["delivered"]


def test_all_that_failed_are_named_told_or_not() -> None:
    recipients = tuple(Recipient(b"r%d@y" % n, notify) for n, notify in enumerate([0, NOTIFY_NEVER, NOTIFY_FAILURE]))
    envelope = Envelope(sender=b"s@x", recipients=recipients)
    verdict = Verdict(failures=(Group((0, 1), NO, "mx"), Group((), LATER, "mx")))
    telling = choose(envelope, verdict, [0, 1, 2], kind="smtp", until=0, warn="users")
    assert telling.failed == {0, 1, 2}
    assert [(fate.address, fate.reply) for fate in telling.told] == [(b"r0@y", NO), (b"r2@y", LATER)]
    assert [fate.address for fate in telling.untold] == [b"r1@y"]


def test_what_the_next_host_will_tell_is_not_told_here() -> None:
    verdict = judge(
        [
            Outcome(Status.DELIVERED, OK, "mx", (0,), dsn_handed_on=True),
            Outcome(Status.DELIVERED, OK, "mx", (1,)),
            Outcome(Status.DEFERRED, LATER, "mx", (2,)),
        ]
    )
    assert verdict.delivered == (0, 1)
    envelope = Envelope(sender=b"s@x", recipients=tuple(Recipient(b"r%d@y" % n, NOTIFY_SUCCESS) for n in range(3)))
    telling = choose(envelope, verdict, [0, 1, 2], kind="smtp", until=0, warn="users")
    assert [fate.address for fate in telling.told] == [b"r1@y"]


@pytest.mark.parametrize("handed_on", [False, True])
def test_a_trace_tells_each_step_on_the_way(handed_on: bool) -> None:
    recipients = tuple(Recipient(b"r%d@y" % n, notify) for n, notify in enumerate([0, NOTIFY_NEVER, NOTIFY_FAILURE]))
    envelope = Envelope(sender=b"s@x", recipients=recipients, options=Options(by_trace=True, deliver_by=1))
    verdict = Verdict(successes=(Group((), OK, "mx", handed_on),))
    telling = choose(envelope, verdict, [0, 1, 2], kind="smtp", until=0, warn="users")
    assert [(fate.address, fate.action) for fate in telling.told] == [(b"r0@y", "relayed"), (b"r2@y", "relayed")]
    assert choose(envelope, verdict, [0, 1, 2], kind="maildir", until=0, warn="users").told == ()


def test_a_delay_names_those_that_wait_and_until_when() -> None:
    recipients = tuple(Recipient(b"r%d@y" % n, NOTIFY_DELAY, b"rfc822;o%d@y" % n) for n in range(3))
    envelope = Envelope(sender=b"s@x", recipients=recipients)
    verdict = Verdict(delivered=(0,), waiting=(1,), failures=(Group((2,), NO, "mx"),), reply=LATER, hop="mx", warn=True)
    (fate,) = choose(envelope, verdict, [0, 1, 2], kind="smtp", until=77.9, warn="users").told
    assert (fate.address, fate.orcpt, fate.action, fate.until) == (b"r1@y", b"rfc822;o1@y", "delayed", 77)


@pytest.mark.parametrize(
    ("notify", "kind", "expected"),
    [
        (0, "smtp", ["relayed"]),
        (NOTIFY_FAILURE, "smtp", ["relayed"]),
        (NOTIFY_NEVER, "smtp", []),
        (0, "lmtp", []),
        (NOTIFY_SUCCESS, "lmtp", ["delivered"]),
    ],
)
def test_a_host_that_knows_of_no_time(notify: int, kind: HopKind, expected: list[str]) -> None:
    """RFC 2852 §4.1.4.2, whatever the host does with NOTIFY."""
    outcome = Outcome(Status.DELIVERED, OK, "mx", dsn_handed_on=kind == "smtp", untimed=True)
    assert told(judge([outcome]), notify, kind=kind) == expected
