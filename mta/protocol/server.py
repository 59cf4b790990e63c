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

AUTH parks the session as a message does. The caller takes the mechanism and the response (`take_auth`), and answers by
`challenge`, after which the next line is raised in the same way, by `authenticated` or by `auth_failed`.

RFC 5321, RFC 1870 (SIZE), RFC 2034 and RFC 3463 (enhanced codes), RFC 2920, RFC 3207 (STARTTLS), RFC 4954 (AUTH),
RFC 6152.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable
from typing import Final

from mta.protocol.commands import BLANKS, COMMANDS, decoded, on_unknown
from mta.protocol.paths import parse_path
from mta.protocol.text import Fault, TextReader

__all__ = [
    "AUTH",
    "BODY",
    "CLOSE",
    "DISCARD",
    "MESSAGE",
    "OUTPUT",
    "STARTTLS",
    "ServerConfig",
    "ServerSession",
    "parse_path",
]

# In the order in which the caller handles them.
OUTPUT: Final = 1
DISCARD: Final = 2
BODY: Final = 4
MESSAGE: Final = 8
STARTTLS: Final = 16
CLOSE: Final = 32
AUTH: Final = 64

LONGEST_AUTH_LINE: Final = 12_290  # RFC 4954 §4, with the CRLF
KEPT_LIMIT: Final = 1 << 20


class State(enum.Enum):
    """What the next input is."""

    COMMANDS = enum.auto()
    TEXT = enum.auto()
    PARKED = enum.auto()  # kept until resume()
    AUTHENTICATING = enum.auto()  # kept until the caller has judged what the client said
    RESPONSE = enum.auto()  # a response to a challenge
    HANDSHAKE = enum.auto()  # plaintext behind STARTTLS, dropped (RFC 3207 §6)
    CLOSED = enum.auto()  # of no interest


class ServerConfig:
    """What all sessions of a listener share. Sizes in octets."""

    def __init__(
        self,
        *,
        hostname: bytes,
        message_size: int,
        recipients: int,
        errors: int = 20,
        line: int = 2048,
        chunk: int = 262144,
        starttls: bool = False,
        mechanisms: bytes = b"",
        mechanisms_tls: bytes = b"",
        judge_sender: Callable[[bytes, str], bytes] | None = None,
    ) -> None:
        if min(message_size, recipients, errors, line, chunk) < 1:
            raise ValueError("the limits of a session are numbers above zero")
        self.refuse_mail = b""
        self.hostname = hostname
        self.message_size = message_size
        self.recipients = recipients
        self.errors = errors
        self.line = max(line, LONGEST_AUTH_LINE) if mechanisms or mechanisms_tls else line
        self.chunk = chunk
        self.starttls = starttls
        self.mechanisms = mechanisms
        self.mechanisms_tls = mechanisms_tls
        self.judge_sender = judge_sender

    def extensions(self, tls: bool) -> list[bytes]:
        """What EHLO offers; STARTTLS not twice (RFC 3207 §4.2)."""
        offered = [b"PIPELINING", b"SIZE %d" % self.message_size, b"8BITMIME"]
        if mechanisms := self.offered_mechanisms(tls):
            offered.append(b"AUTH " + mechanisms)
        if self.starttls and not tls:
            offered.append(b"STARTTLS")
        return [*offered, b"ENHANCEDSTATUSCODES"]

    def offered_mechanisms(self, tls: bool) -> bytes:
        return self.mechanisms_tls if tls else self.mechanisms


