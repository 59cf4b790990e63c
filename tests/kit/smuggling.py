"""Texts that hide a second message behind what is nearly the end of the first one.

Each `NEARLY_ENDS` is one that some server takes for CRLF.CRLF, or could: every pair of would-be line ends around a
dot, and the true end with something in it. `hidden` puts one into a text at a `PLACES`.
"""

from __future__ import annotations

import itertools
import re

TRUE_END = b"\r\n.\r\n"
EVIL = b"MAIL FROM:<evil@smuggled.test>\r\nRCPT TO:<victim@smuggled.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil"

_LINE_ENDS = [
    *(b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\r", b"\n\n", b"\r\n\r", b"\n\r\n"),
    *(b"\0", b"\r\0\n", b"\r\n\0", b"\0\r\n", b"\n\0", b"\r\0"),
    *(b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8"),  # line ends to splitlines() and to Unicode
]
_WITHIN = [
    *(TRUE_END[:i] + octet + TRUE_END[i:] for i in range(1, 5) for octet in (b"\0", b" ", b".", b"\x08", b"\xff")),
    *(
        b"\r\n.\r\0\n",
        b"\r\n.=0D=0A",
        b"\r\n%2e\r\n",
        b"\r\n\xc0\xae\r\n",
        b"\r\n\xe3\x80\x82\r\n",
        b"\r\n\x2e\x2e\r\n",
    ),
]
_PAIRS = (before + b"." + behind for before, behind in itertools.product(_LINE_ENDS, _LINE_ENDS))

NEARLY_ENDS = [*dict.fromkeys(end for end in (*_PAIRS, *_WITHIN) if TRUE_END not in end)]

PLACES = {
    "first": (b"", EVIL),
    "in a line": (b"text", EVIL),
    "behind lines": (b"Subject: x\r\n\r\ntext\r\n", EVIL),
    "twice": (b"text", b"x\n.\r\nx\r\n.\nx" + EVIL),
    "last": (b"text", b""),
}


def hidden(end: bytes, place: str) -> bytes:
    """The text up to, but without, its true end. One that begins with a true end's last three octets has none."""
    before, behind = PLACES[place]
    return before + end + behind


def faults(text: bytes) -> list[str]:
    """What is wrong with a text, in the words of the refusal; said once more here, by other means than the session."""
    names = {"bare CR": rb"\r(?!\n)", "bare LF": rb"(?<!\r)\n", "NUL": rb"\0"}
    return [name for name, pattern in names.items() if re.search(pattern, text)]


def unstuffed(text: bytes) -> bytes:
    """Dot-stuffing undone in one line (RFC 5321 §4.5.2)."""
    return re.sub(rb"(\A|(?<=\r\n))\.", b"", text)
