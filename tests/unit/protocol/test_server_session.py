"""The server session's interface: flags, parking, chunks, TLS, limits of memory, misuse. Both implementations."""

from __future__ import annotations

import ast
import ctypes
import gc
import hashlib
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mta import _fastparse
from mta.protocol import server
from tests.kit.conversation import Conversation, judge

OUTPUT, DISCARD, BODY, MESSAGE = server.OUTPUT, server.DISCARD, server.BODY, server.MESSAGE
STARTTLS, CLOSE, AUTH = server.STARTTLS, server.CLOSE, server.AUTH

ENVELOPE = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@mx.test>\r\nDATA\r\n"
AGAIN = ENVELOPE.partition(b"\r\n")[2]
SOURCE = Path(_fastparse.__file__).parent / "_fastparse.pyx"
INTERFACE = SOURCE.with_suffix(".pyi")


@pytest.fixture(params=[_fastparse, server], ids=["fast", "readable"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def new(
    module: ModuleType, judge: Callable[[bytes], bytes] = judge, **config: Any
) -> server.ServerSession:  # or the fast one: the same to every test
    options = {"hostname": b"mx.test", "message_size": 10_000, "recipients": 10} | config
    return module.ServerSession(module.ServerConfig(**options), judge)


def feed(session: server.ServerSession, data: bytes) -> int:
    return session.receive(data, len(data))


# ---- flags and output ------------------------------------------------------------------------------------------


def test_flags_are_the_same_and_distinct() -> None:
    names = ["OUTPUT", "DISCARD", "BODY", "MESSAGE", "STARTTLS", "CLOSE", "AUTH"]
    values = [getattr(_fastparse, name) for name in names]
    assert values == [getattr(server, name) for name in names] == [1 << i for i in range(7)]


def test_greeting(module: ModuleType) -> None:
    session = new(module)
    assert session.take_output() == b""
    assert session.greet() == OUTPUT
    assert session.take_output() == b"220 mx.test ESMTP\r\n"
    assert session.take_output() == b""


def test_output_is_raised_until_it_is_taken(module: ModuleType) -> None:
    session = new(module)
    assert feed(session, b"NOOP\r\n") == OUTPUT
    assert feed(session, b"NO") == OUTPUT
    assert feed(session, b"OP\r\n") == OUTPUT
    assert session.take_output() == b"250 2.0.0 Ok\r\n" * 2
    assert feed(session, b"NO") == 0


def test_replies_to_pipelined_input_are_one_output(module: ModuleType) -> None:
    session = new(module)
    assert feed(session, b"NOOP\r\n" * 1000) == OUTPUT
    assert session.take_output() == b"250 2.0.0 Ok\r\n" * 1000


def test_the_argument_may_be_any_buffer_and_longer_than_its_content(module: ModuleType) -> None:
    for buffer in (b"NOOP\r\nQUIT", bytearray(b"NOOP\r\nQUIT"), memoryview(b"NOOP\r\nQUIT")):
        session = new(module)
        assert session.receive(buffer, 6) == OUTPUT
        assert session.receive(buffer, 0) == OUTPUT
        assert session.take_output() == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize("size", [-1, 5])
def test_a_size_outside_of_the_buffer_is_an_error(module: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        new(module).receive(b"NOOP", size)


def test_state_as_the_connection_sees_it(module: ModuleType) -> None:
    session = new(module)
    assert (session.spoke, session.helo, session.esmtp, session.in_transaction) == (False, b"", False, False)
    feed(session, b"EHLO c.te")
    assert not session.spoke
    feed(session, b"st\r\n")
    assert (session.spoke, session.helo, session.esmtp) == (True, b"c.test", True)
    feed(session, b"MAIL FROM:<a@b.test> BODY=8BITMIME\r\nRCPT TO:<c@mx.test>\r\nRCPT TO:<nobody@mx.test>\r\n")
    assert session.in_transaction
    assert session.eight_bit
    assert (session.sender, session.recipients, session.errors) == (b"a@b.test", [b"c@mx.test"], 1)
    assert not session.in_data
    feed(session, b"DATA\r\nabc")
    assert session.in_data
    assert (session.body_size, session.parked) == (3, False)
    feed(session, b"\r\n.\r\n")
    assert not session.in_data
    assert (session.body_size, session.parked, session.in_transaction) == (5, True, True)
    session.resume(b"250 2.0.0 Ok\r\n")
    assert (session.sender, session.recipients, session.eight_bit, session.body_size) == (b"", [], False, 0)
    assert (session.parked, session.in_transaction, session.helo) == (False, False, b"c.test")
    feed(session, b"HELO d.test\r\n")
    assert (session.helo, session.esmtp) == (b"d.test", False)


def test_judge_gets_each_good_path_once(module: ModuleType) -> None:
    asked: list[bytes] = []

    def note(address: bytes) -> bytes:
        asked.append(address)
        return b""

    session = new(module, note)
    feed(session, b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<@x.test:C@D.test>\r\nRCPT TO:<bad\r\n")
    feed(session, b"RCPT TO:<PostMaster>\r\nRCPT TO:<C@D.test>\r\n")
    assert asked == session.recipients == [b"C@D.test", b"postmaster", b"C@D.test"]


def test_recipients_stay_with_the_caller(module: ModuleType) -> None:
    session = new(module)
    feed(session, ENVELOPE + b".\r\n")
    kept = session.recipients
    session.resume(b"250 2.0.0 Ok\r\n")
    assert kept == [b"c@mx.test"]


def test_refuse_mail_may_change_while_sessions_live(module: ModuleType) -> None:
    config = module.ServerConfig(hostname=b"mx.test", message_size=1000, recipients=10)
    session = module.ServerSession(config, judge)
    feed(session, b"EHLO c.test\r\n")
    session.take_output()
    config.refuse_mail = b"452 4.3.1 Full\r\n"
    feed(session, b"MAIL FROM:<a@b.test>\r\n")
    assert session.take_output() == b"452 4.3.1 Full\r\n"
    assert (session.in_transaction, session.errors) == (False, 0)
    config.refuse_mail = b""
    feed(session, b"MAIL FROM:<a@b.test>\r\n")
    assert session.take_output() == b"250 2.1.0 Sender ok\r\n"


# ---- parking ---------------------------------------------------------------------------------------------------


def test_a_whole_message_parks_the_session(module: ModuleType) -> None:
    session = new(module)
    assert feed(session, ENVELOPE + b"text\r\n.\r\nNOOP\r\nQU") == OUTPUT | MESSAGE
    assert session.take_output().endswith(b"\r\n354 Send the text and end it with <CR><LF>.<CR><LF>\r\n")
    assert feed(session, b"IT\r\nNOOP\r\n") == 0
    assert session.take_body() == b"text\r\n"
    assert session.take_body() == b""
    assert session.resume(b"250 2.0.0 Taken\r\n") == OUTPUT | CLOSE
    assert session.take_output() == b"250 2.0.0 Taken\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"


def test_kept_input_may_hold_many_messages(module: ModuleType) -> None:
    session = new(module)
    transaction = AGAIN + b"number %d\r\n.\r\n"
    flags = feed(session, b"HELO c.test\r\n" + b"".join(transaction % i for i in range(50)))
    for i in range(50):
        assert flags == OUTPUT | MESSAGE
        assert session.take_body() == b"number %d\r\n" % i
        if i % 10 == 3:
            assert feed(session, b"NOOP\r\n") & MESSAGE == 0
        session.take_output()
        flags = session.resume(b"250 2.0.0 Taken\r\n")
    assert flags == OUTPUT
    assert session.take_output() == b"250 2.0.0 Taken\r\n" + b"250 2.0.0 Ok\r\n" * 5


def test_resume_without_a_message_is_an_error(module: ModuleType) -> None:
    session = new(module)
    with pytest.raises(RuntimeError, match="no message"):
        session.resume(b"250 2.0.0 Ok\r\n")
    feed(session, ENVELOPE + b".\r\n")
    session.resume(b"250 2.0.0 Ok\r\n")
    with pytest.raises(RuntimeError, match="no message"):
        session.resume(b"250 2.0.0 Ok\r\n")


def test_input_behind_a_parked_message_is_bounded(module: ModuleType) -> None:
    session = new(module)
    feed(session, ENVELOPE + b".\r\n")
    session.take_output()
    noops = b"NOOP\r\n" * 10_000
    for _ in range(100):
        assert feed(session, noops) == 0
    assert session.resume(b"250 2.0.0 Taken\r\n") == OUTPUT | CLOSE
    assert session.take_output() == (
        b"250 2.0.0 Taken\r\n421 4.7.0 Too much input before the reply to a message, closing the connection\r\n"
    )


def test_a_mebibyte_behind_a_parked_message_is_kept(module: ModuleType) -> None:
    session = new(module, line=1 << 20)
    feed(session, ENVELOPE + b".\r\n")
    session.take_output()
    feed(session, b"NOOP " + b"x" * ((1 << 20) - 7) + b"\r\n")
    session.resume(b"250 2.0.0 Taken\r\n")
    assert session.take_output() == b"250 2.0.0 Taken\r\n250 2.0.0 Ok\r\n"


def test_close_while_parked_waits_for_the_reply(module: ModuleType) -> None:
    session = new(module)
    feed(session, ENVELOPE + b".\r\nNOOP\r\n")
    session.take_output()
    assert session.close(b"421 4.3.2 Shutting down\r\n") == 0
    assert session.close(b"421 4.4.2 Again\r\n") == 0
    assert feed(session, b"NOOP\r\n") == 0
    assert session.resume(b"250 2.0.0 Taken\r\n") == OUTPUT | CLOSE
    assert session.take_output() == b"250 2.0.0 Taken\r\n421 4.3.2 Shutting down\r\n"


# ---- texts -----------------------------------------------------------------------------------------------------


def test_chunks_of_a_long_text(module: ModuleType) -> None:
    session = new(module, chunk=100, message_size=100_000)
    feed(session, ENVELOPE)
    session.take_output()
    assert feed(session, b"x" * 100) == 0
    assert feed(session, b"y") == BODY
    assert session.take_body() == b"x" * 100 + b"y"
    assert session.body_size == 101
    assert feed(session, b"z" * 50) == 0
    assert feed(session, b"z" * 51) == BODY
    assert feed(session, b"\r\n") == BODY
    assert session.take_body() == b"z" * 101 + b"\r\n"
    assert feed(session, b"q" * 5000 + b"\r\n.\r\n") == MESSAGE
    assert session.take_body() == b"q" * 5000 + b"\r\n"
    assert session.body_size == 5206


def test_an_octet_that_may_be_the_end_is_not_given_early(module: ModuleType) -> None:
    session = new(module, chunk=1)
    feed(session, ENVELOPE)
    session.take_output()
    taken = b""
    for octet in b"ab\r\n..\r\n.\r\n":
        flags = feed(session, bytes([octet]))
        taken += session.take_body()
    assert flags == MESSAGE
    assert taken == b"ab\r\n.\r\n"


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (b"bare \n", b"550 5.6.0 The text holds a bare LF; it must be lines that end with CRLF\r\n"),
        (b"bare \r", b"550 5.6.0 The text holds a bare CR; it must be lines that end with CRLF\r\n"),
        (b"x" * 9999, b"552 5.3.4 The message is larger than this server takes\r\n"),
    ],
    ids=["LF", "CR", "large"],
)
def test_a_refused_text_is_discarded_after_its_end(module: ModuleType, text: bytes, reply: bytes) -> None:
    session = new(module, chunk=10)
    feed(session, ENVELOPE)
    session.take_output()
    assert feed(session, b"a first part\r\n") == BODY
    assert session.take_body() == b"a first part\r\n"
    assert feed(session, text) & ~BODY == 0
    assert feed(session, b" and the rest, which is dropped as it comes") & (OUTPUT | MESSAGE | CLOSE) == 0
    assert feed(session, b"\r\n.\r\n") == OUTPUT | DISCARD
    assert session.take_output() == reply
    assert session.take_body() == b""
    assert (session.in_data, session.in_transaction, session.errors) == (False, False, 1)
    assert feed(session, AGAIN + b"second\r\n.\r\n") == OUTPUT | MESSAGE
    assert session.take_body() == b"second\r\n"


def test_refused_and_good_text_in_one_packet(module: ModuleType) -> None:
    # DISCARD is about the first, BODY and MESSAGE about the second: so it is handled before them.
    session = new(module, chunk=10)
    feed(session, ENVELOPE + b"\0")
    session.take_output()
    assert feed(session, b"\r\n.\r\n" + AGAIN + b"a second text") == OUTPUT | DISCARD | BODY
    assert session.take_body() == b"a second text"
    assert feed(session, b"\r\n.\r\n") == OUTPUT | MESSAGE


def test_close_in_a_text_discards_it(module: ModuleType) -> None:
    session = new(module)
    feed(session, ENVELOPE + b"half a te")
    session.take_output()
    assert session.close(b"421 4.4.2 Timed out\r\n") == OUTPUT | DISCARD | CLOSE
    assert session.take_output() == b"421 4.4.2 Timed out\r\n"
    assert session.take_body() == b""
    assert not session.in_data


# ---- TLS and the end -------------------------------------------------------------------------------------------


def test_starttls_forgets_and_drops(module: ModuleType) -> None:
    session = new(module, starttls=True)
    feed(session, b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n")
    assert b"250-STARTTLS\r\n" in session.take_output()
    assert feed(session, b"STARTTLS\r\nRSET\r\n") == OUTPUT | STARTTLS
    assert session.take_output() == b"220 2.0.0 Ready to start TLS\r\n"
    assert feed(session, b"NOOP\r\nNO") == 0
    session.secured()
    assert (session.tls, session.helo, session.esmtp, session.in_transaction) == (True, b"", False, False)
    assert feed(session, b"EHLO c.test\r\n") == OUTPUT
    assert b"STARTTLS" not in session.take_output()


def test_behind_a_handshake_another_configuration_may_count(module: ModuleType) -> None:
    """What is offered there depends on what the handshake has shown."""
    session = new(module, starttls=True)
    feed(session, b"EHLO c.test\r\nSTARTTLS\r\n")
    session.take_output()
    other = {"hostname": b"mx.test", "message_size": 2000, "recipients": 3, "mechanisms_tls": b"EXTERNAL"}
    session.secured(module.ServerConfig(**other))
    feed(session, b"EHLO c.test\r\n")
    output = session.take_output()
    assert b"250-AUTH EXTERNAL\r\n" in output
    assert b"250-SIZE 2000\r\n" in output
    assert feed(session, b"AUTH EXTERNAL " + b"QUJD" * 2000 + b"\r\n") == AUTH
    assert session.take_auth() == (b"EXTERNAL", b"ABC" * 2000)


def test_implicit_tls(module: ModuleType) -> None:
    session = new(module, starttls=True)
    session.secured()
    session.greet()
    feed(session, b"EHLO c.test\r\nSTARTTLS\r\n")
    assert session.take_output().endswith(b"ENHANCEDSTATUSCODES\r\n503 5.5.1 TLS is active already\r\n")


def test_nothing_is_heard_after_the_end(module: ModuleType) -> None:
    session = new(module)
    assert feed(session, b"QUIT\r\nNOOP\r\n") == OUTPUT | CLOSE
    assert session.take_output() == b"221 2.0.0 Bye\r\n"
    assert feed(session, b"NOOP\r\n") == 0
    assert session.close(b"421 4.3.2 Shutting down\r\n") == 0
    session.secured()
    assert feed(session, b"NOOP\r\n") == 0
    assert session.take_output() == b""


def test_close_between_commands(module: ModuleType) -> None:
    session = new(module)
    feed(session, b"EHLO c.te")
    assert session.close(b"421 4.4.2 Timed out\r\n") == OUTPUT | CLOSE
    assert session.take_output() == b"421 4.4.2 Timed out\r\n"
    assert feed(session, b"st\r\n") == 0


def test_close_without_a_word(module: ModuleType) -> None:
    assert new(module).close(b"") == CLOSE


# ---- misuse ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"message_size": 0}, {"recipients": 0}, {"errors": 0}, {"line": -1}, {"chunk": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_limits_are_above_zero(module: ModuleType, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        new(module, **wrong)


def test_judge_must_not_call_the_session(module: ModuleType) -> None:
    calls: list[Callable[[], object]] = [
        lambda: session.receive(b"NOOP\r\n", 6),
        lambda: session.close(b""),
        lambda: session.secured(),
        lambda: session.resume(b""),
    ]

    def meddle(address: bytes) -> bytes:
        calls.pop()()
        return b""

    for _ in range(len(calls)):
        session = new(module, meddle)
        with pytest.raises(RuntimeError):
            feed(session, ENVELOPE)
    assert not calls


@pytest.mark.parametrize("cut", [0, 3], ids=["whole line", "cut line"])
def test_an_exception_from_judge_comes_through(module: ModuleType, cut: int) -> None:
    def fail(address: bytes) -> bytes:
        raise LookupError("our own bug")

    session = new(module, fail)
    lines = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@mx.test>\r\nNOOP\r\n"
    place = lines.index(b"RCPT") + cut
    feed(session, lines[:place])
    session.take_output()
    with pytest.raises(LookupError):
        feed(session, lines[place:])
    assert session.close(b"421 4.3.0 Internal error\r\n") == OUTPUT | CLOSE
    assert session.take_output() == b"421 4.3.0 Internal error\r\n"


def test_an_exception_from_judge_in_resume(module: ModuleType) -> None:
    answers: Iterator[bytes] = iter([b""])
    session = new(module, lambda address: next(answers))
    feed(session, ENVELOPE + b".\r\n" + AGAIN + b".\r\n")
    with pytest.raises(StopIteration):
        session.resume(b"250 2.0.0 Ok\r\n")
    assert session.close(b"421 4.3.0 Internal error\r\n") == OUTPUT | CLOSE


def test_wrong_types_are_type_errors() -> None:
    session = new(_fastparse)
    for wrong in (None, "text", 1):
        with pytest.raises(TypeError):
            session.receive(wrong, 0)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            session.close(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _fastparse.parse_path(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _fastparse.ServerSession(wrong, judge)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _fastparse.stuff(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _fastparse.ServerSession.__new__(_fastparse.ServerSession)
    with pytest.raises(TypeError):
        feed(new(_fastparse, lambda address: "250"), ENVELOPE)  # type: ignore[arg-type,return-value]


# ---- memory ----------------------------------------------------------------------------------------------------


_MALLINFO_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO_FIELDS.split()]


_mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo is not None:
    _mallinfo.restype = _Mallinfo


def allocated() -> int:
    """Octets that malloc has given out: texts, lines and kept input, which tracemalloc does not see."""
    if _mallinfo is None:
        pytest.skip("the C library has no mallinfo2")
    info = _mallinfo()
    return int(info.uordblks + info.hblkhd)


def test_an_idle_session_is_small() -> None:
    config = _fastparse.ServerConfig(hostname=b"mx.test", message_size=1000, recipients=10)
    tracemalloc.start()
    try:
        before, outside = tracemalloc.get_traced_memory()[0], allocated()
        sessions = [_fastparse.ServerSession(config, judge) for _ in range(1000)]
        for session in sessions:
            feed(session, ENVELOPE + b"a text\r\n.\r\nNOO")
            session.take_body()
            session.resume(b"250 2.0.0 Ok\r\n")
            feed(session, b"P\r\n")
            session.take_output()
        spent = tracemalloc.get_traced_memory()[0] - before
        outside = allocated() - outside
    finally:
        tracemalloc.stop()
    assert spent / 1000 < 500
    assert outside / 1000 < 1200  # the sessions themselves and the tracer's own tables
    assert sys.getsizeof(sessions[0]) < 400


@pytest.mark.parametrize(
    "part", [b"x" * 65536, b"x\n" * 32768, b"x\r\n" * 20000], ids=["long line", "bare LF", "lines"]
)
def test_a_text_takes_no_more_than_a_chunk_and_a_read(part: bytes) -> None:
    session = new(_fastparse, message_size=1 << 30, chunk=262144)
    feed(session, ENVELOPE)
    before = allocated()
    most = 0
    for _ in range(100):
        flags = feed(session, part)
        most = max(most, allocated() - before)
        if flags & BODY:
            session.take_body()
    assert most < 262144 + 2 * 65536


def test_a_long_line_takes_no_more_than_the_limit() -> None:
    session = new(_fastparse, line=2048)
    before = allocated()
    for _ in range(1000):
        feed(session, b"x" * 1000)
    assert allocated() - before < 5000
    for _ in range(1000):
        feed(session, b"\n\0\r" * 300)
    assert allocated() - before < 5000


def test_a_refused_text_takes_nothing() -> None:
    session = new(_fastparse, message_size=1000)
    feed(session, ENVELOPE)
    before = allocated()
    for _ in range(100):
        feed(session, b"x" * 10_000)
    assert allocated() - before < 5000


def test_abandoned_sessions_leak_nothing() -> None:
    beginnings = [
        b"NOO",
        ENVELOPE,
        ENVELOPE + b"x" * 30_000,
        ENVELOPE + b"x\r\n.\r\nNOOP\r\n" + b"y" * 5000,
        ENVELOPE + b"\0\r\n.\r\n" + AGAIN + b"x",
        b"NOOP\r\n" * 500,
        b"x" * 10_000,
    ]

    def abandon() -> None:
        for beginning in beginnings:
            session = new(_fastparse, message_size=100_000)
            feed(session, beginning[:7])
            feed(session, beginning[7:])
            if session.parked:
                feed(session, b"z" * 5000)

    for _ in range(10):
        abandon()
    gc.collect()
    before = allocated()
    for _ in range(300):
        abandon()
    gc.collect()
    assert allocated() - before < 300 * 64


def test_no_reference_is_lost_or_kept() -> None:
    sender = b"somebody.with.a.long.name@b.test"
    for _ in range(3):
        conversation = Conversation(_fastparse)
        conversation.feed(ENVELOPE.replace(b"a@b.test", sender) + b"text of some length\r\n.\r\n")
        message = conversation.messages[0]
        assert message.sender == sender
        # One is the message, the other the argument; counted outside of assert, which keeps references itself.
        counts = [sys.getrefcount(message.sender), sys.getrefcount(message.recipients[0])]
        counts.append(sys.getrefcount(message.body))
        assert counts == [2, 2, 2]


def test_taken_text_belongs_to_the_caller() -> None:
    session = new(_fastparse)
    feed(session, ENVELOPE + b"text\r\n.\r\n")
    body = session.take_body()
    count = sys.getrefcount(body)
    assert count == 2
    session.resume(b"250 2.0.0 Ok\r\n")
    feed(session, AGAIN + b"other\r\n.\r\n")
    assert body == b"text\r\n"


def test_a_connection_and_its_session_are_collected() -> None:
    class Connection:
        def __init__(self) -> None:
            self.session = new(_fastparse, self.judge)

        def judge(self, address: bytes) -> bytes:
            return b""

    connection = Connection()
    gone = weakref.ref(connection)
    del connection
    gc.collect()
    assert gone() is None


# ---- the build -------------------------------------------------------------------------------------------------


def interface() -> dict[str, set[str]]:
    """Public names of the .pyi: those of the module under "", those of each class under its name."""
    found: dict[str, set[str]] = {"": set()}
    for node in ast.parse(INTERFACE.read_text()).body:
        names = _names(node)
        found[""] |= names
        if isinstance(node, ast.ClassDef):
            found[node.name] = set().union(*map(_names, node.body))
    return found


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.AnnAssign):
        names = {node.target.id} if isinstance(node.target, ast.Name) else set()
    else:
        names = {node.name} if isinstance(node, ast.FunctionDef | ast.ClassDef) else set()
    return {name for name in names if not name.startswith("_")}


def test_the_interface_file_names_what_is_there() -> None:
    for owner, names in interface().items():
        there = getattr(_fastparse, owner) if owner else _fastparse
        assert names == {name for name in dir(there) if not name.startswith("_")}, owner


def test_the_readable_session_has_the_names_too() -> None:
    session = new(server)
    assert interface()["ServerSession"] <= set(dir(session))
    assert interface()["ServerConfig"] <= set(dir(session.config))


def test_the_extension_was_built_from_this_source() -> None:
    built = _fastparse.SOURCE_HASH
    assert built == hashlib.sha256(SOURCE.read_bytes()).hexdigest(), (
        "mta/_fastparse is older than its source: build it with `python setup.py build_ext --inplace`"
    )


# ---- AUTH ------------------------------------------------------------------------------------------------------

LOGINS = {"mechanisms": b"PLAIN LOGIN"}


def test_a_login_step_by_step(module: ModuleType) -> None:
    session = new(module, **LOGINS)
    session.greet()
    session.take_output()
    feed(session, b"EHLO c.test\r\n")
    session.take_output()
    assert feed(session, b"AUTH login\r\n") == AUTH
    assert session.parked
    assert session.take_auth() == (b"LOGIN", None)
    assert session.take_auth() == (b"", None)
    assert session.challenge(b"Username:") == OUTPUT
    assert session.take_output() == b"334 VXNlcm5hbWU6\r\n"
    assert not session.parked
    assert feed(session, b"YWxpY2U") == 0
    assert feed(session, b"=\r\n") == AUTH
    assert session.take_auth() == (b"", b"alice")
    assert session.user == ""
    assert session.authenticated(b"235 2.7.0 Hello\r\n", "alice") == OUTPUT
    assert session.take_output() == b"235 2.7.0 Hello\r\n"
    assert session.user == "alice"
    session.secured()
    assert session.user == ""


def test_what_comes_during_a_login_is_kept(module: ModuleType) -> None:
    session = new(module, **LOGINS)
    assert feed(session, b"EHLO c.test\r\nAUTH PLAIN YQ==\r\nNOOP\r\nQU") == OUTPUT | AUTH
    session.take_output()
    assert feed(session, b"IT\r\n") == 0
    assert session.auth_failed(b"535 5.7.8 No\r\n") == OUTPUT | CLOSE
    assert session.take_output() == b"535 5.7.8 No\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"
    assert session.errors == 1


def test_a_session_that_ends_during_a_login(module: ModuleType) -> None:
    session = new(module, **LOGINS)
    feed(session, b"EHLO c.test\r\nAUTH PLAIN YQ==\r\nNOOP\r\n")
    session.take_output()
    assert session.close(b"421 4.3.2 Bye\r\n") == 0
    assert session.authenticated(b"235 2.7.0 Hello\r\n", "a") == OUTPUT | CLOSE
    assert session.take_output() == b"235 2.7.0 Hello\r\n421 4.3.2 Bye\r\n"


def test_refused_logins_are_errors(module: ModuleType) -> None:
    session = new(module, errors=2, **LOGINS)
    feed(session, b"EHLO c.test\r\nAUTH PLAIN YQ==\r\nAUTH PLAIN YQ==\r\n")
    session.take_output()
    assert session.auth_failed(b"454 4.7.0 Later\r\n") == OUTPUT | AUTH
    assert session.auth_failed(b"535 5.7.8 No\r\n") == OUTPUT
    feed(session, b"AUTH PLAIN YQ==\r\nNOOP\r\n")
    session.take_output()
    assert session.auth_failed(b"535 5.7.8 No\r\n") == OUTPUT | CLOSE
    assert session.take_output().startswith(b"535 5.7.8 No\r\n421 4.7.0 ")


def test_long_responses(module: ModuleType) -> None:
    session = new(module, **LOGINS)
    longest = b"YWFh" * 3072
    feed(session, b"EHLO c.test\r\nAUTH LOGIN\r\n")
    session.challenge(b"")
    session.take_output()
    assert feed(session, longest + b"\r\n") == AUTH
    assert session.take_auth() == (b"", b"aaa" * 3072)
    session.challenge(b"")
    session.take_output()
    assert feed(session, longest + b"YWFh\r\n") == OUTPUT
    assert session.take_output().startswith(b"500 5.5.6 ")


def test_logins_out_of_order_are_errors_of_the_caller(module: ModuleType) -> None:
    session = new(module, **LOGINS)
    for call in (session.challenge, session.auth_failed):
        with pytest.raises(RuntimeError):
            call(b"")
    with pytest.raises(RuntimeError):
        session.authenticated(b"", "a")
    feed(session, b"EHLO c.test\r\nAUTH LOGIN\r\n")
    with pytest.raises(RuntimeError):
        session.resume(b"250 2.0.0 Ok\r\n")
    assert session.user == ""


def test_the_sender_is_judged_by_user(module: ModuleType) -> None:
    asked: list[tuple[bytes, str]] = []

    def judge_sender(sender: bytes, user: str) -> bytes:
        asked.append((sender, user))
        return b"" if user else b"530 5.7.0 Log in first\r\n"

    session = new(module, judge_sender=judge_sender, **LOGINS)
    feed(session, b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nAUTH PLAIN YQ==\r\n")
    assert session.take_output().endswith(b"\r\n530 5.7.0 Log in first\r\n")
    session.authenticated(b"235 2.7.0 Hello\r\n", "alice")
    feed(session, b"MAIL FROM:<a@b.test>\r\n")
    assert asked == [(b"a@b.test", ""), (b"a@b.test", "alice")]
    assert session.in_transaction
