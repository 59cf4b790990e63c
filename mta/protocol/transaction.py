"""One transaction of the client session as its replies come in, and the stages of a session."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from itertools import repeat

SmtpReply = tuple[int, str]


class Stage(enum.IntEnum):
    """What the next reply will answer."""

    GREETING = 0
    EHLO = 1
    HELO = 2
    STARTTLS = 3
    HANDSHAKE = 4  # nothing: TLS begins
    IDLE = 5
    RSET = 6
    MAIL = 7
    RCPT = 8
    DATA = 9
    TEXT = 10  # nothing: we are to send the text; or a chunk of it
    FINAL = 11
    QUIT = 12
    CLOSED = 13


class TransactionResult:
    """What came of one offered transaction."""

    __slots__ = (
        "accepted",
        "chunked",
        "commands",
        "data",
        "dotted",
        "finals",
        "mail",
        "recipients",
        "sent",
        "token",
    )

    def __init__(self, token: object, commands: list[bytes], recipients: int, *, chunked: bool) -> None:
        self.token = token
        self.mail: SmtpReply | None = None
        self.recipients: list[SmtpReply | None] = [None] * recipients
        self.data: SmtpReply | None = None
        self.finals: list[SmtpReply | None] = []
        self.dotted = False
        self.commands = commands  # MAIL, each RCPT, and DATA unless it is chunked
        self.chunked = chunked
        self.sent = False
        self.accepted = 0


def envelope_commands(
    sender: bytes, recipients: Sequence[bytes], mail: bytes, rcpt: Sequence[bytes], *, data: bool
) -> list[bytes]:
    """MAIL and each RCPT with their parameters, and DATA where that comes next. `rcpt` may be empty."""
    commands = [b"MAIL FROM:<" + sender + b">" + mail]
    for recipient, parameters in zip(recipients, rcpt or repeat(b"", len(recipients)), strict=True):
        commands.append(b"RCPT TO:<" + recipient + b">" + parameters)
    if data:
        commands.append(b"DATA")
    if any(b"\n" in c or b"\r" in c for c in commands):
        raise ValueError("a line end in a command")
    return [c + b"\r\n" for c in commands]


def fits(stage: Stage, code: int) -> bool:
    """A refusal fits everywhere; 3yz is an answer to DATA alone, and DATA has no other good answer."""
    return code >= 400 or (code >= 300) == (stage == Stage.DATA)


def fill(replies: list[SmtpReply | None], index: int, reply: SmtpReply) -> None:
    """Note a reply; 421 answers all that is outstanding of its kind."""
    if reply[0] == 421:
        replies[index:] = [reply] * (len(replies) - index)
    else:
        replies[index] = reply
