"""SMTP smuggling: nothing but CRLF.CRLF ends a text, however it comes, and nothing hidden in a text is obeyed.

RFC 5321 §2.3.8, §4.1.1.4. The same against the real server and a next hop: tests/e2e/test_smuggling.py.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from mta import _fastparse
from mta.protocol import server
from tests.kit.conversation import Conversation, Message, cut
from tests.kit.smuggling import EVIL, NEARLY_ENDS, PLACES, TRUE_END, faults, hidden, unstuffed

ENVELOPE = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@mx.test>\r\nDATA\r\n"
READ_SIZE = 256 << 10  # octets that one read of a connection may bring
FILLER = (b"x" * 76 + b"\r\n") * (READ_SIZE // 78 + 1)

BOTH = pytest.mark.parametrize("module", [_fastparse, server], ids=["fast", "readable"])
EACH_PLACE = pytest.mark.parametrize("place", PLACES)


def attack(module: ModuleType, text: bytes, pieces: list[bytes], **config: Any) -> None:
    """Send the text in these pieces, without its end; then its end, then a message that is sound."""
    conversation = Conversation(module, config)
    conversation.feed(ENVELOPE)
    conversation.take()
    for piece in pieces:
        conversation.feed(piece)
    assert conversation.session.in_data, text[-300:]
    assert not conversation.output, text[-300:]
    assert not conversation.messages, text[-300:]
    conversation.feed(TRUE_END)
    wrong, whole = faults(text + TRUE_END), unstuffed(text + b"\r\n")
    if len(whole) > config.get("message_size", 1_000_000):
        assert conversation.take().startswith(b"552 5.3.4 "), text[-300:]
    elif wrong:
        expected = f"550 5.6.0 The text holds a {', a '.join(wrong)}; it must be lines that end with CRLF\r\n"
        assert conversation.take() == expected.encode(), text[-300:]
    else:
        assert conversation.take() == b"250 2.0.0 Message 1 taken\r\n", text[-300:]
        assert conversation.messages == [Message(b"a@b.test", (b"c@mx.test",), False, whole)]
    conversation.messages.clear()
    conversation.feed(ENVELOPE[ENVELOPE.index(b"MAIL") :] + b"sound\r\n.\r\n")
    assert [m.body for m in conversation.messages] == [b"sound\r\n"]


def test_the_matrix_is_whole() -> None:
    assert len(NEARLY_ENDS) > 400
    wanted = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\n.\r\r\n"]
    wanted += [b"\r\n..\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\r\n.\r\r\n", b"\r\n\r.\r\n", b"\r\n.\n\r\n"]
    assert set(wanted) <= set(NEARLY_ENDS)
    for end in NEARLY_ENDS:
        for place in PLACES:
            text = b"\r\n" + hidden(end, place) + TRUE_END
            assert text.find(TRUE_END) == len(text) - len(TRUE_END), (end, place)


@BOTH
@EACH_PLACE
def test_whole_and_octet_by_octet(module: ModuleType, place: str) -> None:
    for end in NEARLY_ENDS:
        text = hidden(end, place)
        attack(module, text, [text])
        if module is _fastparse or place in ("first", "last"):
            attack(module, text, list(cut(text, range(len(text)))))


@EACH_PLACE
def test_cut_around_the_end(place: str) -> None:
    start = len(PLACES[place][0])
    for end in NEARLY_ENDS:
        text = hidden(end, place)
        for at in range(start, start + len(end) + 2):
            attack(_fastparse, text, list(cut(text, [at])))


@pytest.mark.slow
@BOTH
@EACH_PLACE
def test_cut_in_two_at_every_place(module: ModuleType, place: str) -> None:
    for end in NEARLY_ENDS if module is _fastparse else NEARLY_ENDS[::7]:
        text = hidden(end, place)
        for at in range(1, len(text), 1 if module is _fastparse else 5):
            attack(module, text, list(cut(text, [at])))


def over_the_edge(end: bytes, behind: int, chunk: int) -> None:
    text = FILLER[: READ_SIZE - behind] + end + b"MAIL FROM:<evil@b.test>\r\n"
    attack(_fastparse, text, [text[:READ_SIZE], text[READ_SIZE:]], chunk=chunk)


def test_over_the_edge_of_a_read() -> None:
    """The end lies on the border between two reads, which is also where a text moves from memory to a file."""
    for number, end in enumerate(NEARLY_ENDS[::8]):
        over_the_edge(end, number % (len(end) + 1), READ_SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [READ_SIZE, 1 << 14])
def test_over_each_edge_of_a_read(chunk: int) -> None:
    for end in NEARLY_ENDS:
        for behind in range(len(end) + 1):
            over_the_edge(end, behind, chunk)


@BOTH
def test_over_small_edges(module: ModuleType) -> None:
    """As above, with borders so near that the readable session can follow."""
    for end in NEARLY_ENDS:
        for behind in range(0, len(end) + 1, 2):
            text = b"y" * (64 - behind) + end + b"MAIL FROM:<evil@b.test>\r\n"
            attack(module, text, [text[:64], text[64:]], chunk=64)


@BOTH
@EACH_PLACE
def test_in_a_text_that_is_too_large(module: ModuleType, place: str) -> None:
    """Such a text is dropped as it comes, and still ends only at its true end."""
    for end in NEARLY_ENDS:
        text = b"z" * 50 + hidden(end, place)
        attack(module, text, [text[:48], text[48:]], message_size=50, chunk=16)


@BOTH
def test_in_chunks(module: ModuleType) -> None:
    """Within BDAT (RFC 3030) nothing ends a text, not even CRLF.CRLF, and what spoils one spoils it there too."""
    for end in (*NEARLY_ENDS, TRUE_END):
        text = b"text" + end + EVIL + b"\r\n"
        for at in (0, 4 + len(end) // 2, 4 + len(end)):
            conversation = Conversation(module, {"chunking": True})
            conversation.feed(ENVELOPE.removesuffix(b"DATA\r\n"))
            conversation.feed(b"BDAT %d\r\n" % at + text[:at] if at else b"")
            conversation.take()
            conversation.feed(b"BDAT %d LAST\r\n" % (len(text) - at) + text[at:])
            reply = conversation.take()
            assert reply.startswith(b"550 5.6.0 " if faults(text) else b"250 2.0.0 Message 1"), text
            assert reply.count(b"\r\n") == 1, text
            assert [m.body for m in conversation.messages] == ([] if faults(text) else [text])
            conversation.feed(b"NOOP\r\n")
            assert conversation.take() == b"250 2.0.0 Ok\r\n"
