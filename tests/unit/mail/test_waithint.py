"""The wait that a reply asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.waithint import wait_hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, please try again after 300 seconds", 300),
        (
            "<kim@example.com>: Recipient address rejected: Greylisted for 5 minutes (see http://www.greylisting.org/)",
            300,
        ),
        ("Greylisting in action, please come back in 00:04:59", 299),
        ("Greylisting in action, please come back in 01:00:00", 3600),
        ("greylisted, come back in 4:30", 270),
        ("kim@example.com: greylisted. Please try again in 10 minutes", 600),
        ("Graylisted, please retry in 5 min.", 300),
        ("greylisted, please wait 60s", 60),
        ("try again in 1 hour", 3600),
        ("please wait at least 2 mins", 120),
        ("Greylisted, see http://postgrey.schweikert.ch/help/example.com.html", None),
        ("Try again later (greylisted)", None),
        ("try again in 300", None),
        ("more than 30 messages per 10 minutes", None),
        ("try again in 5 megabytes", None),
        ("", None),
    ],
)
def test_texts(text: str, seconds: int | None) -> None:
    assert wait_hint(text) == seconds


@given(st.text())
def test_any_text(text: str) -> None:
    hint = wait_hint(text)
    assert hint is None or hint >= 0
