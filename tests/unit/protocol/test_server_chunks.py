"""BDAT (RFC 3030): any text in any chunks in any packets, sizes that cannot be read, flags, memory. Both sessions."""

from __future__ import annotations

import itertools
import re
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta import _fastparse
from mta.protocol import server
from tests.kit.conversation import Conversation, converse, cut

OUTPUT, DISCARD, BODY, MESSAGE, CLOSE = server.OUTPUT, server.DISCARD, server.BODY, server.MESSAGE, server.CLOSE
STARTTLS = server.STARTTLS
ENVELOPE = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@mx.test>\r\n"
LOST_TRACK = b"421 4.7.0 What follows cannot be told from a text, closing the connection\r\n"


@pytest.fixture(params=[_fastparse, server], ids=["fast", "readable"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def opened(module: ModuleType, more: bytes = b"", **config: object) -> Conversation:
    conversation = Conversation(module, {"chunking": True} | config)
    conversation.feed(ENVELOPE + more)
    conversation.take()
    return conversation


def wire(chunks: Sequence[bytes]) -> bytes:
    """The chunks as a client sends them."""
    *others, last = chunks
    return b"".join(b"BDAT %d\r\n%b" % (len(c), c) for c in others) + b"BDAT %d LAST\r\n%b" % (len(last), last)


def told(text: bytes) -> bytes:
    names = ((rb"\r(?!\n)", b"bare CR"), (rb"(?<!\r)\n", b"bare LF"), (rb"\0", b"NUL"))
    faults = [name for pattern, name in names if re.search(pattern, text)]
    if not faults:
        return b"250 2.0.0 Message 1 taken\r\n"
    return b"550 5.6.0 The text holds a %b; it must be lines that end with CRLF\r\n" % b", a ".join(faults)


def check(module: ModuleType, chunks: Sequence[bytes], places: Sequence[int], *, chunk: int = 262_144) -> None:
    """The text is what the chunks are, and is judged as a whole."""
    conversation, text = opened(module, chunk=chunk), b"".join(chunks)
    for piece in cut(wire(chunks), places):
        conversation.feed(piece)
    expected = told(text)
    assert conversation.take() == b"250 2.0.0 Chunk taken\r\n" * (len(chunks) - 1) + expected
    assert [m.body for m in conversation.messages] == ([text] if expected.startswith(b"250") else [])


pieces = st.one_of(
    st.sampled_from([b"\r\n", b"\r\n", b"\r", b"\n", b"\0", b".", b"\r\n.\r\n", b"QUIT\r\n", b"BDAT 3 LAST\r\n", b"x"]),
    st.sampled_from([1, 16, 4094, 4095, 4096, 4097, 9000]).map(lambda size: b"x" * size),
    st.sampled_from([1, 200]).map(lambda count: b"a line\r\n" * count),
)
texts = st.lists(pieces, max_size=12).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(texts, st.lists(st.integers(0, 50_000), max_size=10), st.lists(st.integers(0, 50_000), max_size=20))
def test_any_text_in_any_chunks_in_any_packets(text: bytes, chunks: list[int], places: list[int]) -> None:
    split = list(cut(text, chunks)) or [b""]
    check(_fastparse, split, places)
    check(_fastparse, split, [], chunk=1)
    if len(text) < 1000:
        check(_fastparse, split, range(len(wire(split))))
        check(server, split, places)


@pytest.mark.parametrize("length", range(6))
def test_every_short_text_in_every_chunks(module: ModuleType, length: int) -> None:
    for octets in itertools.product(b"\r\n.x\0" if module is _fastparse else b"\r\nx", repeat=length):
        text = bytes(octets)
        check(module, [text], [])
        check(module, [bytes([octet]) for octet in text] + [b""], [])
        check(module, [text[: length // 2], text[length // 2 :]], range(40))


@pytest.mark.parametrize("size", [*range(4090, 4100), 8191, 8192, 8193])
def test_every_short_text_behind_a_long_one(size: int) -> None:
    for octets in itertools.product(b"\r\n\0x", repeat=3):
        text = b"y" * size + bytes(octets) + b"y" * 30
        check(_fastparse, [text], [])
        check(_fastparse, [text[:size], text[size:]], [])


@pytest.mark.parametrize(
    "line",
    [
        *(b"BDAT", b"BDAT ", b"BDAT LAST", b"BDAT x", b"BDAT -1", b"BDAT +1 LAST", b"BDAT 1  LAST", b"BDAT  1 LAST"),
        *(b"BDAT 1 LAST LAST", b"BDAT 1 FIRST", b"BDAT 1 LAS", b"BDAT 1LAST", b"BDAT 1\tLAST", b"BDAT 0x10"),
        *(b"BDAT 9223372036854775808", b"BDAT 99999999999999999999", b"BDAT 000000000000000000001"),
        *(b"BDAT 18446744073709551617 LAST", b"BDAT 92233720368547758070", b"bdat 1 \xb2", b"BDAT 1 LAST\xa0"),
        *(b"BDAT 1 LAST\0", b"BDAT 1\nLAST", b"BDAT 1\rLAST", b"BDAT 6\nQUIT", b"BDAT\t1", b"BDAT1 LAST", b"BDATA 1"),
        *(b"BDAT 1 " + b"x" * 3000, b"Bdat\0" + b"x" * 3000, b"BDAT 5\n" + b"a line\n" * 500),
    ],
    ids=lambda line: repr(line[:24]),
)
@pytest.mark.parametrize("chunking", [True, False])
def test_behind_a_size_that_cannot_be_read_nothing_is_obeyed(module: ModuleType, line: bytes, chunking: bool) -> None:
    behind = line + b"\r\nRSET\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<c@mx.test>\r\nDATA\r\n.\r\n"
    for cuts in ([], range(len(behind)), [4], [2, 2100]):
        conversation = opened(module, chunking=chunking)
        for piece in cut(behind, cuts):
            conversation.feed(piece)
        first, rest = conversation.take().split(b"\r\n", 1)
        assert first.startswith((b"501 5.5.4 ", b"500 5.5.2 "))
        assert rest == LOST_TRACK
        assert conversation.closed
        assert not conversation.messages


def test_it_is_an_error_like_any_other(module: ModuleType) -> None:
    conversation = opened(module, errors=1)
    conversation.feed(b"BDAT x\r\n")
    assert conversation.take().endswith(b"\r\n421 4.7.0 Too many errors, closing the connection\r\n")


def test_the_largest_size_ends_nowhere(module: ModuleType) -> None:
    conversation = opened(module)
    for _ in range(10):
        conversation.feed(b"BDAT 9223372036854775807 LAST\r\n" + b"QUIT\r\n" * 1000)
    assert conversation.session.in_data
    assert not conversation.output
    assert not conversation.closed


# ---- flags -----------------------------------------------------------------------------------------------------


def session_in_chunks(module: ModuleType, **config: object) -> server.ServerSession:
    """With three octets of a text that the caller has taken, and one that it has not."""
    options = {"hostname": b"mx.test", "message_size": 10_000, "recipients": 10, "chunking": True, "chunk": 2}
    session: server.ServerSession = module.ServerSession(module.ServerConfig(**(options | config)), lambda address: b"")
    assert feed(session, ENVELOPE + b"BDAT 2\r\nxx") == OUTPUT
    assert not session.in_data
    assert feed(session, b"BDAT 2\r\ny") == OUTPUT | BODY
    assert session.in_data
    assert session.take_body() == b"xxy"
    assert feed(session, b"z") == OUTPUT
    session.take_output()
    assert (session.in_data, session.body_size, session.in_transaction) == (False, 4, True)
    return session


def feed(session: server.ServerSession, data: bytes) -> int:
    return session.receive(data, len(data))


def test_body_is_raised_between_chunks_too(module: ModuleType) -> None:
    session = session_in_chunks(module)
    assert feed(session, b"BDAT 2\r\nab") == OUTPUT | BODY
    assert not session.in_data
    assert session.take_body() == b"zab"
    assert feed(session, b"BDAT 1 LAST\r\nc") == OUTPUT | MESSAGE  # what was said to the chunk before
    assert (session.parked, session.take_body(), session.body_size) == (True, b"c", 7)
    assert session.resume(b"250 2.0.0 Ok\r\n") == OUTPUT


@pytest.mark.parametrize(
    ("said", "flags"),
    [
        (b"RSET\r\n", OUTPUT | DISCARD),
        (b"EHLO c.test\r\n", OUTPUT | DISCARD),
        (b"QUIT\r\n", OUTPUT | DISCARD | CLOSE),
        (b"STARTTLS\r\n", OUTPUT | DISCARD | STARTTLS),
        (b"BDAT 1 LAST\r\n\n", OUTPUT | DISCARD),  # a bare LF
        (b"BDAT 20000 LAST\r\n" + b"x" * 20_000, OUTPUT | DISCARD),
        (b"BDAT 20000\r\n" + b"x" * 20_000, OUTPUT),
        (b"BDAT x\r\n", OUTPUT | DISCARD | CLOSE),
        (b"RSET\r\n" + ENVELOPE + b"BDAT 3\r\n123", OUTPUT | DISCARD | BODY),
        (b"RSET\r\n" + ENVELOPE + b"BDAT 1 LAST\r\n1", OUTPUT | DISCARD | MESSAGE),
    ],
    ids=lambda value: repr(value[:16]) if isinstance(value, bytes) else "",
)
def test_a_text_that_is_given_up_is_told(module: ModuleType, said: bytes, flags: int) -> None:
    session = session_in_chunks(module, starttls=True)
    assert feed(session, said) == flags
    assert b"z" not in session.take_body()


def test_hanging_up_between_chunks_gives_the_text_up(module: ModuleType) -> None:
    assert session_in_chunks(module).close(b"421 4.4.2 Bye\r\n") == OUTPUT | DISCARD | CLOSE


@pytest.mark.parametrize("transaction", [b"", ENVELOPE], ids=["stray", "too large"])
def test_what_is_dropped_counts_while_it_comes(module: ModuleType, transaction: bytes) -> None:
    """Else a refused chunk would look like a client that sends nothing."""
    session = Conversation(module, {"chunking": True, "message_size": 100}).session
    feed(session, transaction + b"BDAT 2000\r\n" + b"x" * 500)
    assert (session.in_data, session.body_size) == (True, 500)
    feed(session, b"x" * 1000)
    assert session.body_size == 1500
    feed(session, b"x" * 500 + b"RSET\r\n")
    assert (session.in_data, session.body_size) == (False, 0)
    session.take_output()
    feed(session, ENVELOPE + b"BDAT 100 LAST\r\n" + b"x" * 100)
    assert (session.parked, session.body_size) == (True, 100)


def test_what_was_dropped_where_there_is_no_chunking_does_not_count(module: ModuleType) -> None:
    conversation = opened(module, b"BDAT 99\r\n" + b"x" * 99, chunking=False, message_size=100)
    conversation.feed(b"DATA\r\n" + b"y" * 50 + b"\r\n.\r\n")
    assert conversation.take().endswith(b"250 2.0.0 Message 1 taken\r\n")


# ---- memory and time -------------------------------------------------------------------------------------------

TINY = 1_000_000


def tiny_chunks(count: int) -> Iterator[bytes]:
    """Reads of about 64 KiB, cut anywhere."""
    read = b"BDAT 1\r\nx" * 7000
    yield from (read[at : at + 65_000] for _ in range(count // 7000) for at in (0, 65_000))
    yield b"BDAT 1\r\nx" * (count % 7000)


def test_a_million_chunks_of_one_octet() -> None:
    session = opened(_fastparse, message_size=2 * TINY, chunk=65_536).session
    taken, started = 0, time.process_time()
    for read in tiny_chunks(TINY):
        if feed(session, read) & BODY:
            taken += len(session.take_body())
        session.take_output()
    spent = time.process_time() - started
    assert feed(session, b"BDAT 0 LAST\r\n") & MESSAGE
    assert session.body_size == taken + len(session.take_body()) == TINY
    assert spent < 3.0


def test_memory_stays_flat_over_many_chunks(module: ModuleType) -> None:
    count = 200_000 if module is _fastparse else 20_000
    session = opened(module, message_size=2 * TINY, chunk=4096).session
    tracemalloc.start()
    try:
        for read in tiny_chunks(count):
            feed(session, read)
            session.take_output()
            session.take_body()
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 1 << 16
    assert peak < 1 << 21  # one read's replies


def test_refused_chunks_are_not_kept() -> None:
    conversation = opened(_fastparse, message_size=1000)
    tracemalloc.start()
    try:
        conversation.feed(b"BDAT 100000000\r\n")
        block = b"x" * 65_536
        for _ in range(1000):
            conversation.session.receive(block, len(block))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 17


def test_both_count_alike_what_is_refused() -> None:
    stream = ENVELOPE + b"BDAT 5\r\nabcdeBDAT 99\r\n" + b"QUIT\r\n" * 20 + b"BDAT 3 LAST\r\nxyzNOOP\r\n"
    for size in (3, 5, 7, 103, 104, 200):
        expected = converse(server, [stream], chunking=True, message_size=size)
        assert converse(_fastparse, [stream], chunking=True, message_size=size) == expected
