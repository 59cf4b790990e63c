# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What a start does once a message: the newest change of each part, and the heads of message records.

A million entries cost 64 to 128 MB for the time of a recovery, against 400 MB as Python objects, and a tenth of the time
(0.1 µs to take an entry in, 1.0 in Python).

`Newest` is a hash table with open addressing, keyed by message id and part; entries are never taken out, only marked as
given. Tails (the finished recipients and the reason) are kept in one buffer; the ones that were met lately are found
again, for reasons repeat.

Bounds: every entry and every head is checked against the length of its buffer before it is read.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memrchr, memset

cdef extern from *:
    """
    #ifndef MTA_SOURCE_HASH
    #define MTA_SOURCE_HASH ""
    #endif
    """
    const char *MTA_SOURCE_HASH

SOURCE_HASH = MTA_SOURCE_HASH.decode("ascii")

cdef enum:
    ENTRY = 40              # octets of mta.spool.state.ENTRY
    FIRST_ROOM = 1024       # places; a power of two
    LATELY = 4096           # tails that are found again
    FINISHED = 0            # kinds
    MOVED = 255
    RECORD = 40             # octets of mta.spool.format.RECORD
    HEAD = 16               # and of its MESSAGE_HEAD
    MESSAGE = 1
    GIVEN = 128
    HOLD_UNTIL = 6          # places in model.Options
    DELIVER_BY = 7
    PRIORITY = 10
    TENANT = 13
    POOL = 14
    RANK = 15
    W_TIME = 1              # model.WANTS_...
    W_HASTE = 2
    W_BULK = 4


cdef struct Asked:          # what options say that the queue manager needs to know
    const uint8_t *tenant
    size_t tenant_length
    const uint8_t *pool
    size_t pool_length
    int wants


cdef struct Packed:         # mta.spool.state.ENTRY, little endian, no padding
    uint64_t ref
    uint64_t id
    uint64_t due
    uint32_t part
    uint32_t tail
    uint16_t attempts
    uint8_t kind
    uint8_t told
    uint8_t rest[4]


cdef struct Place:
    uint64_t id             # 0: free, for no message has this id
    uint64_t due
    uint32_t tail_at
    uint32_t tail
    uint32_t part
    uint16_t attempts
    uint8_t kind
    uint8_t told            # and GIVEN


cdef inline uint64_t mixed(uint64_t id, uint32_t part) noexcept nogil:
    id = (id ^ (<uint64_t>part << 40)) * <uint64_t>0x9E3779B97F4A7C15
    return id ^ (id >> 32)


cdef class Newest:
    """The newest change of each part that was fed."""

    cdef Place *places
    cdef size_t room, used
    cdef char *tails
    cdef size_t tails_room, tails_used
    cdef dict lately
    cdef readonly dict moves

    def __cinit__(self):
        self.places = <Place *>calloc(FIRST_ROOM, sizeof(Place))
        if self.places == NULL:
            raise MemoryError
        self.room = FIRST_ROOM
        self.lately = {}
        self.moves = {}

    def __dealloc__(self):
        free(self.places)
        free(self.tails)

    cdef Place *find(self, uint64_t id, uint32_t part) noexcept:
        """Where a part is, or where it would go."""
        cdef size_t at = mixed(id, part) & (self.room - 1)
        while self.places[at].id and (self.places[at].id != id or self.places[at].part != part):
            at = (at + 1) & (self.room - 1)
        return &self.places[at]

    cdef int grow(self) except -1:
        cdef Place *old = self.places
        cdef size_t count = self.room, at
        self.places = <Place *>calloc(2 * count, sizeof(Place))
        if self.places == NULL:
            self.places = old
            raise MemoryError
        self.room = 2 * count
        for at in range(count):
            if old[at].id:
                self.find(old[at].id, old[at].part)[0] = old[at]
        free(old)
        return 0

    cdef uint32_t keep(self, bytes tail) except? 0xFFFFFFFF:
        """Where a tail lies in the buffer."""
        cdef char *grown
        cdef size_t length = PyBytes_GET_SIZE(tail), room = self.tails_room
        known = self.lately.get(tail)
        if known is not None:
            return known
        if self.tails_used + length > 0xFFFFFFFE:
            raise MemoryError
        while room < self.tails_used + length:
            room = 2 * room if room else 65536
        if room != self.tails_room:
            grown = <char *>realloc(self.tails, room)
            if grown == NULL:
                raise MemoryError
            self.tails = grown
            self.tails_room = room
        memcpy(self.tails + self.tails_used, PyBytes_AS_STRING(tail), length)
        if len(self.lately) >= LATELY:
            self.lately.clear()
        self.lately[tail] = self.tails_used
        self.tails_used += length
        return self.tails_used - length

    def feed(self, bytes payload not None, segments):
        """Take the entries of a STATE record that are of these segments; how many entries there were.

        What is finished stays so; else the later entry counts.
        """
        cdef const char *data = PyBytes_AS_STRING(payload)
        cdef size_t length = PyBytes_GET_SIZE(payload), offset = 0
        cdef uint64_t last = 0xFFFFFFFFFFFFFFFF
        cdef bint there = False
        cdef Packed entry
        cdef Place *place
        cdef uint32_t tail_at
        count = 0
        while offset < length:
            if length - offset < ENTRY:
                raise ValueError("an entry is cut off")
            memcpy(&entry, data + offset, ENTRY)
            offset += ENTRY
            if length - offset < entry.tail:
                raise ValueError("a tail is cut off")
            if entry.kind == MOVED:         # its segment may be gone: that is what moves are for
                self.moves[entry.id] = entry.due
                offset += entry.tail
                count += 1
                continue
            if entry.ref >> 24 != last:
                last = entry.ref >> 24
                there = last in segments
            if there and entry.id:
                tail_at = self.keep(payload[offset:offset + entry.tail]) if entry.tail else 0
                place = self.find(entry.id, entry.part)
                if place.id == 0:
                    if 3 * self.used >= 2 * self.room:
                        self.grow()
                        place = self.find(entry.id, entry.part)
                    self.used += 1
                    place.id = entry.id
                    place.part = entry.part
                    place.kind = entry.kind
                if entry.kind == FINISHED or place.kind != FINISHED:
                    place.kind = entry.kind
                    place.due = entry.due
                    place.attempts = entry.attempts
                    place.told = entry.told & ~GIVEN
                    place.tail = entry.tail
                    place.tail_at = tail_at
            offset += entry.tail
            count += 1
        return count

    def take(self, uint64_t id, uint32_t part):
        """(kind, attempts, due, told, tail) of a part, or None; each is given once."""
        cdef Place *place = self.find(id, part) if id else NULL
        cdef uint8_t told
        if place == NULL or place.id == 0 or place.told & GIVEN:
            return None
        told = place.told
        place.told |= GIVEN
        if not place.tail:
            return place.kind, place.attempts, place.due, told, b""
        tail = PyBytes_FromStringAndSize(self.tails + place.tail_at, place.tail)
        return place.kind, place.attempts, place.due, told, tail

    def __len__(self):
        return self.used