class ServerSession:
    """One connection from a client."""

    def __init__(self, config: ServerConfig, judge: Callable[[bytes], bytes]) -> None:
        self.config = config
        self.judge = judge
        self.helo = b""
        self.esmtp = False
        self.tls = False
        self.user = ""
        self.spoke = False
        self.errors = 0
        self._state = State.COMMANDS
        self._flags = 0
        self._output = bytearray()
        self._line = _LineReader(config.line)
        self._kept = b""
        self._farewell: bytes | None = None  # goes out behind the reply to the parked message
        self._busy = False
        self._auth: tuple[bytes, bytes | None] = (b"", None)
        self.reset()

    # ---- what the connection does ----

    def greet(self) -> int:
        self.say(b"220 %b ESMTP" % self.config.hostname)
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
                self.refuse(reply.removesuffix(b"\r\n"))
            else:
                self._output += reply
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

    def close(self, reply: bytes) -> int:
        self._enter()
        self._busy = False
        if not self.parked:
            if self._state is not State.CLOSED:
                self.end(reply)
        elif self._farewell is None:
            # The client learns first what became of its message or its AUTH.
            self._farewell, self._kept = reply, b""
        return self._raised()

    def secured(self) -> None:
        self._enter()
        self._busy = False
        self.reset()
        self.helo = b""
        self.esmtp = False
        self.user = ""
        self.tls = True
        if self._state is State.HANDSHAKE:
            self._state = State.COMMANDS

    def take_output(self) -> bytes:
        taken = bytes(self._output)
        self._output.clear()
        return taken

    def take_body(self) -> bytes:
        return self._text.take()

    @property
    def body_size(self) -> int:
        return self._text.size

    @property
    def parked(self) -> bool:
        return self._state in (State.PARKED, State.AUTHENTICATING)

    @property
    def in_data(self) -> bool:
        return self._state is State.TEXT

    # ---- output and flags ----

    def _enter(self) -> None:
        if self._busy:
            raise RuntimeError("a session is not called from inside its judge")
        self._busy = True

    def _raised(self) -> int:
        flags, self._flags = self._flags, 0
        if self._output:
            flags |= OUTPUT
        if self.in_data and len(self._text.kept) > self.config.chunk:
            flags |= BODY
        return flags

    # `say`, `refuse`, `end`, `reset`, `begin_text` and `begin_handshake` are what the commands are made of.

    def say(self, reply: bytes) -> None:
        self._output += reply + b"\r\n"

    def refuse(self, reply: bytes) -> None:
        """Say it and count it."""
        self.say(reply)
        self.errors += 1
        if self.errors >= self.config.errors:
            self.end(b"421 4.7.0 Too many errors, closing the connection\r\n")

    def end(self, reply: bytes) -> None:
        self._flags |= CLOSE | (DISCARD if self.in_data else 0)
        self._state = State.CLOSED
        self._text.kept.clear()
        self._output += reply

    def reset(self) -> None:
        """Forget the transaction."""
        self.in_transaction = False
        self.sender = b""
        self.recipients: list[bytes] = []
        self.eight_bit = False
        self._text = TextReader(self.config.message_size)

    def begin_text(self) -> None:
        self._state = State.TEXT

    def begin_handshake(self) -> None:
        self._state = State.HANDSHAKE
        self._flags |= STARTTLS

    def begin_auth(self, mechanism: bytes, response: bytes | None) -> None:
        self._state = State.AUTHENTICATING
        self._flags |= AUTH
        self._auth = (mechanism, response)

    # ---- input ----

    def _parse(self, data: bytes) -> bytes:
        """Returns what was not read: nothing, unless the session is parked."""
        while data and (reader := _READERS.get(self._state)) is not None:
            data = data[reader(self, data) :]
        return data if self.parked else b""

    def _keep(self, rest: bytes) -> None:
        if self._farewell is not None:
            return
        if len(self._kept) + len(rest) > KEPT_LIMIT:
            self._farewell = b"421 4.7.0 Too much input before the reply to a message, closing the connection\r\n"
            self._kept = b""
        else:
            self._kept += rest

    def _read_line(self, data: bytes) -> int:
        used = self._line.read(data)
        if self._line.whole:
            self.spoke = True
            if self._state is State.RESPONSE:
                self._hear(self._line)
            else:
                self._obey(self._line)
            self._line = _LineReader(self.config.line)
        return used

    def _hear(self, line: _LineReader) -> None:
        """A response to a challenge; one that cannot be read ends the exchange (RFC 4954 §4)."""
        self._state = State.COMMANDS
        if line.too_long:
            self.refuse(b"500 5.5.6 The response is too long")
        elif line.command == b"*":
            self.begin_auth(b"", None)
        elif (response := decoded(line.command)) is None:
            self.refuse(b"501 5.5.2 The response is not base64")
        else:
            self.begin_auth(b"", response)

    def _obey(self, line: _LineReader) -> None:
        if line.too_long:
            self.refuse(b"500 5.5.2 Command line too long")
        elif line.unfit:
            self.refuse(b"500 5.5.2 A command holds no bare CR, bare LF or NUL, and ends with CRLF")
        else:
            verb, _, argument = line.command.rstrip(BLANKS).partition(b" ")
            COMMANDS.get(verb.upper(), on_unknown)(self, argument)

    def _read_text(self, data: bytes) -> int:
        used = self._text.read(data)
        if self._text.ended:
            self._text_ended()
        return used

    def _text_ended(self) -> None:
        if self._text.too_large:
            self._refuse_text(b"552 5.3.4 The message is larger than this server takes")
        elif self._text.faults:
            self._refuse_text(_fault_reply(self._text.faults))
        else:
            self._state = State.PARKED
            self._flags |= MESSAGE

    def _refuse_text(self, reply: bytes) -> None:
        self._flags |= DISCARD
        self._state = State.COMMANDS
        self.reset()
        self.refuse(reply)


_READERS: Final = {
    State.COMMANDS: ServerSession._read_line,
    State.RESPONSE: ServerSession._read_line,
    State.TEXT: ServerSession._read_text,
}


class _LineReader:
    """Reads one command line up to its CRLF."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._octets = bytearray()
        self._last = b""
        self.whole = False

    def read(self, data: bytes) -> int:
        """Returns how much of the data belongs to this line."""
        found = (self._last + data).find(b"\r\n")
        self.whole = found >= 0
        used = found + 2 - len(self._last) if self.whole else len(data)
        self._size += used
        self._octets += data[:used]
        self._last = data[used - 1 : used] if data[used - 1 : used] == b"\r" else b""
        if self.too_long:
            self._octets.clear()
        return used

    @property
    def too_long(self) -> bool:
        return self._size > self._limit

    @property
    def command(self) -> bytes:
        return bytes(self._octets[:-2])

    @property
    def unfit(self) -> bool:
        return any(octet in self.command for octet in b"\r\n\0")


def _fault_reply(faults: Fault) -> bytes:
    names = {Fault.BARE_CR: b"bare CR", Fault.BARE_LF: b"bare LF", Fault.NUL: b"NUL"}
    held = b", a ".join(name for fault, name in names.items() if fault in faults)
    return b"550 5.6.0 The text holds a %b; it must be lines that end with CRLF" % held
