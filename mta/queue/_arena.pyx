# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The index of the queue: a slot of 56 octets a delivery, in lists that cost nothing to change.

Measured against Python objects: 56 octets against 265, 0.1 us against 4 us for a turn through the queue.

A slot is in at most one list: a ready queue of a site, the active list of a courier, the held list, or a bucket of the
timer wheel. The wheel has four levels of 256 buckets; a tick is an eighth of a second, so it reaches 17 years.

Invariants
- `state`, the list a slot is in, and the counts by state change together, in `link` and `unlink` only.
- Marks: what the sender was told (model.TOLD_...), what he wants of the queue (model.WANTS_..., shifted), and EMBARGOED while a deferred
  slot waits for the time that he set: it loses this mark, and the reason, when it leaves that state.
- In a ready list the urgent ones are in front, in the order in which they came; no other list knows them.
- Slot numbers are used again: who keeps one over time compares the id (`holds`).
- Every public method checks its slot and list numbers: a wrong one is an IndexError, never a stray write.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cdef extern from *:
    """
    #ifndef MTA_SOURCE_HASH
    #define MTA_SOURCE_HASH ""
    #endif
    """
    const char *MTA_SOURCE_HASH

SOURCE_HASH = MTA_SOURCE_HASH.decode("ascii")

cdef enum:
    NONE = 0xFFFFFFFF
    LEVELS = 4
    BUCKETS = 256
    WHEEL = 1024            # lists 0..1023 are the wheel's
    FIRST_SLOTS = 1024
    LOOKS = 200000          # slots looked at in one call, some hundred microseconds

# States of a slot. IDLE: in no list, somebody has it in hand.
cdef enum:
    S_FREE = 0
    S_IDLE = 1
    S_READY = 2
    S_ACTIVE = 3
    S_DEFERRED = 4
    S_HELD = 5
    S_RESOLVING = 6
    STATES = 7

IDLE = S_IDLE
READY = S_READY
ACTIVE = S_ACTIVE
DEFERRED = S_DEFERRED
HELD = S_HELD
RESOLVING = S_RESOLVING

# Marks of a slot.
cdef enum:
    M_TOLD_DELAY = 1
    M_TOLD_LATE = 2
    M_TIMED = 4
    M_URGENT = 8
    M_PATIENT = 16
    M_EMBARGOED = 32

TOLD_DELAY = M_TOLD_DELAY
TOLD_LATE = M_TOLD_LATE
TOLD = M_TOLD_DELAY | M_TOLD_LATE
TIMED = M_TIMED
URGENT = M_URGENT
PATIENT = M_PATIENT
EMBARGOED = M_EMBARGOED


cdef struct Slot:
    uint64_t id
    uint64_t ref
    uint32_t next
    uint32_t prev
    uint32_t list
    uint32_t domain
    uint32_t site
    uint32_t due
    uint32_t why
    uint16_t part
    uint16_t attempts
    uint16_t tenant
    uint16_t pool
    uint8_t state
    uint8_t marks


cdef struct Chain:
    uint32_t head
    uint32_t tail
    uint32_t length
    uint32_t urgent         # the last one of those in front that are urgent; NONE: there is none


