"""Every file of tests/client_dialogs, cut in three ways, with both implementations of the client session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mta import _fastparse
from mta.protocol import client as reference
from tests.kit.client_dialogs import Dialog, Play, load_all

DIALOGS = load_all()


def whole(octets: bytes) -> Iterator[bytes]:
    if octets:
        yield octets


def lines(octets: bytes) -> Iterator[bytes]:
    yield from octets.splitlines(keepends=True)


def each_octet(octets: bytes) -> Iterator[bytes]:
    for at in range(len(octets)):
        yield octets[at : at + 1]


def matches(said: bytes, expected: list[bytes]) -> bool:
    for line in expected:
        end = said.find(b"\r\n") + 2
        if line.endswith(b" ...\r\n"):
            if end < 2 or not said.startswith(line[: -len(b" ...\r\n")]):
                return False
        elif said[:end] != line:
            return False
        said = said[end:]
    return not said


@pytest.mark.parametrize("cut", [whole, lines, each_octet])
@pytest.mark.parametrize("module", [_fastparse, reference], ids=["extension", "reference"])
@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda d: d.name)
def test_dialog(dialog: Dialog, module: Any, cut: Any) -> None:
    play = Play(module, dialog)
    for number, turn in enumerate(dialog.turns):
        if turn.secured:
            play.secured()
        for piece in cut(turn.heard):
            play.hear(piece)
        if turn.lost:
            play.lost()
        assert matches(play.said, turn.said), f"turn {number}: said {play.said!r}, not {turn.said!r}"
        play.said = b""
    assert play.results == dialog.results
    failure = play.session.failure
    if dialog.failure is None:
        assert not play.closed
    else:
        assert play.closed
        assert (" ".join(map(str, failure)) if failure else "none") == dialog.failure


def test_there_are_dialogs() -> None:
    assert len(DIALOGS) > 20
