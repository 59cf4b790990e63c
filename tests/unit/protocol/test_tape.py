"""What a session keeps of what was said, and what it never keeps. Both implementations."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from mta import _fastparse
from mta.protocol import client, server
from mta.protocol.tape import LEAST, LONGEST_ENTRY, REPLIED, SAID, TEXT_PASSED, TLS_BEGAN
from tests.kit.conversation import Conversation, taped

SERVERS = pytest.mark.parametrize("module", [_fastparse, server], ids=["extension", "reference"])
CLIENTS = pytest.mark.parametrize("module", [_fastparse, client], ids=["extension", "reference"])
SECRET = base64.b64encode(b"\0joe\0open sesame")
COARSE = 5  # CLOCK_REALTIME_COARSE
ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@mx.test>\r\n"


def talk(module: Any, *pieces: bytes, **config: Any) -> Conversation:
    conversation = Conversation(module, {"tape": 4096} | config)
    for piece in pieces:
        conversation.feed(piece)
        conversation.settle()
    return conversation


def lines(conversation: Conversation) -> list[tuple[int, int, bytes]]:
    _, _, entries = taped(conversation.session)
    return [entry for entry in entries if entry is not None]


def said(conversation: Conversation) -> list[tuple[int, bytes]]:
    return [(total, kept) for kind, total, kept in lines(conversation) if kind == SAID]


@SERVERS
def test_a_whole_session(module: Any) -> None:
    conversation = talk(module, ENVELOPE + b"DATA\r\nthe secret text\r\n.\r\nQUIT\r\n")
    assert lines(conversation)[0] == (REPLIED, 17, b"220 mx.test ESMTP")
    assert lines(conversation)[1] == (SAID, 6, b"EHLO x")
    assert [entry for entry in lines(conversation)[-5:] if entry[0] != REPLIED] == [
        (TEXT_PASSED, 17, b""),
        (SAID, 4, b"QUIT"),
    ]
    assert lines(conversation)[-3][2] == b"250 2.0.0 Message 1 taken"
    assert lines(conversation)[-1] == (REPLIED, 13, b"221 2.0.0 Bye")
    assert not any(b"secret" in kept for _, _, kept in lines(conversation))
    assert not conversation.session.marked


@SERVERS
@pytest.mark.parametrize("mechanism", [b"PLAIN", b"login", b"X-OWN", b"c2VjcmV0"])
def test_nothing_of_a_login(module: Any, mechanism: bytes) -> None:
    auth = b"AUTH " + mechanism + b" " + SECRET
    conversation = talk(module, b"EHLO x\r\n" + auth + b"\r\n" + SECRET + b"\r\n*\r\n", mechanisms=b"PLAIN LOGIN X-OWN")
    kept = b"".join(kept for _, _, kept in lines(conversation))
    assert SECRET[:6] not in kept
    assert b"c2Vj" not in kept
    known = mechanism.upper() in (b"PLAIN", b"LOGIN")
    assert (len(auth), b"AUTH " + mechanism if known else b"AUTH") in said(conversation)


@SERVERS
def test_a_response_and_a_challenge_are_lengths(module: Any) -> None:
    conversation = talk(module, b"EHLO x\r\nAUTH LOGIN\r\n", SECRET + b"\r\n", mechanisms=b"LOGIN")
    assert (len(SECRET), b"") in said(conversation)
    challenges = [kept for kind, _, kept in lines(conversation) if kind == REPLIED and kept.startswith(b"334")]
    assert set(challenges) == {b"334"}


@SERVERS
@pytest.mark.parametrize(
    "line",
    [
        b"Dear Joe, the secret is 42",
        SECRET,
        b"Help me with the secret",
        b"Data on the secret",
        b"Mail the secret",
        b"Rcpt the secret",
        b"Quit secret",
        b"Ehlo there secret",
        b"\0secret",
        b"x" * 3000 + b"secret",
        b"sec",
        b"STARTTLSsecret",
        b"STARTTLS secret",
        b"XCLIENT secret",
    ],
)
def test_what_is_no_command_is_a_length(module: Any, line: bytes) -> None:
    """A text that was not wanted, or a password in the wrong place."""
    conversation = talk(module, b"EHLO x\r\n" + line + b"\r\n")
    total, kept = said(conversation)[1]
    assert total == len(line)
    assert b"secret" not in kept
    assert kept != b"sec"


@SERVERS
def test_a_refusal_marks(module: Any) -> None:
    conversation = talk(module, b"EHLO x\r\nNOOP\r\n")
    assert not conversation.session.marked
    conversation.feed(b"FROB\r\n")
    assert conversation.session.marked
    taped(conversation.session)
    assert not conversation.session.marked


@SERVERS
def test_the_older_half_goes_and_the_opening_stays(module: Any) -> None:
    conversation = talk(module, b"EHLO x\r\n" + b"MAIL FROM:<a@b.test>\r\nRSET\r\n" * 100, tape=LEAST)
    dropped, lost, entries = taped(conversation.session)
    gap = entries.index(None)
    assert 0 < gap < 5
    assert lost == 0
    assert dropped + len(entries) - 1 == 3 + 400
    assert entries[1] == (SAID, 6, b"EHLO x")
    assert entries[-2] == (SAID, 4, b"RSET")
    assert sum(16 + len(entry[2]) for entry in entries if entry) <= LEAST


@SERVERS
def test_an_opening_of_any_length_leaves_room(module: Any) -> None:
    conversation = talk(module, b"NOOP\r\n" * 100 + b"EHLO " + b"x" * 250 + b"\r\n" + b"NOOP\r\n" * 9, tape=LEAST)
    dropped, _, entries = taped(conversation.session)
    assert dropped
    assert entries[-2] == (SAID, 4, b"NOOP")


@SERVERS
def test_a_marked_tape_loses_what_comes_later(module: Any) -> None:
    conversation = talk(module, b"EHLO x\r\nFROB\r\n" + b"NOOP\r\n" * 100, tape=LEAST)
    dropped, lost, entries = taped(conversation.session)
    assert dropped == 0
    assert lost
    assert (SAID, 4, b"") in entries
    conversation.feed(b"NOOP\r\n")
    assert taped(conversation.session)[2][-2] == (SAID, 4, b"NOOP")


@SERVERS
def test_long_lines_are_cut(module: Any) -> None:
    path = b"MAIL FROM:<" + b"a" * 600 + b"@b.test>"
    conversation = talk(module, b"EHLO x\r\n" + path + b"\r\n")
    assert (len(path), path[:LONGEST_ENTRY]) in said(conversation)


@SERVERS
def test_a_handshake_is_noted(module: Any) -> None:
    conversation = talk(module, b"EHLO x\r\nSTARTTLS\r\n", starttls=True)
    conversation.secured()
    assert lines(conversation)[-1] == (TLS_BEGAN, 0, b"")


@SERVERS
def test_without_a_tape_nothing_is_kept(module: Any) -> None:
    conversation = talk(module, b"EHLO x\r\nFROB\r\n", tape=0)
    assert taped(conversation.session) == (0, 0, [])
    assert not conversation.session.marked


@SERVERS
def test_no_tape_is_too_short(module: Any) -> None:
    with pytest.raises(ValueError, match="room"):
        module.ServerConfig(hostname=b"x", message_size=1, recipients=1, tape=LEAST - 1)


@CLIENTS
def test_what_we_say_and_hear(module: Any) -> None:
    session = module.ClientSession(b"me.test", tape=4096)
    for heard in (b"220 x\r\n", b"250-x\r\n250 PIPELINING\r\n"):
        session.receive(heard, len(heard))
    session.offer(1, b"a@b.test", [b"c@d.test"], 3, False)
    session.receive(b"250 a\r\n250 b\r\n354 c\r\n", 21)
    session.send_body(b"secret text\r\n", True)
    session.receive(b"550 \xff\x1b[1m\r\nrubbish\r\n", 20)
    assert taped(session)[2] == [
        (REPLIED, 5, b"220 x"),
        (SAID, 12, b"EHLO me.test"),
        (REPLIED, 5, b"250-x"),
        (REPLIED, 14, b"250 PIPELINING"),
        (SAID, 20, b"MAIL FROM:<a@b.test>"),
        (SAID, 18, b"RCPT TO:<c@d.test>"),
        (SAID, 4, b"DATA"),
        (REPLIED, 5, b"250 a"),
        (REPLIED, 5, b"250 b"),
        (REPLIED, 5, b"354 c"),
        (TEXT_PASSED, 13, b""),
        (REPLIED, 9, b"550 \xff\x1b[1m"),
        (REPLIED, 7, b"rubbish"),
    ]


@CLIENTS
def test_chunks_are_sizes(module: Any) -> None:
    session = module.ClientSession(b"me.test", tape=4096)
    for heard in (b"220 x\r\n", b"250-x\r\n250 CHUNKING\r\n"):
        session.receive(heard, len(heard))
    session.offer(1, b"a@b.test", [b"c@d.test"], 3, False, b"", (), True)
    session.receive(b"250 a\r\n", 7)
    session.receive(b"250 b\r\n", 7)
    session.send_body(b"secret\r\n", False)
    session.send_body(b"more\r\n", True)
    assert [kept for _, _, kept in taped(session)[2]][-2:] == [b"BDAT 8", b"BDAT 6 LAST"]


def test_an_answer_that_took_long_marks() -> None:
    session = _fastparse.ClientSession(b"me.test", tape=4096, tape_slow=1)
    session.receive(b"220 x\r\n", 7)
    assert not session.marked  # nobody had said anything before
    assert session.take_tape()[0] > 1_500_000_000_000
    let_the_clock_go_on()
    session.receive(b"250 x\r\n", 7)
    assert session.marked


def let_the_clock_go_on() -> None:
    """The coarse clock goes in steps of some milliseconds."""
    start = time.clock_gettime_ns(COARSE)
    while time.clock_gettime_ns(COARSE) - start < 2_000_000:
        pass
