"""The headers of texts that users send: what is added, what is removed, whom From names.

After a text was completed it has Date and Message-ID, no Bcc, and all else as it was; completing it again changes
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mta.mail.submission import authors, completed, fields, header_end

WATCHED = ("mta.mail.submission",)
LONGEST = 600
TOKENS = [
    *(
        b"\r\n",
        b"\r\n\r\n",
        b":",
        b" ",
        b"\t",
        b"\r\n ",
        b"Bcc:",
        b"bcc :",
        b"Resent-Bcc: x\r\n",
        b"From: ",
        b"from\t:",
    ),
    *(
        b"Date: x\r\n",
        b"Message-ID: <x>\r\n",
        b"Subject: y\r\n",
        b"<",
        b">",
        b"(",
        b")",
        b'"',
        b"\\",
        b",",
        b";",
        b"group:",
    ),
    *(b"a@b.test", b"=?utf-8?q?x?=", b"\xc3\xa9", b"\xff", b"\0", b"@", b"\x0b", b"\x0c", b"\x85", b"Sender: "),
]
_DATE, _ID = b"Mon, 1 Jan 2024 00:00:00 +0000", b"<1@mx.test>"
_BCC = re.compile(rb"\r\n(?:resent-)?bcc[ \t]*:", re.IGNORECASE)


def check(data: bytes) -> None:
    whole = completed(data, _DATE, _ID)
    end = header_end(whole)
    head = whole if end < 0 else whole[:end]
    names = [field.name for field in fields(whole, len(head))]
    assert b"date" in names, data
    assert b"message-id" in names, data
    assert not _BCC.search(b"\r\n" + head), data
    assert completed(whole, b"another", b"<another>") == whole, data
    found = authors(data)
    assert found is None or all(found), data


def seeds() -> Iterator[bytes]:
    yield b""
    yield b"\r\nbody\r\n"
    yield b"no header\r\nat all\r\n"
    yield b'From: Bob <bob@x.test>, (a (b)) "q\\"" <c@d.test>\r\nBcc: a,\r\n b\r\nDate: x\r\n\r\nBcc: in the body\r\n'
    yield b"From: friends: a@b.test, c@d.test;\r\nResent-Bcc : x\r\nMessage-ID: <x>\r\nBcc: y\r\n"
    yield b"From: <@a.test,@b.test:c@d.test>\r\n\tx\r\nnonsense\r\nBcc: y\r\n\r\n"