cdef class Arena:
    """All deliveries of a queue manager."""

    cdef Slot *slots
    cdef uint32_t room, used, free_head
    cdef Chain *chains
    cdef uint32_t chains_room, chains_used
    cdef uint32_t tick
    cdef uint32_t counts[STATES]

    def __cinit__(self, uint32_t tick=0):
        self.tick = tick
        self.free_head = NONE
        self.chains_room = WHEEL + 64
        self.chains = <Chain *>calloc(self.chains_room, sizeof(Chain))
        self.slots = <Slot *>calloc(FIRST_SLOTS, sizeof(Slot))
        if self.chains == NULL or self.slots == NULL:
            raise MemoryError
        self.room = FIRST_SLOTS
        self.used = 0
        self.chains_used = 0
        memset(self.counts, 0, sizeof(self.counts))
        for _ in range(WHEEL):
            self.make_chain()

    def __dealloc__(self):
        free(self.slots)
        free(self.chains)

    # ---- lists

    cdef int make_chain(self) except -1:
        cdef Chain *grown
        if self.chains_used == self.chains_room:
            grown = <Chain *>realloc(self.chains, 2 * self.chains_room * sizeof(Chain))
            if grown == NULL:
                raise MemoryError
            self.chains = grown
            self.chains_room *= 2
        self.chains[self.chains_used].head = NONE
        self.chains[self.chains_used].tail = NONE
        self.chains[self.chains_used].urgent = NONE
        self.chains[self.chains_used].length = 0
        self.chains_used += 1
        return 0

    def new_list(self):
        """The number of a new, empty list."""
        self.make_chain()
        return self.chains_used - 1

    def length(self, uint32_t chain):
        """Slots in a list."""
        self.check_list(chain)
        return self.chains[chain].length

    cdef int check_list(self, uint32_t chain) except -1:
        if chain < WHEEL or chain >= self.chains_used:
            raise IndexError(f"no list {chain}")
        return 0

    cdef Slot *at(self, uint32_t slot) except NULL:
        if slot >= self.used or self.slots[slot].state == S_FREE:
            raise IndexError(f"no delivery in slot {slot}")
        return &self.slots[slot]

    cdef void link(self, uint32_t slot, uint32_t chain, uint8_t state, bint front) noexcept:
        cdef Slot *s = &self.slots[slot]
        cdef Chain *c = &self.chains[chain]
        cdef uint32_t after             # the slot before it; NONE: it is the first
        s.list = chain
        if state == S_READY and s.marks & M_URGENT:
            after = NONE if front else c.urgent
            if not front or c.urgent == NONE:
                c.urgent = slot
        elif front:
            after = c.urgent
        else:
            after = c.tail
        s.prev = after
        s.next = c.head if after == NONE else self.slots[after].next
        if s.next != NONE:
            self.slots[s.next].prev = slot
        else:
            c.tail = slot
        if after != NONE:
            self.slots[after].next = slot
        else:
            c.head = slot
        c.length += 1
        self.counts[s.state] -= 1
        s.state = state
        self.counts[state] += 1

    cdef void unlink(self, uint32_t slot) noexcept:
        cdef Slot *s = &self.slots[slot]
        cdef Chain *c
        if s.marks & M_EMBARGOED:
            s.marks &= ~M_EMBARGOED
            s.why = 0
        if s.list != NONE:
            c = &self.chains[s.list]
            if c.urgent == slot:
                c.urgent = s.prev
            if s.prev != NONE:
                self.slots[s.prev].next = s.next
            else:
                c.head = s.next
            if s.next != NONE:
                self.slots[s.next].prev = s.prev
            else:
                c.tail = s.prev
            c.length -= 1
            s.list = NONE
        self.counts[s.state] -= 1
        s.state = S_IDLE
        self.counts[S_IDLE] += 1

    # ---- slots

    def add(self, uint64_t id, uint64_t ref, uint32_t domain, uint16_t part):
        """A new delivery, idle; its slot number."""
        cdef Slot *grown
        cdef Slot *s
        cdef uint32_t slot
        if self.free_head != NONE:
            slot = self.free_head
            self.free_head = self.slots[slot].next
        else:
            if self.used == self.room:
                grown = <Slot *>realloc(self.slots, (self.room + self.room // 2) * sizeof(Slot))
                if grown == NULL:
                    raise MemoryError
                self.slots = grown
                self.room += self.room // 2
            slot = self.used
            self.used += 1
        s = &self.slots[slot]
        memset(s, 0, sizeof(Slot))
        s.id = id
        s.ref = ref
        s.domain = domain
        s.part = part
        s.list = NONE
        s.state = S_IDLE
        self.counts[S_IDLE] += 1
        return slot

    def remove(self, uint32_t slot):
        """The delivery is over; the slot may be given to another."""
        self.at(slot)
        self.unlink(slot)
        self.counts[S_IDLE] -= 1
        self.slots[slot].state = S_FREE
        self.slots[slot].next = self.free_head
        self.free_head = slot

    def push(self, uint32_t chain, uint32_t slot, uint8_t state, bint front=False):
        """Move a slot to the end (or the front) of a list."""
        self.at(slot)
        self.check_list(chain)
        if not S_IDLE < state < STATES:
            raise ValueError(f"{state} is no state of a listed delivery")
        self.unlink(slot)
        self.link(slot, chain, state, front)

    def pop(self, uint32_t chain):
        """Take the first slot of a list, now idle; -1 when the list is empty."""
        self.check_list(chain)
        cdef uint32_t slot = self.chains[chain].head
        if slot == NONE:
            return -1
        self.unlink(slot)
        return slot

    def take(self, uint32_t chain, uint32_t limit, uint32_t active):
        """Move up to `limit` slots from a ready list to an active list: [(slot, id, ref, part, attempts), ...]."""
        cdef list taken = []
        cdef uint32_t slot
        cdef Slot *s
        self.check_list(chain)
        self.check_list(active)
        while limit and self.chains[chain].head != NONE:
            slot = self.chains[chain].head
            self.unlink(slot)
            self.link(slot, active, S_ACTIVE, False)
            s = &self.slots[slot]
            taken.append((slot, s.id, s.ref, s.part, s.attempts))
            limit -= 1
        return taken

    def detach(self, uint32_t slot):
        """Take a slot out of whatever list it is in; it is idle then."""
        self.at(slot)
        self.unlink(slot)

    # ---- time

    def schedule(self, uint32_t slot, uint32_t due):
        """Put a slot into the wheel; `due` is a tick. What is due already comes with the next tick."""
        cdef Slot *s = self.at(slot)
        self.unlink(slot)
        s.due = due
        self.place(slot)

    def embargo(self, uint32_t slot, uint32_t due, uint32_t why):
        """Put a slot into the wheel until the time that its sender has set."""
        self.schedule(slot, due)
        self.slots[slot].marks |= M_EMBARGOED
        self.slots[slot].why = why

    def restore(self, uint64_t id, uint64_t ref, uint32_t domain, uint16_t part, uint16_t attempts, uint32_t why,
                uint32_t due, uint8_t marks=0):
        """A delivery of an earlier life that waits for a time: `add` and `schedule` in one go; its slot number."""
        cdef uint32_t slot = self.add(id, ref, domain, part)
        cdef Slot *s = &self.slots[slot]
        s.attempts = attempts
        s.why = why
        s.marks = marks
        self.schedule(slot, due)
        return slot

    cdef void place(self, uint32_t slot) noexcept:
        cdef uint32_t due = self.slots[slot].due
        cdef uint32_t ahead
        cdef int level = 0
        if <int32_t>(due - self.tick) <= 0:
            due = self.tick + 1
        ahead = due - self.tick
        while level < LEVELS - 1 and ahead >= (<uint64_t>1 << (8 * (level + 1))):
            level += 1
        self.link(slot, level * BUCKETS + ((due >> (8 * level)) & 255), S_DEFERRED, False)

    def advance(self, uint32_t tick, uint32_t limit=100000):
        """Move time on; the slots that became due, idle now. Stops early after about `limit` of them."""
        cdef list due = []
        cdef uint32_t slot
        cdef int level
        while <uint32_t>len(due) < limit:
            while self.chains[self.tick & 255].head != NONE:
                slot = self.chains[self.tick & 255].head
                self.unlink(slot)
                due.append(slot)
                if <uint32_t>len(due) >= limit:
                    return due
            if <int32_t>(tick - self.tick) <= 0:
                break
            if self.counts[S_DEFERRED] == 0:
                self.tick = tick
                break
            self.tick += 1
            level = 1
            while level < LEVELS and (self.tick & ((<uint32_t>1 << (8 * level)) - 1)) == 0:
                self.cascade(level * BUCKETS + ((self.tick >> (8 * level)) & 255))
                level += 1
        return due

    cdef void cascade(self, uint32_t bucket) noexcept:
        """Deal a bucket of an upper level out to the levels below; what is due this very tick to this tick's."""
        cdef uint32_t slot = self.chains[bucket].head
        cdef uint32_t following
        self.chains[bucket].head = NONE
        self.chains[bucket].tail = NONE
        self.chains[bucket].length = 0
        while slot != NONE:
            following = self.slots[slot].next
            self.slots[slot].list = NONE
            if <int32_t>(self.slots[slot].due - self.tick) <= 0:
                self.link(slot, self.tick & 255, S_DEFERRED, False)
            else:
                self.place(slot)
            slot = following

    # ---- what is in a slot

    def holds(self, uint32_t slot, uint64_t id, uint16_t part):
        """Whether this slot is in use, for this delivery."""
        if slot >= self.used:
            return False
        cdef Slot *s = &self.slots[slot]
        return s.state != S_FREE and s.id == id and s.part == part

    def id(self, uint32_t slot):
        return self.at(slot).id

    def ref(self, uint32_t slot):
        return self.at(slot).ref

    def domain(self, uint32_t slot):
        return self.at(slot).domain

    def part(self, uint32_t slot):
        return self.at(slot).part

    def state(self, uint32_t slot):
        return self.at(slot).state

    def due(self, uint32_t slot):
        return self.at(slot).due

    def attempts(self, uint32_t slot):
        return self.at(slot).attempts

    def set_attempts(self, uint32_t slot, uint16_t attempts):
        self.at(slot).attempts = attempts

    def site(self, uint32_t slot):
        return self.at(slot).site

    def set_site(self, uint32_t slot, uint32_t site):
        self.at(slot).site = site

    def why(self, uint32_t slot):
        return self.at(slot).why

    def set_why(self, uint32_t slot, uint32_t why):
        self.at(slot).why = why

    def lane(self, uint32_t slot):
        """(tenant, pool)."""
        cdef Slot *s = self.at(slot)
        return s.tenant, s.pool

    def assign(self, uint32_t slot, uint16_t tenant, uint16_t pool):
        """Say whose an idle delivery is, and by which pool it leaves; 0 and 0 until then."""
        cdef Slot *s = self.at(slot)
        if s.state != S_IDLE:
            raise ValueError(f"the delivery in slot {slot} is in a list")
        s.tenant = tenant
        s.pool = pool

    def marks(self, uint32_t slot):
        return self.at(slot).marks

    def mark(self, uint32_t slot, uint8_t marks):
        """Set some marks."""
        self.at(slot).marks |= marks

    def relocate(self, dict moves not None):
        """Give deliveries new references, {old: new}; looks at every slot once. (slots that got one, messages left out)

        A message is left out whole, by its old reference, when a part of it is idle or active: somebody has it in hand.
        """
        cdef uint64_t lowest = 0xFFFFFFFFFFFFFFFF, highest = 0, ref
        cdef uint32_t slot
        cdef Slot *s
        cdef list found = []
        cdef set busy = set()
        for key in moves:
            ref = key
            lowest = min(lowest, ref)
            highest = max(highest, ref)
        for slot in range(self.used):
            s = &self.slots[slot]
            if s.ref < lowest or s.ref > highest or s.state == S_FREE or s.ref not in moves:
                continue
            if s.state == S_ACTIVE or s.state == S_IDLE:
                busy.add(s.ref)
            else:
                found.append(slot)
        moved = []
        for slot in found:
            s = &self.slots[slot]
            if s.ref not in busy:
                s.ref = moves[s.ref]
                moved.append(slot)
        return moved, busy

    # ---- looking for slots

    def find(self, uint64_t id):
        """The slots of a message. Looks at every slot: some milliseconds for a million."""
        cdef list found = []
        cdef uint32_t slot
        for slot in range(self.used):
            if self.slots[slot].id == id and self.slots[slot].state != S_FREE:
                found.append(slot)
        return found

    def locate(self, ids):
        """The slots of some messages, as {(id, part): slot}; looks at every slot once, however many ids there are."""
        cdef dict found = {}
        cdef uint32_t slot
        for slot in range(self.used):
            if self.slots[slot].state != S_FREE and self.slots[slot].id in ids:
                found[self.slots[slot].id, self.slots[slot].part] = slot
        return found

    def scan(self, uint32_t cursor, uint32_t limit, uint32_t states, bytes domains=None):
        """Up to `limit` slots from `cursor` on whose state is in the bit set: (slots, next cursor), -1 at the end.

        `domains`: an octet for each domain's number, not 0 where it is chosen too; beyond the end none is.
        Stops as well after having looked at very many, so that a choice of few is no long one.
        """
        cdef list found = []
        cdef uint32_t seen = 0, last = cursor + LOOKS
        while cursor < self.used and seen < limit and cursor < last:
            if self.chosen(cursor, states, domains):
                found.append(cursor)
                seen += 1
            cursor += 1
        return found, (<long>cursor if cursor < self.used else -1)

    def tally(self, uint32_t cursor, uint32_t states, bytes domains, dict several not None):
        """The same choice, counted: (deliveries, ids of deliveries whose message is in `several`, next cursor).

        The deliveries counted are those whose message is not in `several`.
        """
        cdef list ids = []
        cdef uint32_t count = 0, last = cursor + LOOKS
        cdef bint plain = not several
        while cursor < self.used and cursor < last:
            if self.chosen(cursor, states, domains):
                if plain or self.slots[cursor].id not in several:
                    count += 1
                else:
                    ids.append(self.slots[cursor].id)
            cursor += 1
        return count, ids, (<long>cursor if cursor < self.used else -1)

    cdef bint chosen(self, uint32_t slot, uint32_t states, bytes domains) noexcept:
        cdef Slot *s = &self.slots[slot]
        if s.state == S_FREE or not states >> s.state & 1:
            return False
        if domains is None:
            return True
        return s.domain < PyBytes_GET_SIZE(domains) and PyBytes_AS_STRING(domains)[s.domain] != 0

    def rows(self, uint32_t cursor, uint32_t limit):
        """Up to `limit` deliveries from slot `cursor` on, and where to go on; -1 at the end.

        Each is (slot, id, ref, domain, part, state, attempts, due, why, marks).
        """
        cdef list found = []
        cdef Slot *s
        while cursor < self.used and limit:
            s = &self.slots[cursor]
            if s.state != S_FREE:
                found.append((cursor, s.id, s.ref, s.domain, s.part, s.state, s.attempts, s.due, s.why, s.marks))
                limit -= 1
            cursor += 1
        return found, (<long>cursor if cursor < self.used else -1)

    def count(self, uint8_t state):
        """Deliveries in a state."""
        if not S_IDLE <= state < STATES:
            raise ValueError(f"{state} is no state")
        return self.counts[state]

    def __len__(self):
        cdef uint32_t total = 0
        cdef int state
        for state in range(S_IDLE, STATES):
            total += self.counts[state]
        return total

    @property
    def now(self):
        """The tick up to which time has been moved."""
        return self.tick
