"""Values of ENVID and ORCPT: what the session takes can be shown to people and programs, in both forms of UTF-8.

The first octet chooses whether the transaction is one of SMTPUTF8. Both sessions read the value alike; what they take
decodes to printable text, and its notice is sound. What comes back from an address encoded by us is the address.
"""

from __future__ import annotations

from collections.abc import Iterator

from mta import _fastparse
from mta.mail.dsn import Fate, Original, compose
from mta.mail.xtext import decode_embedded, decode_xtext, encode_embedded, split_typed
from mta.model import MessageId, Reply
from mta.protocol import server
from tests.kit.conversation import converse

WATCHED = ("mta.mail.xtext", "mta.mail.dsn", "mta.protocol.parameters")
LONGEST = 520
TOKENS = [
    *(
        b"rfc822;",
        b"utf-8;",
        b"UTF-8;",
        b"x400;",
        b";",
        b"+",
        b"+2B",
        b"+3D",
        b"+0D",
        b"+0A",
        b"+00",
        b"+7F",
        b"+C3+A9",
    ),
    *(b"\\x{", b"}", b"\\x{E9}", b"\\x{202E}", b"\\x{D800}", b"\\x{110000}", b"\\x{0A}", b"\\x{5C}", b"+5Cx{", b"="),
    *(b"\xc3\xa9", b"\xe2\x80\xae", b"\xff", b"@", b"a@b.test", b"\0", b"\r", b"\n", b" ", b"\t"),
]
_NO = Reply(550, "5.1.1", "no")


def check(data: bytes) -> None:
    utf8, value = bool(data[:1]) and data[0] % 2 == 1, data[1:]
    asked = b" SMTPUTF8" if utf8 else b""
    mail = b"MAIL FROM:<a@b.test>%b" % asked
    spoken = b"EHLO c\r\n%b ENVID=%b\r\nRSET\r\n%b\r\nRCPT TO:<c@d.test> ORCPT=%b\r\n" % (mail, value, mail, value)
    traces = [converse(module, [spoken], offers="DSN SMTPUTF8", errors=1000) for module in (_fastparse, server)]
    assert traces[0] == traces[1], data
    kind, rest = split_typed(value)
    assert not kind or kind.isascii(), data
    text = decode_xtext(rest).decode("utf-8", "replace")
    assert decode_embedded(encode_embedded(text)) == text, data
    assert encode_embedded(text).isascii(), data
    _told(value, utf8=utf8)


def _told(orcpt: bytes, *, utf8: bool) -> None:
    """The notice about such a recipient, whether a session took it or not."""
    fate = Fate(b"c@d.test", _NO, orcpt=orcpt)
    original = Original(id=MessageId(1), sender="é@b.test".encode(), text=b"", utf8=utf8, envid=orcpt)
    notice = compose(hostname="mx.test", notice_id=MessageId(2), original=original, fates=[fate], now=0)
    bare = notice.replace(b"\r\n", b"")
    assert not any(octet in bare for octet in b"\r\n\0"), orcpt
    assert max(map(len, notice.split(b"\r\n"))) <= 998, orcpt
    assert utf8 or notice.isascii(), orcpt
    assert notice.count(b"\r\nFinal-Recipient: ") == 1, orcpt


def seeds() -> Iterator[bytes]:
    yield b"\0QQ314159"
    yield b"\0rfc822;Bob+40x.test"
    yield b"\1rfc822;+C3+A9@x.test"
    yield b"\1utf-8;\\x{E9}\xc3\xa9@x.test"
    yield b"\0utf-8;\\x{E9}@x.test"
    yield b"\0rfc822;a+0D+0AFinal-Recipient:+20x"
