"""Letters hold what was sent: behind the trace headers every octet, with the line ends of a file."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.test_relay_mx import TEXTS
from tests.kit.server import Server


def test_letters_hold_what_was_sent(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        for number, text in enumerate(TEXTS.values()):
            parameters = "" if text.isascii() else " BODY=8BITMIME"
            server.send("ann@far.test", [f"n{number}@home.test"], text, parameters)
        for number, (name, text) in enumerate(TEXTS.items()):
            (letter,) = server.wait_letters(f"n{number}")
            trace, received, content = letter.partition(b"Received: ")
            assert trace == f"Return-Path: <ann@far.test>\nDelivered-To: n{number}@home.test\n".encode(), name
            lines = content.split(b"\n")
            first = next(i for i, line in enumerate(lines) if i and not line.startswith((b"\t", b" ")))
            assert received
            assert b"\n".join(lines[first:]) == text.replace(b"\r\n", b"\n"), name
        server.wait_empty()
