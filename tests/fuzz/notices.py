"""Notices to senders, made of what senders and next hops said.

`<|>` parts the words: flags, sender, envelope id, then address, ORCPT and reply of each recipient, then the original.
A notice is well-formed mail: lines of at most 998 octets that end with CRLF, no NUL, ASCII unless it is international,
three parts, and headers that are ours alone. xtext is decoded to what it was made of.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator

from mta.mail.dsn import Fate, Original, compose
from mta.mail.xtext import decode_embedded, decode_xtext, encode_embedded, split_typed
from mta.model import MessageId, Reply

WATCHED = ("mta.mail.dsn", "mta.mail.xtext")
LONGEST = 900
NEXT = b"<|>"
TOKENS = [
    NEXT,
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"\r\n\r\n",
        b"\r\nTo: x",
        b"--notice-",
        b"\x1b[31m",
        b"\xff",
        b"\xc3\xa9",
        b"\xe2\x80\xa8",
    ),
    *(b"+0D+0A", b"+2B", b"+20", b"rfc822;", b"utf-8;", b"\\x{E9}", b"\\x{D800}", b"\\x{110000}", b";", b"x" * 100),
    *(b"Subject: x\r\n", b"Bcc: y\r\n", b" folded\r\n", b"5.1.1", b"4.2.0", b'"', b"<", b">", b"=?utf-8?q?x?="),
]
_OURS = {
    *("from", "to", "subject", "date", "message-id", "auto-submitted", "mime-version", "content-type"),
    "content-transfer-encoding",
}
_ACTIONS = ("failed", "delayed", "delivered", "relayed")


def check(data: bytes) -> None:
    xtext(data)
    words = data.split(NEXT)
    if len(words) < 7:
        return
    flags, sender, envid, *rest = words
    bits = flags[0] if flags else 0
    fates = [_fate(bits, number, *rest[number : number + 3]) for number in range(0, len(rest) - 3, 3)]
    original = Original(
        id=MessageId(1),
        sender=sender,
        text=rest[-1],
        whole=bool(bits & 1),
        utf8=bool(bits & 2),
        envid=envid,
        deliver_by=1_700_000_000 if bits & 4 else 0,
    )
    notice = compose(hostname="mx.test", notice_id=MessageId(2), original=original, fates=fates, now=1_700_000_000)
    look_at(notice, original)


def _fate(bits: int, number: int, address: bytes, orcpt: bytes, said: bytes) -> Fate:
    return Fate(
        action=_ACTIONS[(bits >> 3) + number & 3],
        address=address,
        reply=Reply(550, "5.1.1" if bits & 32 else "", said.decode("utf-8", "replace")),
        hop="mx.far.test[192.0.2.1]:25" if bits & 64 else "",
        orcpt=orcpt,
    )


def look_at(notice: bytes, original: Original) -> None:
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", notice), notice
    assert max(map(len, notice.split(b"\r\n"))) <= 998, notice
    assert notice.isascii() or original.utf8 or (original.whole and not original.text.isascii()), notice
    message = email.message_from_bytes(notice, policy=email.policy.compat32)
    assert {name.lower() for name in message} <= _OURS, notice
    assert len(set(message.keys())) == len(message.keys()), notice
    assert not message.defects, notice
    assert len(message.get_payload()) == 3, notice


def xtext(data: bytes) -> None:
    decode_xtext(data)
    name, value = split_typed(data)
    assert not name or data == name.encode() + b";" + value
    text = data.decode("utf-8", "replace")
    coded = encode_embedded(text)
    assert coded.isascii()
    assert decode_embedded(coded) == text


def seeds() -> Iterator[bytes]:
    for bits in range(0, 128, 9):
        flags = bytes([bits])
        one = [b"bob@far.test", b"rfc822;bob+2Bx@far.test", b"no such user"]
        two = ["é@far.test".encode(), b"utf-8;\\x{E9}@far.test", "nicht da \u2028".encode()]
        yield NEXT.join([flags, b"ann@home.test", b"QQ+2B1", *one, b"Subject: x\r\n\r\nbody\r\n"])
        yield NEXT.join([flags, "änn@home.test".encode(), b"", *one, *two, "Subject: ü\r\n y\r\n\r\n".encode()])
        yield NEXT.join([flags, b"", b"\r\n", *two, b"--notice-000000000002\r\nno header"])
