"""The client session against any server: the fast one and the readable one must say, flag and find the same.

The first four octets choose the protocol, the jobs, their texts, and how the lines of the rest are cut into packets. A
line is what the server says next; whatever the session then wants to be given, it gets, a handshake too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mta import _fastparse
from mta.protocol import client
from tests.kit.client_dialogs import Dialog, load_all
from tests.kit.conversation import cut, taped

WATCHED = ("mta.protocol",)
LONGEST = 600
TOKENS = [
    *(b"220 x\r\n", b"250 ok\r\n", b"250-x\r\n", b"250 PIPELINING\r\n", b"250-PIPELINING\r\n", b"250-SIZE 100\r\n"),
    *(
        b"250-8BITMIME\r\n",
        b"250-STARTTLS\r\n",
        b"250-CHUNKING\r\n",
        b"250-DSN\r\n",
        b"250-SMTPUTF8\r\n",
        b"354 go\r\n",
    ),
    *(
        b"250-AUTH PLAIN\r\n",
        b"250-LIMITS RCPTMAX=1\r\n",
        b"250 SIZE\r\n",
        b"250-BINARYMIME\r\n",
        b"250-REQUIRETLS\r\n",
    ),
    *(
        b"450 4.2.0 later\r\n",
        b"452 4.5.3 too many\r\n",
        b"550 5.1.1 no\r\n",
        b"550-5.1.1 no\r\n",
        b"421 4.3.2 bye\r\n",
    ),
    *(
        b"500 what\r\n",
        b"502 no\r\n",
        b"503 order\r\n",
        b"554 no\r\n",
        b"221 bye\r\n",
        b"220 go\r\n",
        b"235 in\r\n",
        b"334 \r\n",
    ),
    *(
        b"\r",
        b"\n",
        b"\0",
        b"-",
        b" ",
        b"\xff",
        b"\x80",
        b"2",
        b"4",
        b"5",
        b"999 x\r\n",
        b"99 x\r\n",
        b"250\r\n",
        b"250x\r\n",
    ),
    *(b"x" * 100, b"250-" + b"y" * 300 + b"\r\n"),
]
TEXTS = (b"some\r\n.text\r\n", b"", b".", b"\n.\r\n.", b"\xff", b".\r\n" * 5, b"a\r", b"\0" * 9)
LMTP, QUIT, STARTTLS, HELO, LOCK_STEP, CHUNKED, WORDS = (1 << bit for bit in range(7))
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")


def session_for(module: ModuleType, flags: int) -> Any:
    return module.ClientSession(
        b"me.test",
        lmtp=bool(flags & LMTP),
        starttls=bool(flags & STARTTLS),
        esmtp=not flags & HELO,
        pipelining=not flags & LOCK_STEP,
        tape=1024,
    )


def outcome(module: ModuleType, head: bytes, lines: list[list[bytes]]) -> Any:
    flags, jobs, how, _ = head
    session = session_for(module, flags)
    trace: list[Any] = []
    left = jobs % 5
    for line in lines:
        raised = 0
        for piece in line:
            raised |= session.receive(bytearray(piece), len(piece))
        said = session.take_output()
        if raised & module.STARTTLS and not raised & module.CLOSE:
            raised |= session.secured()
            said += session.take_output()
        while not raised & module.CLOSE and left and raised & (module.READY | module.NEXT):
            left -= 1
            raised = offer(session, flags, jobs, how, left)
            said += session.take_output()
        if raised & module.SEND and not raised & module.CLOSE:
            for chunk, last in pieces_of(TEXTS[how >> 1 & 7], 1 + (how >> 4 & 3)):
                raised |= session.send_body(chunk, last)
            said += session.take_output()
        trace.append((raised, said, session.in_hand, session.awaits_final, session.replies, results(session)))
        if raised & module.CLOSE:
            break
        if flags & QUIT and not left and not session.in_hand and raised & module.NEXT:
            trace.append((session.quit(), session.take_output()))
    session.lost()
    known = (session.greeting, session.failure, session.extensions, session.tls, session.tls_refusal)
    return trace, results(session), known, session.pipelining, session.ended_in, taped(session)


def offer(session: Any, flags: int, jobs: int, how: int, left: int) -> int:
    count = 1 + (jobs >> left) % 3
    recipients = [b"r%d@y.test" % i for i in range(count)]
    mail, rcpt = (b" RET=HDRS", [b" NOTIFY=NEVER"] * count) if flags & WORDS else (b"", [])
    chunked = bool(flags & CHUNKED) and bool(left % 2 or not how & 64)
    raised: int = session.offer(left, b"s@x.test", recipients, 9, bool(how & 1), mail, rcpt, chunked)
    return raised


def pieces_of(text: bytes, count: int) -> Iterator[tuple[bytes, bool]]:
    size = len(text) // count + 1
    for n in range(count):
        yield text[n * size : (n + 1) * size], n == count - 1


def results(session: Any) -> list[tuple[Any, ...]]:
    return [(r.token, r.mail, r.recipients, r.data, r.finals, r.dotted) for r in session.take_results()]


def check(data: bytes) -> None:
    if len(data) < 4:
        return
    mode = data[3]
    lines = _LINE.findall(data[4:])
    expected = outcome(client, data[:4], [[line] for line in lines])
    pieces = [list(cut(line, range(mode, len(line), mode) if mode else [])) for line in lines]
    found = outcome(_fastparse, data[:4], pieces)
    assert found == expected, f"{data!r}: expected {expected}, found {found}"


def seeds() -> Iterator[bytes]:
    hello = b"220 x\r\n250-x\r\n250-SIZE 100\r\n250-8BITMIME\r\n250 PIPELINING\r\n"
    taken = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n250 2.0.0 taken\r\n"
    for mode in (0, 1, 3):
        for flags in (0, 1, 3):
            yield bytes([flags, 3, 1, mode]) + hello + taken * 3 + b"221 bye\r\n"
        yield bytes([0, 2, 0, mode]) + b"220 x\r\n500 what\r\n250 x\r\n" + taken * 2
        yield (
            bytes([2, 4, 0, mode])
            + hello
            + b"250 ok\r\n550 5.1.1 no\r\n450-a\r\n450 b\r\n354 go\r\n554 no\r\n421 bye\r\n"
        )
        yield bytes([0, 7, 0, mode]) + b"554 no\r\n"
    for number, dialog in enumerate(load_all()):
        heard = b"".join(turn.heard for turn in dialog.turns)
        if len(heard) < LONGEST - 4:
            yield bytes([head_of(dialog), len(dialog.jobs), number * 16 % 128, number % 3]) + heard


def head_of(dialog: Dialog) -> int:
    config, jobs = dialog.config, dialog.jobs
    chosen = {
        LMTP: config.get("lmtp"),
        STARTTLS: config.get("starttls"),
        HELO: not config.get("esmtp", True),
        LOCK_STEP: not config.get("pipelining", True),
        CHUNKED: any(job.chunked for job in jobs),
        WORDS: any(job.mail for job in jobs),
    }
    return sum(bit for bit, wanted in chosen.items() if wanted)
