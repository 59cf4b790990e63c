"""What operators do to many deliveries at once: a row a verb.

    order    who, which verb, which filter, what else it needs; for a dry run it ends at the choice
    choice   all that the filter chooses, in states that the verb is for: nothing is touched before it is whole
    work     in slices, each recorded in the turn of the loop in which it was done; mail goes on between them
    end      when all of it is on disk

Invariants
- INVARIANT: a change is given to the store in the turn in which the queue was changed: no attempt of the delivery can
  be noted before it.
- A delivery that was given to a courier, ended or changed hands since it was chosen is left alone.
- At most `_MOST_UNWRITTEN` slices wait for the disk. Cancelling stops behind a slice; what was done is recorded.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mta.model import Change, MessageId, StoreError, id_text
from mta.observe.maillog import printable
from mta.queue import _arena
from mta.queue.audit import Audit, Doer
from mta.queue.choice import Choice
from mta.queue.edits import Editing, NewAddresses
from mta.queue.filter import STATE_NAMES, parse_filter
from mta.queue.listing import Rows
from mta.queue.manager import QueueManager
from mta.queue.routing import operators_hop

_SLICE = 200  # deliveries in one turn of the loop
_MOST_UNWRITTEN = 64  # slices
_SAMPLE = 10  # rows of a dry run
_PATIENCE = 60.0  # seconds for the disk

Row = dict[str, object]
Act = Callable[[int], Change | None]


class TooMany(Exception):
    """More messages than the order allows."""

    def __init__(self, messages: int) -> None:
        super().__init__(f"it is {messages} messages; say that so many are meant")
        self.messages = messages


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants done. `most`: no more messages than that; 0: any number."""

    doer: Doer
    verb: str
    words: Sequence[str]
    arguments: Mapping[str, object] = field(default_factory=dict)
    dry_run: bool = False
    most: int = 0


class Case(NamedTuple):
    """What a deed is made of."""

    manager: QueueManager
    order: Order
    chosen: Choice
    number: int  # of the operation
    new_id: Callable[[], MessageId] | None = None

    @property
    def by(self) -> str:
        return printable(self.order.doer.name)

    def text(self, name: str) -> str:
        value = self.order.arguments.get(name, "")
        if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
            raise ValueError(f"{name} must be a line of at most 200 characters")
        return value


@dataclass(frozen=True, slots=True)
class Deed:
    """A verb. `make` gives what is done to a slot; ValueError: the order is wrong. `spare`: marks that protect."""

    event: str  # in the mail log
    states: frozenset[int]
    make: Callable[[Case], Act]
    spare: int = 0
    heavy: bool = False  # each reads a message and writes one


_QUIET = frozenset((_arena.READY, _arena.DEFERRED, _arena.RESOLVING, _arena.HELD))


def _hold(case: Case) -> Act:
    by = f"held by {case.by} (hold {case.number})"
    return lambda slot: case.manager.by_hand.hold(slot, by)


def _release(case: Case) -> Act:
    """Its sender's own hold time counts again, unless it is named by its id."""
    by_hand = case.manager.by_hand
    return by_hand.release if case.chosen.ids is None else by_hand.retry_now


def _delete(case: Case) -> Act:
    """A filter that names recipients takes only these out of a message."""
    by_hand, chosen = case.manager.by_hand, case.chosen
    if not chosen.by_recipient:
        return by_hand.delete
    arena = case.manager.arena
    return lambda slot: by_hand.drop(slot, chosen.recipients(slot)) if arena.state(slot) in _QUIET else None


def _some(case: Case, slot: int) -> Sequence[int] | None:
    """The recipients that are meant; None: all."""
    return case.chosen.recipients(slot) if case.chosen.by_recipient else None


def _expire(case: Case) -> Act:
    cause = f"given up by {case.by}"
    return lambda slot: case.manager.by_hand.give_up(slot, cause, _some(case, slot))


