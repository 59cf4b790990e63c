"""SMTP smuggling against the whole server: nothing hidden in a text leaves, and what leaves can be read in one way.

All of it lies before a next hop that keeps every octet. The exhaustive part is tests/unit/protocol/test_smuggling.py.
"""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.kit.recorder import Recorder
from tests.kit.server import Server, free_port
from tests.kit.smuggling import EVIL, NEARLY_ENDS, PLACES, TRUE_END, faults, hidden, unstuffed
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

LIMITS = {"errors": 1_000_000}
READ_SIZE = 256 << 10
HEAD = b"Subject: honest\r\n\r\n"


def attack(talk: Talk, end: bytes, text: bytes, cuts: list[int]) -> bool:
    """One message in pieces; whether it was taken. It must be answered once, at its true end, and rightly."""
    text = HEAD + text
    talk.expect("MAIL FROM:<ann@home.test>", "250")
    talk.expect("RCPT TO:<bob@far.test>", "250")
    talk.expect("DATA", "354")
    places = [0, *(place % len(text) for place in cuts), len(text)]
    for start, stop in itertools.pairwise(places):
        talk.socket.sendall(text[start:stop])
    talk.socket.sendall(TRUE_END)
    reply = talk.reply()
    assert reply.startswith("550 5.6.0" if faults(text + TRUE_END) else "250 2.0.0"), (end, reply)
    talk.expect("NOOP", "250 2.0.0")  # in step: no reply to anything hidden waits before this one
    return reply.startswith("250")


def check(recorder: Recorder, taken: list[bytes]) -> None:
    """The next hop has exactly what was taken, and no command that we did not mean."""
    recorder.wait(len(taken))
    recorder.check()
    texts = [text[text.index(b"Subject: honest") :] for text in recorder.texts]
    assert sorted(texts) == sorted(HEAD + unstuffed(text) + b"\r\n" for text in taken)
    assert not [command for command in recorder.commands if b"smuggled" in command]
    assert sum(command.startswith(b"MAIL") for command in recorder.commands) == len(taken)


def play(talk: Talk, cases: list[tuple[bytes, str]]) -> list[bytes]:
    """The texts that were taken; every end is cut once at each of its places, in turn."""
    taken = []
    for number, (end, place) in enumerate(cases):
        text = hidden(end, place)
        at = len(HEAD) + len(PLACES[place][0]) + number % (len(end) + 1)
        if attack(talk, end, text, [at]):
            taken.append(text)
    return taken


def server_before(recorder: Recorder, folder: Path) -> Server:
    return Server(folder, routes={"*": recorder.next_hop}, limits=LIMITS)


def test_nothing_hidden_in_a_text_leaves(tmp_path: Path) -> None:
    with Recorder() as recorder, server_before(recorder, tmp_path) as server:
        with server.talk() as talk:
            talk.hello()
            taken = play(talk, [(end, "in a line") for end in NEARLY_ENDS])
        assert len(taken) > 50
        check(recorder, taken)
        wait_for(lambda: server.count() == 0, what="an empty queue")


@pytest.mark.slow
def test_nor_from_any_place_of_it(tmp_path: Path) -> None:
    with Recorder() as recorder, server_before(recorder, tmp_path) as server:
        with server.talk() as talk:
            talk.hello()
            taken = play(talk, [(end, place) for end in NEARLY_ENDS for place in PLACES])
        check(recorder, taken)


