"""What all server sessions of a listener share: limits, what they offer, and the functions that they ask.

Errors of the caller are ValueErrors at once: a limit below one, an extension without what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mta.protocol.extensions import BASIC, Extension
from mta.protocol.tape import room

LONGEST_AUTH_LINE: Final = 12_290  # RFC 4954 §4, with the CRLF


class ServerConfig:
    """What all sessions of a listener share. Sizes in octets.

    What the caller may add gets the `owner` of the session: `gate` refuses a MAIL, or returns b""; `refused` gets each
    refusal and the command line it answers ("DATA", "AUTH" where it is none), and returns what to say instead;
    `commands` answer further verbs, of which `keywords` tell the client.
    """

    def __init__(
        self,
        *,
        hostname: bytes,
        message_size: int,
        recipients: int,
        errors: int = 20,
        slow_errors: int = 0,
        idle_commands: int = 0,
        mails: int = 0,
        line: int = 2048,
        chunk: int = 262144,
        starttls: bool = False,
        mechanisms: bytes = b"",
        mechanisms_tls: bytes = b"",
        judge_sender: Callable[[bytes, str], bytes] | None = None,
        chunking: bool = False,
        lmtp: bool = False,
        ascii_mailbox: Callable[[bytes], bytes] | None = None,
        clock: Callable[[], int] | None = None,
        hold: int = 0,
        deliver_by: int = 0,
        offers: int = BASIC,
        gate: Callable[[Any], bytes] | None = None,
        refused: Callable[[Any, bytes, bytes], bytes] | None = None,
        commands: Mapping[bytes, Callable[[Any, bytes], bytes]] | None = None,
        keywords: tuple[bytes, ...] = (),
        tape: int = 0,
    ) -> None:
        if min(message_size, recipients, errors, line, chunk) < 1:
            raise ValueError("the limits of a session are numbers above zero")
        self.tape = room(tape)
        self.refuse_mail = b""
        self.hostname = hostname
        self.message_size: int = message_size
        self.recipients: int = recipients
        self.errors = errors
        self.slow_errors = slow_errors
        self.idle_commands = idle_commands
        self.mails = mails
        self.line = max(line, LONGEST_AUTH_LINE) if mechanisms or mechanisms_tls else line
        self.chunk = chunk
        self.starttls = starttls
        self.mechanisms = mechanisms
        self.mechanisms_tls = mechanisms_tls
        self.judge_sender = judge_sender
        self.ascii_mailbox = ascii_mailbox
        if clock is None and Extension(offers) & (Extension.FUTURERELEASE | Extension.DELIVERBY):
            raise ValueError("FUTURERELEASE and DELIVERBY need a clock")
        self.clock = clock or (lambda: 0)
        self.hold: int = hold
        self.deliver_by: int = deliver_by
        self.offers = offers | (Extension.CHUNKING | Extension.BINARYMIME if chunking else 0)
        self.lmtp = lmtp
        self.gate = gate
        self.refused = refused
        self.commands = commands or {}
        self.keywords = keywords
        self.greeting = b"220 %b %b\r\n" % (hostname, b"LMTP" if lmtp else b"ESMTP")

    @property
    def chunking(self) -> bool:
        return Extension.CHUNKING in Extension(self.offers)

    def offered_mechanisms(self, tls: bool) -> bytes:
        return self.mechanisms_tls if tls else self.mechanisms