def heads(data, list found not None, size_t base):
    """For each record in `found` (of a scan of `data`, which lies at `base`): (octets, those in a body file, domain,
    wants, lane), the last two as model.wants_of and model.lane_of have them.

    The domain is None where the message has not just one recipient, or is of another version: decode these with care.
    What is no MESSAGE has None in its place.
    """
    cdef Py_buffer buffer
    cdef list result = []
    cdef tuple record
    cdef size_t start, length
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        for record in found:
            if <int>record[0] != MESSAGE:
                result.append(None)
                continue
            start = <size_t>record[2] - base + RECORD
            length = <size_t>record[3]
            if start > <size_t>buffer.len or length > <size_t>buffer.len - start:
                raise ValueError("a record is not in the data")
            result.append(head(<const uint8_t *>buffer.buf + start, length))
    finally:
        PyBuffer_Release(&buffer)
    return result


cdef object head(const uint8_t *payload, size_t length):
    cdef uint32_t size
    cdef uint64_t large
    if length < HEAD:
        return None
    memcpy(&size, payload, 4)
    memcpy(&large, payload + 8, 8)
    if size > length - HEAD:
        return None
    cdef Asked asked
    memset(&asked, 0, sizeof(Asked))
    domain = only_domain(payload + HEAD, size, &asked)
    if domain is None:
        return length - HEAD - size + large, large, None, 0, None
    lane = None
    if asked.tenant_length or asked.pool_length:
        lane = text_at(asked.tenant, asked.tenant_length), text_at(asked.pool, asked.pool_length)
    return length - HEAD - size + large, large, domain, asked.wants, lane


cdef object text_at(const uint8_t *at, size_t length):
    return PyUnicode_DecodeUTF8(<const char *>at, length, NULL) if length else ""


cdef object only_domain(const uint8_t *at, size_t length, Asked *asked):
    """The domain of the only recipient of an envelope in msgpack, in lower case:

        [sender, [[address, notify, orcpt]], eight_bit, client, helo, options]

    Read with care, for what an envelope is made of is decided in mta.model: whatever looks different is None.
    """
    cdef const uint8_t *end = at + length
    cdef const uint8_t *text
    cdef const uint8_t *sign
    cdef uint8_t *lower
    cdef size_t n, i, fields, more
    if end - at < 1 or at[0] & 0xF0 != 0x90:      # an array of up to 15
        return None
    fields = at[0] & 0x0F
    at = binary(at + 1, end, &n)                        # the sender
    if at == NULL or end - at < <ssize_t>n + 2 or at[n] != 0x91 or at[n + 1] & 0xF0 != 0x90 or at[n + 1] == 0x90:
        return None
    more = (at[n + 1] & 0x0F) - 1                       # of the recipient, behind the address
    text = binary(at + n + 2, end, &n)
    if text == NULL:
        return None
    if fields > 5 and not read_options(skipped(text + n, end, more + 3), end, asked):
        return None
    sign = <const uint8_t *>memrchr(text, 64, n)
    if sign == NULL:
        return b""
    n -= sign + 1 - text
    domain = PyBytes_FromStringAndSize(<const char *>sign + 1, n)
    lower = <uint8_t *>PyBytes_AS_STRING(domain)
    for i in range(n):
        if 65 <= lower[i] <= 90:
            lower[i] |= 32
    return domain


