"""Texts by BDAT (RFC 3030) through the whole server: on to a next hop by DATA, into Maildirs, large and hostile."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.kit.recorder import Recorder
from tests.kit.server import Server
from tests.kit.smuggling import NEARLY_ENDS, faults
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

HEAD = b"Subject: chunks\r\n\r\n"
LARGE = 300 << 10  # more than stays in memory


def chunked(text: bytes, sizes: Sequence[int]) -> list[bytes]:
    """BDAT commands and their chunks: of these sizes, the rest in the last."""
    ends = [min(end, len(text)) for end in itertools.accumulate(sizes, initial=0)]
    parts = [text[start:end] for start, end in itertools.pairwise(ends)]
    return [*(b"BDAT %d\r\n%b" % (len(part), part) for part in parts), last(text[ends[-1] :])]


def last(part: bytes) -> bytes:
    return b"BDAT %d LAST\r\n%b" % (len(part), part)


def give(talk: Talk, recipient: str, chunks: Sequence[bytes], parameters: str = "") -> str:
    """A transaction, all of it in one go; the reply to the last chunk."""
    envelope = f"MAIL FROM:<ann@home.test>{parameters}\r\nRCPT TO:<{recipient}>\r\n".encode()
    talk.socket.sendall(envelope + b"".join(chunks) + b"NOOP\r\n")
    assert talk.reply() == "250 2.1.0 Sender ok\r\n"
    assert talk.reply() == "250 2.1.5 Recipient ok\r\n"
    for _ in chunks[1:]:
        assert talk.reply() == "250 2.0.0 Chunk taken\r\n"
    reply = talk.reply()
    assert talk.reply() == "250 2.0.0 Ok\r\n"  # in step: nothing in the chunks was taken for a command
    return reply


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, recorder: Recorder) -> Iterator[Server]:
    limits = {"message_size": "2M", "errors": 10_000}
    with Server(tmp_path_factory.mktemp("server"), routes={"*": recorder.next_hop}, limits=limits) as running:
        yield running


TEXTS = [
    b"",
    b"a line\r\n",
    b"no end of line",
    b".",
    b".\r\n",
    b"\r\n.\r\n",
    b"..\r\n.x\r\n\r\n.\r\n.\r\nQUIT\r\n",
    b"x\r\n.\r\nMAIL FROM:<evil@x.test>\r\nRCPT TO:<bob@far.test>\r\nDATA\r\nhidden\r\n.\r\n",
    b"BDAT 5 LAST\r\nRSET\r\n",
    b"\xff\xfe 8 bit\r\n",
    (b"." + b"x" * 990 + b"\r\n") * (LARGE // 993) + b".",
]


def test_what_came_in_chunks_leaves_by_data(server: Server, recorder: Recorder) -> None:
    with server.talk() as talk:
        talk.hello()
        for text in TEXTS:
            body = HEAD + text
            for sizes in ([], [len(HEAD) + 1], [1, 0, 2, 3, len(body)], [LARGE - 7000] * 2):
                assert give(talk, "bob@far.test", chunked(body, sizes)).startswith("250 2.0.0 queued as ")
    found = recorder.wait(4 * len(TEXTS))
    recorder.check()
    sent = sorted(text[text.index(HEAD) + len(HEAD) :] for text in found)
    assert sent == sorted([text if text.endswith(b"\r\n") or not text else text + b"\r\n" for text in TEXTS] * 4)
    assert {command[:4] for command in recorder.commands} <= {b"EHLO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"QUIT"}
    assert sum(command.startswith(b"MAIL") for command in recorder.commands) == 4 * len(TEXTS)


def test_what_is_no_line_end_is_refused_wherever_it_is_cut(server: Server, recorder: Recorder) -> None:
    before, taken = len(recorder.texts), 0
    with server.talk() as talk:
        talk.hello()
        for number, end in enumerate(NEARLY_ENDS):  # each is cut once, at each of its places in turn
            body = HEAD + b"text" + end + b"MAIL FROM:<evil@x.test>\r\n"
            place = len(HEAD) + 4 + number % (len(end) + 1)
            reply = give(talk, "bob@far.test", chunked(body, [place]))
            assert reply.startswith("550 5.6.0" if faults(body) else "250 2.0.0"), (end, place, reply)
            taken += reply.startswith("250")
    assert taken
    assert not [text for text in recorder.wait(before + taken)[before:] if faults(text)]
    assert not [command for command in recorder.commands if b"evil" in command]
    recorder.check()


def test_a_binary_text_is_kept_octet_for_octet(server: Server) -> None:
    for size in (1000, LARGE):
        body = HEAD + bytes(range(256)) * (size // 256) + b"\r\n.\r\n\r\n.\n\r"
        with server.talk() as talk:
            assert "BINARYMIME" in talk.hello()
            reply = give(talk, f"binary{size}@home.test", chunked(body, [7, size // 2]), " BODY=BINARYMIME")
            assert reply.startswith("250 2.0.0")
        [letter] = server.wait_letters(f"binary{size}")
        assert letter.endswith(body)


def test_a_binary_text_hides_nothing_from_a_host_without_binarymime(server: Server, recorder: Recorder) -> None:
    """RFC 3030 §3: it is encoded, or its sender is told; it never leaves by DATA as it is."""
    before = len(recorder.texts)
    hidden = b"x\n.\r\nMAIL FROM:<evil@x.test>\r\nRCPT TO:<bob@far.test>\r\nDATA\r\nhidden\n.\n\0\r\r\n.\r\nQUIT\r\n"
    head = b"MIME-Version: 1.0\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n" + HEAD
    with server.talk() as talk:
        talk.hello()
        for body in (head + hidden, HEAD + hidden):
            assert give(talk, "bob@far.test", chunked(body, [50]), " BODY=BINARYMIME").startswith("250 2.0.0")
        assert give(talk, "bob@far.test", chunked(HEAD, [])).startswith("250 2.0.0")

    def decoded() -> list[bytes]:
        encoded = [text for text in recorder.texts[before:] if b"Content-Transfer-Encoding: base64" in text]
        return [base64.b64decode(text.partition(b"\r\n\r\n")[2]) for text in encoded]

    wait_for(lambda: hidden in decoded(), 20, "the text in base64")
    recorder.check()
    assert not [command for command in recorder.commands if b"evil" in command]


def test_a_large_text_that_is_given_up_leaves_no_file(server: Server) -> None:
    large = b"BDAT %d\r\n" % LARGE + b"x" * LARGE
    bodies = Path(server.folder, "state/spool/bodies")
    wait_for(lambda: not [*bodies.iterdir()], 20, "the end of earlier texts")
    with server.talk() as talk:
        talk.hello()
        for end, reply in (("RSET", "250"), ("EHLO again", "250"), ("BDAT 9999999\r\n" + "y" * 9_999_999, "552")):
            talk.expect("MAIL FROM:<ann@home.test>", "250")
            talk.expect("RCPT TO:<bob@home.test>", "250")
            talk.socket.sendall(large)
            assert talk.reply().startswith("250")
            talk.expect("NOOP", "250")  # what a chunk does is done when the next command is read
            assert len([*bodies.iterdir()]) == 1
            talk.socket.sendall(end.encode() + b"\r\n" if len(end) < 20 else end.encode())
            assert talk.reply().startswith(reply)
            talk.expect("RSET", "250")
            talk.expect("NOOP", "250")
            assert not [*bodies.iterdir()]
        assert not server.letters("bob")


def test_a_size_that_cannot_be_read_ends_the_session(server: Server) -> None:
    with server.talk() as talk:
        talk.hello()
        talk.socket.sendall(b"BDAT many\r\nMAIL FROM:<evil@home.test>\r\n")
        assert talk.reply().startswith("501 5.5.4")
        assert talk.reply().startswith("421 4.7.0")
        assert talk.closed()
