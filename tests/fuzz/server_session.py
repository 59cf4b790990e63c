"""The server session: the fast one and the readable one must agree on all that comes of an input.

The first seven octets choose the configuration and how the rest is cut into packets; `<TLS>` in it is a handshake, if
the session waits for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from mta import _fastparse
from mta._fastparse import EXTENSIONS
from mta.protocol import server
from tests.kit.conversation import Conversation, cut
from tests.kit.dialogs import load_all

WATCHED = ("mta.protocol",)
LONGEST = 1000
HANDSHAKE = b"<TLS>"
TOKENS = [
    HANDSHAKE,
    *(b"\r", b"\n", b"\0", b".", b"\r\n", b"\r\n.\r\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\r\n", b"..", b"\r\n.."),
    *(b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@mx.test>\r\n", b"DATA\r\n", b"RSET\r\n"),
    *(b"RCPT TO:<nobody@mx.test>\r\n", b"RCPT TO:<later@mx.test>\r\n", b"QUIT\r\n", b"STARTTLS\r\n", b"NOOP\r\n"),
    *(
        b" SIZE=",
        b" BODY=8BITMIME",
        b" BODY=7BIT",
        b"SIZE=9999999999",
        b"<",
        b">",
        b"@",
        b'"',
        b"\\",
        b"[IPv6:",
        b"::",
        b"]",
    ),
    *(
        b"AUTH PLAIN b3Blbg==\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH X =\r\n",
        b"b3Blbg==\r\n",
        b"bGF0ZXI=\r\n",
        b"*\r\n",
        b"=",
        b"AUTH ",
    ),
    *(b"BECOME you\r\n", b"BECOME nobody\r\n", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n"),
    *(b"BDAT 1\r\n", b"BDAT 10\r\n", b"BDAT 200\r\n", b"BDAT 0\r\n", b"BDAT 5 LAST\r\n", b"BDAT 0 LAST\r\n", b"BDAT "),
    *(b" LAST", b"LHLO x\r\n", b" BODY=BINARYMIME", b"BDAT 9223372036854775807\r\n", b"BDAT 30 LAST\r\n"),
    *(
        b" RET=HDRS",
        b" ENVID=a+20b",
        b" NOTIFY=SUCCESS,DELAY",
        b" NOTIFY=NEVER",
        b" ORCPT=rfc822;a+2Bb",
        b" REQUIRETLS",
    ),
    *(
        b" HOLDFOR=600",
        b" HOLDUNTIL=2027-01-15T08:10:00Z",
        b" HOLDUNTIL=2027-01-15T09:10:00.5+01:00",
        b" MT-PRIORITY=-9",
    ),
    *(
        b" BY=120;RT",
        b" BY=-5;N",
        b" BY=",
        b";R",
        b";NT",
        b" AUTH=<>",
        b" AUTH=a+40b.test",
        b"+C3+A9",
        b"-02-29T",
        b":60Z",
    ),
    *(
        b" SMTPUTF8",
        b" ORCPT=utf-8;\\x{E9}a",
        b"\\x{",
        b"}",
        b"\xc3\xa9",
        b"\xe2\x82\xac",
        b"\xf0\x9f\x98\x80",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
    ),
    *(
        b"MAIL FROM:<\xc3\xa9@\xc3\xa9.test> SMTPUTF8\r\n",
        b"RCPT TO:<\xc3\xa9@\xc3\xa9.test>\r\n",
        b"VRFY \xc3\xa9 SMTPUTF8\r\n",
    ),
    *(b" BODY=BINARYMIME", b"+0D", b"+7E", b"+7F", b"=", b";", b",", b"NEVER", b"FAILURE", b"FULL", b"HELP\r\n"),
    *(b" ", b"\t", b"\xff", b"\x80", b"x" * 16, b"y" * 64, b"z" * 512, b"<Postmaster>", b"<>", b"@a.test,@b.test:"),
]


# What a bit of the first two octets turns on.
SWITCHES: list[tuple[str, Any]] = [
    ("starttls", True),
    ("mechanisms", b"PLAIN LOGIN"),
    ("mechanisms_tls", b"PLAIN"),
    ("strict_sender", True),
    ("chunking", True),
    ("lmtp", True),
    ("idn", False),
    ("refuse_mail", b"452 4.3.1 Full\r\n"),
    ("named", True),
    ("gated", True),
    ("commands", True),
    ("slow_errors", 2),
    ("idle_commands", 4),
    ("mails", 3),
]
LAZY = 0x8000
HEAD = 7


def some_config(head: bytes) -> dict[str, Any]:
    """By seven octets: two of switches, two of extensions, sizes, counts, and the cuts, of no interest here."""
    switches = int.from_bytes(head[:2], "big")
    offers = int.from_bytes(head[2:4], "big")
    sizes, counts, _ = head[4:]
    return {
        **{key: value for bit, (key, value) in enumerate(SWITCHES) if switches >> bit & 1},
        "offers": " ".join(keyword for keyword, bit in EXTENSIONS.items() if offers & bit),
        "message_size": (1_000_000, 50, 500)[sizes % 3],
        "line": (2048, 30, 512)[sizes // 3 % 3],
        "chunk": (262_144, 1, 64)[sizes // 9 % 3],
        "recipients": (100, 1, 2)[counts % 3],
        "errors": (10_000, 3, 20)[counts // 3 % 3],
    }


def head_for(config: dict[str, Any], mode: int, *, lazy: bool) -> bytes:
    """The octets that give a configuration, its limits apart."""
    switches = sum(1 << bit for bit, (key, _) in enumerate(SWITCHES) if config.get(key))
    offers = sum(EXTENSIONS[keyword] for keyword in str(config.get("offers", "")).split())
    return (switches | (LAZY if lazy else 0)).to_bytes(2, "big") + offers.to_bytes(2, "big") + bytes([0, 0, mode])


def pieces(data: bytes, mode: int) -> Iterator[bytes]:
    """Where the packets end: nowhere, everywhere, or at every so many octets."""
    return cut(data, range(mode, len(data), mode) if mode else [])


def outcome(module: ModuleType, phases: Iterable[Iterable[bytes]], config: dict[str, Any], *, lazy: bool) -> Any:
    conversation = Conversation(module, dict(config), lazy)
    for number, phase in enumerate(phases):
        if number and conversation.handshake:
            conversation.secured()
        for piece in phase:
            conversation.feed(piece)
        conversation.settle()
    return conversation.trace()


def check(data: bytes) -> None:
    if len(data) < HEAD:
        return
    head, phases = data[:HEAD], data[HEAD:].split(HANDSHAKE)
    config = some_config(head)
    expected = outcome(server, [[phase] for phase in phases], config, lazy=False)
    found = outcome(_fastparse, [pieces(phase, head[-1]) for phase in phases], config, lazy=head[0] >= LAZY >> 8)
    if found != expected:
        differ = {key: (expected[key], found[key]) for key in expected if expected[key] != found[key]}
        raise AssertionError(f"{data!r}: {config}: expected and found {differ}")


def seeds() -> Iterator[bytes]:
    room = LONGEST - HEAD
    for number, dialog in enumerate(load_all()):
        phases = HANDSHAKE.join(dialog.phases())
        for start in range(0, min(len(phases), 4 * room), room):
            yield head_for(dialog.config, number % 23, lazy=bool(number % 2)) + phases[start : start + room]
