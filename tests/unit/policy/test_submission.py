"""Who may send as whom."""

from __future__ import annotations

import pytest

from mta.config.settings import Domain, NextHop
from mta.policy.submission import LOGIN_FIRST, NOT_YOURS, LoggedIn, Submission, Unfit

RULES = Submission("mx.test", [Domain(name="own.test", deliver=NextHop("discard"))])
ALICE = LoggedIn("alice@own.test", ("sales@own.test", "@shop.test"))
BOB = LoggedIn("bob", ())


@pytest.mark.parametrize(
    ("user", "sender", "reply"),
    [
        ("", b"alice@own.test", LOGIN_FIRST),
        ("", b"", LOGIN_FIRST),
        (ALICE, b"", b""),
        (ALICE, b"alice@own.test", b""),
        (ALICE, b"Alice@OWN.test", b""),
        (ALICE, b"sales@own.test", b""),
        (ALICE, b"anything@shop.test", b""),
        (ALICE, b"bob@own.test", NOT_YOURS),
        (ALICE, b"alice@other.test", NOT_YOURS),
        (ALICE, b"x@sub.shop.test", NOT_YOURS),
        (ALICE, b"@shop.test", NOT_YOURS),
        (ALICE, b"alice+x@own.test", NOT_YOURS),
        (ALICE, b'"alice"@own.test', NOT_YOURS),
        (BOB, b"bob@own.test", b""),
        (BOB, b"bob@other.test", NOT_YOURS),
        (BOB, b"alice@own.test", NOT_YOURS),
    ],
)
def test_senders(user: str, sender: bytes, reply: bytes) -> None:
    assert RULES.judge_sender(sender, user) == reply


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (b"From: Alice <alice@own.test>\r\n\r\n", b""),
        (b"From: sales@own.test, x@shop.test\r\n\r\n", b""),
        (b"Subject: no author\r\n\r\n", b""),
        (b"From: bob@own.test\r\n\r\n", b"550 5.7.1 "),
        (b"From: alice@own.test\r\nFrom: bob@own.test\r\n\r\n", b"550 5.7.1 "),
        (b"junk\r\nfrom : bob@own.test\r\n\r\n", b"550 5.7.1 "),
        (b"From: <\r\n\r\n", b"550 5.6.0 "),
    ],
)
def test_authors(text: bytes, reply: bytes) -> None:
    if reply:
        with pytest.raises(Unfit) as error:
            RULES.prepared(text, ALICE, "1", 0, whole=True)
        assert error.value.reply.startswith(reply)
    else:
        assert RULES.prepared(text, ALICE, "1", 0, whole=True).endswith(text)
    assert RULES.prepared(text, "", "1", 0, whole=True).endswith(text)  # a network that is trusted


def test_the_beginning_of_a_long_text_must_hold_its_header() -> None:
    with pytest.raises(Unfit, match=r"552 5\.3\.4"):
        RULES.prepared(b"X: y\r\n" * 1000, ALICE, "1", 0, whole=False)
    assert RULES.prepared(b"X: y\r\n\r\n", ALICE, "1", 0, whole=False) == (
        b"Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <1@mx.test>\r\nX: y\r\n\r\n"
    )
