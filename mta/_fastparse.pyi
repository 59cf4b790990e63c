"""The two SMTP sessions, sans-IO: octets in, flags and reply octets out. No socket, clock or policy inside.

`mta.protocol.server` and `mta.protocol.client` are the readable references with the same names and behaviour.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from typing_extensions import Buffer

SOURCE_HASH: Final[str]  # sha256 of the .pyx this was built from, in hex; "" when the build did not say

# What `receive` and `resume` return, or-ed together. The caller handles them in this order.
OUTPUT: Final[int]  # take_output() has octets to send
DISCARD: Final[
    int
]  # a text was refused or given up: forget what take_body() gave of it; BODY and MESSAGE mean a later text
BODY: Final[int]  # take_body() has more than `chunk` octets of a text still arriving
MESSAGE: Final[int]  # a whole message is here; the session is parked until resume()
STARTTLS: Final[int]  # begin the handshake after sending the output, then call secured(); input is dropped
CLOSE: Final[int]  # close after sending the output
SLOW: Final[int]  # a refusal to be held back: send nothing, and call wake() after a while
AUTH: Final[int]  # take_auth() has a step of a login; parked until challenge(), authenticated() or auth_failed()

# Kinds of entries on a tape (mta.protocol.tape).
SAID: Final[int]
REPLIED: Final[int]
TEXT_PASSED: Final[int]
TLS_BEGAN: Final[int]
EXTENSIONS: Final[dict[str, int]]  # keyword of EHLO to its bit in `offers`

class MailOptions:
    """What a transaction asks for besides SIZE and BODY; `mta.model.Options` says what each means."""

    @property
    def utf8(self) -> bool: ...
    @property
    def binary(self) -> bool: ...
    @property
    def require_tls(self) -> bool: ...
    @property
    def ret(self) -> str: ...
    @property
    def envid(self) -> bytes: ...
    @property
    def hold(self) -> bytes:
        """What was said of it: `for;60`, `until;2027-01-15T08:10:00Z`; b"" for nothing."""
    @property
    def hold_until(self) -> int: ...
    @property
    def deliver_by(self) -> int: ...
    @property
    def by_return(self) -> bool: ...
    @property
    def by_trace(self) -> bool: ...
    @property
    def priority(self) -> int: ...
    @property
    def auth(self) -> bytes | None: ...
    @property
    def notices(self) -> list[tuple[int, bytes]] | None:
        """NOTIFY (bits) and ORCPT of each accepted recipient, once one of them came with any."""

class ServerConfig:
    """What all sessions of a listener share. Sizes in octets, 0 for no limit where that is the default.

    `refuse_mail` is a whole reply line (b"452 4.3.1 ...\r\n") that MAIL gets while the store is full; b"" else.
    """

    refuse_mail: bytes
    @property
    def greeting(self) -> bytes: ...
    def __init__(
        self,
        *,
        hostname: bytes,
        message_size: int,
        recipients: int,
        errors: int = 20,
        slow_errors: int = 0,  # from so many on SLOW is raised
        idle_commands: int = 0,  # commands that move no mail, between two messages
        mails: int = 0,  # MAIL commands in a session before it ends with 421; 0: any number (MAILMAX of RFC 9422)
        line: int = 2048,  # longest command line; RFC 5321 §4.5.3.1.4 asks for 512
        chunk: int = 262144,  # BODY is raised when so much of a text waits in memory
        starttls: bool = False,
        mechanisms: bytes = b"",  # EHLO's value of AUTH without TLS, and under it; b"": not offered there
        mechanisms_tls: bytes = b"",
        judge_sender: Callable[[bytes, str], bytes] | None = None,  # sender and user to b"" or a whole 5yz reply
        chunking: bool = False,  # offer CHUNKING and BINARYMIME (RFC 3030)
        lmtp: bool = False,  # LHLO, and a reply for each recipient at the end of a text (RFC 2033)
        # a mailbox beyond ASCII with the A-labels of its domain; b"" where these cannot be; None: it stays as it is
        ascii_mailbox: Callable[[bytes], bytes] | None = None,
        clock: Callable[[], int] | None = None,  # milliseconds since the epoch; FUTURERELEASE and DELIVERBY ask it
        hold: int = 0,  # seconds that mail may be held at most (RFC 4865)
        deliver_by: int = 0,  # seconds that BY must give at least where late mail goes back (RFC 2852)
        offers: int = 15,  # bits of EXTENSIONS; without more: PIPELINING, SIZE, 8BITMIME, ENHANCEDSTATUSCODES
        # These get the session's owner; see mta.protocol.server.
        gate: Callable[[Any], bytes] | None = None,
        refused: Callable[[Any, bytes, bytes], bytes] | None = None,
        commands: dict[bytes, Callable[[Any, bytes], bytes]] | None = None,
        keywords: tuple[bytes, ...] = (),
        tape: int = 0,  # octets of a session's tape (mta.protocol.tape), 0 for none
        tape_slow: int = 0,  # milliseconds; an answer that takes so long marks the tape. 0: none does
    ) -> None: ...

class ServerSession:
    """One connection from a client.

    `judge` is called with each syntactically good forward-path (mailbox octets, source route removed) and returns
    b"" to accept it or a whole reply to refuse it (b"550 5.7.1 ...\r\n"). The special path <Postmaster> is given
    as b"postmaster".
    Parked after MESSAGE: input that came behind the text is kept (at most one read's worth: the caller pauses
    reading while parked) and parsed by resume(). More than 1 MiB of it is dropped, and the session ends with 421
    behind the reply to the message.
    `judge` must not call the session. After an exception out of it the session can only be closed.
    """

    owner: Any  # whom the functions of the configuration are called with; None at first
    def __init__(self, config: ServerConfig, judge: Callable[[bytes], bytes]) -> None: ...
    def greet(self) -> int: ...
    def receive(self, buffer: Buffer, size: int) -> int:
        """Parse buffer[:size]; the buffer may be reused as soon as this returns."""
    def resume(self, reply: bytes) -> int:
        """Answer the parked message with a whole reply, end the transaction, go on with kept input.

        In LMTP each recipient gets this reply.
        """
    def take_auth(self) -> tuple[bytes, bytes | None]:
        """The mechanism in upper case, b"" for a response to a challenge; and the response.

        None: the command had no initial response, or the client gives up (`*`).
        """
    def challenge(self, data: bytes) -> int:
        """Say 334; the client's response raises AUTH again, unless it cannot be read, which ends the exchange."""
    def authenticated(self, reply: bytes, user: str) -> int:
        """The exchange is over; `user` is given back as it is, until TLS begins."""
    def auth_failed(self, reply: bytes) -> int: ...
    def wake(self) -> int:
        """After SLOW: let the replies go, and go on with kept input."""
    def restart(self, judge: Callable[[bytes], bytes], user: str) -> None:
        """From one of `commands`: the client is another one, and has not said HELO."""
    def close(self, reply: bytes) -> int:
        """End the session from outside (time-out, shutdown): the reply goes out last.

        While parked nothing is raised yet: the reply and CLOSE follow the reply to the message in resume().
        """
    def secured(self, config: ServerConfig | None = None) -> None:
        """The handshake is done: forget HELO and transaction (RFC 3207 §4.2); go on with this configuration."""
    def take_output(self) -> bytes: ...
    def take_body(self) -> bytes:
        """Octets of the text so far; each is given once.

        What came by DATA is dot-unstuffed, what came by BDAT is as it was. All line ends are CRLF, but for `binary`.
        """
    def take_tape(self) -> tuple[int, int, int, list[tuple[int, int, int, bytes] | None]]:
        """What was said last, as `mta.protocol.tape.Taken`; the mark goes."""
    @property
    def marked(self) -> bool:
        """There is a refusal on the tape, or an answer that took long."""
    @property
    def sender(self) -> bytes: ...
    @property
    def recipients(self) -> list[bytes]:
        """Those accepted so far. The list is given up, not emptied, when the transaction ends."""
    @property
    def options(self) -> MailOptions | None:
        """None in a plain transaction. Given up, not emptied, when the transaction ends."""
    @property
    def helo(self) -> bytes: ...
    @property
    def esmtp(self) -> bool: ...
    @property
    def tls(self) -> bool: ...
    @property
    def user(self) -> str:
        """Who is logged in; "" for nobody."""
    @property
    def eight_bit(self) -> bool: ...
    @property
    def binary(self) -> bool:
        """BODY=BINARYMIME: the text may hold any octet (RFC 3030 §3)."""
    @property
    def body_size(self) -> int:
        """Octets of the text so far, those already taken and those dropped included."""
    @property
    def parked(self) -> bool: ...
    @property
    def slowed(self) -> bool:
        """Parked between SLOW and wake(); close() ends it at once."""
    @property
    def lines(self) -> int:
        """Whole command lines so far."""
    @property
    def in_data(self) -> bool:
        """A text or a chunk of one is arriving: the data time-out counts."""
    @property
    def in_transaction(self) -> bool: ...
    @property
    def spoke(self) -> bool:
        """The client has sent a whole command: the greeting time-out no longer counts."""
    @property
    def errors(self) -> int:
        """Refusals (5xx) so far, those of `judge` and of texts included."""

