"""The shape of a text, whole and in parts of every size."""

from __future__ import annotations

from typing import Any

import pytest

from mta.config.settings import Limits, Octets
from mta.policy.shape import Look, Shape


def multipart(depth: int, sub: str = "mixed") -> bytes:
    """One text within `depth` multiparts."""
    text = b"Content-Type: text/plain\r\n\r\nhello\r\n"
    for level in range(depth):
        name = b"b%d" % level
        head = b'Subject: x\r\ncontent-TYPE:\r\n multipart/%s;\r\n\tboundary="%s"\r\n\r\n' % (sub.encode(), name)
        text = head + b"preamble\r\n--" + name + b"\r\n" + text + b"--" + name + b"--\r\nepilogue\r\n--b0\r\n"
    return text


def siblings(count: int) -> bytes:
    """Many multiparts behind each other, none in another but for the outer one."""
    text = b"Content-Type: multipart/mixed; boundary=outer\r\n\r\n"
    for n in range(count):
        text += b"--outer\r\nContent-Type: multipart/mixed; boundary=in%d\r\n\r\n--in%d\r\n\r\nx\r\n--in%d--\r\n" % (
            n,
            n,
            n,
        )
    return text + b"--outer--\r\n"


def forwarded(depth: int) -> bytes:
    text = b"Subject: x\r\n\r\nhello\r\n"
    for n in range(depth):
        head = b"Content-Type: multipart/mixed; boundary=f%d\r\n\r\n--f%d\r\nContent-Type: message/rfc822\r\n\r\n" % (
            n,
            n,
        )
        text = head + text + b"--f%d--\r\n" % n
    return text


HOP = b"Received: from a.example (192.0.2.1)\r\n\tby b.example; Fri, 27 Nov 2026 13:57:55 +0000\r\n"
HEADER = b"A: x\r\n" * 10
CASES: dict[str, tuple[dict[str, Any], bytes, bytes]] = {
    "no limit": ({"header_size": 0, "header_lines": 0}, b"A: x\r\n" * 9000, b""),
    "a header of just the size": ({"header_size": 60}, HEADER + b"\r\n" + b"x" * 100, b""),
    "a header that is longer": ({"header_size": 59}, HEADER + b"\r\n" + b"x" * 100, b"552 5.3.4 The header of"),
    "a header without end": ({"header_size": 59}, HEADER, b"552 5.3.4 The header of"),
    "just the lines": ({"header_lines": 10}, HEADER + b"\r\n" + b"x\r\n" * 100, b""),
    "one line more": ({"header_lines": 9}, HEADER + b"\r\nx\r\n", b"552 5.3.4 The header of this message has more"),
    "an empty header": ({"header_lines": 1}, b"\r\n" + HEADER, b""),
    "no header": ({"header_size": 20, "header_lines": 1}, b"hello\r\n" * 50, b""),
    "a line of just the length": ({"line_length": 5}, b"12345\r\n\r\n12345\r\n12345", b""),
    "a longer one": ({"line_length": 5}, b"12345\r\n123456\r\n1\r\n", b"552 5.6.0 A line"),
    "a longer one at the end": ({"line_length": 5}, b"1\r\n1234567", b"552 5.6.0 A line"),
    "a much longer one": ({"line_length": 5}, b"1\r\n" + b"x" * 100 + b"\r\n", b"552 5.6.0 A line"),
    "short lines": ({"line_length": 5}, b"\r\n" * 40, b""),
    "just so deep": ({"mime_depth": 3}, multipart(3), b""),
    "deeper": ({"mime_depth": 3}, multipart(4), b"554 5.6.0 The parts"),
    "side by side": ({"mime_depth": 2}, siblings(30), b""),
    "within messages": ({"mime_depth": 3}, forwarded(4), b"554 5.6.0 The parts"),
    "just so deep within messages": ({"mime_depth": 4}, forwarded(4), b""),
    "received as often as may be": ({"hops": 100}, HOP * 99 + b"Subject: x\r\n\r\n" + HOP * 9, b""),
    "received once more": ({"hops": 100}, HOP * 100 + b"Subject: x\r\n\r\nhi\r\n", b"554 5.4.6 This message has"),
    "in other letters": ({"hops": 20}, b"X: y\r\n" + HOP.upper() * 20 + b"\r\n", b"554 5.4.6 This message has"),
    "a header alone": ({"hops": 20}, HOP * 20, b"554 5.4.6 This message has"),
    "received in the text": ({"hops": 20}, b"A: b\r\n\r\n" + HOP * 50, b""),
    "no loop": ({"hops": 0}, HOP * 900 + b"\r\n", b""),
    "lines that look like it": ({"hops": 20}, (b"X-Received: x" + b"x" * 80 + b"\r\n") * 50 + b"\r\n", b""),
    "no multipart": ({"mime_depth": 1}, b"Subject: x\r\n\r\n--a\r\n--b\r\n" * 40, b""),
}


@pytest.mark.parametrize("name", CASES)
def test_whole_and_in_parts(name: str) -> None:
    limits, text, refusal = CASES[name]
    shape = Shape(Limits(**({"header_size": 0, "header_lines": 0, "hops": 0} | limits)))
    found = shape.of(text)
    assert found.startswith(refusal)
    assert bool(found) == bool(refusal)
    for size in (1, 2, 3, 7, 50):
        look = Look(shape)
        parts = [look.at(text[start : start + size]) for start in range(0, len(text), size)]
        assert next(filter(None, parts), b"") == found, size


def test_a_short_text_is_not_looked_at() -> None:
    assert Shape(Limits()).least == 4_800
    assert Shape(Limits(hops=0)).least == 10_000
    assert Shape(Limits(header_size=Octets(0), header_lines=0, hops=0)).least > 1 << 60


def test_a_boundary_that_never_ends_is_not_kept() -> None:
    look = Look(Shape(Limits(mime_depth=1)))
    look.at(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n")
    for _ in range(100):
        assert not look.at(b"\n--" + b"b" * 65536)
    assert not look.at(b"\r\n--b--\r\n")
