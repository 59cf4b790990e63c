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


# What a node of a query asks; see Query.
cdef enum:
    Q_ALL = 0
    Q_UNSURE = 1
    Q_AND = 2
    Q_OR = 3
    Q_NOT = 4
    Q_STATE = 5
    Q_ID = 6
    Q_TABLE = 7
    Q_NUMBER = 8
    Q_SLOTS = 9
    QUERY_NODES = 2000

cdef enum:
    NO = 0
    YES = 1
    UNSURE = 2

cdef dict _OPERATIONS = {"all": Q_ALL, "unsure": Q_UNSURE, "and": Q_AND, "or": Q_OR, "not": Q_NOT, "state": Q_STATE, "id": Q_ID,
               "slots": Q_SLOTS}
cdef dict _TABLES = {"domain": 0, "site": 1, "why": 2}
cdef dict _NUMBERS = {"attempts": 0, "age": 1, "next": 2}
cdef dict _SIGNS = {"=": 0, "!=": 1, ">": 2, ">=": 3, "<": 4, "<=": 5}


cdef struct Node:
    uint8_t operation
    uint8_t field
    uint8_t sign
    uint32_t end            # the node behind its subtree
    uint64_t key            # a mask of states, or an id
    double value
    const char *table
    size_t length


cdef class Query:
    """A filter over slots, answered by yes, no, or unsure: then what decides is not in the arena.

    Nodes in prefix order, as tuples: ("all",) ("unsure",) ("and", n) ("or", n) ("not",) with n or one subtree behind them;
    ("state", mask) ("id", id) ("slots", octets of sorted uint32); ("table", "domain" | "site" | "why", an octet for each
    number); ("number", "attempts" | "age" | "next", sign, value). `now` and `base` are seconds: the present, and tick 0.
    `epoch_ms` is that of ids.
    """

    cdef Node *nodes
    cdef uint32_t count
    cdef double now, base, epoch
    cdef list kept

    def __cinit__(self, list nodes not None, double now, double base, double epoch_ms):
        if not nodes or len(nodes) > QUERY_NODES:
            raise ValueError("a filter has too many words")
        self.now = now
        self.base = base
        self.epoch = epoch_ms
        self.kept = []
        self.nodes = <Node *>calloc(len(nodes), sizeof(Node))
        if self.nodes == NULL:
            raise MemoryError
        for node in nodes:
            self.fill(&self.nodes[self.count], node)
            self.count += 1
        if self.close(0, nodes) != self.count:
            raise ValueError("no query")

    def __dealloc__(self):
        free(self.nodes)

    cdef int fill(self, Node *n, tuple node) except -1:
        kind = node[0]
        if kind == "table":
            n.operation = Q_TABLE
            n.field = _TABLES[node[1]]
            self.point(n, node[2])
        elif kind == "number":
            n.operation = Q_NUMBER
            n.field = _NUMBERS[node[1]]
            n.sign = _SIGNS[node[2]]
            n.value = node[3]
        else:
            n.operation = _OPERATIONS[kind]
            if n.operation == Q_SLOTS:
                self.point(n, node[1])
            elif n.operation == Q_STATE or n.operation == Q_ID:
                n.key = node[1]
        return 0

    cdef int point(self, Node *n, bytes octets) except -1:
        self.kept.append(octets)
        n.table = PyBytes_AS_STRING(octets)
        n.length = PyBytes_GET_SIZE(octets)
        return 0

    cdef uint32_t close(self, uint32_t at, list nodes) except? 0xFFFFFFFF:
        """Say of each node where its subtree ends; the end of the one at `at`."""
        cdef uint32_t behind = at + 1
        cdef uint32_t parts = 0
        if at >= self.count:
            raise ValueError("a part of the query is missing")
        if self.nodes[at].operation == Q_AND or self.nodes[at].operation == Q_OR:
            parts = nodes[at][1]
        elif self.nodes[at].operation == Q_NOT:
            parts = 1
        while parts:
            behind = self.close(behind, nodes)
            parts -= 1
        self.nodes[at].end = behind
        return behind

    cdef int holds(self, uint32_t at, uint32_t slot, Slot *s) noexcept:
        cdef Node *n = &self.nodes[at]
        cdef uint32_t part
        cdef int answer, one
        if n.operation == Q_AND:
            answer = YES
            part = at + 1
            while part < n.end:
                one = self.holds(part, slot, s)
                if one == NO:
                    return NO
                if one == UNSURE:
                    answer = UNSURE
                part = self.nodes[part].end
            return answer
        if n.operation == Q_OR:
            answer = NO
            part = at + 1
            while part < n.end:
                one = self.holds(part, slot, s)
                if one == YES:
                    return YES
                if one == UNSURE:
                    answer = UNSURE
                part = self.nodes[part].end
            return answer
        if n.operation == Q_NOT:
            one = self.holds(at + 1, slot, s)
            return UNSURE if one == UNSURE else not one
        if n.operation == Q_STATE:
            return n.key >> s.state & 1
        if n.operation == Q_TABLE:
            part = s.domain if n.field == 0 else s.site if n.field == 1 else s.why
            return part < n.length and n.table[part] != 0
        if n.operation == Q_NUMBER:
            return self.compares(n, s)
        if n.operation == Q_ID:
            return s.id == n.key
        if n.operation == Q_SLOTS:
            return among(<const uint32_t *>n.table, n.length // 4, slot)
        return UNSURE if n.operation == Q_UNSURE else YES

    cdef bint compares(self, Node *n, Slot *s) noexcept:
        cdef double x
        if n.field == 0:
            x = s.attempts
        elif n.field == 1:
            x = self.now - (<double>(s.id >> 19) + self.epoch) / 1000.0
        elif s.state == S_DEFERRED:
            x = self.base + s.due / 8.0 - self.now
        else:
            return False
        if n.sign == 0:
            return x == n.value
        if n.sign == 1:
            return x != n.value
        if n.sign == 2:
            return x > n.value
        if n.sign == 3:
            return x >= n.value
        if n.sign == 4:
            return x < n.value
        return x <= n.value


cdef bint among(const uint32_t *sorted, size_t length, uint32_t slot) noexcept:
    cdef size_t low = 0, high = length, middle
    while low < high:
        middle = (low + high) // 2
        if sorted[middle] < slot:
            low = middle + 1
        else:
            high = middle
    return low < length and sorted[low] == slot


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

    def scan(self, uint32_t cursor, uint32_t limit, uint32_t states):
        """Up to `limit` slots from `cursor` on whose state is in the bit set: (slots, next cursor), -1 at the end.

        Stops as well after having looked at very many, so that a choice of few is no long one.
        """
        cdef list found = []
        cdef uint32_t seen = 0, last = cursor + LOOKS
        while cursor < self.used and seen < limit and cursor < last:
            if self.slots[cursor].state != S_FREE and states >> self.slots[cursor].state & 1:
                found.append(cursor)
                seen += 1
            cursor += 1
        return found, (<long>cursor if cursor < self.used else -1)

    def choose(self, uint32_t cursor, uint32_t limit, Query query not None):
        """Up to `limit` deliveries from `cursor` on that a query may choose: (entries, next cursor), -1 at the end.

        An entry is (slot, id, ref, domain, part, state, attempts, due, why, marks, site, sure). Stops after many looks.
        """
        cdef list found = []
        cdef uint32_t seen = 0, last = cursor + LOOKS
        cdef int answer
        cdef Slot *s
        while cursor < self.used and seen < limit and cursor < last:
            s = &self.slots[cursor]
            if s.state != S_FREE:
                answer = query.holds(0, cursor, s)
                if answer != NO:
                    found.append((cursor, s.id, s.ref, s.domain, s.part, s.state, s.attempts, s.due, s.why, s.marks,
                                  s.site, answer == YES))
                    seen += 1
            cursor += 1
        return found, (<long>cursor if cursor < self.used else -1)

    def entry(self, uint32_t slot, Query query not None):
        """The entry of one slot, or None where the query does not choose it."""
        cdef Slot *s = self.at(slot)
        cdef int answer = query.holds(0, slot, s)
        if answer == NO:
            return None
        return (slot, s.id, s.ref, s.domain, s.part, s.state, s.attempts, s.due, s.why, s.marks, s.site, answer == YES)

    def tally(self, uint32_t cursor, Query query not None, dict several not None):
        """The same, counted, of what is sure: (deliveries, ids of deliveries whose message is in `several`, next).

        The deliveries counted are those whose message is not in `several`.
        """
        cdef list ids = []
        cdef uint32_t count = 0, last = cursor + LOOKS
        cdef bint plain = not several
        cdef Slot *s
        while cursor < self.used and cursor < last:
            s = &self.slots[cursor]
            if s.state != S_FREE and query.holds(0, cursor, s) == YES:
                if plain or s.id not in several:
                    count += 1
                else:
                    ids.append(s.id)
            cursor += 1
        return count, ids, (<long>cursor if cursor < self.used else -1)

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