cdef bint read_options(const uint8_t *at, const uint8_t *end, Asked *asked) noexcept:
    """What the options of an envelope, which begin here, ask of the queue; False where they look different."""
    cdef size_t count, field
    cdef int priority = 0, rank = 0
    if at == NULL or at >= end:
        return False
    if at[0] == 0xC0:                                   # none
        return True
    if at[0] & 0xF0 == 0x90:
        count = at[0] & 0x0F
        at += 1
    elif at[0] == 0xDC and end - at >= 3:               # an array of more than 15
        count = <size_t>at[1] << 8 | at[2]
        at += 3
    else:
        return False
    for field in range(count):
        if at == NULL or at >= end:
            return False
        if field == HOLD_UNTIL or field == DELIVER_BY:
            if at[0] != 0:
                asked.wants |= W_TIME
        elif field == PRIORITY:
            if not sign_of(at[0], &priority):
                return False
        elif field == RANK:
            if not sign_of(at[0], &rank):
                return False
        elif field == TENANT:
            asked.tenant = text(at, end, &asked.tenant_length)
            if asked.tenant == NULL:
                return False
        elif field == POOL:
            asked.pool = text(at, end, &asked.pool_length)
            if asked.pool == NULL:
                return False
        at = skipped(at, end, 1)
    if priority == 0:
        priority = rank
    if priority:
        asked.wants |= W_HASTE if priority > 0 else W_BULK
    return at != NULL


cdef bint sign_of(uint8_t octet, int *sign) noexcept:
    """The sign of a small integer; False for anything else."""
    if octet >= 0x80 and octet < 0xE0:
        return False
    sign[0] = 0 if octet == 0 else 1 if octet < 0x80 else -1
    return True


cdef const uint8_t *text(const uint8_t *at, const uint8_t *end, size_t *length) noexcept:
    """Where the octets of a text of up to 255 begin that is whole; NULL where there is none."""
    if at[0] & 0xE0 == 0xA0:
        length[0] = at[0] & 0x1F
        at += 1
    elif at[0] == 0xD9 and end - at >= 2:
        length[0] = at[1]
        at += 2
    else:
        return NULL
    return at if <size_t>(end - at) >= length[0] else NULL


cdef const uint8_t *skipped(const uint8_t *at, const uint8_t *end, size_t count) noexcept:
    """Where the value behind so many in msgpack begins; NULL where they are not whole, or no scalars."""
    cdef size_t n
    while count:
        if at == NULL or at >= end:
            return NULL
        if at[0] < 0x80 or at[0] >= 0xE0 or at[0] == 0xC0 or at[0] == 0xC2 or at[0] == 0xC3:    # small integer, nil, bool
            n = 1
        elif at[0] & 0xE0 == 0xA0:                      # short text
            n = 1 + (at[0] & 0x1F)
        elif at[0] >= 0xCC and at[0] <= 0xCF:           # unsigned integer
            n = 1 + (<size_t>1 << (at[0] - 0xCC))
        elif at[0] >= 0xD0 and at[0] <= 0xD3:           # integer
            n = 1 + (<size_t>1 << (at[0] - 0xD0))
        elif (at[0] == 0xC4 or at[0] == 0xD9) and end - at >= 2:
            n = 2 + <size_t>at[1]
        elif (at[0] == 0xC5 or at[0] == 0xDA) and end - at >= 3:
            n = 3 + (<size_t>at[1] << 8 | at[2])
        else:
            return NULL
        if n > <size_t>(end - at):
            return NULL
        at += n
        count -= 1
    return at


cdef const uint8_t *binary(const uint8_t *at, const uint8_t *end, size_t *length) noexcept:
    """Where the octets of a msgpack bin 8 or bin 16 begin that is whole; NULL where there is none."""
    if end - at >= 2 and at[0] == 0xC4:
        length[0] = at[1]
        at += 2
    elif end - at >= 3 and at[0] == 0xC5:
        length[0] = <size_t>at[1] << 8 | at[2]
        at += 3
    else:
        return NULL
    return at if <size_t>(end - at) >= length[0] else NULL
