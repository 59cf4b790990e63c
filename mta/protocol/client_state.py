"""What one client session knows, what it says, and how its transactions and itself come to their end.

`mta.protocol.client` reads the replies and decides by them.
"""

from __future__ import annotations

from typing import Final

from mta.protocol.tape import SAID, Tape
from mta.protocol.transaction import SmtpReply, Stage, TransactionResult

OUTPUT: Final = 1
STARTTLS: Final = 16
CLOSE: Final = 32
READY: Final = 64
NEXT: Final = 128
SEND: Final = 256
DONE: Final = 512


class ClientState:
    """All of a session but how it reads."""

    def __init__(
        self,
        helo: bytes,
        *,
        lmtp: bool = False,
        esmtp: bool = True,
        starttls: bool = False,
        pipelining: bool = True,
        tape: int = 0,
    ) -> None:
        self._tape = Tape(tape)
        self._text_octets = 0  # of the current text, given so far
        self._helo = helo
        self._lmtp = lmtp
        self._esmtp = esmtp or lmtp
        self._starttls = starttls
        self._may_pipeline = pipelining
        self._stage = Stage.GREETING
        self._flags = 0
        self._out: list[bytes] = []
        self._results: list[TransactionResult] = []
        self._current: TransactionResult | None = None
        self._next: TransactionResult | None = None
        self._index = 0  # of the RCPT or the final reply that comes next
        self._reset_due = False
        self._pending = bytearray()  # a line whose end has not come
        self._lines: list[bytes] = []  # of the reply so far, without their codes
        self._octets = 0  # of the reply so far
        self._tail = b""  # the last octets of the text so far
        self._chunks = 0  # not the last ones, sent and not answered
        self._chunk_refused = False
        self._pipelining = False
        self._size = False
        self._eight_bit = False
        self.greeting: SmtpReply | None = None
        self.extensions: dict[str, str] = {}
        self.failure: SmtpReply | None = None
        self.tls = False
        self.tls_refusal: SmtpReply | None = None
        self.replies = 0
        self.ended_in = ""

    # ---- what is said

    def _must(self) -> TransactionResult:
        assert self._current is not None
        return self._current

    def _speak(self, *commands: bytes) -> None:
        self._out.extend(commands)
        for command in commands:
            self._tape.add(SAID, command[:-2], len(command) - 2)

    def _say(self, index: int) -> None:
        self._speak(self._must().commands[index])

    def _begin(self) -> None:
        """Send the envelope of the current transaction, or as much of it as may go now."""
        current = self._must()
        self._stage = Stage.MAIL
        current.sent = True
        if self._reset_due:
            self._reset_due = False
            self._stage = Stage.RSET
            self._speak(b"RSET\r\n")
        if self._pipelining:
            self._speak(*current.commands)
        elif self._stage == Stage.MAIL:
            self._say(0)

    def _ride(self) -> None:
        """Send the next envelope behind the final dot of the current text."""
        if self._next is not None and self._pipelining and not self._must().chunked:
            self._next.sent = True
            self._speak(*self._next.commands)

    def _enter_final(self) -> None:
        self._stage = Stage.FINAL
        self._index = 0
        self._ride()

    def _chunk(self, octets: bytes, last: bool) -> None:
        if last or octets:
            self._speak(b"BDAT %d LAST\r\n" % len(octets) if last else b"BDAT %d\r\n" % len(octets))
            self._out.append(octets)
        if octets and not last:
            self._chunks += 1

    # ---- ends

    def _finish(self) -> None:
        """The current transaction is over: on to the next one."""
        current = self._must()
        self._results.append(current)
        mail = current.mail
        in_transaction = mail is not None and mail[0] < 300
        self._reset_due = in_transaction and (self._stage != Stage.FINAL or self._chunk_refused)
        self._chunk_refused = False
        self._current, self._next = self._next, None
        self._flags |= NEXT
        if self._current is None:
            self._stage = Stage.IDLE
        elif self._current.sent:
            self._stage = Stage.MAIL
        else:
            self._begin()

    def _break(self, text: str) -> None:
        self.failure = (0, text)
        self._end()

    def _end(self) -> None:
        self._results.extend(t for t in (self._current, self._next) if t is not None)
        self._current = self._next = None
        self.ended_in = self._stage.name
        self._stage = Stage.CLOSED
        self._pending.clear()
        self._flags = CLOSE | self._flags & READY

    def _take_flags(self) -> int:
        flags = self._flags | (OUTPUT if self._out else 0) | (DONE if self._results else 0)
        self._flags = 0
        return flags
