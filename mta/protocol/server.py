"""The SMTP server session in plain Python: what `mta._fastparse.ServerSession` does, written to be read.

The same tests run against both, so this is the specification of the fast one; production uses only the fast one.

Theory of operation
- `receive` is given octets in any portions. `_READERS` says which method reads them in each `State`: command lines,
  the text of a message, or nobody. Each reader takes what it understands and leaves the rest.
- A command line is a row of `commands.COMMANDS`: verb to handler. A handler says or refuses something.
- Replies gather in one output; what else the connection must do is raised as flags.

Invariants
- What a session answers depends on the octets alone, never on how they were cut into packets.
- Only CRLF ends a command line. A bare CR, a bare LF or NUL spoils the whole line (RFC 5321 §2.3.8, §4.1.2).
- After MESSAGE nothing is read until resume(): replies keep the order of the commands (RFC 2920 §3.1).
- Bounded memory: of a line that is too long only its length is kept, input behind a parked message is at most
  `KEPT_LIMIT`, and a spoilt or too large text is dropped as it comes.

Failure: bad input becomes a reply, never an exception. An exception out of `judge` and calls out of order are
raised; the session can then only be closed.

BDAT says how many octets follow. They are read in `State.CHUNK` whatever the session thinks of the command, and only
then is it answered: no octet of a refused chunk is ever taken for a command (RFC 3030 §2). A transaction whose chunk
was refused gives the same answer to all further ones. When the size cannot be read, nobody knows where the chunk ends:
the session ends there, as the alternative would be to obey what may be the text of a message.

LMTP (RFC 2033) is the same session with LHLO, and a reply for each recipient at the end of a text.

AUTH parks the session as a message does. The caller takes the mechanism and the response (`take_auth`), and answers by
`challenge`, after which the next line is raised in the same way, by `authenticated` or by `auth_failed`.

RFC 5321, RFC 1870 (SIZE), RFC 2034 and RFC 3463 (enhanced codes), RFC 2920, RFC 3207 (STARTTLS), RFC 4954 (AUTH),
RFC 6152, RFC 3030 (CHUNKING and BINARYMIME), RFC 2033 (LMTP).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final, cast

from mta.protocol.commands import BLANKS, COMMANDS, LMTP_COMMANDS, TOO_LARGE, UNKNOWN, decoded, on_rare
from mta.protocol.extensions import EXTENSIONS
from mta.protocol.lines import LineReader
from mta.protocol.parameters import MailOptions
from mta.protocol.paths import parse_path
from mta.protocol.server_config import ServerConfig
from mta.protocol.server_state import (
    AUTH,
    BODY,
    CLOSE,
    DISCARD,
    MESSAGE,
    OUTPUT,
    SLOW,
    STARTTLS,
    ServerState,
    State,
)
from mta.protocol.tape import TLS_BEGAN, Taken
from mta.protocol.text import ExactReader, TextReader, fault_reply

__all__ = [
    "AUTH",
    "BODY",
    "CLOSE",
    "DISCARD",
    "EXTENSIONS",
    "MESSAGE",
    "OUTPUT",
    "SLOW",
    "STARTTLS",
    "MailOptions",
    "ServerConfig",
    "ServerSession",
    "parse_path",
]

KEPT_LIMIT: Final = 1 << 20
SHOWN_LINE: Final = 512  # octets of a refused command that are passed on


class ServerSession(ServerState):
    """One connection from a client."""

    # ---- what the connection does ----

    def greet(self) -> int:
        self._reply(self.config.greeting)
        return self._raised()

    def receive(self, buffer: bytes | bytearray | memoryview, size: int) -> int:
        self._enter()
        try:
            if not 0 <= size <= len(buffer):
                raise ValueError("size is not within the buffer")
            self._keep(self._parse(bytes(buffer[:size])))
        finally:
            self._busy = False
        return self._raised()

    def resume(self, reply: bytes) -> int:
        if self._state is not State.PARKED:
            raise RuntimeError("no message waits for its reply")
        reply = self._for_each_recipient(reply)
        self.reset()
        return self._go_on(reply, State.COMMANDS)

    def take_auth(self) -> tuple[bytes, bytes | None]:
        taken, self._auth = self._auth, (b"", None)
        return taken

    def challenge(self, data: bytes) -> int:
        return self._judged(b"334 " + base64.b64encode(data) + b"\r\n", State.RESPONSE)

    def authenticated(self, reply: bytes, user: str) -> int:
        if self._state is State.AUTHENTICATING:
            self.user = user
        return self._judged(reply, State.COMMANDS)

    def auth_failed(self, reply: bytes) -> int:
        return self._judged(reply, State.COMMANDS)

    def _judged(self, reply: bytes, state: State) -> int:
        if self._state is not State.AUTHENTICATING:
            raise RuntimeError("no AUTH waits for its reply")
        return self._go_on(reply, state)

    def _go_on(self, reply: bytes, state: State) -> int:
        """Say it, and read on in this state, beginning with what was kept. A refusal counts as an error."""
        self._enter()
        try:
            was_auth = self._state is State.AUTHENTICATING
            self._state = state
            if was_auth and reply.startswith(b"5"):
                self.about = b"AUTH"
                self.refuse(reply.removesuffix(b"\r\n"))
            else:
                self._reply(reply)
            kept, self._kept = self._kept, b""
            if self._state is State.CLOSED:
                pass
            elif self._farewell is not None:
                self.end(self._farewell)
            else:
                self._kept = self._parse(kept)
        finally:
            self._busy = False
        return self._raised()

    def wake(self) -> int:
        """The refusal was held back long enough."""
        if not self.slowed:
            raise RuntimeError("the session is not held back")
        return self._go_on(b"", State.COMMANDS)

    def restart(self, judge: Callable[[bytes], bytes], user: str) -> None:
        """From a command of `config.commands`: the client is another one than it was."""
        self.reset()
        self.helo = b""
        self.esmtp = False
        self.user = user
        self.judge = judge

    def close(self, reply: bytes) -> int:
        self._enter()
        self._busy = False
        if not self.parked or self.slowed:
            if self._state is not State.CLOSED:
                self._kept = b""
                self.end(reply)
        elif self._farewell is None:
            # The client learns first what became of its message or its AUTH.
            self._farewell, self._kept = reply, b""
        return self._raised()

    def secured(self, config: ServerConfig | None = None) -> None:
        self._enter()
        self._busy = False
        if config is not None:
            self.config = config
            self._line = LineReader(config.line)
        self.reset()
        self.helo = b""
        self.esmtp = False
        self.user = ""
        self.tls = True
        self.tape.add(TLS_BEGAN, b"", 0)
        if self._state is State.HANDSHAKE:
            self._state = State.COMMANDS

    def take_output(self) -> bytes:
        taken = bytes(self._output)
        self._output.clear()
        return taken

    def take_body(self) -> bytes:
        return self._text.take()

    def take_tape(self) -> Taken:
        return self.tape.take()

    @property
    def marked(self) -> bool:
        return self.tape.marked

    # ---- input ----

    def begin_chunk(self, size: int, *, last: bool, refusal: bytes) -> None:
        """Read so many octets. With a refusal, or after one, they are dropped."""
        self._state = State.CHUNK
        self._chunk_left, self._chunk_last = size, last
        if self.in_transaction and self.config.chunking and not self.chunked:
            self.chunked = True
            self._text = ExactReader(binary=self.binary)
        if refusal and not self._chunk_refusal:
            self._chunk_refusal = refusal
            self._text.kept.clear()
        if not size:
            self._chunk_ended()

    def _parse(self, data: bytes) -> bytes:
        """Returns what was not read: nothing, unless the session is parked."""
        while data and (reader := _READERS.get(self._state)) is not None:
            data = data[reader(self, data) :]
        return data if self.parked else b""

    def _keep(self, rest: bytes) -> None:
        if self._farewell is not None:
            return
        if len(self._kept) + len(rest) > KEPT_LIMIT:
            self._farewell = self._named(
                b"421 4.7.0 Too much input before the reply to a message, closing the connection\r\n"
            )
            self._kept = b""
        else:
            self._kept += rest

    def _read_line(self, data: bytes) -> int:
        used = self._line.read(data)
        if self._line.whole:
            self.spoke = True
            self.lines += 1
            if self._state is State.RESPONSE:
                self._hear(self._line)
            else:
                self._obey(self._line)
            self._line = LineReader(self.config.line)
        return used

    def _hear(self, line: LineReader) -> None:
        """A response to a challenge; one that cannot be read ends the exchange (RFC 4954 §4)."""
        self._state = State.COMMANDS
        self.about = b"AUTH"
        self.tape.said_secretly(line.size)
        if line.too_long:
            self.refuse(b"500 5.5.6 The response is too long")
        elif line.command == b"*":
            self.begin_auth(b"", None)
        elif (response := decoded(line.command)) is None:
            self.refuse(b"501 5.5.2 The response is not base64")
        else:
            self.begin_auth(b"", response)

    def _obey(self, line: LineReader) -> None:
        self.about = b""
        refuse = self.lose_track if line.head.upper() == b"BDAT" else self.refuse
        if line.too_long or line.unfit:
            self.tape.said_secretly(line.size)
        else:
            self.tape.said(line.command, more=bool(self.config.commands))
        if line.too_long:
            refuse(b"500 5.5.2 Command line too long")
        elif line.unfit:
            refuse(b"500 5.5.2 A command holds no bare CR, bare LF or NUL, and ends with CRLF")
        else:
            self.about = line.command[:SHOWN_LINE]
            verb, _, argument = line.command.rstrip(BLANKS).partition(b" ")
            handle = (LMTP_COMMANDS if self.config.lmtp else COMMANDS).get(verb.upper())
            if handle is not None:
                handle(self, argument)
            elif not on_rare(self, verb.upper(), argument):
                refuse(UNKNOWN)
            self.about = b""

    def _read_text(self, data: bytes) -> int:
        text = cast(TextReader, self._text)
        used = text.read(data)
        if text.ended:
            self._text_ended(too_large=text.too_large)
        return used

    def _read_chunk(self, data: bytes) -> int:
        octets = data[: self._chunk_left]
        self._chunk_left -= len(octets)
        if self._chunk_refusal:
            self._text.size += len(octets)  # so that who looks at the clock sees that something comes
        else:
            self._text.read(octets)
        if not self._chunk_left:
            self._chunk_ended()
        return len(octets)

    def _chunk_ended(self) -> None:
        self._state = State.COMMANDS
        if self._chunk_refusal:
            self._refuse_chunk()
        elif self._chunk_last:
            self._text_ended(too_large=False)
        else:
            self.say(b"250 2.0.0 Chunk taken")

    def _refuse_chunk(self) -> None:
        """Only the first refusal of a transaction is an error: the other chunks were under way (RFC 3030 §2)."""
        reply, told = self._chunk_refusal, self._refusal_told
        self._refusal_told = True
        if self._chunk_last:
            if self.chunked:
                reply = self._for_each_recipient(reply + b"\r\n").removesuffix(b"\r\n")
                self.reset()
            self.forget_refusal()
        if not self.chunked:
            self._text.size = 0
        self.about = self.about or b"BDAT"
        if told:
            self.put_off(reply)
        else:
            self.refuse(reply)

    def _text_ended(self, *, too_large: bool) -> None:
        self.about = self.about or b"DATA"
        self.tape.passed(self._text.size)
        if too_large:
            self._refuse_text(TOO_LARGE)
        elif self._text.faults:
            self._refuse_text(fault_reply(self._text.faults))
        else:
            self.chunked = False
            self._state = State.PARKED
            self._flags |= MESSAGE
            self.idle_commands = 0

    def _refuse_text(self, reply: bytes) -> None:
        reply = self._for_each_recipient(reply + b"\r\n").removesuffix(b"\r\n")
        self._flags |= DISCARD
        self._state = State.COMMANDS
        self.reset()
        self.refuse(reply)

    def _for_each_recipient(self, reply: bytes) -> bytes:
        """What a text is answered: in LMTP once for each recipient (RFC 2033 §4.2)."""
        return reply * max(1, len(self.recipients)) if self.config.lmtp else reply


_READERS: Final = {
    State.COMMANDS: ServerSession._read_line,
    State.RESPONSE: ServerSession._read_line,
    State.TEXT: ServerSession._read_text,
    State.CHUNK: ServerSession._read_chunk,
}
