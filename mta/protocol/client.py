"""The client session in plain Python: the readable reference of `mta._fastparse.ClientSession`.

Sans-IO: octets in, flags and octets out. The production code uses the extension; the same tests run on both.

Theory of operation
- One stage says which reply comes next. A reply is first noted where it belongs (`_note`), then the row of
  `_ADVANCE` for the stage decides what follows. Because replies come in the order of the commands, and a
  riding envelope is answered only after the final dot before it, no queue of outstanding commands is needed.
- With PIPELINING (RFC 2920) MAIL, all RCPT and DATA leave in one write, and the next transaction's envelope
  rides in the same write as the final dot of the current one. Without it everything is lock-step.
- DATA may be answered 354 although every recipient was refused (RFC 2920 §3.1): then the dot is sent alone.
- RSET is owed when MAIL was accepted and no text ended the transaction; it is said in front of the next
  envelope.
- LMTP answers the final dot once for each accepted recipient (RFC 2033 §4.2).
- STARTTLS is said when it is wanted and offered. Its 220 must be the last octet of what came: whatever stands behind
  it is plaintext that somebody put before the handshake, and ends the session (RFC 3207 §4.2). After the handshake
  nothing that was learnt counts, and EHLO is said again.
- A chunked text (RFC 3030) has no DATA: its BDATs leave when the replies to all RCPT are here and one of them is good,
  so that no octets of it can meet a server that wants none. That costs no round trip more than DATA does. All chunks
  leave without waiting (RFC 3030 §4.2); each is answered, and the next envelope waits for the last answer, for after a
  chunk that was refused the server wants RSET first.

Failure: 421 counts as the answer to whatever is outstanding and ends the session (RFC 5321 §3.8). Anything
that is no SMTP reply, or one that nobody asked for, ends it as a broken protocol, code 0. Whatever was in
hand becomes results with the replies known so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mta.protocol.client_state import CLOSE, DONE, NEXT, OUTPUT, READY, SEND, STARTTLS, ClientState
from mta.protocol.stuffing import stuff
from mta.protocol.tape import REPLIED, TLS_BEGAN, Taken
from mta.protocol.transaction import SmtpReply, Stage, TransactionResult, envelope_commands, fill

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CLOSE", "DONE", "NEXT", "OUTPUT", "READY", "SEND", "STARTTLS", "ClientSession"]

LONGEST_REPLY: Final = 64 << 10
_SHOWN: Final = 80  # octets of a broken reply that a failure quotes


class ClientSession(ClientState):
    """One connection to a server."""

    # ---- what the caller does

    def receive(self, buffer: Buffer, size: int) -> int:
        self._pending += memoryview(buffer)[:size]
        if self._stage == Stage.HANDSHAKE and size:
            self._break("octets between the reply to STARTTLS and the handshake")
        while self._stage != Stage.CLOSED:
            end = self._pending.find(b"\n")
            if self._octets + (len(self._pending) if end < 0 else end + 1) > LONGEST_REPLY:
                self._break("reply longer than 64 KiB")
            elif end < 0:
                break
            else:
                line = bytes(self._pending[:end])
                del self._pending[: end + 1]
                self._line(line)
        return self._take_flags()

    def offer(
        self,
        token: object,
        sender: bytes,
        recipients: Sequence[bytes],
        size: int,
        eight_bit: bool,
        mail_parameters: bytes = b"",
        rcpt_parameters: Sequence[bytes] = (),
        chunked: bool = False,
    ) -> int:
        if self._stage not in _TAKES_OFFERS or self._next is not None:
            raise RuntimeError("no room for a transaction")
        if not recipients:
            raise ValueError("a transaction without recipients")
        given = (b" SIZE=%d" % size if self._size else b"") + (
            b" BODY=8BITMIME" if eight_bit and self._eight_bit else b""
        )
        commands = envelope_commands(sender, recipients, given + mail_parameters, rcpt_parameters, data=not chunked)
        transaction = TransactionResult(token, commands, len(recipients), chunked=chunked)
        if self._current is None:
            self._current = transaction
            self._flags |= NEXT
            self._begin()
        else:
            self._next = transaction
            if self._stage == Stage.FINAL:
                self._ride()
        return self._take_flags()

    def send_body(self, chunk: Buffer, last: bool) -> int:
        if self._stage == Stage.CLOSED:
            return self._take_flags()
        if self._stage != Stage.TEXT or self._current is None:
            raise RuntimeError("nobody waits for a text")
        octets = bytes(chunk)
        self._text_octets += len(octets)
        if self._current.chunked:
            self._chunk(octets, last)
        elif octets:
            self._out.append(stuff(octets, line_start=self._tail[-1:] in b"\n"))
            self._tail = (self._tail + octets[-2:])[-2:]
        if last:
            if not self._current.chunked:
                self._tape.passed(self._text_octets)
                self._out.append(b".\r\n" if self._tail in (b"", b"\r\n") else b"\r\n.\r\n")
            self._current.dotted = True
            self._enter_final()
        return self._take_flags()

    def quit(self) -> int:
        if self._current is not None:
            raise RuntimeError("a transaction is in hand")
        if self._stage not in (Stage.QUIT, Stage.CLOSED):
            self._speak(b"QUIT\r\n")
            self._stage = Stage.QUIT
        return self._take_flags()

    def secured(self) -> int:
        if self._stage != Stage.HANDSHAKE:
            raise RuntimeError("no handshake was asked for")
        self.extensions = {}
        self._pipelining = self._size = self._eight_bit = False
        self.tls = True
        self._tape.add(TLS_BEGAN, b"", 0)
        self._introduce()
        return self._take_flags()

    def lost(self) -> int:
        if self._stage != Stage.CLOSED:
            self._end()
            self._flags &= ~CLOSE
        return self._take_flags()

    def take_output(self) -> bytes:
        output = b"".join(self._out)
        self._out.clear()
        return output

    def take_results(self) -> list[TransactionResult]:
        results, self._results = self._results, []
        return results

    def take_tape(self) -> Taken:
        return self._tape.take()

    @property
    def marked(self) -> bool:
        return self._tape.marked

    @property
    def in_hand(self) -> int:
        return (self._current is not None) + (self._next is not None)

    @property
    def awaits_final(self) -> bool:
        return self._stage == Stage.FINAL

    @property
    def pipelining(self) -> bool:
        return self._pipelining

    # ---- replies

    def _line(self, line: bytes) -> None:
        self._octets += len(line) + 1
        line = line.removesuffix(b"\r")
        self._tape.add(REPLIED, line, len(line))
        code, mark = line[:3], line[3:4]
        if len(code) < 3 or not code.isdigit() or code[0] not in b"2345" or mark not in (b"", b" ", b"-"):
            shown = line[:_SHOWN].decode("utf-8", "backslashreplace")
            self._break(f"not an SMTP reply: {shown}")
            return
        self._lines.append(line[4:])
        if mark != b"-":
            text = b"\n".join(self._lines).decode("utf-8", "backslashreplace")
            self._lines.clear()
            self._octets = 0
            self._reply(int(code), text)

    def _reply(self, code: int, text: str) -> None:
        self.replies += 1
        self._note((code, text))
        if code == 421 and self._stage != Stage.QUIT:
            self.failure = (code, text)
            self._end()
        elif not _ADVANCE[self._stage](self, code, text):
            self._break(f"reply out of place: {code} {text[:_SHOWN]}")

    def _note(self, reply: SmtpReply) -> None:
        """Keep the reply where it belongs; 421 answers all that is outstanding of its kind."""
        stage, current = self._stage, self._current
        if stage == Stage.GREETING:
            self.greeting = reply
        if current is None or ((reply[0] // 100 == 3) != (stage == Stage.DATA) and reply[0] < 400):
            return
        if stage == Stage.MAIL:
            current.mail = reply
        elif stage == Stage.RCPT:
            fill(current.recipients, self._index, reply)
            current.accepted += reply[0] < 300
        elif stage == Stage.DATA:
            current.data = reply
        elif stage == Stage.FINAL and not self._chunk_refused and (not self._chunks or reply[0] == 421):
            fill(current.finals, self._index, reply)
        elif stage == Stage.TEXT and reply[0] >= 400:
            current.finals = [reply] * len(current.finals)

    def _greeted(self, code: int, text: str) -> bool:
        if code < 300:
            self._introduce()
            return True
        return self._refused(code, text)

    def _introduce(self) -> None:
        verb = b"LHLO " if self._lmtp else b"EHLO " if self._esmtp else b"HELO "
        self._speak(verb + self._helo + b"\r\n")
        self._stage = Stage.EHLO if self._esmtp else Stage.HELO

    def _ehlo_answered(self, code: int, text: str) -> bool:
        if code < 300:
            self._learn(text)
            if self._starttls and not self.tls and "STARTTLS" in self.extensions:
                self._speak(b"STARTTLS\r\n")
                self._stage = Stage.STARTTLS
                return True
            return self._helo_answered(code, text)
        if code >= 500 and not self._lmtp:
            self._speak(b"HELO " + self._helo + b"\r\n")
            self._stage = Stage.HELO
            return True
        return self._refused(code, text)

    def _helo_answered(self, code: int, text: str) -> bool:
        if code < 300:
            self._stage = Stage.IDLE
            self._flags |= READY
            return True
        return self._refused(code, text)

    def _starttls_answered(self, code: int, text: str) -> bool:
        if code >= 400:
            self.tls_refusal = (code, text)
            self._stage = Stage.IDLE
            self._flags |= READY
        elif code >= 300:
            return False
        elif self._pending:
            self._break("octets between the reply to STARTTLS and the handshake")
        else:
            self._stage = Stage.HANDSHAKE
            self._flags |= STARTTLS
        return True

    def _refused(self, code: int, text: str) -> bool:
        """The server will not talk to us: leave in good order."""
        if code < 400:
            return False
        self.failure = (code, text)
        self._speak(b"QUIT\r\n")
        self._end()
        return True

    def _learn(self, text: str) -> None:
        for line in text.split("\n")[1:]:
            keyword, _, parameters = line.strip(" ").partition(" ")
            self.extensions[keyword.upper()] = parameters
        self._pipelining = self._may_pipeline and "PIPELINING" in self.extensions
        self._size = "SIZE" in self.extensions
        self._eight_bit = "8BITMIME" in self.extensions

    def _reset_answered(self, code: int, text: str) -> bool:
        self._stage = Stage.MAIL
        if not self._pipelining:
            self._say(0)
        return True

    def _mail_answered(self, code: int, text: str) -> bool:
        if 300 <= code < 400:
            return False
        self._stage = Stage.RCPT
        self._index = 0
        if not self._pipelining:
            if code < 300:
                self._say(1)
            else:
                self._finish()
        return True

    def _rcpt_answered(self, code: int, text: str) -> bool:
        current = self._must()
        if 300 <= code < 400:
            return False
        self._index += 1
        if self._index < len(current.recipients):
            if not self._pipelining:
                self._say(self._index + 1)
        elif current.chunked:
            if current.accepted and current.mail is not None and current.mail[0] < 300:
                self._want_text()
            else:
                self._finish()
        elif self._pipelining or current.accepted:
            self._stage = Stage.DATA
            if not self._pipelining:
                self._say(-1)
        else:
            self._finish()
        return True

    def _want_text(self) -> None:
        current = self._must()
        current.finals = [None] * (current.accepted if self._lmtp else 1)
        self._stage = Stage.TEXT
        self._text_octets = 0
        self._tail = b""
        self._chunks = 0
        self._chunk_refused = False
        self._flags |= SEND if self._next else SEND | NEXT

    def _data_answered(self, code: int, text: str) -> bool:
        current = self._must()
        if code >= 400:
            self._finish()
            return True
        accepted_mail = current.mail is not None and current.mail[0] < 300
        if code < 300 or not accepted_mail:
            return False
        if current.accepted:
            self._want_text()
            return True
        if self._lmtp:
            return False  # no recipient, no reply to the dot: nobody could tell where we are
        current.finals = [None]
        self._speak(b".\r\n")
        self._enter_final()
        return True

    def _interrupted(self, code: int, text: str) -> bool:
        """A refusal in the middle of the text: the server will not read the rest as text."""
        if code < 300 and self._chunks:
            self._chunks -= 1
            return True
        if code < 400:
            return False
        self.failure = (code, text)
        self._end()
        return True

    def _final_answered(self, code: int, text: str) -> bool:
        if 300 <= code < 400:
            return False
        if self._chunks:
            self._chunks -= 1
            if code >= 400 and not self._chunk_refused:
                self._chunk_refused = True
                self._must().finals = [(code, text)] * len(self._must().finals)
            return True
        self._index += 1
        if self._index == len(self._must().finals):
            self._finish()
        return True

    def _quit_answered(self, code: int, text: str) -> bool:
        self._end()
        return True


_TAKES_OFFERS = frozenset(range(Stage.IDLE, Stage.QUIT))

# Each returns False when the reply has no meaning at this stage.
_ADVANCE: dict[Stage, Callable[[ClientSession, int, str], bool]] = {
    Stage.GREETING: ClientSession._greeted,
    Stage.EHLO: ClientSession._ehlo_answered,
    Stage.HELO: ClientSession._helo_answered,
    Stage.STARTTLS: ClientSession._starttls_answered,
    Stage.HANDSHAKE: lambda *_: False,
    Stage.IDLE: lambda *_: False,
    Stage.RSET: ClientSession._reset_answered,
    Stage.MAIL: ClientSession._mail_answered,
    Stage.RCPT: ClientSession._rcpt_answered,
    Stage.DATA: ClientSession._data_answered,
    Stage.TEXT: ClientSession._interrupted,
    Stage.FINAL: ClientSession._final_answered,
    Stage.QUIT: ClientSession._quit_answered,
}
