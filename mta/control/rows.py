"""What the server tells, typed: the rows and ends of the control protocol. Unknown fields are passed over.

All times are seconds since the epoch, ages and waits are seconds, sizes are octets.
"""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ready", "active", "deferred", "held", "resolving", "ambiguous"]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `queue.list`: a message and one of its recipient domains."""

    id: str
    state: State
    sender: str  # "" is the null reverse-path; "?": the record is damaged
    recipients: tuple[str, ...] = ()  # those that are not finished
    size: int = 0
    age: float = 0.0
    attempts: int = 0
    next: float | None = None  # the next attempt; None: it waits for no time
    domain: str = ""
    site: str = ""
    reason: str = ""  # the last reply, or why it is held


class SummaryLine(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `queue.summary`: what has something in common, counted in deliveries."""

    name: str
    total: int
    ages: tuple[int, ...]  # by the age of the message; the bounds are in the end of the answer


class PartRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """A recipient in `queue.show`."""

    address: str
    state: Literal["pending", "done"]
    notify: tuple[str, ...] = ()
    orcpt: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The recipients of a message in one domain."""

    domain: str
    state: State
    site: str = ""
    attempts: int = 0
    next: float | None = None
    reason: str = ""
    told: tuple[str, ...] = ()
    recipients: tuple[PartRecipient, ...] = ()


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What `queue.show` tells."""

    id: str
    sender: str
    size: int = 0
    age: float = 0.0
    arrived: float = 0.0
    parts: tuple[Part, ...] = ()
    wishes: dict[str, object] = {}


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb that changes the queue did, or would do."""

    messages: int
    operation: int = 0  # its number in `queue.log`; 0: a dry run, or nothing was chosen
    sample: tuple[Delivery, ...] = ()  # of a dry run: the first ones


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `queue.log`."""

    number: int
    began: float
    ended: float | None  # None: under way, or cut short by a crash
    uid: int
    user: str
    verb: str
    filter: str
    arguments: dict[str, object] = {}
    messages: int = 0
    result: str = ""  # "done", or why not


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """What `hello` tells."""

    version: int
    user: str
    role: Literal["viewer", "admin"]
    verbs: tuple[str, ...]


class SiteRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `site.list`."""

    site: str
    source: str = ""
    kind: str = ""
    state: str = ""
    ready: int = 0
    in_hand: int = 0
    open: int = 0
    connections: int = 0
    rate: str = ""
    why: str = ""