def _bounce(case: Case) -> Act:
    reason = case.text("reason") or "refused by the postmaster of this server"
    return lambda slot: case.manager.by_hand.bounce(slot, reason, _some(case, slot))


def _reroute(case: Case) -> Act:
    hop = case.text("to")
    if not hop:
        raise ValueError("to is missing: where shall it go? smtp:HOST[:PORT], lmtp:HOST:PORT, hold:, discard: or rules")
    if hop == "rules":
        hop = ""
    else:
        operators_hop(hop)
    return lambda slot: case.manager.by_hand.reroute(slot, hop)


def _edit(case: Case) -> Act:
    if case.new_id is None:
        raise ValueError("this queue takes no new mail, which an edited message is")
    arguments = case.order.arguments
    new = NewAddresses(arguments.get("sender"), arguments.get("recipients"))
    return Editing(case.manager, case.new_id, new, case.by, case.number)


DEEDS: dict[str, Deed] = {
    "hold": Deed("held", _QUIET - {_arena.HELD} | {_arena.ACTIVE}, _hold),
    "release": Deed("released", frozenset((_arena.HELD,)), _release),
    "undo": Deed("unheld", frozenset((_arena.HELD, _arena.ACTIVE)), lambda case: case.manager.by_hand.unhold),
    "retry": Deed(
        "retried", frozenset((_arena.DEFERRED,)), lambda case: case.manager.by_hand.retry_now, spare=_arena.EMBARGOED
    ),
    "delete": Deed("deleted", frozenset(STATE_NAMES), _delete),
    "expire": Deed("expired", _QUIET, _expire, heavy=True),
    "bounce": Deed("refused", _QUIET, _bounce, heavy=True),
    "edit": Deed("edited", _QUIET, _edit, spare=_arena.EMBARGOED, heavy=True),
    "reroute": Deed("rerouted", _QUIET, _reroute, spare=_arena.EMBARGOED),
}


class Deeds:
    """Carries orders out, one after another."""

    def __init__(self, manager: QueueManager, audit: Audit, new_id: Callable[[], MessageId] | None = None) -> None:
        self._manager = manager
        self._audit = audit
        self._new_id = new_id

    async def carry_out(self, order: Order) -> Row:
        """What was done, or for a dry run would be. ValueError, TooMany, StoreError."""
        deed = DEEDS[order.verb]
        if order.verb == "undo":
            order = await self._undoing(order)
        chosen = Choice(parse_filter(order.words), self._manager)
        deed.make(Case(self._manager, order, chosen, 0, self._new_id))
        picked = Picked(self._manager, deed, chosen)
        await picked.pick()
        if order.verb == "undo":
            picked.add_active(f"(hold {order.arguments['operation']})")
        messages = picked.messages()
        if order.dry_run:
            return {"messages": messages, "operation": 0, "sample": picked.sample}
        if order.most and messages > order.most:
            raise TooMany(messages)
        if not messages:
            return {"messages": 0, "operation": 0}
        number = await self._audit.begin(order.doer, order.verb, order.words, order.arguments)
        act = deed.make(Case(self._manager, order, chosen, number, self._new_id))
        work = Work(self._manager, deed, act, f"by={printable(order.doer.name)} operation={number}")
        result = "cancelled"
        try:
            await work.do(picked)
            if isinstance(act, Editing):
                await act.finish()
            result = "done"
        except StoreError as error:
            result = f"the spool says: {error}"
            raise
        finally:
            self._audit.end(number, work.messages(), result)
        await self._audit.settle()
        return {"messages": work.messages(), "operation": number}

    async def _undoing(self, order: Order) -> Order:
        """Undo has no filter of its own, but the number of a hold."""
        number = order.arguments.get("operation")
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError("operation must be the number of a hold; `mta queue log` has them")
        verb = await self._audit.verb(number)
        if verb is None:
            raise ValueError(f"there was no operation {number}; `mta queue log` has them")
        if verb != "hold":
            raise ValueError(f"operation {number} was {verb}, which cannot be taken back; only hold can")
        return Order(order.doer, order.verb, (f"hold={number}",), order.arguments, order.dry_run, order.most)


