"""The client session against any server: the fast one and the readable one must say, flag and find the same.

The first four octets choose the protocol, the jobs and how the lines of the rest are cut into packets. A line is what
the server says next; whatever the session then wants to be given, it gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mta import _fastparse
from mta.protocol import client
from tests.kit.conversation import cut

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
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")


def outcome(module: ModuleType, head: bytes, lines: list[list[bytes]]) -> Any:
    flags, jobs, eight_bit, _ = head
    session = module.ClientSession(b"me.test", lmtp=bool(flags & 1))
    trace: list[Any] = []
    left = jobs % 5
    for line in lines:
        raised = 0
        for piece in line:
            raised |= session.receive(bytearray(piece), len(piece))
        said = session.take_output()
        while not raised & module.CLOSE and left and raised & (module.READY | module.NEXT):
            left -= 1
            count = 1 + (jobs >> left) % 3
            raised = session.offer(left, b"s@x.test", [b"r%d@y.test" % i for i in range(count)], 9, bool(eight_bit & 1))
            said += session.take_output()
        if raised & module.SEND and not raised & module.CLOSE:
            raised |= session.send_body(b"some\r\n.text\r\n", True)
            said += session.take_output()
        trace.append((raised, said, session.in_hand, session.awaits_final, results(session)))
        if raised & module.CLOSE:
            break
        if flags & 2 and not left and not session.in_hand and raised & module.NEXT:
            trace.append((session.quit(), session.take_output()))
    session.lost()
    return trace, results(session), session.greeting, session.failure, session.extensions


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
