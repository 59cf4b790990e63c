"""Every dialogue of tests/dialogs, cut in every way, against both sessions."""

from __future__ import annotations

from types import ModuleType

import pytest

from mta import _fastparse
from mta.protocol import server
from tests.kit.conversation import Conversation, cut
from tests.kit.dialogs import Dialog, load, load_all, same_messages, same_replies

DIALOGS = load_all()
BOTH = pytest.mark.parametrize("module", [_fastparse, server], ids=["fast", "readable"])
EACH = pytest.mark.parametrize("dialog", DIALOGS, ids=[d.name for d in DIALOGS])


def play(module: ModuleType, dialog: Dialog, phases: list[list[bytes]], *, lazy: bool = False) -> None:
    """Feed the pieces of each phase and check the whole outcome."""
    conversation = Conversation(module, dialog.config, lazy)
    for number, pieces in enumerate(phases):
        if number:
            assert conversation.handshake
            conversation.secured()
        for piece in pieces:
            conversation.feed(piece)
        conversation.settle()
    replies = [line for turn in dialog.turns for line in turn.replies]
    assert same_replies(bytes(conversation.output), replies), bytes(conversation.output).decode("latin-1")
    assert same_messages(conversation.messages, [m for turn in dialog.turns for m in turn.messages])
    assert conversation.closed == dialog.closes


@BOTH
@EACH
def test_turn_by_turn(module: ModuleType, dialog: Dialog) -> None:
    conversation = Conversation(module, dialog.config)
    for turn in dialog.turns:
        if turn.secured:
            conversation.secured()
        seen = len(conversation.messages)
        conversation.feed(turn.sent)
        output = conversation.take()
        assert same_replies(output, turn.replies), (turn, output)
        assert same_messages(conversation.messages[seen:], turn.messages), turn
    assert conversation.closed == dialog.closes


@BOTH
@EACH
def test_all_at_once(module: ModuleType, dialog: Dialog) -> None:
    play(module, dialog, [[phase] for phase in dialog.phases()])


@BOTH
@EACH
def test_octet_by_octet(module: ModuleType, dialog: Dialog) -> None:
    play(module, dialog, [list(cut(phase, range(len(phase)))) for phase in dialog.phases()])


@BOTH
@EACH
def test_line_by_line(module: ModuleType, dialog: Dialog) -> None:
    play(module, dialog, [phase.splitlines(keepends=True) for phase in dialog.phases()])


@BOTH
@EACH
def test_messages_answered_late(module: ModuleType, dialog: Dialog) -> None:
    phases = dialog.phases()
    play(module, dialog, [[phase] for phase in phases], lazy=True)
    play(module, dialog, [list(cut(phase, range(0, len(phase), 7))) for phase in phases], lazy=True)


@EACH
def test_cut_in_two_at_every_place(dialog: Dialog) -> None:
    phases = dialog.phases()
    for place in range(max(map(len, phases))):
        play(_fastparse, dialog, [list(cut(phase, [place])) for phase in phases])


@EACH
def test_cut_in_two_readable(dialog: Dialog) -> None:
    # The readable session takes a microsecond an octet: every place of short dialogues, some of long ones.
    phases = dialog.phases()
    longest = max(map(len, phases))
    for place in range(0, longest, 1 + longest // 40):
        play(server, dialog, [list(cut(phase, [place])) for phase in phases])


def test_a_wrong_line_in_a_dialogue_is_an_error(tmp_path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text("S: 220 mx.test ESMTP\nD: what\n")
    with pytest.raises(ValueError, match="line 2"):
        load(path)


def test_a_wrong_reply_is_noticed() -> None:
    dialog = load_all()[0]
    dialog.turns[0].replies.append(b"250 more")
    with pytest.raises(AssertionError):
        play(_fastparse, dialog, [[phase] for phase in dialog.phases()])
