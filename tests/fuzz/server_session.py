"""Throws mutated dialogues at the fast server session and compares all that comes of them with the readable one.

    python -m tests.fuzz.server_session --inputs 100000 [--seed 1]

Prints `N inputs, 0 differences` and exits 0, or shows the first difference and exits 1. The same seed and number give
the same inputs. The corpus is tests/dialogs.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from typing import Any

from mta import _fastparse
from mta._fastparse import EXTENSIONS
from mta.protocol import server
from tests.kit.conversation import converse, cut
from tests.kit.dialogs import load_all

MAX_INPUT = 3000  # the readable session takes about a microsecond an octet

TOKENS = [
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
    *(b" BODY=BINARYMIME", b"+0D", b"+7E", b"+7F", b"=", b";", b",", b"NEVER", b"FAILURE", b"FULL", b"HELP\r\n"),
    *(b" ", b"\t", b"\xff", b"\x80", b"x" * 16, b"y" * 64, b"z" * 512, b"<Postmaster>", b"<>", b"@a.test,@b.test:"),
]

Mutation = Callable[[random.Random, bytes, list[bytes]], bytes]


def _place(rng: random.Random, data: bytes) -> int:
    return rng.randint(0, len(data))


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = _place(rng, data)
    return start, min(len(data), start + int(rng.expovariate(0.05)) + 1)


def insert_token(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def insert_octets(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.randint(1, 4)) + data[at:]


def change_octet(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(1) + data[at + 1 :]


def delete(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def repeat(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice([1, 1, 2, 40]) + data[end:]


def splice(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    other = rng.choice(corpus)
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def change_case(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[start:end].swapcase() + data[end:]


MUTATIONS: list[Mutation] = [
    *(insert_token, insert_token, insert_token, insert_octets, change_octet, delete, repeat, splice, change_case)
]


def mutated(rng: random.Random, corpus: list[bytes]) -> bytes:
    data = rng.choice(corpus)
    if len(data) > MAX_INPUT:
        start = rng.randrange(len(data) - MAX_INPUT)
        data = data[start : start + MAX_INPUT]
    for _ in range(rng.choice([1, 1, 2, 3, 5, 10])):
        data = rng.choice(MUTATIONS)(rng, data, corpus)
    return data[:MAX_INPUT]


def some_config(rng: random.Random) -> dict[str, Any]:
    return {
        "message_size": rng.choice([50, 500, 1_000_000]),
        "recipients": rng.choice([1, 2, 100]),
        "errors": rng.choice([3, 20, 10_000]),
        "line": rng.choice([30, 512, 2048]),
        "chunk": rng.choice([1, 64, 1000, 262_144]),
        "starttls": rng.random() < 0.3,
        "chunking": rng.random() < 0.8,
        "lmtp": rng.random() < 0.1,
        "mechanisms": rng.choice([b"", b"", b"PLAIN LOGIN"]),
        "mechanisms_tls": rng.choice([b"", b"PLAIN"]),
        "offers": " ".join(rng.sample(list(EXTENSIONS), rng.choice([0, 3, len(EXTENSIONS)]))),
        "strict_sender": rng.random() < 0.3,
        "refuse_mail": b"452 4.3.1 Full\r\n" if rng.random() < 0.05 else b"",
    }


def some_cuts(rng: random.Random, size: int) -> list[int]:
    """Where the packets end: anywhere, everywhere, or nowhere."""
    return rng.choice(
        [[], [rng.randint(0, size)], rng.choices(range(size + 1), k=rng.randint(1, 20)), list(range(size))]
    )


def difference(rng: random.Random, data: bytes) -> str:
    """What differs, with all that is needed to see it again; "" when nothing does."""
    config, cuts, lazy = some_config(rng), some_cuts(rng, len(data)), rng.random() < 0.3
    expected = converse(server, [data], **config)
    found = converse(_fastparse, cut(data, cuts), lazy=lazy, **config)
    if found == expected:
        return ""
    lines = [
        f"{key}: expected {expected[key]!r}, found {found[key]!r}" for key in expected if expected[key] != found[key]
    ]
    return "\n".join([f"input: {data!r}", f"config: {config}", f"cuts: {cuts}", f"lazy: {lazy}", *lines])


def run(inputs: int, seed: int) -> str:
    """The first difference; "" when there is none."""
    rng = random.Random(seed)
    corpus = [b"".join(dialog.phases()) for dialog in load_all()]
    for _ in range(inputs):
        if found := difference(rng, mutated(rng, corpus)):
            return found
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.server_session", description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="how many inputs to try (20000)")
    parser.add_argument("--seed", type=int, default=1, help="which inputs to try (1)")
    options = parser.parse_args(arguments)
    found = run(options.inputs, options.seed)
    if found:
        print(found)
        return 1
    print(f"{options.inputs} inputs, 0 differences")
    return 0


if __name__ == "__main__":
    sys.exit(main())
