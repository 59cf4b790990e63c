"""What a courier tells: results to the queue manager, lines to the mail log, counters.

Invariants
- Every job ends in exactly one Result.
- Results leave in packets that fit the link whatever the peers said, `_FLUSH_AFTER` after the first or as soon as
  `_FLUSH_AT` have gathered: a packet of one costs the queue manager 19 us, in a full one a result costs 0.6.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from mta.deliver.work import Work
from mta.model import MessageId, Outcome, Reader, Reply, Result, Results, Status, StoreError, id_text, id_time_ms
from mta.net.link import BATCH, MAX_PACKET
from mta.observe.counters import INDEX
from mta.observe.maillog import MailLog, printable

_EVENTS = {Status.DELIVERED: "delivered", Status.DEFERRED: "deferred", Status.FAILED: "failed"}
_COUNTERS = {
    Status.DELIVERED: INDEX["deliveries_done"],
    Status.DEFERRED: INDEX["deliveries_deferred"],
    Status.FAILED: INDEX["deliveries_failed"],
}
_DONE = INDEX["deliveries_done"]
_ROOM = MAX_PACKET - (8 << 10)
_RESULT_WEIGHT = 32
_FLUSH_AFTER = 0.005  # seconds
_FLUSH_AT = 64
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
    ) -> None:
        self._loop = loop
        self._counters = counters
        self._maillog = maillog
        self._reader = reader
        self._send = send
        self._results: list[Result] = []
        self._timed = False

    def count(self, name: str) -> None:
        self._counters[INDEX[name]] += 1

    def delivered(self, work: Work, hop: str, status: str) -> None:
        """All recipients have it."""
        job = work.job
        tail = _tail(job.id, hop, status)
        name = id_text(job.id)
        for address in work.addresses:
            self._maillog(name, "delivered", f"to=<{printable(address)}>{tail}")
        self._counters[_DONE] += len(work.addresses)
        self._add(Result(job.slot, job.id, job.part, ()))

    def settled(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        """What became of the recipients; empty `recipients` of an outcome are all."""
        job = work.job
        try:
            work.address(self._reader)
        except StoreError:
            self._note_unreadable(work, outcomes)
        else:
            name = id_text(job.id)
            by_index = dict(zip(work.members, work.addresses, strict=True))
            for outcome in outcomes:
                self._note(job.id, name, outcome, [by_index[i] for i in outcome.recipients or work.members])
        self._add(Result(job.slot, job.id, job.part, tuple(outcomes)))

    def untried(self, work: Work) -> None:
        """Given back: this was no attempt."""
        self._add(Result(work.job.slot, work.job.id, work.job.part, _UNTRIED))

    def flush(self) -> None:
        """Send what has gathered."""
        results, self._results = self._results, []
        packet: list[Result] = []
        weight = 0
        for result in results:
            own = _weight(result) if result.outcomes else _RESULT_WEIGHT
            if len(packet) == BATCH or (packet and weight + own > _ROOM):
                self._send(Results(tuple(packet)))
                packet, weight = [], 0
            packet.append(result)
            weight += own
        if packet:
            self._send(Results(tuple(packet)))

    def _add(self, result: Result) -> None:
        self._results.append(result)
        gathered = len(self._results)
        if gathered >= _FLUSH_AT:
            self.flush()
        elif gathered == 1 and not self._timed:
            self._timed = True
            self._loop.call_later(_FLUSH_AFTER, self._flush_late)

    def _flush_late(self) -> None:
        self._timed = False
        self.flush()

    def _note(self, message_id: int, name: str, outcome: Outcome, addresses: Sequence[bytes]) -> None:
        tail = _tail(message_id, outcome.hop, str(outcome.reply))
        event = _EVENTS[outcome.status]
        for address in addresses:
            self._maillog(name, event, f"to=<{printable(address)}>{tail}")
        self._counters[_COUNTERS[outcome.status]] += len(addresses)

    def _note_unreadable(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        """The spool does not tell who the recipients are."""
        for outcome in outcomes:
            tail = _tail(work.job.id, outcome.hop, str(outcome.reply))
            self._maillog(id_text(work.job.id), _EVENTS[outcome.status], f"to=?{tail}")
            self._counters[_COUNTERS[outcome.status]] += 1


def _tail(message_id: int, hop: str, status: str) -> str:
    """The second half of a line. `hop` is printable already: it is made once a connection."""
    delay = time.time() - id_time_ms(MessageId(message_id)) / 1000
    said = printable(status)
    if '"' in said:
        said = said.replace('"', "'")
    return f' relay={hop or "none"} delay={delay if delay > 0 else 0.0:.1f} status="{said}"'


def _weight(result: Result) -> int:
    """Octets of the result on the link, at most."""
    return _RESULT_WEIGHT + sum(
        32 + 4 * (len(o.reply.text) + len(o.hop)) + 3 * len(o.recipients) for o in result.outcomes
    )
