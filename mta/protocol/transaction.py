"""One transaction of the client session as its replies come in, and the stages of a session."""

from __future__ import annotations

import enum

SmtpReply = tuple[int, str]


class Stage(enum.IntEnum):
    """What the next reply will answer."""

    GREETING = 0
    EHLO = 1
    HELO = 2
    IDLE = 3
    RSET = 4
    MAIL = 5
    RCPT = 6
    DATA = 7
    TEXT = 8  # nothing: we are to send the text
    FINAL = 9
    QUIT = 10
    CLOSED = 11


class TransactionResult:
    """What came of one offered transaction."""

    __slots__ = (
        "accepted",
        "commands",
        "data",
        "dotted",
        "finals",
        "mail",
        "recipients",
        "sent",
        "token",
    )

    def __init__(self, token: object, commands: list[bytes]) -> None:
        self.token = token
        self.mail: SmtpReply | None = None
        self.recipients: list[SmtpReply | None] = [None] * (len(commands) - 2)
        self.data: SmtpReply | None = None
        self.finals: list[SmtpReply | None] = []
        self.dotted = False
        self.commands = commands  # MAIL, each RCPT, DATA
        self.sent = False
        self.accepted = 0


def fits(stage: Stage, code: int) -> bool:
    """A refusal fits everywhere; 3yz is an answer to DATA alone, and DATA has no other good answer."""
    return code >= 400 or (code >= 300) == (stage == Stage.DATA)


def fill(replies: list[SmtpReply | None], index: int, reply: SmtpReply) -> None:
    """Note a reply; 421 answers all that is outstanding of its kind."""
    if reply[0] == 421:
        replies[index:] = [reply] * (len(replies) - index)
    else:
        replies[index] = reply
