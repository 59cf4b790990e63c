"""What a courier tells: results to the queue manager, lines to the mail log, counters.

Invariants
- Every job ends in exactly one Result.
- Results leave in packets that fit the link whatever the peers said, `_FLUSH_AFTER` after the first or as soon as
  `_FLUSH_AT` have gathered: a packet of one costs the queue manager 19 us, in a full one a result costs 0.6.
- What a job's seat says (`mta.net.seats`) is true before its result gathers.
- Log lines and counters of deliveries are made with the packet, in one go: between two network calls of the kernel the
  same work takes three times as long, for want of room in the processor's caches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from mta.deliver.outcomes import reply_of
from mta.deliver.work import Work
from mta.mail.replyclass import classify
from mta.model import (
    NOTIFY_SUCCESS,
    MessageId,
    Outcome,
    Reader,
    Reply,
    Result,
    Results,
    Status,
    StoreError,
    id_text,
    id_time_ms,
)
from mta.net.link import BATCH, MAX_PACKET
from mta.net.seats import DELIVERED, DOTTED, GIVEN, MIXED
from mta.observe.counters import INDEX
from mta.observe.maillog import MailLog, printable, quoted

_EVENTS = {
    Status.DELIVERED: "delivered",
    Status.DEFERRED: "deferred",
    Status.FAILED: "failed",
    Status.UNKNOWN: "deferred",
}
_COUNTERS = {
    Status.DELIVERED: INDEX["deliveries_done"],
    Status.DEFERRED: INDEX["deliveries_deferred"],
    Status.FAILED: INDEX["deliveries_failed"],
    Status.UNKNOWN: INDEX["deliveries_deferred"],
}
_DONE = INDEX["deliveries_done"]
_ROOM = MAX_PACKET - (8 << 10)
_RESULT_WEIGHT = 32
_FLUSH_AFTER = 0.010  # seconds
_FLUSH_AT = 128
_UNTRIED = (Outcome(Status.UNTRIED, Reply(0, "", "")),)


class Report:
    """One courier's."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        counters: memoryview,
        maillog: MailLog,
        reader: Reader,
        send: Callable[[Results], None],
        states: memoryview,
    ) -> None:
        self._loop = loop
        self._counters = counters
        self._maillog = maillog
        self._reader = reader
        self._send = send
        self.states = states
        self._gathered: list[Result | tuple[Work, str, str]] = []  # in full, or delivered: work, hop and status
        self._timed = False

    def count(self, name: str) -> None:
        self._counters[INDEX[name]] += 1

    def learnt(self, hop: str, lesson: str, seconds: float, why: str) -> None:
        """A host cannot do what it offers."""
        self.count("fallbacks")
        self._maillog("-", "fallback", f"relay={hop} without={lesson} seconds={seconds:g} reason={quoted(why)}")

    def delivered(
        self, work: Work, hop: str, status: str, *, tls: str = "", dsn_handed_on: bool = False, untimed: bool = False
    ) -> None:
        """All recipients have it. The queue manager hears more only where it has to tell a sender of it.

        `tls` is what the log says of the connection, a blank before it.
        """
        if work.traced or untimed or work.left_out or (work.notify & NOTIFY_SUCCESS and not dsn_handed_on):
            code, _, text = status.partition(" ")
            reply = reply_of(int(code), text)
            outcome = Outcome(Status.DELIVERED, reply, hop, dsn_handed_on=dsn_handed_on, untimed=untimed)
            self.settled(work, (outcome,), tls=tls)
            return
        self.states[work.job.seat] = DELIVERED
        self._add((work, hop + tls, status))

    def settled(self, work: Work, outcomes: Sequence[Outcome], *, tls: str = "") -> None:
        """What became of the recipients; empty `recipients` of an outcome are all."""
        outcomes = work.whole(outcomes)
        job = work.job
        self.states[job.seat] = _state_after(outcomes)
        try:
            work.address(self._reader)
        except StoreError:
            self._note_unreadable(work, outcomes)
        else:
            name = id_text(job.id)
            by_index = dict(zip(work.members, work.addresses, strict=True))
            for outcome in outcomes:
                self._note(job.id, name, outcome, [by_index[i] for i in outcome.recipients or work.members], tls)
        self._add(Result(job.slot, job.id, job.part, tuple(outcomes), job.seat))

    def untried(self, work: Work) -> None:
        """Given back: this was no attempt."""
        self._add(Result(work.job.slot, work.job.id, work.job.part, _UNTRIED, work.job.seat))

    def flush(self) -> None:
        """Send what has gathered."""
        gathered, self._gathered = self._gathered, []
        now = time.time()
        packet: list[Result] = []
        weight = 0
        for item in gathered:
            result = self._delivery(*item, now) if isinstance(item, tuple) else item
            own = _weight(result) if result.outcomes else _RESULT_WEIGHT
            if len(packet) == BATCH or (packet and weight + own > _ROOM):
                self._send(Results(tuple(packet)))
                packet, weight = [], 0
            packet.append(result)
            weight += own
        if packet:
            self._send(Results(tuple(packet)))

    def _add(self, item: Result | tuple[Work, str, str]) -> None:
        self._gathered.append(item)
        gathered = len(self._gathered)
        if gathered >= _FLUSH_AT:
            self.flush()
        elif gathered == 1 and not self._timed:
            self._timed = True
            self._loop.call_later(_FLUSH_AFTER, self._flush_late)

    def _flush_late(self) -> None:
        self._timed = False
        self.flush()

    def _delivery(self, work: Work, hop: str, status: str, now: float) -> Result:
        """Note that all recipients have it."""
        job = work.job
        delay = now - id_time_ms(MessageId(job.id)) / 1000
        for address in work.addresses:
            self._maillog.delivered(job.id, address, hop, delay, status)
        self._counters[_DONE] += len(work.addresses)
        return Result(job.slot, job.id, job.part, (), job.seat)

    def _note(self, message_id: int, name: str, outcome: Outcome, addresses: Sequence[bytes], tls: str) -> None:
        tail = _tail_of(outcome, message_id, outcome.hop and outcome.hop + tls)
        event = _EVENTS[outcome.status]
        for address in addresses:
            self._maillog(name, event, f"to=<{printable(address)}>{tail}")
        self._counters[_COUNTERS[outcome.status]] += len(addresses)

    def _note_unreadable(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        """The spool does not tell who the recipients are."""
        for outcome in outcomes:
            tail = _tail_of(outcome, work.job.id, outcome.hop)
            self._maillog(id_text(work.job.id), _EVENTS[outcome.status], f"to=?{tail}")
            self._counters[_COUNTERS[outcome.status]] += 1


def _state_after(outcomes: Sequence[Outcome]) -> int:
    """What a seat says of an attempt that not all recipients came through."""
    statuses = {outcome.status for outcome in outcomes}
    if statuses == {Status.DELIVERED}:
        return DELIVERED
    if Status.UNKNOWN in statuses:
        return DOTTED
    return MIXED if Status.DELIVERED in statuses else GIVEN


def _tail_of(outcome: Outcome, message_id: int, hop: str) -> str:
    """The second half of a line, with what a reply blames that took nothing. `hop` is printable already."""
    blame = "" if outcome.status is Status.DELIVERED else f" class={classify(outcome.reply)}"
    delay = max(0.0, time.time() - id_time_ms(MessageId(message_id)) / 1000)
    return f" relay={hop or 'none'} delay={delay:.1f}{blame} status={quoted(str(outcome.reply))}"


def _weight(result: Result) -> int:
    """Octets of the result on the link, at most."""
    return _RESULT_WEIGHT + sum(
        32 + 4 * (len(o.reply.text) + len(o.hop)) + 3 * len(o.recipients) for o in result.outcomes
    )