# Flags of ClientSession.receive, besides OUTPUT, CLOSE and STARTTLS (begin the handshake, then call secured()).
READY: Final[int]  # greeting and EHLO are done; sent once
NEXT: Final[int]  # there is room for another offer()
SEND: Final[int]  # the peer waits for the text of the current transaction: call send_body()
DONE: Final[int]  # take_results() has something

class TransactionResult:
    """What came of one offered transaction. Replies are (code, text of all lines joined by "\n")."""

    token: object
    mail: tuple[int, str] | None  # None: no reply came
    recipients: list[tuple[int, str] | None]  # reply to each RCPT
    data: tuple[int, str] | None  # reply to DATA
    finals: list[tuple[int, str] | None]
    # SMTP: one reply to the final dot; LMTP: one for each recipient that was accepted, in order (RFC 2033 §4.2)
    dotted: bool  # the final dot was sent: without a reply to it the attempt is ambiguous

class ClientSession:
    """One connection to a server. `lmtp` says LHLO and reads a reply for each recipient after the text.

    At most two transactions are in hand: the current one, and the next, whose envelope rides in the same write as
    the final dot of the current one when the peer offers PIPELINING.
    """

    def __init__(
        self,
        helo: bytes,
        *,
        lmtp: bool = False,
        esmtp: bool = True,  # False: say HELO, for a server that ends the connection at EHLO
        starttls: bool = False,  # begin TLS where the peer offers it
        pipelining: bool = True,  # False: do without, even where the peer offers it
        tape: int = 0,  # as with ServerConfig
        tape_slow: int = 0,
    ) -> None: ...
    def receive(self, buffer: Buffer, size: int) -> int: ...
    def secured(self) -> int:
        """The handshake that STARTTLS asked for is done: forget what the peer offered, say EHLO again."""
    def offer(
        self,
        token: object,
        sender: bytes,
        recipients: Sequence[bytes],
        size: int,
        eight_bit: bool,
        mail_parameters: bytes = b"",  # more of MAIL, each with a blank before it
        rcpt_parameters: Sequence[bytes] = (),  # of each RCPT; empty: none
        chunked: bool = False,  # send the text by BDAT, in chunks as send_body() gets it
    ) -> int:
        """Give the next transaction; allowed after READY or NEXT. Returns flags. SIZE and BODY=8BITMIME are sent where
        the peer offers them."""
    def send_body(self, chunk: Buffer, last: bool) -> int:
        """Text of the current transaction: dot-stuffed into the output; with `last` the final dot (and, if it is
        known already, the next envelope) follows. Returns flags. A missing CRLF at the end is added.

        In a chunked transaction each call makes a BDAT with the octets as they are."""
    def quit(self) -> int:
        """Say QUIT; only when nothing is in hand."""
    def lost(self) -> int:
        """The connection ended: whatever is in hand becomes results with the replies known so far."""
    def take_output(self) -> bytes: ...
    def take_results(self) -> list[TransactionResult]: ...
    def take_tape(self) -> tuple[int, int, int, list[tuple[int, int, int, bytes] | None]]:
        """What was said last, as `mta.protocol.tape.Taken`; the mark goes."""
    @property
    def marked(self) -> bool:
        """An answer on the tape took long."""
    @property
    def greeting(self) -> tuple[int, str] | None: ...
    @property
    def extensions(self) -> dict[str, str]:
        """EHLO keywords in upper case, with their parameters."""
    @property
    def failure(self) -> tuple[int, str] | None:
        """Why the session cannot be used, when CLOSE was raised before or between transactions: the reply, or
        (0, text) for a broken protocol."""
    @property
    def in_hand(self) -> int:
        """Transactions offered and not yet in results: 0, 1 or 2."""
    @property
    def pipelining(self) -> bool: ...
    @property
    def tls(self) -> bool: ...
    @property
    def tls_refusal(self) -> tuple[int, str] | None:
        """What STARTTLS was answered, where that was no 220; the session goes on without."""
    @property
    def replies(self) -> int:
        """Whole replies so far: what tells an answer from octets that only drip."""
    @property
    def ended_in(self) -> str:
        """What was waited for when the session ended ("EHLO", "HANDSHAKE", "MAIL", ...); "" while it goes on."""
    @property
    def awaits_final(self) -> bool:
        """The final dot or the last chunk is sent, its reply is not here: the data time-out counts."""

def stuff(text: Buffer) -> bytes:
    """Dot-stuff a text (RFC 5321 §4.5.2)."""

def parse_path(argument: bytes, utf8: bool = False) -> tuple[bytes, int] | None:
    """The mailbox of a path "<...>" at the start of the argument and the offset behind it; None when malformed.

    b"" for the null path, b"postmaster" for <Postmaster> in any case. `utf8`: RFC 6531 §3.3 beside RFC 5321.
    """