class Picked:
    """The deliveries that an order is about: 14 octets each, for there may be millions."""

    def __init__(self, manager: QueueManager, deed: Deed, chosen: Choice) -> None:
        self._manager = manager
        self._deed = deed
        self._chosen = chosen
        self._spare = 0 if chosen.ids is not None else deed.spare
        self._single = 0
        self._several: set[int] = set()
        self.slots = array("I")
        self.ids = array("Q")
        self.parts = array("H")
        self.sample: list[Row] = []

    async def pick(self) -> None:
        states, spare = self._deed.states, self._spare
        rows = Rows(self._manager)
        async for batch in self._chosen.found():
            for entry, _ in batch:
                if entry[5] in states and not entry[9] & spare:
                    self._take(entry[0], entry[1], entry[4])
            if len(self.sample) < _SAMPLE:
                entries = [e for e, _ in batch if e[5] in states and not e[9] & spare][: _SAMPLE - len(self.sample)]
                glances = await self._chosen.glances(entries)
                self.sample += [rows.row(entry, glances.get(entry[0])) for entry in entries]

    def add_active(self, hold: str) -> None:
        """Those that a courier has, and that were to be held when they come back."""
        arena = self._manager.arena
        for slot, why in self._manager.extras.to_hold.items():
            if hold in why:
                self._take(slot, arena.id(slot), arena.part(slot))

    def _take(self, slot: int, message_id: int, part: int) -> None:
        self.slots.append(slot)
        self.ids.append(message_id)
        self.parts.append(part)
        if message_id in self._manager.parts:
            self._several.add(message_id)
        else:
            self._single += 1

    def messages(self) -> int:
        return self._single + len(self._several)


class Work:
    """One operation under way."""

    def __init__(self, manager: QueueManager, deed: Deed, act: Act, signature: str) -> None:
        self._manager = manager
        self._deed = deed
        self._act = act
        self._signature = signature
        self._single = 0
        self._several: set[int] = set()
        self._unwritten = 0
        self._written = asyncio.Event()
        self._written.set()

    def messages(self) -> int:
        """So far."""
        return self._single + len(self._several)

    async def do(self, picked: Picked) -> None:
        size = _SLICE // 10 if self._deed.heavy else _SLICE
        for first in range(0, len(picked.slots), size):
            self._slice(picked, first, first + size)
            self._manager.dispatch()
            await asyncio.sleep(0)
            await self._room(_MOST_UNWRITTEN)
        await self._room(1)

    def _slice(self, picked: Picked, first: int, last: int) -> None:
        manager, arena, states = self._manager, self._manager.arena, self._deed.states
        act, event, signature, maillog = self._act, self._deed.event, self._signature, self._manager.maillog
        several = manager.parts
        changes: list[Change] = []
        chosen = zip(picked.slots[first:last], picked.ids[first:last], picked.parts[first:last], strict=True)
        for slot, message_id, part in chosen:
            if not arena.holds(slot, message_id, part) or arena.state(slot) not in states:
                continue
            if several and message_id in several:
                self._several.add(message_id)
            elif message_id not in self._several:
                self._single += 1
            if (change := act(slot)) is not None:
                changes.append(change)
            maillog(id_text(message_id), event, signature)
        if changes:
            self._unwritten += 1
            manager.store.record_soon(changes, self._told)

    def _told(self) -> None:
        self._unwritten -= 1
        self._written.set()

    async def _room(self, most: int) -> None:
        """Until fewer slices than that wait for the disk."""
        while self._unwritten >= most:
            self._written.clear()
            try:
                await asyncio.wait_for(self._written.wait(), _PATIENCE)
            except TimeoutError:
                raise StoreError("it is done, and will be written as soon as the disk takes it") from None
