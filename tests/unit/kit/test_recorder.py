"""The recorder notices what it is there to notice."""

from __future__ import annotations

import socket

import pytest

from tests.kit.recorder import Recorder
from tests.kit.waiting import wait_for

_ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"


def record(text: bytes) -> Recorder:
    with Recorder() as recorder, socket.create_connection(("127.0.0.1", recorder.port)) as client:
        client.sendall(_ENVELOPE + text + b"QUIT\r\n")
        wait_for(lambda: b"QUIT\r\n" in recorder.commands, what="the end of the session")
    return recorder


def test_a_sound_text() -> None:
    recorder = record(b"..\r\nx\r\n.\r\n")
    recorder.check()
    assert recorder.texts == [b".\r\nx\r\n"]


@pytest.mark.parametrize("text", [b"a\nb\r\n.\r\n", b"a\rb\r\n.\r\n", b"a\r\n.b\r\n.\r\n"])
def test_a_text_that_two_readers_read_differently(text: bytes) -> None:
    recorder = record(text)
    with pytest.raises(AssertionError):
        recorder.check()


def test_a_smuggled_command_is_seen() -> None:
    assert b"MAIL FROM:<evil@b.test>\r\n" in record(b"x\r\n.\r\nMAIL FROM:<evil@b.test>\r\n").commands
