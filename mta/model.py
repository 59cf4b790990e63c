"""The words that all rooms share: ids, envelopes, replies, and the records between processes.

Nothing here touches a file, a socket or a clock, and nothing here imports another room.

Invariants
- A `MessageId` is unique over processes and restarts, and ids sort by the time of acceptance.
- Addresses are `bytes` as they came over the wire, without angle brackets. They become `str` only by an
  explicit decode where a person reads them.
- A `Ref` is opaque outside the store that made it.
- The *parts* of a message are its distinct recipient domains in the order of their first appearance. One part is
  one delivery: the unit that the queue manager schedules. The numbering follows from the envelope alone, so every
  process, and every restart, counts alike.
- Structs hold plain values and cannot be in a cycle, so the collector need not know them (gc=False).
- Records between processes are tagged msgspec structs in msgpack. `LINK_VERSION` is in every `Hello`; processes of
  one server are forked from one image, so a mismatch is a bug and ends the link.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NewType, Protocol

import msgspec

LINK_VERSION = 2
BUSY_IN_ONE_HELLO = 8000  # jobs of 11 octets each, well below a link's largest packet; fewer: it was the last

MessageId = NewType("MessageId", int)
Ref = NewType("Ref", int)

# ---- ids -------------------------------------------------------------------------------------------------------

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U to mishear
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES = {c: i for i, c in enumerate(_ALPHABET)} | {"I": 1, "L": 1, "O": 0}
EPOCH_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
_SEQUENCE_BITS = 12
_WORKER_BITS = 7
ID_LENGTH = 12
MAX_WORKERS = 1 << _WORKER_BITS


class IdSource:
    """Makes the ids of one worker: 41 bits of milliseconds, 7 of worker, 12 of sequence; 60 in all.

    `floor` is the newest id that this worker may have made in an earlier life; no id at or below its time is
    made again, even when the clock was set back meanwhile. More than 4,096 ids in a millisecond borrow from the
    next one.
    """

    __slots__ = ("_clock", "_sequence", "_worker")

    def __init__(self, worker: int, floor: int = 0) -> None:
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"worker {worker} is not in 0..{MAX_WORKERS - 1}")
        self._worker = worker << _SEQUENCE_BITS
        self._clock = id_time_ms(MessageId(floor)) + 1 if floor else 0
        self._sequence = 0

    def next(self, now_ms: int) -> MessageId:
        if now_ms > self._clock:
            self._clock = now_ms
            self._sequence = 0
        elif self._sequence == (1 << _SEQUENCE_BITS) - 1:
            self._clock += 1
            self._sequence = 0
        else:
            self._sequence += 1
        since = self._clock - EPOCH_MS
        return MessageId(since << (_WORKER_BITS + _SEQUENCE_BITS) | self._worker | self._sequence)


def id_time_ms(message_id: MessageId) -> int:
    """Milliseconds since the Unix epoch at which the id was made."""
    return (message_id >> (_WORKER_BITS + _SEQUENCE_BITS)) + EPOCH_MS


def first_id_at(ms: int) -> MessageId:
    """The lowest id that may be made at that time, in milliseconds since the Unix epoch; 0 before there were ids."""
    return MessageId(max(0, ms - EPOCH_MS) << (_WORKER_BITS + _SEQUENCE_BITS))


def id_text(message_id: int) -> str:
    """The id as people read it: twelve characters of base 32."""
    return _upper_text(message_id >> 20) + _PAIRS[message_id >> 10 & 1023] + _PAIRS[message_id & 1023]


@lru_cache(1024)
def _upper_text(bits: int) -> str:
    """The first eight characters, which all ids of two milliseconds share."""
    return _PAIRS[bits >> 30 & 1023] + _PAIRS[bits >> 20 & 1023] + _PAIRS[bits >> 10 & 1023] + _PAIRS[bits & 1023]


def parse_id(text: str) -> MessageId:
    """The id that a person typed; case does not matter, and I, L and O are read as 1, 1 and 0."""
    value = 0
    if len(text) != ID_LENGTH:
        raise ValueError(f"{text!r} is not a message id: one has {ID_LENGTH} characters")
    for character in text.upper():
        digit = _VALUES.get(character)
        if digit is None:
            raise ValueError(f"{text!r} is not a message id: {character!r} does not occur in one")
        value = value << 5 | digit
    return MessageId(value)


# ---- the message -----------------------------------------------------------------------------------------------


LOCAL_CLIENT = "unix"  # what stands for the address of a peer that came over a unix socket

NOTIFY_NEVER = 1  # RFC 3461 §4.1, bits of Recipient.notify
NOTIFY_SUCCESS = 2
NOTIFY_FAILURE = 4
NOTIFY_DELAY = 8

WANTS_TIME = 1  # bits of Arrival.wants: the message waits for a time, or must not be late
WANTS_HASTE = 2  # its priority is above the usual one
WANTS_BULK = 4  # its priority is below the usual one

TOLD_DELAY = 1  # bits of Change.told: the sender knows that it takes long
TOLD_LATE = 2  # and that the time it had set is past


class Recipient(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One forward-path (RFC 5321 §4.1.1.3), and what its sender wants to hear of it (RFC 3461)."""

    address: bytes
    notify: int = 0  # bits NOTIFY_...; 0: not given
    orcpt: bytes = b""  # "type;xtext" as it came