def test_nor_over_the_edge_of_the_buffer(tmp_path: Path) -> None:
    """Around 256 KiB a text leaves the buffer for a file of its own, and one read ends."""
    lines = (b"x" * 76 + b"\r\n") * (READ_SIZE // 78 - 1)
    ends = [b"\r\n..\r\n", *(end for end in NEARLY_ENDS[::2] if b"\0" not in end and len(end) < 5)]
    with Recorder() as recorder, server_before(recorder, tmp_path) as server:
        with server.talk() as talk:
            talk.hello()
            taken = []
            for number, end in enumerate(ends):
                text = lines.ljust(READ_SIZE - len(HEAD) - number % (len(end) + 1), b"x") + end + EVIL
                if attack(talk, end, text, [READ_SIZE]):
                    taken.append(text)
        check(recorder, taken)
        assert not list((tmp_path / "state").glob("**/*.body")), "a refused large text was left on disk"


def test_nor_when_a_chunk_holds_a_true_end(tmp_path: Path) -> None:
    """By BDAT (RFC 3030) CRLF.CRLF is text like any other; to a next hop without CHUNKING it leaves stuffed."""
    text = HEAD + b"text" + TRUE_END + EVIL + TRUE_END + b".\r\n"
    with Recorder() as recorder, server_before(recorder, tmp_path) as server:
        with server.talk() as talk:
            talk.hello()
            for at in (len(text), text.index(TRUE_END) + 3):
                talk.expect("MAIL FROM:<ann@home.test>", "250")
                talk.expect("RCPT TO:<bob@far.test>", "250")
                talk.socket.sendall(b"BDAT %d\r\n" % at + text[:at])
                assert talk.reply().startswith("250")
                talk.socket.sendall(b"BDAT %d LAST\r\n" % (len(text) - at) + text[at:])
                assert talk.reply().startswith("250 2.0.0")
        recorder.wait(2)
        recorder.check()
        assert [found[found.index(b"Subject: honest") :] for found in recorder.texts] == [text, text]
        assert not [command for command in recorder.commands if b"smuggled" in command]


@contextlib.contextmanager
def under_tls(folder: Path) -> Iterator[tuple[Recorder, Talk]]:
    """A next hop, and a client that is under TLS; what it said in plain behind STARTTLS was lost (RFC 3207 §6)."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    port = free_port()
    with (
        Recorder() as recorder,
        Server(
            folder,
            routes={"*": recorder.next_hop},
            limits=LIMITS,
            listener=[{"address": f"127.0.0.1:{port}", "role": "mx", "tls": "starttls"}],
            tls={"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")},
        ),
        Talk(port) as talk,
    ):
        talk.hello()
        talk.socket.sendall(b"STARTTLS\r\n" + EVIL)
        assert talk.reply().startswith("220")
        talk.socket = context.wrap_socket(talk.socket, server_hostname="localhost")
        talk.expect("MAIL FROM:<ann@home.test>", "503")
        talk.expect("EHLO client.test", "250")
        yield recorder, talk


def test_nor_under_tls(tmp_path: Path) -> None:
    with under_tls(tmp_path) as (recorder, talk):
        check(recorder, play(talk, [(end, "in a line") for end in NEARLY_ENDS[::3]]))


@pytest.mark.slow
def test_nor_under_tls_from_any_place_or_over_an_edge(tmp_path: Path) -> None:
    """Edges there: of a record (16 KiB), of a read, and of the buffer."""
    with under_tls(tmp_path) as (recorder, talk):
        taken = play(talk, [(end, place) for end in NEARLY_ENDS for place in PLACES])
        for edge in (16 << 10, READ_SIZE):
            for number, end in enumerate(NEARLY_ENDS[:: 1 if edge < READ_SIZE else 8]):
                text = b"y" * (edge - len(HEAD) - number % (len(end) + 1)) + end + EVIL
                if attack(talk, end, text, [edge]):
                    taken.append(text)
        check(recorder, taken)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "tls"])
def test_nor_in_chunks(tmp_path: Path, way: str) -> None:
    """Chunks cut within what is nearly an end: a text that is no lines is refused, the others leave stuffed."""
    with contextlib.ExitStack() as stack:
        if way == "tls":
            recorder, talk = stack.enter_context(under_tls(tmp_path))
        else:
            recorder = stack.enter_context(Recorder())
            talk = stack.enter_context(stack.enter_context(server_before(recorder, tmp_path)).talk())
            talk.hello()
        taken = []
        for number, end in enumerate((*NEARLY_ENDS, TRUE_END)):
            text = HEAD + b"text" + end + EVIL + b"\r\n"
            at = text.index(b"text") + 4 + number % (len(end) + 1)
            talk.expect("MAIL FROM:<ann@home.test>", "250")
            talk.expect("RCPT TO:<bob@far.test>", "250")
            talk.socket.sendall(b"BDAT %d\r\n" % at + text[:at])
            assert talk.reply().startswith("250")
            talk.socket.sendall(b"BDAT %d LAST\r\n" % (len(text) - at) + text[at:])
            reply = talk.reply()
            assert reply.startswith("550 5.6.0" if faults(text) else "250 2.0.0"), (end, reply)
            talk.expect("NOOP", "250 2.0.0")
            taken += [text] * reply.startswith("250")
        recorder.wait(len(taken))
        recorder.check()
        assert sorted(found[found.index(b"Subject: honest") :] for found in recorder.texts) == sorted(taken)
        assert not [command for command in recorder.commands if b"smuggled" in command]
