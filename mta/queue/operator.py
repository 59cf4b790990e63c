"""What operators ask of the queue: choose, look, and act (`mta.queue.deeds`).

Choosing streams: a million deliveries are looked at in slices, so that mail goes on meanwhile (`mta.queue.choice`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

import msgspec

from mta.model import Envelope, Glance, Ref, StoreError, id_text, parse_id
from mta.observe.maillog import printable
from mta.queue import _arena
from mta.queue.audit import Audit, Doer
from mta.queue.branches import Case, tree
from mta.queue.choice import Choice
from mta.queue.deeds import Deeds, Order
from mta.queue.explain import Facts, State, explain
from mta.queue.exports import Exporter
from mta.queue.filter import AMBIGUOUS, STATE_NAMES, parse_filter
from mta.queue.imports import Importer
from mta.queue.listing import ANY, Rows
from mta.queue.manager import QueueManager
from mta.queue.overview import Overview
from mta.queue.parameters import dsn, wishes
from mta.queue.site_desk import SiteDesk
from mta.queue.summary import AGES, summary
from mta.queue.suppression_desk import SuppressionDesk

_TOLD = ((_arena.TOLD_DELAY, "delayed"), (_arena.TOLD_LATE, "late"))  # as `queue show` names the marks

_ROWS = 250  # made in one turn of the loop
_encode = msgspec.json.Encoder().encode

Row = dict[str, object]


class Operator:
    """The verbs of the control socket. ValueError: the filter or id is wrong, and how."""

    def __init__(
        self, manager: QueueManager, status: Callable[[], Row], audit: Audit, importer: Importer | None = None
    ) -> None:
        self.overview: Overview | None = None
        self._manager = manager
        self._audit = audit
        self._deeds = Deeds(manager, audit, importer.new_id if importer is not None else None)
        self.status = status
        self._suppression = manager.suppression
        self.sites = SiteDesk(manager, audit)
        self._importer = importer

    @property
    def suppression(self) -> SuppressionDesk:
        """The list of those who are not written to."""
        if self._suppression is None:
            raise ValueError("this server has no suppression list")
        return SuppressionDesk(self._suppression, self._manager.maillog)

    # ---- looking

    async def count(self, words: Sequence[str]) -> int:
        """Messages chosen."""
        return await self._chosen(words).count()

    async def listing(self, words: Sequence[str], limit: int) -> AsyncGenerator[list[bytes], None]:
        """One row a delivery, in JSON, many at once; `limit` 0 means all."""
        rows, given = Rows(self._manager), 0
        async with contextlib.aclosing(self._chosen(words).found(read=True)) as batches:
            async for batch in batches:
                for first in range(0, len(batch), _ROWS):
                    some = batch[first : first + min(_ROWS, limit - given if limit else _ROWS)]
                    yield [_encode(rows.row(entry, glance)) for entry, glance in some]
                    given += len(some)
                    if given == limit:
                        return
                    await asyncio.sleep(0)

    async def show(self, text: str) -> Row | None:
        """All that is known of one message."""
        slots = self._manager.arena.find(parse_id(text))
        if not slots:
            return None
        slots.sort(key=self._manager.arena.part)
        row = self._row(slots[0])
        row["arrived"] = self._manager.arrival(slots[0])
        envelope = self._envelope(slots[0])
        row["wishes"] = wishes(envelope) if envelope is not None else {}
        row["parts"] = [self._part(slot) for slot in slots]
        return row

    async def explain(self, text: str) -> Row | None:
        """Why each part of a message is where it is."""
        slots = self._manager.arena.find(parse_id(text))
        if not slots:
            return None
        slots.sort(key=self._manager.arena.part)
        return {"id": id_text(parse_id(text)), "parts": [self._explained(slot) for slot in slots]}

    async def summary(self, words: Sequence[str], by: str) -> tuple[Sequence[int], list[Row]]:
        """The bounds of the ages, in seconds, and the lines of the table, the longest first."""
        lines = await summary(self._chosen(words), self._manager, by)
        return AGES, [{"name": printable(line.name), "total": line.total, "ages": line.ages} for line in lines]

    # ---- acting

    async def act(self, order: Order) -> Row:
        """Whatever changes many messages: hold, delete, ...; see `mta.queue.deeds`."""
        return await self._deeds.carry_out(order)

    async def export(self, words: Sequence[str], doer: Doer) -> AsyncGenerator[Row, None]:
        """Rows that another server takes back; see `mta.queue.exports`."""
        exporter = Exporter(self._manager, self._chosen(words))
        number = await self._audit.begin(doer, "export", words, {})
        result = "cancelled"
        try:
            async with contextlib.aclosing(exporter.rows()) as rows:
                async for row in rows:
                    yield row
            result = "done"
        finally:
            self._audit.end(number, exporter.messages, result)

    @property
    def importer(self) -> Importer:
        if self._importer is None:
            raise ValueError("this queue takes no mail from others")
        return self._importer

    async def take(self, messages: list[Mapping[str, object]], doer: Doer) -> list[str]:
        """Messages of an export, whole ones; their ids here, once they are on disk."""
        return await self._taken(self.importer.whole(messages, doer), doer)

    async def take_upload(self, upload: int, tail: Mapping[str, object], doer: Doer) -> list[str]:
        """The end of a message that came in parts; its id here, once it is on disk."""
        return await self._taken(self.importer.finish(upload, tail, doer), doer)

    async def _taken(self, taking: Awaitable[list[str]], doer: Doer) -> list[str]:
        number = await self._audit.begin(doer, "import", [], {})
        taken: list[str] = []
        try:
            taken = await taking
        finally:
            self._audit.end(number, len(taken), "done" if taken else "failed")
        return taken

    async def log(self, limit: int) -> list[Row]:
        """What was done by hand; the newest first."""
        return await self._audit.log(limit)

    # ---- choosing

    def _chosen(self, words: Sequence[str]) -> Choice:
        return Choice(parse_filter(words), self._manager)

    # ---- rows

    def _envelope(self, slot: int) -> Envelope | None:
        try:
            return self._manager.store.envelope(Ref(self._manager.arena.ref(slot)))
        except StoreError:
            return None

    def _row(self, slot: int) -> Row:
        """A row of `list`."""
        arena = self._manager.arena
        entry = arena.entry(slot, ANY)
        assert entry is not None
        try:
            stored = self._manager.store.read(Ref(entry[2]))
            glance = Glance(stored.id, stored.envelope, stored.size)
        except StoreError:  # a damaged record: the rest is still worth seeing
            glance = None
        return Rows(self._manager).row(entry, glance)

    def _part(self, slot: int) -> Row:
        manager, arena = self._manager, self._manager.arena
        envelope = self._envelope(slot)
        done = set(manager.extras.done.get(slot, ()))
        recipients = envelope.recipients if envelope is not None else ()
        return {
            "domain": printable(manager.domains[arena.domain(slot)]),
            "state": self._state(slot),
            "site": self._site(slot),
            **({"source": source} if (source := self._source(slot)) else {}),
            "attempts": arena.attempts(slot),
            "next": self._next(slot),
            "reason": printable(manager.reasons.text(arena.why(slot))),
            "told": [text for bit, text in _TOLD if arena.marks(slot) & bit],
            "recipients": [
                {
                    "address": printable(recipients[i].address),
                    "state": "done" if i in done else "pending",
                    **dsn(recipients[i]),
                }
                for i in (manager.members(slot) if recipients else ())
            ],
        }

    def _explained(self, slot: int) -> Row:
        manager, arena = self._manager, self._manager.arena
        queue = manager.sites.by_number[arena.site(slot)]
        now = manager.clock()
        facts = Facts(
            id=id_text(arena.id(slot)),
            state=self._state(slot),
            domain=printable(manager.domains[arena.domain(slot)]),
            site=self._site(slot),
            kind=queue.site.kind,
            attempts=arena.attempts(slot),
            reason=printable(manager.reasons.text(arena.why(slot))),
            wait=(self._next(slot) or now) - now,
            expiry=manager.wishes.ends(slot) - now,
            embargo=bool(arena.marks(slot) & _arena.EMBARGOED),
            ready_here=arena.length(queue.ready),
            in_hand=sum(queue.in_flight.values()),
            window=queue.window,
            couriers=len(manager.couriers.alive),
            recovered=manager.attempts.opened,
            trouble=manager.attempts.trouble,
            gate=printable(manager.regulator.sentence(queue)),
        )
        branches = tree(Case(facts, manager, slot, queue, self._envelope(slot), now))
        return {"domain": facts.domain, "state": facts.state, "why": explain(facts), "tree": branches}

    def _state(self, slot: int) -> State:
        if slot in self._manager.extras.ambiguous:
            return AMBIGUOUS
        return STATE_NAMES[self._manager.arena.state(slot)]

    def _next(self, slot: int) -> float | None:
        """When the next attempt is due, in seconds since the epoch; None where it waits for no time."""
        manager = self._manager
        if manager.arena.state(slot) != _arena.DEFERRED:
            return None
        return round(manager.seconds(manager.arena.due(slot)), 3)

    def _source(self, slot: int) -> str:
        number = self._manager.arena.site(slot)
        return self._manager.sites.by_number[number].source.name if number else ""

    def _site(self, slot: int) -> str:
        return self._manager.site_name(self._manager.arena.site(slot))
