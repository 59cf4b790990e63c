"""Attempts: given out only when that is on record, and accounted for whoever dies meanwhile.

Two notes are made of each attempt before a courier hears of it. A seat (`mta.net.seats`) says how far it came, and
survives the death of any process. The store's "begun" survives the machine. So when an attempt has no result:

    its seat says     it is
    GIVEN             no attempt: ready at once
    DOTTED, MIXED     ambiguous: marked, and sent again after `[retry] ambiguous_wait`
    DELIVERED         finished
    (no seat)         ambiguous, if the store says that it had begun

Invariants
- INVARIANT: a job is given to a courier when its "begun" is durable; what cannot harm twice (discard) needs none.
- INVARIANT: a seat is free again when the change that settles its job is durable.
- One "begun" commit is under way at a time. What becomes ready meanwhile gathers, so that a busy queue needs few syncs.

Failure: when the store cannot note that attempts begin, none begin; it is tried again after `_AFTER_FAILURE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mta.model import EPOCH_MS, Change, Ref, StoreError
from mta.net.link import BATCH
from mta.net.seats import DELIVERED, DOTTED, FREE, GIVEN, MIXED, Row, SeatTable
from mta.observe.counters import INDEX
from mta.observe.maillog import printable
from mta.queue import _arena
from mta.queue.couriers import Courier, Couriers, Taken
from mta.queue.sites import SiteQueue

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

UNKNOWN = "result unknown: a process died during the attempt, which may or may not have delivered it"
UNJOURNALLED = frozenset({"discard"})  # sites where a second delivery harms nobody
_MOST_BEGUN = 4096  # jobs in one commit
_AFTER_FAILURE = 1.0
_URGENT_ROOM = 16  # more than the window that a courier may have of a site while urgent mail is ready for it
_RANK = {GIVEN: 0, MIXED: 1, DOTTED: 2, DELIVERED: 3}  # of several seats of one delivery, which one counts

Delivery = tuple[int, int]  # id and part
Place = tuple[int, int]  # row and seat


class _Batch(NamedTuple):
    """Jobs on their way to one life of a courier."""

    worker: int
    life: int
    queue: SiteQueue
    taken: list[Taken]
    seats: list[int]


class Attempts:
    """See the module. Rows are known by the worker they belong to; rows without one by negative numbers."""

    def __init__(self, manager: QueueManager, couriers: Couriers, table: SeatTable) -> None:
        self._manager = manager
        self._arena = manager.arena
        self._clock = manager.clock
        self._couriers = couriers
        workers = list(couriers.by_worker)
        names = [*workers, *range(-1, len(workers) - len(table.rows) - 1, -1)]
        self._rows: dict[int, Row] = dict(zip(names, table.rows, strict=True))
        self._vacant = {name: row.vacant() for name, row in self._rows.items()}
        self.settling: dict[Delivery, Place] = {}  # seats whose job came back, and whose change is not recorded yet
        self._limbo = self._arena.new_list()  # deliveries of which recovery says that an attempt had begun
        self._open = False
        self._beginning = False
        self._not_before = 0.0
        self._trouble = ""

    @property
    def opened(self) -> bool:
        """Jobs may be given out: the queue is recovered, and does not stop."""
        return self._open

    @property
    def trouble(self) -> str:
        """Why no attempt begins at present, in the store's words; "" when they do."""
        return self._trouble if self._not_before > self._clock() else ""

    # ---- out

    def dispatch(self) -> None:
        """Give couriers what they have room for."""
        dirty = self._manager.places.dirty
        if not dirty or not self._open or self._beginning or not self._couriers.alive:
            return
        if self._not_before > self._clock():
            return
        batches: list[_Batch] = []
        begun = 0
        now_ms = int(self._clock() * 1000) - EPOCH_MS
        while dirty and begun < _MOST_BEGUN:
            begun += self._take(dirty.pop(), batches, now_ms)
        if batches:
            self._begin(batches)

    def _take(self, queue: SiteQueue, batches: list[_Batch], now_ms: int) -> int:
        arena, couriers = self._arena, self._couriers
        count = 0
        gated = queue.limits.gated and arena.length(queue.ready)
        most = self._manager.regulator.may_take(queue) if gated else _MOST_BEGUN
        while most > count and arena.length(queue.ready):
            worker, room = queue.freest(couriers.alive)
            if room <= 0:
                room = min(room + _URGENT_ROOM, arena.urgent(queue.ready))
            if room <= 0:
                break  # results will bring us back
            courier = couriers.by_worker[worker]
            taken = arena.take(queue.ready, min(room, BATCH, most - count), courier.active, now_ms)
            queue.in_flight[worker] += len(taken)
            seats = self._rows[worker].fill(taken, self._vacant[worker])
            batches.append(_Batch(worker, courier.life, queue, taken, seats))
            count += len(taken)
        if gated:
            self._manager.regulator.took(queue, count)
        elif count == most:
            self._manager.places.dirty.add(queue)  # others first, then more of it
        return count

    def _begin(self, batches: list[_Batch]) -> None:
        done, rerouted = self._manager.extras.done, self._manager.extras.rerouted
        begun = [
            Change(
                ref=ref,
                id=message_id,
                part=part,
                kind="begun",
                attempts=attempts,
                done=done.get(slot, ()) if done else (),
                to=rerouted.get(slot, "") if rerouted else "",
            )
            for batch in batches
            if batch.queue.site.kind not in UNJOURNALLED
            for slot, message_id, ref, part, attempts in batch.taken
        ]
        if not begun:
            self._give(batches)
            return
        self._beginning = True
        self._manager.store.begin(begun, partial(self._has_begun, batches))

    def _has_begun(self, batches: list[_Batch], error: StoreError | None) -> None:
        self._beginning = False
        if error is not None:
            self._not_before = self._clock() + _AFTER_FAILURE
            self._trouble = str(error)
        if error is None and self._open:
            self._give(batches)
        else:
            for batch in reversed(batches):
                self._withdraw(batch, recorded=error is None)
        self.dispatch()

    def _give(self, batches: list[_Batch]) -> None:
        pending = self._manager.extras.pending
        for worker, life, queue, taken, seats in batches:
            # What was taken for one that died meanwhile was taken back when the next one said Hello.
            if self._couriers.by_worker[worker].life == life:
                self._couriers.give(worker, queue, taken, seats, pending)

    def _withdraw(self, batch: _Batch, *, recorded: bool) -> None:
        """Nobody was given these. `recorded`: the store says that they had begun."""
        if self._couriers.by_worker[batch.worker].life != batch.life:
            return
        for (slot, message_id, _, part, _), seat in zip(reversed(batch.taken), reversed(batch.seats), strict=True):
            self.take_back(batch.worker, slot)
            if slot in self._manager.extras.doomed:
                self.settling[message_id, part] = batch.worker, seat
                self._manager.settling.end_doomed(slot)
            elif recorded:
                self.settling[message_id, part] = batch.worker, seat
                self._again(slot)
            else:
                self.free(batch.worker, (seat,))
                self._arena.detach(slot)
                self._manager.places.enqueue(slot, batch.queue, front=True)

    def take_back(self, worker: int, slot: int) -> SiteQueue:
        """An active slot is not with its courier any more; its site."""
        queue = self._manager.sites.by_number[self._arena.site(slot)]
        queue.in_flight[worker] -= 1
        self._manager.places.dirty.add(queue)
        return queue

    # ---- seats

    def free(self, worker: int, seats: Iterable[int]) -> None:
        """The changes that settle the jobs in these seats are durable."""
        states, vacant = self._rows[worker].states, self._vacant[worker]
        for seat in seats:
            if seat and states[seat] != FREE:
                states[seat] = FREE
                vacant.append(seat)

    def _free_all(self, places: Iterable[Place], error: StoreError | None = None) -> None:
        if error is None:  # else they are void until the next start
            for worker, seat in places:
                self.free(worker, (seat,))

    # ---- attempts without a result

    def restored(self, slot: int) -> None:
        """Recovery knows that an attempt had begun: until the seats are read nobody knows more."""
        self._manager.extras.begun.add(slot)
        self._arena.push(self._limbo, slot, _arena.RESOLVING)

    def open(self) -> None:
        """The queue is recovered, and the couriers had time to say what they have: account for all seats."""
        used: dict[Delivery, list[tuple[Place, int, int]]] = {}
        for name, row in self._rows.items():
            for seat, message_id, part, attempts, state in row.used():
                used.setdefault((message_id, part), []).append(((name, seat), attempts, state))
        slots = self._arena.locate({message_id for message_id, _ in used})
        void: list[Place] = []
        for delivery, seats in used.items():
            if delivery not in self.settling:
                void += self._account(slots.get(delivery), seats)
        while (slot := self._arena.pop(self._limbo)) >= 0:
            self._manager.settling.record(self.doubt(slot))
        self._manager.extras.begun.clear()
        for courier in self._couriers.by_worker.values():
            if courier.worker in self._couriers.alive:
                self._rows[courier.worker].life = courier.life
        self._open = True
        if void:
            # Behind a commit: what settled them may have been recorded a moment ago.
            self._manager.store.begin((), partial(self._free_all, void))

    def close(self) -> None:
        """Nothing more is given out."""
        self._open = False

    def _account(self, slot: int | None, seats: list[tuple[Place, int, int]]) -> list[Place]:
        """What an earlier life gave out; the seats that mean nothing any more."""
        places = [place for place, _, _ in seats]
        if slot is None:
            return places
        # A change that was recorded later than a seat was filled counts.
        attempts = self._arena.attempts(slot)
        valid = [(place, state) for place, given, state in seats if given == attempts]
        void = [place for place, given, _ in seats if given != attempts]
        if not valid or self._arena.state(slot) == _arena.ACTIVE:
            return void
        (name, _), state = max(valid, key=lambda seat: _RANK.get(seat[1], 0))
        if name >= 0 and name not in self._couriers.alive:
            # Not a word from it: dead, or slow and still at it. Its Hello will tell.
            self._leave_with(self._couriers.by_worker[name], slot)
            return void
        if state != DELIVERED and (self._arena.state(slot) == _arena.HELD):
            return places  # an operator was quick
        if state == GIVEN and slot not in self._manager.extras.begun:
            return places
        unlogged = name < 0 or self._rows[name].life != self._couriers.by_worker[name].life
        change = self._ended(slot, state, log=unlogged)
        self._manager.store.record_soon([change], partial(self._free_all, [place for place, _ in valid]))
        return void

    def courier_said(self, courier: Courier, new: bool, busy: Set[Delivery]) -> None:
        """A courier said Hello. `new`: for the first time in its life; what an earlier one had is accounted for."""
        manager = self._manager
        manager.places.dirty.update(manager.sites.by_number[1:])
        manager.regulator.share_out_all()
        if new:
            manager.sites.forget_courier(courier.worker)
            self._sweep(courier, busy)
        found = self._arena.locate({message_id for message_id, _ in busy}) if busy else {}
        for delivery in busy:
            slot = found.get(delivery)
            if slot is not None and self._arena.state(slot) != _arena.ACTIVE and delivery not in self.settling:
                self._leave_with(courier, slot)
        if self._open:
            self._rows[courier.worker].life = courier.life

    def _leave_with(self, courier: Courier, slot: int) -> None:
        self._arena.push(courier.active, slot, _arena.ACTIVE)
        self._manager.sites.by_number[self._arena.site(slot)].in_flight[courier.worker] += 1

    def _sweep(self, courier: Courier, busy: Set[Delivery]) -> None:
        """Take from a courier what it has not in hand any more."""
        arena, manager = self._arena, self._manager
        had: list[int] = []
        while (slot := arena.pop(courier.active)) >= 0:
            had.append(slot)
        if not had:
            return
        told: dict[Delivery, tuple[int, int]] = {}
        for seat, message_id, part, _, state in self._rows[courier.worker].used():
            known = told.get((message_id, part), (0, GIVEN))
            told[message_id, part] = max(known, (seat, state), key=lambda s: (_RANK.get(s[1], 0), s[0]))
        for slot in had:
            delivery = arena.id(slot), arena.part(slot)
            if delivery in busy:
                self._leave_with(courier, slot)
                continue
            seat, state = told.get(delivery, (0, DOTTED))
            self.settling[delivery] = courier.worker, seat
            if slot in manager.extras.doomed:
                manager.settling.end_doomed(slot)
            elif state == GIVEN:
                self._again(slot)
            else:
                manager.settling.record(self._ended(slot, state, log=True))

    def _ended(self, slot: int, state: int, *, log: bool) -> Change:
        """An attempt without a result is over; the change that says what it was."""
        self._arena.detach(slot)
        if state == DELIVERED:
            if log:
                self._log_delivered(slot)
            self._manager.teller.unheard(self._manager, slot)
            return self._manager.finish(slot)
        if state == GIVEN:
            change = self._manager.change(slot, "waiting")
            self._manager.places.route(slot)
            return change
        return self.doubt(slot)

    def _again(self, slot: int) -> None:
        self._arena.detach(slot)
        self._manager.settling.again(slot)

    def doubt(self, slot: int) -> Change:
        """Mark an idle delivery as ambiguous; the change that says so."""
        manager, arena = self._manager, self._arena
        manager.counters[INDEX["messages_ambiguous"]] += 1
        manager.log(slot, "ambiguous", f'reason="{UNKNOWN}"')
        arena.set_attempts(slot, min(arena.attempts(slot) + 1, 65535))
        if slot in manager.extras.to_hold:
            return manager.by_hand.hold_idle(slot, manager.extras.to_hold.pop(slot))
        arena.set_why(slot, manager.reasons.number(UNKNOWN))
        manager.extras.ambiguous.add(slot)
        due = self._clock() + manager.retry.ambiguous_wait
        arena.schedule(slot, manager.tick(due))
        return manager.change(slot, "waiting", due)

    def _log_delivered(self, slot: int) -> None:
        """The courier could not: it died when it had noted the reply, and before it had written to the mail log."""
        manager = self._manager
        tail = 'relay=none status="taken, says the note of a courier that died"'
        try:
            recipients = manager.store.envelope(Ref(self._arena.ref(slot))).recipients
            addresses: Sequence[str] = [f"<{printable(recipients[i].address)}>" for i in manager.left(slot)]
        except StoreError:
            addresses = ["?"]
        for address in addresses:
            manager.log(slot, "delivered", f"to={address} {tail}")
        manager.counters[INDEX["deliveries_done"]] += len(addresses)
