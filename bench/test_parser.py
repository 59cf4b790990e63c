"""How fast the server session reads: commands in microseconds, texts in MB/s. Run with --benchmark-enable."""

from __future__ import annotations

from typing import Any

import pytest

from mta import _fastparse as fast

LINE = b"The quick brown fox jumps over the lazy dog, and then it does so once more..\r\n"
READ = 65536  # what one read from a socket brings at most
TRANSACTION = b"MAIL FROM:<sender@example.org> SIZE=4096 BODY=8BITMIME\r\n" + b"RCPT TO:<recipient@example.net>\r\n"


def new_session() -> fast.ServerSession:
    config = fast.ServerConfig(hostname=b"mx.example.org", message_size=1 << 30, recipients=1 << 30, errors=1 << 30)
    session = fast.ServerSession(config, lambda address: b"")
    session.receive(b"EHLO client.example.org\r\n", 25)
    session.take_output()
    return session


@pytest.mark.parametrize(
    "lines",
    [b"NOOP\r\n", b"EHLO client.example.org\r\n", b"RSET\r\n" + TRANSACTION, b"FROB\r\n"],
    ids=["NOOP", "EHLO", "RSET-MAIL-RCPT", "unknown"],
)
def test_commands_in_lock_step(benchmark: Any, lines: bytes) -> None:
    """One read and one reply each; the time includes both calls."""
    session, size = new_session(), len(lines)
    buffer = bytearray(lines)

    def exchange() -> None:
        session.receive(buffer, size)
        session.take_output()

    benchmark(exchange)


def test_a_hundred_pipelined_commands(benchmark: Any) -> None:
    lines = (b"RSET\r\n" + TRANSACTION + b"RCPT TO:<recipient@example.com>\r\n" * 7) * 10
    session = new_session()

    def exchange() -> None:
        session.receive(lines, len(lines))
        session.take_output()

    benchmark(exchange)
    if benchmark.stats:
        benchmark.extra_info["us_per_command"] = round(benchmark.stats.stats.min * 1e6 / 100, 3)


@pytest.mark.parametrize("dots", [False, True], ids=["plain", "dotted"])
@pytest.mark.parametrize("size", [4096, 100 << 10, 1 << 20], ids=["4KiB", "100KiB", "1MiB"])
def test_texts(benchmark: Any, size: int, dots: bool) -> None:
    """From the first octet of the text to its body in hand, in reads of 64 KiB, taken by chunks."""
    line = b"." + LINE if dots else LINE
    text = (line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    wire = text + b".\r\n"
    reads = [wire[i : i + READ] for i in range(0, len(wire), READ)]
    session = new_session()

    def begin() -> None:
        if session.parked:
            session.resume(b"250 2.0.0 Ok\r\n")
        session.receive(TRANSACTION + b"DATA\r\n", len(TRANSACTION) + 6)
        session.take_output()

    def read() -> int:
        taken = 0
        for data in reads:
            if session.receive(data, len(data)) & (fast.BODY | fast.MESSAGE):
                taken += len(session.take_body())
        return taken

    taken = benchmark.pedantic(read, setup=begin, rounds=max(20, (20 << 20) // size))
    assert taken == session.body_size
    if benchmark.stats:
        benchmark.extra_info["MB_per_s"] = round(size / benchmark.stats.stats.min / 1e6)
