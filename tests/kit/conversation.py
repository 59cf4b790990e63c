"""Drives one server session the way a connection does, and notes all that came of it.

`Conversation` works with either implementation (`mta._fastparse`, `mta.protocol.server`): it takes the module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from mta._fastparse import EXTENSIONS
from mta.protocol.parameters import MailOptions

HOSTNAME = b"mx.test"
NOW = 1_800_000_000_123  # 2027-01-15T08:00:00.123Z


def judge(address: bytes) -> bytes:
    """The world of the tests: nobody@ does not exist, later@ is busy, everybody else is at home."""
    if address.startswith(b"nobody@"):
        return b"550 5.1.1 No such user here\r\n"
    if address.startswith(b"later@"):
        return b"450 4.2.0 Mailbox busy\r\n"
    return b""


def login(said: list[bytes | None]) -> tuple[str, bytes]:
    """What the world answers to all that was said since AUTH: the method to call, and its argument.

    Whoever ends with b"open" is let in under the name of the mechanism; two responses are asked for.
    """
    if len(said) > 1 and said[-1] is None:
        return "auth_failed", b"501 5.7.0 Cancelled\r\n"
    if said[-1] is not None and said[-1].endswith(b"open"):
        return "authenticated", b"235 2.7.0 Welcome\r\n"
    if said[-1] == b"later":
        return "auth_failed", b"454 4.7.0 Later\r\n"
    if len(said) < 4:
        return "challenge", b"say %d" % len(said)
    return "auth_failed", b"535 5.7.8 No\r\n"


def judge_sender(address: bytes, user: str) -> bytes:
    """For `strict_sender`: only who is logged in may send, and not as root@."""
    if not user:
        return b"530 5.7.0 Log in first\r\n"
    return b"553 5.7.1 Not yours\r\n" if address.startswith(b"root@") else b""


def ascii_mailbox(address: bytes) -> bytes:
    """Domains beyond ASCII have an A-label in this world when they begin with a letter of two octets."""
    local, _, domain = address.rpartition(b"@")
    return local + b"@xn--%d.test" % len(domain) if 0xC3 <= domain[0] < 0xE0 else b""


def offers(keywords: str) -> int:
    """The bits of extensions, and of the four that every session offers."""
    return sum({EXTENSIONS[keyword] for keyword in keywords.split()} | {1, 2, 4, 8})


OPTIONS = [field.name for field in fields(MailOptions) if field.name != "binary"]


def options_text(options: Any) -> str:
    """What is not as in a plain transaction: `ret=FULL envid=abc notices=6:rfc822;c@d,0:`."""
    told = {name: getattr(options, name) for name in OPTIONS} if options is not None else {}
    return " ".join(
        f"{name}={_told(value)}" for name, value in told.items() if value or (name == "auth" and value == b"")
    )


def _told(value: object) -> str:
    if isinstance(value, list):
        return ",".join(f"{notify}:{_told(orcpt)}" for notify, orcpt in value)
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def refused(owner: Any, reply: bytes, line: bytes) -> bytes:
    """For `named`: behind each refusal stands what it was about."""
    about = bytes(c for c in line[:40] if 32 <= c < 127)
    return reply.removesuffix(b"\r\n") + b" [%b]\r\n" % about


def gate(owner: Conversation) -> bytes:
    """For `gated`: two messages are enough."""
    owner.mails += 1
    return b"450 4.7.1 Too much mail\r\n" if owner.mails > 2 else b""


def become(owner: Conversation, argument: bytes) -> bytes:
    """For `commands`: the client becomes another one, whom `judge` knows or not."""
    if argument == b"nobody":
        return b"550 5.7.0 Not you\r\n"
    owner.session.restart(lambda address: b"550 5.1.1 Not for you\r\n", argument.decode("ascii", "replace"))
    return owner.greeting


@dataclass(frozen=True)
class Message:
    sender: bytes
    recipients: tuple[bytes, ...]
    eight_bit: bool
    body: bytes
    binary: bool = False
    options: str = ""


@dataclass
class Conversation:
    """`lazy`: messages are answered only by settle(), so that input behind them is kept by the session."""

    module: Any
    config: dict[str, Any] = field(default_factory=dict)
    lazy: bool = False
    output: bytearray = field(default_factory=bytearray)
    messages: list[Message] = field(default_factory=list)
    closed: bool = False
    handshake: bool = False
    most_kept: int = 0

    def __post_init__(self) -> None:
        options = {"hostname": HOSTNAME, "message_size": 1_000_000, "recipients": 100, "tape": 1024} | self.config
        refuse_mail = options.pop("refuse_mail", b"")
        if "offers" in options:
            options["offers"] = offers(options["offers"])
        if options.pop("strict_sender", False):
            options["judge_sender"] = judge_sender
        if options.pop("named", False):
            options["refused"] = refused
        if options.pop("gated", False):
            options["gate"] = gate
        if options.pop("commands", False):
            options |= {"commands": {b"BECOME": become}, "keywords": (b"BECOME ANYBODY",)}
        options = {"clock": lambda: NOW, "hold": 1000, "deliver_by": 60} | options
        if options.pop("idn", True):
            options["ascii_mailbox"] = ascii_mailbox
        server = self.module.ServerConfig(**options)
        self.greeting = server.greeting
        server.refuse_mail = refuse_mail
        self.session = self.module.ServerSession(server, judge)
        self.session.owner = self
        self.mails = 0
        self._body = bytearray()
        self._said: list[bytes | None] = []  # since AUTH
        self._mechanism = b""
        self._logging_in = False
        self._act(self.session.greet())

    def feed(self, data: bytes) -> None:
        buffer = bytearray(data + b"beyond the size")
        flags = self.session.receive(buffer, len(data))
        # The buffer is the caller's again: nothing of it may still be in use.
        buffer[:] = b"\xaa" * len(buffer)
        self._act(flags)

    def settle(self) -> None:
        while self.session.parked:
            self._act(self._resume())

    def secured(self) -> None:
        self.handshake = False
        self.session.secured()

    def take(self) -> bytes:
        """The output since the last time."""
        taken = bytes(self.output)
        self.output.clear()
        return taken

    def _act(self, flags: int) -> None:
        m = self.module
        while True:
            self._note(flags)
            if flags & m.SLOW:
                assert self.session.slowed
            elif flags & m.AUTH:
                self._take_auth()
            elif flags & m.MESSAGE:
                self._take_message()
            else:
                return
            if self.lazy:
                return
            flags = self._resume()

    def _note(self, flags: int) -> None:
        m, s = self.module, self.session
        taken = s.take_output()
        assert bool(taken) == bool(flags & m.OUTPUT)
        self.output += taken
        if flags & m.DISCARD:
            self._body.clear()
        if flags & m.BODY:
            part = s.take_body()
            self.most_kept = max(self.most_kept, len(part))
            self._body += part
        self.handshake |= bool(flags & m.STARTTLS)
        self.closed |= bool(flags & m.CLOSE)

    def _take_message(self) -> None:
        s = self.session
        assert s.parked
        self._body += s.take_body()
        assert s.body_size == len(self._body)
        flags = s.eight_bit, bytes(self._body), s.binary
        self.messages.append(Message(s.sender, tuple(s.recipients), *flags, options_text(s.options)))
        self._body.clear()

    def _take_auth(self) -> None:
        assert self.session.parked
        mechanism, response = self.session.take_auth()
        if mechanism:
            self._mechanism, self._said = mechanism, []
        self._said.append(response)
        self._logging_in = True

    def _resume(self) -> int:
        if self._logging_in:
            self._logging_in = False
            method, argument = login(self._said)
            name = [self._mechanism.decode()] if method == "authenticated" else []
            answered: int = getattr(self.session, method)(argument, *name)
            return answered
        if self.session.slowed:
            woken: int = self.session.wake()
            return woken
        flags: int = self.session.resume(b"250 2.0.0 Message %d taken\r\n" % len(self.messages))
        return flags

    def trace(self) -> dict[str, Any]:
        """All that an observer can know; equal for equal input, however it was cut."""
        s = self.session
        names = "helo esmtp tls user spoke errors lines sender recipients eight_bit binary body_size"
        states = "in_data in_transaction parked slowed"
        state = {name: getattr(s, name) for name in f"{names} {states}".split()}
        return state | {
            "options": options_text(s.options),
            "output": bytes(self.output),
            "messages": self.messages,
            "closed": self.closed,
            "handshake": self.handshake,
            "marked": s.marked,
            "tape": taped(s),
        }


def taped(session: Any) -> tuple[int, int, list[tuple[int, int, bytes] | None]]:
    """What is on the tape of a session of either kind, but for the times: what went, what was lost, what is there."""
    _, dropped, lost, entries = session.take_tape()
    return dropped, lost, [entry and entry[1:] for entry in entries]


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The data in pieces that end at the places."""
    last = 0
    for place in sorted({p % (len(data) + 1) for p in places}):
        if place > last:
            yield data[last:place]
            last = place
    if last < len(data):
        yield data[last:]


def converse(module: Any, pieces: Iterable[bytes], *, lazy: bool = False, **config: Any) -> dict[str, Any]:
    """The trace of a whole conversation."""
    conversation = Conversation(module, config, lazy)
    for piece in pieces:
        conversation.feed(piece)
    conversation.settle()
    return conversation.trace()