class Options(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """What only some messages have; in a struct of its own, so that all others spend one octet on it."""

    user: str = ""  # who was logged in; "" for nobody
    utf8: bool = False  # SMTPUTF8 was asked for (RFC 6531)
    binary: bool = False  # BODY=BINARYMIME (RFC 3030)
    require_tls: bool = False  # RFC 8689
    ret: str = ""  # "FULL" or "HDRS" in notices (RFC 3461 §4.3); "" not given
    envid: bytes = b""  # RFC 3461 §4.4, as xtext
    hold_until: int = 0  # milliseconds since the epoch before which it stays here (RFC 4865); 0: goes at once
    deliver_by: int = 0  # milliseconds since the epoch (RFC 2852); 0: whenever
    by_return: bool = False  # what is late goes back (by-mode R); else its sender is told (N)
    by_trace: bool = False
    priority: int = 0  # -9 to 9 (RFC 6710)
    auth: bytes | None = None  # AUTH= of MAIL as xtext (RFC 4954 §5); None: not given
    hold: str = ""  # what was said of hold_until: "for;60", "until;2030-01-31T12:00:00Z" (RFC 4865 §5.1.2)
    tenant: str = ""  # on whose account it goes; "" for nobody's
    pool: str = ""  # of sources that it leaves by; "" for what there is without any
    rank: int = 0  # the priority that it has here where its sender gave none; not told to other servers


class Envelope(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """What travels beside the text of a message. Fields are only ever appended: the spool keeps old ones."""

    sender: bytes  # reverse-path; b"" is the null one
    recipients: tuple[Recipient, ...]
    eight_bit: bool = False  # BODY=8BITMIME was declared (RFC 6152)
    client: str = ""  # address of the peer that gave it; LOCAL_CLIENT; "" for our own notices
    helo: bytes = b""
    options: Options | None = None


def wants_of(envelope: Envelope) -> int:
    """What an envelope asks of the queue, as bits WANTS_...; 0 for nearly all."""
    options = envelope.options
    if options is None:
        return 0
    time = WANTS_TIME if options.hold_until or options.deliver_by else 0
    priority = options.priority or options.rank
    return time | (WANTS_HASTE if priority > 0 else WANTS_BULK if priority < 0 else 0)


Lane = tuple[str, str]  # tenant and pool; either may be ""


def lane_of(envelope: Envelope) -> Lane | None:
    """Whose mail it is and where it leaves; None where it is nobody's and may leave anywhere, as nearly all may."""
    options = envelope.options
    return (options.tenant, options.pool) if options is not None and (options.tenant or options.pool) else None


def domain_of(address: bytes) -> bytes:
    """The domain of a mailbox, in lower case; b"" where there is none."""
    at = address.rfind(b"@")
    return address[at + 1 :].lower() if at >= 0 else b""


def part_domains(recipients: Sequence[Recipient]) -> list[bytes]:
    """The domain of each part of a message, in part order."""
    if len(recipients) == 1:
        return [domain_of(recipients[0].address)]
    return list(dict.fromkeys(domain_of(r.address) for r in recipients))


def part_members(recipients: Sequence[Recipient], part: int) -> list[int]:
    """The indexes of the recipients that belong to a part, in envelope order."""
    if len(recipients) == 1:
        return [0]
    wanted = part_domains(recipients)[part]
    return [i for i, r in enumerate(recipients) if domain_of(r.address) == wanted]


def all_part_members(recipients: Sequence[Recipient]) -> tuple[tuple[int, ...], ...]:
    """`part_members` of every part, in one pass."""
    parts: dict[bytes, list[int]] = {}
    for index, recipient in enumerate(recipients):
        parts.setdefault(domain_of(recipient.address), []).append(index)
    return tuple(map(tuple, parts.values()))


class Reply(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An SMTP reply: code, enhanced code ("" where the peer gave none; RFC 3463), text on one line."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code) if self.code else "", self.enhanced, self.text)))


# ---- where mail goes -------------------------------------------------------------------------------------------


class Hop(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One host to try; lower preferences first, equals in random order (RFC 5321 §5.1)."""

    preference: int
    host: str  # a name, an address, or the path of a unix socket


HopKind = Literal["smtp", "lmtp", "maildir", "discard", "hold"]


class Site(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What deliveries queue for: one set of hosts, or one local target. `name` is its canonical form."""

    name: str
    kind: HopKind
    hops: tuple[Hop, ...] = ()
    port: int = 25
    path: str = ""  # maildir: the template with {domain} and {local}
    connections: int = 20  # at most so many at once, over all couriers
    implicit: bool = False  # the host is the domain itself for want of an MX record
    messages_per_connection: int = 0  # after so many a connection is closed; 0: any number
    recipients_per_message: int = 0  # more are sent in several transactions; 0: any number


class Source(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Where mail leaves from. "" stands for: whatever address the kernel takes, or none of that family."""

    name: str  # "" for what there is without any [[source]]
    ipv4: str = ""
    ipv6: str = ""
    ehlo: str = ""  # what this server calls itself from there; "": its hostname


ANYWHERE = Source(name="")


# ---- records between processes ---------------------------------------------------------------------------------


class Arrival(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A message that is on disk now. `length` is its whole room in the log, for the store's own book-keeping."""

    id: int
    ref: int
    length: int
    size: int  # octets of content, trace header included
    domains: tuple[bytes, ...]  # one a part; empty: too many to send, they are read from the spool
    wants: int = 0  # bits WANTS_..., so that the queue manager need not read every envelope
    lane: Lane | None = None


class Arrivals(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """Receiver to queue manager, one a commit batch."""

    log: int
    messages: tuple[Arrival, ...]


class Position(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Receiver to queue manager: all before `ref` in this log is on disk, and arrivals may have been missed."""

    log: int
    ref: int


class Job(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One delivery for a courier to try now. Empty `pending` means all recipients of the part.

    `seat` is where the courier notes how far it came (`mta.net.seats`).
    """

    slot: int
    id: int
    ref: int
    part: int
    attempts: int
    seat: int = 0
    pending: tuple[int, ...] = ()
    urgent: bool = False  # goes before what waits already


class Jobs(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """Queue manager to courier. A site is described by a `SiteNews` before its number is first used.

    `life` is that of the courier it is meant for: its successor, which finds it in the link, leaves it alone, as the
    queue manager gives these jobs out again. 0: whoever reads it.
    """

    site: int
    jobs: tuple[Job, ...]
    life: int = 0


class SiteNews(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Queue manager to courier: what a site number stands for from now on; `connections` is this courier's share.

    Sent again whenever the share or another limit changes. A share of 0: what waits is given back.
    """

    number: int
    site: Site
    source: Source = ANYWHERE


class Status(enum.IntEnum):
    """What became of a recipient in one attempt."""

    DELIVERED = 1
    DEFERRED = 2
    FAILED = 3
    UNTRIED = 4  # given back without an attempt: the connection ended first, or the courier stops
    UNKNOWN = 5  # the final dot was sent and no reply to it came: it may or may not have been delivered


class Outcome(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The same result for some recipients. Empty `recipients` means all that the job named.

    `dsn_handed_on`, of delivered ones: the next host offers DSN and was given what their sender wants to hear, so it
    reports their success, not we (RFC 3461 §5.2.2). Without it a recipient that asked for success was "relayed".
    """

    status: Status
    reply: Reply
    hop: str = ""  # host and address that spoke; "" where none did
    recipients: tuple[int, ...] = ()
    dsn_handed_on: bool = False
    untimed: bool = False  # it must be there by a time, and the next host knows nothing of that (RFC 2852 §4.1.4.2)


class Result(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What came of a job. `id` and `part` say which; `slot` is where it was, in the life that gave the job out."""

    slot: int
    id: int
    part: int
    outcomes: tuple[Outcome, ...]
    seat: int = 0


class Results(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """Courier to queue manager. Empty `outcomes` of a result mean: all delivered, nothing to remember.

    Where a recipient asked to hear of success (NOTIFY_SUCCESS), what another host took is written out, with its reply.
    """

    results: tuple[Result, ...]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Opens a link, and opens it anew after either side was restarted.

    `life` tells one life of a process from the next. The queue manager says Hello to every peer when it starts; a
    courier answers, and also speaks unasked when it starts. `busy` are the (id, part) of jobs that the courier
    still has in hand: a queue manager that was restarted must not give these to anyone else.
    """

    version: int
    role: str  # "receiver" | "queue" | "courier"
    worker: int
    life: int
    busy: tuple[tuple[int, int], ...] = ()


class Bye(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The last record of a process that stops in good order; a courier has given all its jobs back."""

    worker: int


class Trouble(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a site did to a connection, or to an attempt to have one; `alive` others of this courier lived on.

    unreachable  no host would have us, and there is no other connection; what waited is given back with the reply
    refused      one was turned away, or ended by a 421
    cut          one broke under a mail
    """

    kind: Literal["unreachable", "refused", "cut"]
    reply: Reply
    hop: str = ""
    alive: int = 0


class SiteTraffic(msgspec.Struct, frozen=True, array_like=True):
    """What a courier saw of one site in the last `seconds`. `limited`: mail waited for more than its share."""

    site: int
    taken: int
    answered: int  # transactions; those taken included
    seconds: float
    busy: int  # connections with a mail in hand now
    open: int  # connections
    limited: bool = False
    troubles: tuple[Trouble, ...] = ()


class Traffic(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Courier to queue manager: a few times a second while something moves, and at once when there is trouble."""

    sites: tuple[SiteTraffic, ...]


LinkRecord = Arrivals | Position | Jobs | SiteNews | Results | Hello | Bye | Traffic


# ---- what a store does -----------------------------------------------------------------------------------------


class StoreError(Exception):
    """The store could not make something durable. `full`: for want of room, so 452 4.3.1; else 451 4.3.0."""

    def __init__(self, text: str, *, full: bool = False) -> None:
        super().__init__(text)
        self.full = full


class Body(Protocol):
    """A large text on its way into the store, written while it arrives."""

    size: int

    def write(self, chunk: bytes) -> None:
        """Append; StoreError when there is no room."""

    def discard(self) -> None:
        """The message was refused or given up: forget what was written."""


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message to be stored: its text is `head` (our trace header) followed by `body`."""

    id: MessageId
    envelope: Envelope
    head: bytes
    body: bytes | Body


Committed = Callable[[Sequence[object], Sequence[Arrival], StoreError | None], None]


class Intake(Protocol):
    """The side of a store that accepts messages: of receivers, and of the queue manager for its notices.

    `put` returns at once. When the batch that holds the message is on stable storage, or is known to have failed,
    the `Committed` callback given to the store gets the tokens of that batch in order, and for each its Arrival;
    on failure the arrivals are empty and the error says why. It runs in the event loop.
    """

    def put(self, draft: Draft, token: object) -> None:
        """Queue a message for the next commit; StoreError at once when the store is full or failed."""

    def commit(self) -> None:
        """Begin to commit what was put now, not only at the end of the loop turn."""

    @property
    def committing(self) -> bool:
        """Whether something that was put waits to be told by the callback."""

    def body(self, message_id: MessageId) -> Body:
        """Begin a large text."""

    @property
    def refusing(self) -> StoreError | None:
        """Why new mail would be refused now, before any of it was read; None when it would not."""


Kind = Literal["finished", "waiting", "held", "begun", "ambiguous"]


class Change(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """A new state of one part of a message: absolute, never a difference, so that replaying twice is harmless.

    `done` are recipients that are finished for good (delivered or bounced), and only ever grows. "begun": an attempt
    may have sent the text since; any later change says what came of it. "ambiguous": waiting, and an attempt whose
    result nobody knows may have delivered it.
    """

    ref: int
    id: int
    part: int
    kind: Kind
    attempts: int = 0
    due: int = 0  # seconds since the epoch; 0: now
    done: tuple[int, ...] = ()
    why: str = ""  # the last reply or reason, as `queue show` tells it
    told: int = 0  # bits TOLD_...: notices that its sender has got
    to: str = ""  # the next hop to which an operator sent it, as he wrote it; "": the rules decide


class Queued(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """One unfinished message as the store hands it out: parts with no change are as they arrived."""

    id: int
    ref: int
    size: int
    domains: tuple[bytes, ...]
    changes: tuple[Change, ...] = ()  # the newest of each part that has one, "finished" ones included
    wants: int = 0  # bits WANTS_...
    lane: Lane | None = None


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message read back. Exactly one of `content` and `path` is set: large texts stay in their file."""

    id: MessageId
    envelope: Envelope
    content: bytes
    path: str  # "" or the file whose octets from `offset` on follow `content`
    offset: int
    size: int  # octets in all
    checksum: int = 0  # crc32c of the octets in the file; 0: not known
    parts: tuple[tuple[int, ...], ...] = ()  # members of each part, where a message has many; else to be computed


class Glance(msgspec.Struct, frozen=True, gc=False):
    """What is told of a message without its text."""

    id: int
    envelope: Envelope
    size: int  # octets in all


class Reader(Protocol):
    """The side of a store that gives messages back: of couriers and of the queue manager."""

    def read(self, ref: Ref) -> Stored:
        """Envelope and text. StoreError when the record is damaged or gone."""

    def envelope(self, ref: Ref) -> Envelope:
        """The envelope alone."""

    def verify(self, stored: Stored) -> None:
        """StoreError unless a large text, if there is one, is as it was accepted. Reads all of it."""


class Store(Intake, Reader, Protocol):
    """What the queue manager holds: everything above, and the fate of each message."""

    def recover(self) -> Iterator[Queued]:
        """All unfinished messages, streamed; called once, first."""

    def claim(self, news: Arrivals | Position) -> Sequence[Queued]:
        """Which of the announced messages this node may deliver. May add messages whose news was lost."""

    async def glances(self, refs: Sequence[int]) -> list[Glance | None]:
        """Many envelopes, read beside the event loop; None for a record that is damaged or gone."""

    async def record(self, changes: Sequence[Change]) -> None:
        """Make changes durable; they are on disk when it returns."""

    def record_soon(self, changes: Sequence[Change], told: Callable[[], None] | None = None) -> None:
        """Make changes durable within a few milliseconds, without waiting for it; `told` is called when they are."""

    def begin(self, begun: Sequence[Change], told: Callable[[StoreError | None], None]) -> None:
        """Note, at once, that attempts begin; `told` when that is durable, or could not be and is forgotten.

        All that was recorded before is durable then, too.
        """


# ---- names -----------------------------------------------------------------------------------------------------


class LookupFailure(Exception):
    """A name has no usable answer. `permanent`: it will have none tomorrow either (RFC 5321 §5.1, RFC 7505)."""

    def __init__(self, reply: Reply, *, permanent: bool) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.permanent = permanent


class Resolver(Protocol):
    """Name look-ups, from a cache where it can. Both raise LookupFailure."""

    def mx(self, domain: str) -> Awaitable[tuple[Hop, ...]]:
        """The MX hosts of a domain; the domain itself at preference 0 when it has no MX but exists."""

    def addresses(self, host: str) -> Awaitable[tuple[str, ...]]:
        """IPv6 and IPv4 addresses of a host."""
