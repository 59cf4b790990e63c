"""Texts on their way through a submission server: what is added, what is removed, whom From names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.submission import authors, completed, header_end, read_addresses

DATE = b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
ID = b"Message-ID: <1@mx.test>\r\n"


def done(text: bytes) -> bytes:
    return completed(text, b"Mon, 1 Jan 2024 00:00:00 +0000", b"<1@mx.test>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Subject: x\r\n\r\nhello\r\n", DATE + ID + b"Subject: x\r\n\r\nhello\r\n"),
        (b"DATE : y\r\n\r\n", ID + b"DATE : y\r\n\r\n"),
        (b"Message-Id: y\r\nDate: z\r\n\r\n", b"Message-Id: y\r\nDate: z\r\n\r\n"),
        (b"Subject: x\r\n", DATE + ID + b"Subject: x\r\n"),
        (b"", DATE + ID + b"\r\n"),
        (b"\r\nDate: in the body\r\n", DATE + ID + b"\r\nDate: in the body\r\n"),
        (b"no header at all\r\n", DATE + ID + b"\r\nno header at all\r\n"),
        (b"X: 1\r\n date: 2\r\n\r\n", DATE + ID + b"X: 1\r\n date: 2\r\n\r\n"),
        (b"Bcc: a@b.test\r\n", DATE + ID),
    ],
)
def test_date_and_message_id(text: bytes, expected: bytes) -> None:
    assert done(text) == expected


def test_a_body_alone_gets_a_whole_header() -> None:
    """What looks like a field behind lines that are none is of the body for whoever reads the new header."""
    text = b"not a field\r\nMessage-ID: <x>\r\n"
    assert completed(text, b"D", b"<I>") == b"Date: D\r\nMessage-ID: <I>\r\n\r\n" + text


def test_bcc_is_removed() -> None:
    text = (
        b"From: a\r\nBcc: x@y.test,\r\n\tz@y.test\r\nDate: 1\r\nbcc : x\r\nResent-BCC:\r\nMessage-ID: 2\r\n"
        b"Xbcc: stays\r\n\r\nBcc: stays in the body\r\n"
    )
    assert done(text) == (b"From: a\r\nDate: 1\r\nMessage-ID: 2\r\nXbcc: stays\r\n\r\nBcc: stays in the body\r\n")


def test_the_end_of_a_header() -> None:
    assert header_end(b"A: b\r\n\r\nx") == 6
    assert header_end(b"\r\nx") == 0
    assert header_end(b"A: b\r\n") == -1


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("a@x.test", ["a@x.test"]),
        (" <a@x.test> ", ["a@x.test"]),
        ("Ann <a@x.test>, b@x.test (Bob)", ["a@x.test", "b@x.test"]),
        ('"Boss, the <ceo@x.test>" <a@x.test>', ["a@x.test"]),
        ("ceo@x.test <a@x.test>", ["a@x.test"]),
        ("Ann (a (nested) \\) comment <c@x.test>) <a@x.test>", ["a@x.test"]),
        ("a @ x.test", ["a@x.test"]),
        ("Us: a@x.test, Bob <b@x.test>;", ["a@x.test", "b@x.test"]),
        ("<@r.test,@s.test:a@x.test>", ["a@x.test"]),
        ('"odd one"@x.test', ['"odd one"@x.test']),
        ("=?utf-8?q?Ann?= <ä@x.test>", ["ä@x.test"]),
        ("A.\r\n\tB. <a@x.test>", ["a@x.test"]),
    ],
)
def test_addresses(value: str, addresses: list[str]) -> None:
    assert read_addresses(value) == addresses


@pytest.mark.parametrize(
    "value",
    [
        '("a) <ceo@x.test> ("b) <a@x.test>',
        "<a@x.test",
        "a@x.test>",
        '"a',
        "(a",
        "<>",
        "<a@x.test> b@x.test",
        "<<a@x.test>>",
        "a) b@x.test",
        "A <b> <c>",
    ],
)
def test_addresses_that_cannot_be_understood(value: str) -> None:
    assert read_addresses(value) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"From: a@x.test\r\n\r\nFrom: b@x.test\r\n", ["a@x.test"]),
        (b"FROM\t: a@x.test\r\nX: y\r\nfrom: b@x.test\r\n\r\n", ["a@x.test", "b@x.test"]),
        (b"no field\r\nFrom: a@x.test\r\n\r\n", ["a@x.test"]),
        (b"From:\r\n a@x.test\r\n", ["a@x.test"]),
        (b"Subject: x\r\n\r\n", []),
        (b"From: \xff@x.test\r\n\r\n", ["\udcff@x.test"]),
        (b"From: \r\n\r\n", None),
        (b"From: undisclosed:;\r\n\r\n", None),
        (b"From: a@x.test\r\nFrom: <\r\n\r\n", None),
    ],
)
def test_authors(text: bytes, expected: list[str] | None) -> None:
    assert authors(text) == expected


@given(
    st.binary(max_size=200), st.lists(st.sampled_from([b"From: a@b\r\n", b"Bcc: x\r\n", b"\r\n", b" y\r\n", b"Z\r\n"]))
)
def test_any_text(octets: bytes, lines: list[bytes]) -> None:
    text = b"".join(lines) + octets
    authors(text)
    once = done(text)
    assert done(once) == once
    assert once.endswith(text[header_end(text) :]) or header_end(text) < 0


@given(st.text(max_size=60) | st.lists(st.sampled_from('<>(),:;"\\ a@b'), max_size=30).map("".join))
def test_any_from(value: str) -> None:
    found = read_addresses(value)
    assert found is None or all(found)
