"""Lines of the mail log, as rows of the history. Pure.

    2026-11-23T12:00:00.123Z 1AHHN4AQ0C00 received client=192.0.2.1 helo=c from=<a@x> to=<b@y> recipients=1 size=4200
    2026-11-23T12:00:00.171Z 1AHHN4AQ0C00 delivered to=<b@y> relay=mx.y[192.0.2.9]:25 delay=0.1 status="250 2.0.0 ok"

Rows are tuples in the order of the columns in `mta.history.partition`.

Invariants
- A final state is what the server wrote as one: delivered, bounced (also where nobody was told), expired, deleted. An
  attempt that was deferred or failed is a step.
- Lines that are not understood are passed over: a log may be torn by a full disk, and other versions write others.
- An address may hold blanks, brackets and quotation marks; no status or reason holds a quotation mark (`quoted`), which
  is why lines with a status are read from their end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

from mta.history._scan import scan

DELIVERED: Final = 0
BOUNCED: Final = 1
EXPIRED: Final = 2
DELETED: Final = 3
STATES: Final = ("delivered", "bounced", "expired", "deleted")  # by number

_ID = re.compile("[0-9A-HJKMNP-TV-Z]{12}")
_TIME_IS_OVER = "5.4.7 "  # how the reason of what has expired begins (mta.queue.outcome)

_ADDRESS = r'((?:[^"<>]|"(?:[^"\\]|\\.)*")*)'
_RECEIVED = re.compile(
    rf"client=(\S+) helo=(\S*) from=<{_ADDRESS}> to=<{_ADDRESS}> recipients=(\d{{1,9}}) size=(\d{{1,15}})(?: (.*))?"
)
_MORE = r'(?: (?!delay=)[a-z_]+=[^\s"]*)*?'  # fields that say what the reply says as well
_ATTEMPT = re.compile(rf'to=(?:<(.*)>|\?) relay=([^"]*?)(?: delay=[\d.]+{_MORE})? status="([^"]*)"')
_NOTICE = re.compile(rf'to=<(.*)>(?: action=(\w+))? notice=(\w+|none \([^"]*?\)){_MORE} reason="([^"]*)"')
_FIELD = re.compile(r'(\w+)=("[^"]*"|<(?:[^"<>]|"(?:[^"\\]|\\.)*")*>|\S*)')
_PATH = re.compile(rf"(?:TO|FROM):\s*<{_ADDRESS}>", re.IGNORECASE)


class Ending(NamedTuple):
    """How it ended for one recipient. `sender` and what follows is None as long as nobody knows the arrival."""

    id: str
    at: int  # milliseconds since the epoch
    state: int
    recipient: str | None
    hop: str | None
    reply: str
    sender: str | None = None
    client: str | None = None
    size: int | None = None
    notes: str | None = None


class Arrival(NamedTuple):
    """A message that came, kept until all of it has ended."""

    id: str
    at: int
    sender: str
    client: str
    size: int | None
    recipient: str  # the first
    recipients: int
    notes: str | None


class Step(NamedTuple):
    """Anything else that happened to a message."""

    id: str
    at: int
    event: str
    recipient: str | None
    hop: str | None
    text: str


class Refusal(NamedTuple):
    """A command that was refused. `session` is the id that the client was told."""

    session: str
    at: int
    client: str
    helo: str | None
    verb: str
    sender: str | None
    recipient: str | None
    reply: str
    notes: str | None


EndingRow = tuple[str, int, int, str | None, str | None, str, str | None, str | None, int | None, str | None]
_SENDER = Ending._fields.index("sender")


@dataclass(slots=True)
class Digest:
    """What some lines say."""

    endings: list[EndingRow] = field(default_factory=list)  # see Ending
    arrivals: dict[str, Arrival] = field(default_factory=dict)  # of which not all has ended here
    steps: list[Step] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    hops: dict[tuple[str, str | None], str] = field(default_factory=dict)  # where the last attempt was made
    first: int = 0  # the time of the oldest line
    last: int = 0  # the time of the newest line

    def explain(self, arrival_of: Callable[[str], Arrival | None]) -> None:
        """Give endings the arrivals that were not known when they were read."""
        for number, row in enumerate(self.endings):
            if row[_SENDER] is None and (arrival := arrival_of(row[0])) is not None:
                self.endings[number] = joined(Ending(*row), arrival)

    def settle(self) -> None:
        """Give endings the arrivals that stand behind them: several processes write one log."""
        unknown = {row[0] for row in self.endings if row[_SENDER] is None}
        self.explain(self.arrivals.get)
        for name in unknown & self.arrivals.keys():
            if self.arrivals[name].recipients == 1:
                del self.arrivals[name]

    def cut(self, since: int, until: int) -> Digest:
        """What of it was in a stretch of time, [since, until)."""
        span = range(since, until)
        return replace(
            self,
            endings=[each for each in self.endings if each[1] in span],
            arrivals={name: each for name, each in self.arrivals.items() if each.at in span},
            steps=[each for each in self.steps if each.at in span],
            refusals=[each for each in self.refusals if each.at in span],
        )


def joined(ending: Ending, arrival: Arrival) -> Ending:
    """A final state with what its message is; one of a whole message with its recipients, in short."""
    recipient = ending.recipient
    if recipient is None:
        more = arrival.recipients - 1
        recipient = arrival.recipient + (f" and {more} more" if more > 0 else "")
    return ending._replace(
        recipient=recipient,
        sender=arrival.sender,
        client=arrival.client,
        size=arrival.size,
        notes=arrival.notes,
    )


def digest(data: bytes) -> Digest:
    """Whole lines. The two that nearly every message has, and no other, are read by `mta.history._scan`."""
    found = Digest()
    rows, lines, found.first, found.last = scan(data)
    found.endings.extend(rows)
    read_lines(found, lines)
    found.settle()
    return found


def read_lines(found: Digest, lines: Iterable[str]) -> None:
    """Any lines."""
    clock = _Clock()
    for line in lines:
        parts = line.split(" ", 3)
        if len(parts) == 4:
            at = clock.read(parts[0])
            if at >= 0:
                found.first = min(found.first or at, at)
                found.last = max(found.last, at)
                _take(found, at, parts[1], parts[2], parts[3])


def _take(found: Digest, at: int, name: str, event: str, rest: str) -> None:
    if _ID.fullmatch(name):
        _READERS.get(event, _other)(found, at, name, event, rest)
    elif event == "refused":
        _refused(found, at, name, rest)


class _Clock:
    """Reads time stamps; most lines of a log are of the second of the one before."""

    def __init__(self) -> None:
        self._text = ""
        self._base = 0

    def read(self, stamp: str) -> int:
        """Milliseconds since the epoch; -1: this is none."""
        if len(stamp) != 24 or stamp[23] != "Z" or not stamp[20:23].isdecimal():
            return -1
        if stamp[:19] != self._text:
            try:
                self._base = int(datetime.fromisoformat(stamp[:19] + "+00:00").timestamp()) * 1000
            except ValueError:
                return -1
            self._text = stamp[:19]
        return self._base + int(stamp[20:23])


def _received(found: Digest, at: int, name: str, event: str, rest: str) -> None:
    match = _RECEIVED.fullmatch(rest)
    if match is not None:
        client, _, sender, recipient, recipients, size, notes = match.groups()
        found.arrivals[name] = Arrival(name, at, sender, client, int(size), recipient, int(recipients), notes)


def _attempt(found: Digest, at: int, name: str, event: str, rest: str) -> None:
    match = _ATTEMPT.fullmatch(rest)
    if match is None:
        return
    recipient, hop, reply = match.groups()
    hop = "" if hop == "none" else hop
    if event == "delivered":
        _end(found, Ending(name, at, DELIVERED, recipient, hop, reply))
        return
    found.steps.append(Step(name, at, event, recipient, hop, reply))
    found.hops[name, recipient] = hop


def _notice(found: Digest, at: int, name: str, event: str, rest: str) -> None:
    match = _NOTICE.fullmatch(rest)
    if match is None:
        return
    recipient, action, notice, reason = match.groups()
    if _ID.fullmatch(notice):  # it has no line of its own that says that it came
        found.arrivals.setdefault(notice, Arrival(notice, at, "", "", None, "", 1, f"notice about {name}"))
    if event == "bounced":
        state = EXPIRED if reason.startswith(_TIME_IS_OVER) else BOUNCED
        _end(found, Ending(name, at, state, recipient, found.hops.get((name, recipient)), reason))
    found.steps.append(Step(name, at, "notified", recipient, None, f"{action or 'failed'}, notice {notice}"))


def _deleted(found: Digest, at: int, name: str, event: str, rest: str) -> None:
    _end(found, Ending(name, at, DELETED, None, None, rest))


def _other(found: Digest, at: int, name: str, event: str, rest: str) -> None:
    found.steps.append(Step(name, at, event, None, None, rest))


def _end(found: Digest, ending: Ending) -> None:
    arrival = found.arrivals.get(ending.id)
    if arrival is not None:
        ending = joined(ending, arrival)
        if arrival.recipients == 1:
            del found.arrivals[ending.id]
    found.endings.append(ending)


_READERS: dict[str, Callable[[Digest, int, str, str, str], None]] = {
    "received": _received,
    "delivered": _attempt,
    "deferred": _attempt,
    "failed": _attempt,
    "bounced": _notice,
    "notified": _notice,
    "deleted": _deleted,
}


def _refused(found: Digest, at: int, name: str, rest: str) -> None:
    fields = {key: value.strip('"') for key, value in _FIELD.findall(rest)}
    sender, path = fields.get("from"), fields.get("path", "")
    address = _PATH.search(path)
    verb = fields.get("verb", "")
    recipient = fields["to"][1:-1] if "to" in fields else None
    if address is not None:
        if verb == "MAIL":
            sender = f"<{address[1]}>"
        else:
            recipient = address[1]
    notes = " ".join(f"{key}={value}" for key, value in fields.items() if key not in _TAKEN) or None
    found.refusals.append(
        Refusal(
            name,
            at,
            fields.get("client", "-"),
            fields.get("helo"),
            verb,
            sender[1:-1] if sender is not None else None,
            recipient,
            fields.get("reply", ""),
            notes,
        )
    )


_TAKEN = frozenset({"client", "helo", "verb", "from", "to", "reply"})
