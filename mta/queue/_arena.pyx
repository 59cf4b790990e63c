# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The index of the queue: a slot of 56 octets a delivery, in lists that cost nothing to change.

Measured against Python objects: 56 octets against 265, 0.1 us against 4 us for a turn through the queue.

A slot is in at most one list: one of a ready line, the active list of a courier, the held list, or a bucket of the
timer wheel. The wheel has four levels of 256 buckets; a tick is an eighth of a second, so it reaches 17 years.

A *line* is what is ready for one site from one source. It is a list of its own for each tenant and class, made when it
is first used, so a line of one tenant without priorities is one list. Whose turn it is:

    tenants   by weight. Each has a place on a scale, and who stands lowest is next; a message moves him on by SCALE /
              weight. Who comes (again) begins at the lowest place of those who are there: what he did not use he does
              not get later, and what he had too much he pays for. Alone, nobody moves.
    classes   within a tenant: urgent before normal before bulk. A class that waits and was passed over PASSED[class]
              times has the next turn, never two such turns in a row: so the others are slowed down, and none stands
              still. Ageing was weighed and left: a backlog of bulk mail that has grown old would stand before all
              that is urgent, and in the order of its age that takes as long as the backlog.
    urgent    A tenant with urgent mail need not wait for his turn, up to LEAD messages ahead of his share: one whose
              mail is all urgent gets no more than his share in the end.

Invariants
- `state`, the list a slot is in, and the counts by state change together, in `link` and `unlink` only.
- Marks: what the sender was told (model.TOLD_...), what he wants of the queue (model.WANTS_..., shifted), and EMBARGOED while a deferred
  slot waits for the time that he set: it loses this mark, and the reason, when it leaves that state.
- In a line those of one tenant and class keep the order in which they came; no other list knows classes.
- `length` of a line, `ready` of its shares, its heap and its ring change together, in `entered` and `departed` only.
- An empty line remembers nobody but one tenant, so that lines cost little however many tenants there are.
- Slot numbers are used again: who keeps one over time compares the id (`holds`).
- Every public method checks its slot and list numbers: a wrong one is an IndexError, never a stray write.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
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
    AHEAD = 100000          # at most so many are counted that stand before one

cdef enum:
    CLASSES = 3             # urgent, normal, bulk
    URGENT_CLASS = 0
    NORMAL_CLASS = 1
    BULK_CLASS = 2
    LEAD = 32               # messages that urgent mail may be ahead of its tenant's share
    TRIES = 4               # tenants looked at for one with urgent mail who is not that far ahead
    IDLE_SHARES = 32        # tenants without mail in a line that are remembered, and twice those with mail
    FIRST_BUCKETS = 64      # of the hash table of shares; a power of two
    ID_TIME = 19            # bits of an id below its milliseconds
    TIMES = 128             # buckets of a histogram of times: four for each doubling, from a millisecond on

cdef uint64_t SCALE = <uint64_t>1 << 32
cdef uint64_t FAR = <uint64_t>1 << 40   # places beyond are moved back, all together
cdef uint8_t[3] PASSED = [0, 8, 16]     # turns of more urgent classes after which one of this class comes

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
    M_BULK = 16
    M_EMBARGOED = 32

TOLD_DELAY = M_TOLD_DELAY
TOLD_LATE = M_TOLD_LATE
TOLD = M_TOLD_DELAY | M_TOLD_LATE
TIMED = M_TIMED
URGENT = M_URGENT
BULK = M_BULK
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
    uint32_t owner          # of a line's number: the line; of one of its lists: the share
    uint8_t kind


# Kinds of chains.
cdef enum:
    K_LIST = 0
    K_LINE = 1              # the number of a line; holds nothing itself
    K_URGENT = 2            # a list of a line; the class is the kind - K_URGENT
    K_NORMAL = 3
    K_BULK = 4
    K_FREE = 5              # a list without a share


