"""What one server session knows between two inputs, and the words that its commands are made of.

A handler of `mta.protocol.commands` says or refuses something, begins what comes next, or ends the session; replies
gather in one output, and what else the connection must do is raised as flags. `mta.protocol.server` reads the input.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

from mta.protocol.lines import LineReader
from mta.protocol.parameters import MailOptions
from mta.protocol.server_config import ServerConfig
from mta.protocol.tape import Tape
from mta.protocol.text import ExactReader, TextReader

# In the order in which the caller handles them.
OUTPUT: Final = 1
DISCARD: Final = 2
BODY: Final = 4
MESSAGE: Final = 8
STARTTLS: Final = 16
CLOSE: Final = 32
AUTH: Final = 64
SLOW: Final = 1024


class State(enum.Enum):
    """What the next input is."""

    COMMANDS = enum.auto()
    TEXT = enum.auto()
    CHUNK = enum.auto()  # the octets behind BDAT, kept or dropped
    PARKED = enum.auto()  # kept until resume()
    AUTHENTICATING = enum.auto()  # kept until the caller has judged what the client said
    RESPONSE = enum.auto()  # a response to a challenge
    HANDSHAKE = enum.auto()  # plaintext behind STARTTLS, dropped (RFC 3207 §6)
    SLOWED = enum.auto()  # kept until wake()
    CLOSED = enum.auto()  # of no interest


class ServerState:
    """All of a session but how it reads."""

    def __init__(self, config: ServerConfig, judge: Callable[[bytes], bytes]) -> None:
        self.config = config
        self.judge = judge
        self.tape = Tape(config.tape)
        self.owner: Any = None
        self.helo = b""
        self.esmtp = False
        self.tls = False
        self.user = ""
        self.spoke = False
        self.errors = 0
        self.idle_commands = 0  # since the last message
        self.mails = 0  # MAIL commands, refused ones too (RFC 9422 §4.1)
        self.lines = 0
        self.about = b""  # what a refusal answers
        self._state = State.COMMANDS
        self._flags = 0
        self._output = bytearray()
        self._line = LineReader(config.line)
        self._kept = b""
        self._farewell: bytes | None = None  # goes out behind the reply to the parked message
        self._busy = False
        self._auth: tuple[bytes, bytes | None] = (b"", None)
        self._chunk_left = 0
        self._chunk_last = False
        self.chunked = False
        self.reset()

    @property
    def body_size(self) -> int:
        return self._text.size

    @property
    def parked(self) -> bool:
        return self._state in (State.PARKED, State.AUTHENTICATING, State.SLOWED)

    @property
    def slowed(self) -> bool:
        return self._state is State.SLOWED

    @property
    def in_data(self) -> bool:
        return self._state in (State.TEXT, State.CHUNK)

    # ---- output and flags ----

    def _enter(self) -> None:
        if self._busy:
            raise RuntimeError("a session is not called from inside its judge")
        self._busy = True

    def _raised(self) -> int:
        flags, self._flags = self._flags, 0
        if self._output:
            flags |= OUTPUT
        if len(self._text.kept) > self.config.chunk and not self.parked:
            flags |= BODY
        return flags

    # What the commands are made of: `say`, `refuse`, `end`, `lose_track`, `reset` and what begins with `begin`.

    def say(self, reply: bytes) -> None:
        self._reply(reply + b"\r\n")

    def _reply(self, reply: bytes) -> None:
        if reply:
            self.tape.replied(reply.removesuffix(b"\r\n"))
            self._output += reply

    def refuse(self, reply: bytes) -> None:
        """Say it and count it."""
        self.put_off(reply)
        self.errors += 1
        if self.errors >= self.config.errors:
            self.end_with(b"421 4.7.0 Too many errors, closing the connection")
        elif self.config.slow_errors and self.errors >= self.config.slow_errors:
            self._state = State.SLOWED
            self._flags |= SLOW

    def put_off(self, reply: bytes) -> None:
        """Say it; it is no fault of the client."""
        self._reply(self._named(reply + b"\r\n"))

    def end_with(self, refusal: bytes) -> None:
        self.end(self._named(refusal + b"\r\n"))

    def idle(self, reply: bytes) -> None:
        """The answer to a command that moves no mail."""
        self.idle_commands += 1
        if 0 < self.config.idle_commands < self.idle_commands:
            self.end_with(b"421 4.7.0 Too many commands and no mail, closing the connection")
        else:
            self.say(reply)

    def _named(self, reply: bytes) -> bytes:
        """A refusal as the caller wants it said, who may note it."""
        return reply if self.config.refused is None else self.config.refused(self.owner, reply, self.about)

    def end(self, reply: bytes) -> None:
        self._flags &= ~SLOW
        self._flags |= CLOSE | (DISCARD if self.chunked or self._state is State.TEXT else 0)
        self._state = State.CLOSED
        self._text.kept.clear()
        self._reply(reply)

    def lose_track(self, reply: bytes) -> None:
        """A BDAT that cannot be understood: what follows may be text as well as commands, so nothing is read of it."""
        self.refuse(reply)
        if self._state is not State.CLOSED:
            self.end_with(b"421 4.7.0 What follows cannot be told from a text, closing the connection")

    def reset(self) -> None:
        """Forget the transaction."""
        if self.chunked:
            self._flags |= DISCARD
        self.chunked = False  # a BDAT has come in this transaction
        self.forget_refusal()
        self.in_transaction = False
        self.sender = b""
        self.recipients: list[bytes] = []
        self.eight_bit = False
        self.binary = False
        self.options: MailOptions | None = None
        self._text: TextReader | ExactReader = TextReader(self.config.message_size)

    def forget_refusal(self) -> None:
        self._chunk_refusal = b""  # what all chunks get until the transaction is over
        self._refusal_told = False

    def begin_text(self) -> None:
        self._state = State.TEXT

    def begin_handshake(self) -> None:
        self.reset()
        self._state = State.HANDSHAKE
        self._flags |= STARTTLS

    def begin_auth(self, mechanism: bytes, response: bytes | None) -> None:
        self._state = State.AUTHENTICATING
        self._flags |= AUTH
        self._auth = (mechanism, response)
