"""Failed recipients: one notice to the sender for each message and attempt, then the delivery goes on or ends.

Invariants
- INVARIANT: the change that finishes failed recipients is recorded only after the notice about them is durable.
- No notice for a null reverse-path (RFC 5321 §4.5.5), and so none about a notice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass

from mta.mail.dsn import Failure, compose
from mta.model import Arrival, Arrivals, Draft, Envelope, IdSource, Recipient, Ref, Stored, StoreError, id_text
from mta.observe.counters import INDEX
from mta.observe.maillog import printable, quoted
from mta.queue.manager import QueueManager
from mta.queue.outcome import Verdict

_AGAIN = 1.0  # seconds before a notice that could not be stored is put again
_LATER = 60.0  # seconds before a delivery whose notice found no room at all is looked at again


@dataclass(frozen=True, slots=True)
class _Notice:
    """A notice on its way to the disk, and the delivery that waits, idle, until it is there."""

    draft: Draft
    slot: int
    original: int
    part: int
    verdict: Verdict
    failed: frozenset[int]


class Notifier:
    """Composes and stores notices. `committed` is the store's callback."""

    def __init__(self, hostname: str, log: int, loop: asyncio.AbstractEventLoop) -> None:
        self._hostname = hostname
        self._log = log
        self._loop = loop
        self._ids = IdSource(log)
        self._manager: QueueManager | None = None

    def attach(self, manager: QueueManager, floor: int) -> None:
        self._manager = manager
        self._ids = IdSource(self._log, floor)

    def failed(self, manager: QueueManager, slot: int, verdict: Verdict) -> None:
        """Recipients of the delivery in this (idle) slot failed for good."""
        now = time.time()
        try:
            stored = manager.store.read(Ref(manager.arena.ref(slot)))
        except StoreError as error:
            self._unreadable(manager, slot, error)
            return
        failures, indexes = self._failures(manager, slot, stored, verdict)
        draft = self._compose(stored, failures, now) if stored.envelope.sender else None
        if draft is not None and not self._has_room(manager, slot, draft):
            return
        self._note(manager, slot, failures, draft)
        if draft is None:
            self._go_on(manager, slot, verdict, indexes)
            return
        arena = manager.arena
        self._put(_Notice(draft, slot, arena.id(slot), arena.part(slot), verdict, frozenset(indexes)))

    def committed(self, tokens: Sequence[object], arrivals: Sequence[Arrival], error: StoreError | None) -> None:
        """Notices are on disk, or failed to get there: then they are put again."""
        manager = self._manager
        assert manager is not None
        for token in tokens:
            assert isinstance(token, _Notice)
            if error is not None:
                self._loop.call_later(_AGAIN, self._put, token)
            else:
                self._told(manager, token)
        if arrivals:
            manager.arrived(Arrivals(self._log, tuple(arrivals)))
            manager.dispatch()

    # ---- inside

    def _told(self, manager: QueueManager, notice: _Notice) -> None:
        """A notice is on disk: now the failed recipients may be finished, unless an operator deleted them meanwhile."""
        if manager.arena.holds(notice.slot, notice.original, notice.part):
            self._go_on(manager, notice.slot, notice.verdict, notice.failed)

    def _failures(
        self, manager: QueueManager, slot: int, stored: Stored, verdict: Verdict
    ) -> tuple[list[Failure], set[int]]:
        failures: list[Failure] = []
        indexes: set[int] = set()
        recipients = stored.envelope.recipients
        for group in verdict.failures:
            for index in group.recipients or manager.left(slot):
                if index not in indexes:
                    indexes.add(index)
                    failures.append(Failure(recipients[index].address, group.reply, group.hop))
        return failures, indexes

    def _compose(self, stored: Stored, failures: list[Failure], now: float) -> Draft:
        notice_id = self._ids.next(int(now * 1000))
        text = compose(
            hostname=self._hostname,
            notice_id=notice_id,
            original_id=stored.id,
            sender=stored.envelope.sender,
            failures=failures,
            original=stored.content + _beginning(stored),
            now=int(now),
        )
        envelope = Envelope(sender=b"", recipients=(Recipient(stored.envelope.sender),))
        return Draft(notice_id, envelope, b"", text)

    def _has_room(self, manager: QueueManager, slot: int, draft: Draft) -> bool:
        refusing = manager.store.refusing
        if refusing is None:
            return True
        manager.arena.set_why(slot, manager.reasons.number(f"its notice cannot be stored: {refusing}"))
        due = time.time() + _LATER
        manager.arena.schedule(slot, manager.tick(due))
        manager.record(manager.change(slot, "waiting", due))
        return False

    def _go_on(self, manager: QueueManager, slot: int, verdict: Verdict, failed: Set[int]) -> None:
        """What becomes of the delivery once the failed recipients are told."""
        left = set(manager.left(slot)) - failed - set(verdict.delivered)
        if verdict.deferred and left:
            manager.note_done(slot, failed)
            change = manager.defer(slot, verdict, time.time())
        else:
            change = manager.finish(slot)
        manager.record(change)

    def _put(self, notice: _Notice) -> None:
        manager = self._manager
        assert manager is not None
        try:
            manager.store.put(notice.draft, notice)
        except StoreError:
            self._loop.call_later(_AGAIN, self._put, notice)

    def _note(self, manager: QueueManager, slot: int, failures: list[Failure], draft: Draft | None) -> None:
        told = f"notice={id_text(draft.id)}" if draft is not None else "notice=none (null reverse-path)"
        for failure in failures:
            manager.log(
                slot,
                "bounced",
                f"to=<{printable(failure.address)}> {told} reason={quoted(str(failure.reply))}",
            )
        if draft is not None:
            manager.counters[INDEX["bounces_made"]] += 1

    def _unreadable(self, manager: QueueManager, slot: int, error: StoreError) -> None:
        """The message cannot be read: it stays in the queue, held, for a person to look at."""
        manager.arena.set_why(slot, manager.reasons.number(f"its record cannot be read: {error}"))
        manager.log(slot, "unreadable", f"reason={quoted(str(error))}")
        manager.record(manager.hold_idle(slot, keep_reason=True))


def _beginning(stored: Stored) -> bytes:
    """The first octets of a body in a file of its own: the headers are there."""
    if not stored.path:
        return b""
    try:
        with open(stored.path, "rb") as file:
            file.seek(stored.offset)
            return file.read(64 << 10)
    except OSError:
        return b""