cdef struct Share:          # what is one tenant's in a line
    uint64_t place
    uint64_t stride
    uint32_t line
    uint32_t lists[CLASSES] # NONE: not used yet
    uint32_t ready
    uint32_t heap_at        # NONE: nothing is ready
    uint32_t next           # of the same line; of those that are free
    uint32_t prev
    uint32_t bucket_next    # in the hash table
    uint32_t ring_next      # of those with urgent mail; NONE: has none
    uint32_t ring_prev
    uint16_t tenant
    uint8_t passed[CLASSES] # turns of more urgent classes since this class had one
    bint owed               # the last turn was one of a class that had been passed over


cdef struct Line:
    uint64_t lowest         # place of who was next last
    uint32_t length
    uint32_t first          # share
    uint32_t shares
    uint32_t recent         # the share that was asked for last
    uint32_t ring           # a share with urgent mail, the next to go
    uint32_t active         # shares in the heap
    uint32_t heap_room
    uint32_t *heap


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
cdef dict _TABLES = {"domain": 0, "site": 1, "why": 2, "tenant": 3}
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
    ("state", mask) ("id", id) ("slots", octets of sorted uint32); ("table", "domain" | "site" | "why" | "tenant", an octet
    for each number); ("number", "attempts" | "age" | "next", sign, value). `now` and `base` are seconds: the present, and tick 0.
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
            part = s.domain if n.field == 0 else s.site if n.field == 1 else s.why if n.field == 2 else s.tenant
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
    cdef Line *lines
    cdef uint32_t lines_room, lines_used
    cdef Share *shares
    cdef uint32_t shares_room, shares_used, shares_kept, free_share
    cdef uint32_t *buckets          # of the hash table of shares, by line and tenant
    cdef uint32_t buckets_room
    cdef uint32_t free_chain        # lists of shares that are no more
    cdef uint64_t *strides          # by tenant
    cdef uint32_t strides_room
    cdef uint64_t times[CLASSES][TIMES]
    cdef readonly bint met_urgent   # whether any delivery ever was

    def __cinit__(self, uint32_t tick=0):
        self.tick = tick
        self.free_head = NONE
        self.chains_room = WHEEL + 64
        self.chains = <Chain *>calloc(self.chains_room, sizeof(Chain))
        self.slots = <Slot *>calloc(FIRST_SLOTS, sizeof(Slot))
        self.buckets = <uint32_t *>malloc(FIRST_BUCKETS * sizeof(uint32_t))
        if self.chains == NULL or self.slots == NULL or self.buckets == NULL:
            raise MemoryError
        self.buckets_room = FIRST_BUCKETS
        memset(self.buckets, 0xFF, FIRST_BUCKETS * sizeof(uint32_t))
        self.free_share = NONE
        self.free_chain = NONE
        memset(self.times, 0, sizeof(self.times))
        self.room = FIRST_SLOTS
        self.used = 0
        self.chains_used = 0
        memset(self.counts, 0, sizeof(self.counts))
        for _ in range(WHEEL):
            self.make_chain()

    def __dealloc__(self):
        cdef uint32_t line
        for line in range(self.lines_used):
            free(self.lines[line].heap)
        free(self.lines)
        free(self.shares)
        free(self.buckets)
        free(self.strides)
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
        self.chains[self.chains_used].length = 0
        self.chains[self.chains_used].owner = NONE
        self.chains[self.chains_used].kind = K_LIST
        self.chains_used += 1
        return 0

    def new_list(self):
        """The number of a new, empty list."""
        self.make_chain()
        return self.chains_used - 1

    def new_line(self):
        """The number of a new, empty line: a list of what is ready, which gives tenants and classes their turns."""
        cdef Line *grown
        cdef uint32_t room
        if self.lines_used == self.lines_room:
            room = 2 * self.lines_room + 16
            grown = <Line *>realloc(self.lines, room * sizeof(Line))
            if grown == NULL:
                raise MemoryError
            self.lines = grown
            self.lines_room = room
        self.make_chain()
        memset(&self.lines[self.lines_used], 0, sizeof(Line))
        self.lines[self.lines_used].first = NONE
        self.lines[self.lines_used].recent = NONE
        self.lines[self.lines_used].ring = NONE
        self.chains[self.chains_used - 1].kind = K_LINE
        self.chains[self.chains_used - 1].owner = self.lines_used
        self.lines_used += 1
        return self.chains_used - 1

    def length(self, uint32_t chain):
        """Slots in a list, or in a line."""
        self.check_list(chain)
        if self.chains[chain].kind == K_LINE:
            return self.lines[self.chains[chain].owner].length
        return self.chains[chain].length

    cdef int check_list(self, uint32_t chain) except -1:
        if chain < WHEEL or chain >= self.chains_used or self.chains[chain].kind >= K_URGENT:
            raise IndexError(f"no list {chain}")
        return 0

    cdef Slot *at(self, uint32_t slot) except NULL:
        if slot >= self.used or self.slots[slot].state == S_FREE:
            raise IndexError(f"no delivery in slot {slot}")
        return &self.slots[slot]

    cdef void link(self, uint32_t slot, uint32_t chain, uint8_t state, bint front) noexcept:
        """Not for the number of a line: `list_for` says which of its lists it is."""
        cdef Slot *s = &self.slots[slot]
        cdef Chain *c = &self.chains[chain]
        s.list = chain
        if front:
            s.prev = NONE
            s.next = c.head
        else:
            s.prev = c.tail
            s.next = NONE
        if s.next != NONE:
            self.slots[s.next].prev = slot
        else:
            c.tail = slot
        if s.prev != NONE:
            self.slots[s.prev].next = slot
        else:
            c.head = slot
        c.length += 1
        self.counts[s.state] -= 1
        s.state = state
        self.counts[state] += 1
        if c.kind >= K_URGENT:
            self.entered(c)

    cdef void unlink(self, uint32_t slot) noexcept:
        cdef Slot *s = &self.slots[slot]
        cdef Chain *c
        if s.marks & M_EMBARGOED:
            s.marks &= ~M_EMBARGOED
            s.why = 0
        if s.list != NONE:
            c = &self.chains[s.list]
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
            if c.kind >= K_URGENT:
                self.departed(c)
        self.counts[s.state] -= 1
        s.state = S_IDLE
        self.counts[S_IDLE] += 1

    # ---- lines

    cdef uint32_t list_for(self, uint32_t line, uint32_t slot) except 0:
        """The list of a line that a slot belongs to; makes what is lacking."""
        cdef Slot *s = &self.slots[slot]
        cdef int rank = URGENT_CLASS if s.marks & M_URGENT else BULK_CLASS if s.marks & M_BULK else NORMAL_CLASS
        cdef uint32_t share = self.lines[line].recent
        cdef uint32_t chain
        if share == NONE or self.shares[share].tenant != s.tenant:
            share = self.share_of(line, s.tenant)
            self.lines[line].recent = share
        chain = self.shares[share].lists[rank]
        if chain == NONE:
            chain = self.free_chain
            if chain != NONE:
                self.free_chain = self.chains[chain].head
                self.chains[chain].head = NONE
            else:
                self.make_chain()
                chain = self.chains_used - 1
            self.chains[chain].kind = K_URGENT + rank
            self.chains[chain].owner = share
            self.shares[share].lists[rank] = chain
        return chain

    cdef uint32_t share_of(self, uint32_t line, uint16_t tenant) except *:
        """The share of a tenant in a line; a new one if there is none."""
        cdef Line *l = &self.lines[line]
        cdef uint32_t *heap
        cdef uint32_t share = self.buckets[self.bucket(line, tenant)]
        while share != NONE:
            if self.shares[share].line == line and self.shares[share].tenant == tenant:
                return share
            share = self.shares[share].bucket_next
        if l.length == 0 and l.first != NONE:       # it has no memory: the one share is anybody's
            self.out_of_bucket(l.first)
            share = l.first
        else:
            if l.shares > IDLE_SHARES + 2 * l.active:
                self.forget_idle(line)
            if l.shares == l.heap_room:
                heap = <uint32_t *>realloc(l.heap, (2 * l.heap_room + 1) * sizeof(uint32_t))
                if heap == NULL:
                    raise MemoryError
                l.heap = heap
                l.heap_room = 2 * l.heap_room + 1
            share = self.new_share(line)
        self.shares[share].tenant = tenant
        self.shares[share].stride = self.strides[tenant] if tenant < self.strides_room else SCALE
        self.shares[share].place = l.lowest
        self.into_bucket(share)
        return share

    cdef uint32_t new_share(self, uint32_t line) except *:
        cdef Line *l = &self.lines[line]
        cdef Share *grown
        cdef Share *s
        cdef uint32_t share = self.free_share
        cdef uint32_t room
        if self.shares_kept >= self.buckets_room:
            self.more_buckets()
        if share != NONE:
            self.free_share = self.shares[share].next
        else:
            if self.shares_used == self.shares_room:
                room = 2 * self.shares_room + 16
                grown = <Share *>realloc(self.shares, room * sizeof(Share))
                if grown == NULL:
                    raise MemoryError
                self.shares = grown
                self.shares_room = room
            share = self.shares_used
            self.shares_used += 1
        s = &self.shares[share]
        memset(s, 0, sizeof(Share))
        s.line = line
        s.lists[0] = s.lists[1] = s.lists[2] = NONE
        s.heap_at = NONE
        s.ring_next = s.ring_prev = NONE
        s.prev = NONE
        s.next = l.first
        if l.first != NONE:
            self.shares[l.first].prev = share
        l.first = share
        l.shares += 1
        self.shares_kept += 1
        return share

    cdef void drop_share(self, uint32_t share) noexcept:
        """Forget a share with nothing in it; its lists may be used by others."""
        cdef Share *s = &self.shares[share]
        cdef Line *l = &self.lines[s.line]
        cdef int rank
        self.out_of_bucket(share)
        for rank in range(CLASSES):
            if s.lists[rank] != NONE:
                self.chains[s.lists[rank]].kind = K_FREE
                self.chains[s.lists[rank]].head = self.free_chain
                self.free_chain = s.lists[rank]
        if s.prev != NONE:
            self.shares[s.prev].next = s.next
        else:
            l.first = s.next
        if s.next != NONE:
            self.shares[s.next].prev = s.prev
        if l.recent == share:
            l.recent = NONE
        l.shares -= 1
        s.line = NONE
        s.next = self.free_share
        self.free_share = share
        self.shares_kept -= 1

    cdef void forget_idle(self, uint32_t line) noexcept:
        """Forget who has nothing ready and owes nothing."""
        cdef uint32_t share = self.lines[line].first
        cdef uint32_t following
        while share != NONE:
            following = self.shares[share].next
            if self.shares[share].ready == 0 and self.shares[share].place <= self.lines[line].lowest:
                self.drop_share(share)
            share = following

    cdef void entered(self, Chain *c) noexcept:
        """A list of a line has one more."""
        cdef uint32_t share = c.owner
        cdef Share *s = &self.shares[share]
        cdef Line *l = &self.lines[s.line]
        l.length += 1
        s.ready += 1
        if s.ready == 1:
            if s.place < l.lowest:
                s.place = l.lowest
            l.heap[l.active] = share
            s.heap_at = l.active
            l.active += 1
            self.rise(l, s.heap_at)
        if c.kind == K_URGENT and c.length == 1:
            self.into_ring(l, share)

    cdef void departed(self, Chain *c) noexcept:
        """A list of a line has one less."""
        cdef uint32_t share = c.owner
        cdef Share *s = &self.shares[share]
        cdef Line *l = &self.lines[s.line]
        cdef uint32_t last, at
        l.length -= 1
        s.ready -= 1
        if c.length == 0:
            s.passed[c.kind - K_URGENT] = 0
            if c.kind == K_URGENT:
                self.out_of_ring(l, share)
        if s.ready == 0:
            s.owed = False
            l.active -= 1
            at = s.heap_at
            s.heap_at = NONE
            last = l.heap[l.active]
            if last != share:
                l.heap[at] = last
                self.shares[last].heap_at = at
                self.rise(l, at)
                self.sink(l, self.shares[last].heap_at)
        if l.length == 0:
            while l.shares > 1:
                self.drop_share(l.first if l.first != share else s.next)
            l.lowest = 0
            s.place = 0

    cdef uint32_t whose_turn(self, Line *l) noexcept:
        """The share whose turn it is; the line is not empty."""
        cdef uint32_t share = l.heap[0]
        cdef uint32_t urgent
        cdef int tries
        l.lowest = self.shares[share].place
        if l.active == 1:
            return share
        if l.lowest > FAR:
            self.move_back(l)
        for tries in range(TRIES):
            if l.ring == NONE:
                break
            urgent = l.ring
            l.ring = self.shares[urgent].ring_next
            if self.shares[urgent].place <= l.lowest + LEAD * self.shares[urgent].stride:
                return urgent
        return share

    cdef uint32_t whose_list(self, uint32_t share) noexcept:
        """Of which of its lists the next one is."""
        cdef Share *s = &self.shares[share]
        cdef int rank, top = 0, chosen
        while top < BULK_CLASS and (s.lists[top] == NONE or self.chains[s.lists[top]].length == 0):
            top += 1
        chosen = top
        if not s.owed:
            for rank in range(top + 1, CLASSES):
                if s.passed[rank] >= PASSED[rank]:
                    chosen = rank
                    break
        s.owed = chosen != top
        s.passed[chosen] = 0
        for rank in range(chosen + 1, CLASSES):
            if s.passed[rank] < PASSED[rank] and s.lists[rank] != NONE and self.chains[s.lists[rank]].length:
                s.passed[rank] += 1
        return s.lists[chosen]

    cdef uint32_t next_of(self, uint32_t line) noexcept:
        """The slot whose turn it is in a line that is not empty; its tenant has had it then."""
        cdef Line *l = &self.lines[line]
        cdef uint32_t share = self.whose_turn(l)
        cdef Share *s = &self.shares[share]
        cdef uint32_t chain = self.whose_list(share)
        if l.active > 1:
            s.place += s.stride
            self.sink(l, s.heap_at)
        return self.chains[chain].head

    cdef void move_back(self, Line *l) noexcept:
        """Let the scale of a line begin anew: all keep their distances."""
        cdef uint32_t share = l.first
        while share != NONE:
            self.shares[share].place -= min(self.shares[share].place, l.lowest)
            share = self.shares[share].next
        l.lowest = 0

    # A heap of shares: who stands lowest, of equals the tenant with the lower number, is its first.

    cdef bint before(self, uint32_t a, uint32_t b) noexcept:
        if self.shares[a].place != self.shares[b].place:
            return self.shares[a].place < self.shares[b].place
        return self.shares[a].tenant < self.shares[b].tenant

    cdef void rise(self, Line *l, uint32_t at) noexcept:
        cdef uint32_t share = l.heap[at]
        cdef uint32_t above
        while at:
            above = (at - 1) // 2
            if not self.before(share, l.heap[above]):
                break
            l.heap[at] = l.heap[above]
            self.shares[l.heap[at]].heap_at = at
            at = above
        l.heap[at] = share
        self.shares[share].heap_at = at

    cdef void sink(self, Line *l, uint32_t at) noexcept:
        cdef uint32_t share = l.heap[at]
        cdef uint32_t below
        while 2 * at + 1 < l.active:
            below = 2 * at + 1
            if below + 1 < l.active and self.before(l.heap[below + 1], l.heap[below]):
                below += 1
            if not self.before(l.heap[below], share):
                break
            l.heap[at] = l.heap[below]
            self.shares[l.heap[at]].heap_at = at
            at = below
        l.heap[at] = share
        self.shares[share].heap_at = at

    # The ring of shares with urgent mail.

    cdef void into_ring(self, Line *l, uint32_t share) noexcept:
        cdef uint32_t last
        if l.ring == NONE:
            l.ring = share
            last = share
        else:
            last = self.shares[l.ring].ring_prev
        self.shares[share].ring_next = l.ring
        self.shares[share].ring_prev = last
        self.shares[last].ring_next = share
        self.shares[l.ring].ring_prev = share

    cdef void out_of_ring(self, Line *l, uint32_t share) noexcept:
        cdef Share *s = &self.shares[share]
        if s.ring_next == share:
            l.ring = NONE
        else:
            self.shares[s.ring_prev].ring_next = s.ring_next
            self.shares[s.ring_next].ring_prev = s.ring_prev
            if l.ring == share:
                l.ring = s.ring_next
        s.ring_next = s.ring_prev = NONE

    # The hash table of shares.

    cdef uint32_t bucket(self, uint32_t line, uint16_t tenant) noexcept:
        cdef uint64_t key = (<uint64_t>line << 16 | tenant) * <uint64_t>0x9E3779B97F4A7C15
        return <uint32_t>(key >> 32) & (self.buckets_room - 1)

    cdef void into_bucket(self, uint32_t share) noexcept:
        cdef Share *s = &self.shares[share]
        cdef uint32_t bucket = self.bucket(s.line, s.tenant)
        s.bucket_next = self.buckets[bucket]
        self.buckets[bucket] = share

    cdef void out_of_bucket(self, uint32_t share) noexcept:
        cdef uint32_t *at = &self.buckets[self.bucket(self.shares[share].line, self.shares[share].tenant)]
        while at[0] != share:
            at = &self.shares[at[0]].bucket_next
        at[0] = self.shares[share].bucket_next

    cdef int more_buckets(self) except -1:
        cdef uint32_t *grown = <uint32_t *>malloc(2 * self.buckets_room * sizeof(uint32_t))
        cdef uint32_t line, share
        if grown == NULL:
            raise MemoryError
        free(self.buckets)
        self.buckets = grown
        self.buckets_room *= 2
        memset(grown, 0xFF, self.buckets_room * sizeof(uint32_t))
        for line in range(self.lines_used):
            share = self.lines[line].first
            while share != NONE:
                self.into_bucket(share)
                share = self.shares[share].next
        return 0

    def set_weight(self, uint16_t tenant, uint32_t weight):
        """How many turns a tenant has where one of weight 1 has one; counts where he is met from now on."""
        cdef uint64_t *grown
        cdef uint32_t n
        if not weight:
            raise ValueError("a weight is at least 1")
        if tenant >= self.strides_room:
            grown = <uint64_t *>realloc(self.strides, (<uint32_t>tenant + 1) * sizeof(uint64_t))
            if grown == NULL:
                raise MemoryError
            self.strides = grown
            for n in range(self.strides_room, <uint32_t>tenant + 1):
                grown[n] = SCALE
            self.strides_room = <uint32_t>tenant + 1
        self.strides[tenant] = SCALE // weight

    def urgent(self, uint32_t chain):
        """How much urgent mail is in a line."""
        self.check_list(chain)
        if self.chains[chain].kind != K_LINE:
            raise ValueError(f"{chain} is no line")
        cdef uint32_t first = self.lines[self.chains[chain].owner].ring
        cdef uint32_t share = first
        cdef uint32_t count = 0
        while share != NONE:
            count += self.chains[self.shares[share].lists[URGENT_CLASS]].length
            share = self.shares[share].ring_next
            if share == first or count >= AHEAD:
                break
        return count

    def shares_in_use(self):
        """Tenants in lines, idle ones that are remembered included."""
        return self.shares_kept

    def ahead(self, uint32_t slot):
        """(those before it in its list, those of its tenant in more urgent classes, those of other tenants in its line).

        For a slot that is ready; the first is at most AHEAD.
        """
        cdef Slot *s = self.at(slot)
        cdef Chain *c
        cdef uint32_t before = 0, urgent = 0, at = s.prev
        cdef int rank
        if s.state != S_READY or self.chains[s.list].kind < K_URGENT:
            raise ValueError(f"the delivery in slot {slot} is in no line")
        c = &self.chains[s.list]
        while at != NONE and before < AHEAD:
            before += 1
            at = self.slots[at].prev
        for rank in range(c.kind - K_URGENT):
            if self.shares[c.owner].lists[rank] != NONE:
                urgent += self.chains[self.shares[c.owner].lists[rank]].length
        return before, urgent, self.lines[self.shares[c.owner].line].length - self.shares[c.owner].ready

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
        """Move a slot to the end (or the front) of a list, or of what is its tenant's and its class's in a line."""
        self.at(slot)
        self.check_list(chain)
        if not S_IDLE < state < STATES:
            raise ValueError(f"{state} is no state of a listed delivery")
        self.unlink(slot)
        if self.chains[chain].kind == K_LINE:
            if state != S_READY:
                raise ValueError(f"what is in a line is ready, not in state {state}")
            chain = self.list_for(self.chains[chain].owner, slot)
        self.link(slot, chain, state, front)

    def pop(self, uint32_t chain):
        """Take the first slot of a list, or of a line, now idle; -1 when it is empty."""
        self.check_list(chain)
        cdef uint32_t slot = self.first(chain)
        if slot == NONE:
            return -1
        self.unlink(slot)
        return slot

    cdef uint32_t first(self, uint32_t chain) noexcept:
        """The slot of a list or line that is to be taken out now; NONE when it is empty."""
        if self.chains[chain].kind != K_LINE:
            return self.chains[chain].head
        return self.next_of(self.chains[chain].owner) if self.lines[self.chains[chain].owner].length else <uint32_t>NONE

    def take(self, uint32_t chain, uint32_t limit, uint32_t active, uint64_t now_ms=0):
        """Move up to `limit` slots from a line to an active list: [(slot, id, ref, part, attempts), ...].

        `now_ms`, since the epoch of ids: notes how long those waited that are tried for the first time.
        """
        cdef list taken = []
        cdef uint32_t slot
        cdef Slot *s
        self.check_list(chain)
        self.check_list(active)
        if self.chains[active].kind != K_LIST:
            raise ValueError(f"{active} is no list of what is active")
        while limit:
            slot = self.first(chain)
            if slot == NONE:
                break
            self.unlink(slot)
            self.link(slot, active, S_ACTIVE, False)
            s = &self.slots[slot]
            if now_ms and not s.attempts and not s.marks & M_TIMED:
                self.note_time(s, now_ms)
            taken.append((slot, s.id, s.ref, s.part, s.attempts))
            limit -= 1
        return taken

    cdef void note_time(self, Slot *s, uint64_t now_ms) noexcept:
        cdef uint64_t began = s.id >> ID_TIME
        cdef uint64_t wait = now_ms - began if now_ms > began else 0
        cdef int rank = URGENT_CLASS if s.marks & M_URGENT else BULK_CLASS if s.marks & M_BULK else NORMAL_CLASS
        cdef int octave = 0
        cdef uint64_t rest = wait + 1
        while rest >= 8:        # the two bits behind the first one are the quarter of the octave
            rest >>= 1
            octave += 1
        cdef int bucket = <int>rest if octave == 0 else 4 * octave + <int>rest
        self.times[rank][min(bucket, TIMES - 1)] += 1

    def waits(self, uint32_t rank):
        """How many of a class (0: urgent, 1: normal, 2: bulk) waited how long; the bounds are `mta.queue.waits`'s."""
        if rank >= CLASSES:
            raise IndexError(f"no class {rank}")
        return [self.times[rank][n] for n in range(TIMES)]

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
        """Say whose a delivery is, and by which pool it leaves, that is in no line; 0 and 0 until then."""
        cdef Slot *s = self.at(slot)
        if s.list != NONE and self.chains[s.list].kind >= K_URGENT:
            raise ValueError(f"the delivery in slot {slot} is in a line")
        s.tenant = tenant
        s.pool = pool

    def marks(self, uint32_t slot):
        return self.at(slot).marks

    def mark(self, uint32_t slot, uint8_t marks):
        """Set some marks."""
        self.at(slot).marks |= marks
        if marks & M_URGENT:
            self.met_urgent = True

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

    def census(self, uint32_t cursor, counts):
        """Add up in `counts`, an array("I") of eight cells a site, how many deliveries there are in each state.

        Begins at slot `cursor`; returns where to go on, -1 at the end. Sites beyond the array are passed over.
        """
        cdef Py_buffer view
        cdef uint32_t *cells
        cdef Py_ssize_t sites
        cdef uint32_t last = cursor + LOOKS
        cdef Slot *slot
        PyObject_GetBuffer(counts, &view, PyBUF_WRITABLE)
        try:
            cells = <uint32_t *>view.buf
            sites = view.len // (8 * sizeof(uint32_t))
            while cursor < self.used and cursor < last:
                slot = &self.slots[cursor]
                if slot.state != S_FREE and slot.site < sites:
                    cells[8 * <Py_ssize_t>slot.site + slot.state] += 1
                cursor += 1
        finally:
            PyBuffer_Release(&view)
        return <long>cursor if cursor < self.used else -1

    def old(self, uint32_t cursor, uint32_t limit, uint32_t states, uint64_t expired, uint64_t late):
        """Up to `limit` slots from `cursor` on in these states whose message is older than `expired`, an id, or older
        than `late` without TOLD_DELAY: (slots, next cursor), -1 at the end. Stops as `scan` does."""
        cdef list found = []
        cdef uint32_t seen = 0, last = cursor + LOOKS
        cdef Slot *slot
        while cursor < self.used and seen < limit and cursor < last:
            slot = &self.slots[cursor]
            if slot.id < late and states >> slot.state & 1:
                if slot.id < expired or not slot.marks & M_TOLD_DELAY:
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

    def ages(self, uint32_t cursor, Query query not None, int key, bytes marks not None, bytearray counts not None):
        """Count deliveries by what they have in common, and by age; the next cursor, -1 at the end.

        `key` is 0 for the site, 1 the domain, 2 the tenant. `marks` are ids, eight octets each, newest first: a
        delivery is as many ages old as there are ids above its own. `counts` are 32-bit numbers, a row of one more
        than there are marks for each number of the key; what has a number beyond is new and left out.
        Only what is sure counts.
        """
        cdef Py_ssize_t columns = PyBytes_GET_SIZE(marks) // 8 + 1
        cdef Py_ssize_t most = len(counts) // 4 // columns, row, column
        cdef const uint64_t *mark = <const uint64_t *>PyBytes_AS_STRING(marks)
        cdef uint32_t *cells = <uint32_t *>PyByteArray_AS_STRING(counts)
        cdef uint32_t last = cursor + LOOKS
        cdef Slot *s
        while cursor < self.used and cursor < last:
            s = &self.slots[cursor]
            if s.state != S_FREE and query.holds(0, cursor, s) == YES:
                row = s.site if key == 0 else s.domain if key == 1 else s.tenant
                if row < most:
                    column = 0
                    while column < columns - 1 and s.id < mark[column]:
                        column += 1
                    cells[row * columns + column] += 1
            cursor += 1
        return <long>cursor if cursor < self.used else -1

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
