"""From replies to outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mta.deliver.outcomes import SmtpReply, all_delivered, outcomes_of, reply_of, untouched
from mta.model import Outcome, Reply, Status

OK, LATER, NEVER, BYE = (250, "2.0.0 ok"), (450, "4.2.0 later"), (550, "5.1.1 never"), (421, "4.3.2 bye")
GO = (354, "go")
ENDED = Reply(0, "4.4.2", "connection lost")


@dataclass
class Fake:
    mail: SmtpReply | None = None
    recipients: list[SmtpReply | None] = field(default_factory=lambda: [None])
    data: SmtpReply | None = None
    finals: list[SmtpReply | None] = field(default_factory=list)
    dotted: bool = False


@pytest.mark.parametrize(
    ("code", "text", "reply"),
    [
        (250, "2.0.0 ok", Reply(250, "2.0.0", "ok")),
        (250, "", Reply(250, "", "")),
        (550, "5.1.1", Reply(550, "5.1.1", "")),
        (550, "5.1.1 no such\n5.1.1 user here", Reply(550, "5.1.1", "no such user here")),
        (550, "no 5.1.1 here", Reply(550, "", "no 5.1.1 here")),
        (550, "5.1.1234 no", Reply(550, "", "5.1.1234 no")),
        (550, "a\x0b\x85b\r c\x1b[0m", Reply(550, "", "a b c\\x1b[0m")),
        (550, "x" * 70_000, Reply(550, "", "x" * 300)),
    ],
)
def test_replies_travel_as_one_printable_line(code: int, text: str, reply: Reply) -> None:
    assert reply_of(code, text) == reply


def test_all_delivered_needs_no_outcomes() -> None:
    result = Fake(OK, [OK, (251, "forwarded")], GO, [OK], True)
    assert all_delivered(result)
    assert outcomes_of(result, [0, 1], "hop", ENDED) == ()


def test_no_final_reply_is_no_delivery() -> None:
    assert not all_delivered(Fake(OK, [OK], GO, []))
    assert not all_delivered(Fake(OK, [OK], GO, [None]))


@pytest.mark.parametrize(
    ("result", "status", "code", "enhanced"),
    [
        (Fake(NEVER, [(503, "no")], (503, "no")), Status.FAILED, 550, "5.1.1"),
        (Fake(LATER, [None]), Status.DEFERRED, 450, "4.2.0"),
        (Fake(BYE, [None]), Status.DEFERRED, 421, "4.3.2"),
        (Fake(None, [None]), Status.DEFERRED, 0, "4.4.2"),
        (Fake(OK, [OK], LATER), Status.DEFERRED, 450, "4.2.0"),
        (Fake(OK, [OK], None), Status.DEFERRED, 0, "4.4.2"),
        (Fake(OK, [OK], GO, [NEVER], True), Status.FAILED, 550, "5.1.1"),
        (Fake(OK, [NEVER], GO, [(554, "5.5.1 none")]), Status.FAILED, 550, "5.1.1"),
        (Fake(OK, [NEVER], (554, "none")), Status.FAILED, 550, "5.1.1"),
    ],
)
def test_one_recipient(result: Fake, status: Status, code: int, enhanced: str) -> None:
    (outcome,) = outcomes_of(result, [3], "hop", ENDED)
    assert (outcome.status, outcome.reply.code, outcome.reply.enhanced) == (status, code, enhanced)
    assert outcome.recipients == ()
    assert outcome.hop == "hop"


def test_lost_behind_the_dot_says_so() -> None:
    result = Fake(OK, [OK], GO, [None], True)
    (outcome,) = outcomes_of(result, [0], "hop", ENDED)
    assert outcome.reply == Reply(0, "4.4.2", "result unknown, the text may have been taken: connection lost")
    assert outcome.status is Status.UNKNOWN
    for known in (Fake(OK, [OK], GO, [None], False), Fake(OK, [OK], GO, [BYE], True)):
        assert [o.status for o in outcomes_of(known, [0], "hop", ENDED)] == [Status.DEFERRED]


def test_recipients_are_grouped() -> None:
    result = Fake(OK, [OK, NEVER, LATER, OK, NEVER, None], GO, [OK], True)
    got = outcomes_of(result, [2, 3, 5, 7, 11, 13], "hop", ENDED)
    assert [(o.status, o.recipients) for o in got] == [
        (Status.DELIVERED, (2, 7)),
        (Status.FAILED, (3, 11)),
        (Status.DEFERRED, (5,)),
        (Status.UNKNOWN, (13,)),
    ]


def test_lmtp_finals_belong_to_accepted_recipients() -> None:
    result = Fake(OK, [OK, NEVER, OK], GO, [LATER, OK], True)
    got = outcomes_of(result, [0, 1, 2], "hop", ENDED)
    assert [(o.status, o.recipients) for o in got] == [
        (Status.DEFERRED, (0,)),
        (Status.FAILED, (1,)),
        (Status.DELIVERED, (2,)),
    ]


def test_thousand_different_refusals_are_merged() -> None:
    refusals: list[SmtpReply | None] = [(550, f"5.1.1 no user {i}") for i in range(1000)]
    got = outcomes_of(Fake(OK, [OK, *refusals], GO, [OK], True), range(1001), "hop", ENDED)
    assert got == (
        Outcome(Status.DELIVERED, Reply(250, "2.0.0", "ok"), "hop", (0,)),
        Outcome(Status.FAILED, Reply(550, "5.1.1", "no user 0"), "hop", tuple(range(1, 1001))),
    )


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Fake(None, [None]), True),
        (Fake(BYE, [None]), True),
        (Fake(OK, [None]), True),
        (Fake(OK, [BYE]), True),
        (Fake(OK, [OK], None), True),
        (Fake(OK, [OK], BYE), True),
        (Fake(NEVER, [None]), False),
        (Fake(OK, [NEVER], (554, "none")), False),
        (Fake(OK, [NEVER], None), False),
        (Fake(OK, [OK], LATER), False),
        (Fake(OK, [OK], GO, [None], True), False),
        (Fake(OK, [OK], GO, [BYE]), False),
    ],
)
def test_what_was_not_tried(result: Fake, expected: bool) -> None:
    assert untouched(result) is expected
