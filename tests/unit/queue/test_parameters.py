"""What the client said, as `mta queue show` tells it."""

from __future__ import annotations

import pytest

from mta.model import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, Envelope, Options, Recipient
from mta.queue.parameters import dsn, wishes


def said(options: Options | None) -> dict[str, object]:
    return wishes(Envelope(sender=b"s@x", recipients=(), options=options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {}),
        (Options(), {}),
        (Options(user="ann"), {"user": "ann"}),
        (Options(ret="FULL", envid=b"a+2Bb+1B"), {"ret": "full", "envid": "a+b\\x1b"}),
        (Options(hold_until=1_500, priority=-3), {"hold_until": 1.5, "priority": -3}),
        (Options(deliver_by=9_000, by_return=True), {"deliver_by": 9.0, "by_mode": "return"}),
        (Options(deliver_by=9_000, by_trace=True), {"deliver_by": 9.0, "by_mode": "notify, trace"}),
        (Options(utf8=True, binary=True, require_tls=True), {"utf8": True, "binary": True, "require_tls": True}),
        (Options(auth=b"<>"), {"auth": "<>"}),
        (Options(auth=b""), {"auth": ""}),
    ],
)
def test_of_the_message(options: Options | None, expected: dict[str, object]) -> None:
    assert said(options) == expected


def test_of_a_recipient() -> None:
    assert dsn(Recipient(b"r@y")) == {}
    assert dsn(Recipient(b"r@y", NOTIFY_NEVER)) == {"notify": ["never"]}
    both = Recipient(b"r@y", NOTIFY_DELAY | NOTIFY_FAILURE, b"rfc822;a+2Bb@y")
    assert dsn(both) == {"notify": ["failure", "delay"], "orcpt": "rfc822;a+b@y"}
