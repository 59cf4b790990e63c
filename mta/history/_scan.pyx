# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The two lines that nearly every message has, and no other, read from a piece of the mail log.

    STAMP ID received client=C helo=H from=<S> to=<R> recipients=N size=Z NOTES
    STAMP ID delivered to=<R> relay=HOP delay=D status="TEXT"

Measured: 0.9 us for both, against 11 us by regular expressions. A line that has anything unusual about it (a quotation
mark in an address, another event, a broken stamp) is left to `mta.history.steps`, which can read all of them; the tests
compare the two.

Bounds: every read is between the beginning of the piece and the line end that was found in it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcmp, memrchr

cdef extern from *:
    """
    #ifndef MTA_SOURCE_HASH
    #define MTA_SOURCE_HASH ""
    #endif
    """
    const char *MTA_SOURCE_HASH

SOURCE_HASH = MTA_SOURCE_HASH.decode("ascii")

cdef enum:
    STAMP = 24              # octets of a time stamp
    NAME = 25               # where the id is
    NAME_SIZE = 12
    EVENT = 38              # where the event is
    RECEIVED = 9            # octets of the word with its blank
    DELIVERED = 10


cdef struct Line:
    const char *begin
    const char *end         # where its line feed is


cdef struct Text:
    const char *begin
    const char *end


cdef inline int64_t number(const char *p, int digits) noexcept:
    """Decimal digits; -1: something else."""
    cdef int64_t value = 0
    for _ in range(digits):
        if p[0] < c'0' or p[0] > c'9':
            return -1
        value = value * 10 + (p[0] - c'0')
        p += 1
    return value


cdef inline int64_t second_of(const char *p) noexcept:
    """Seconds since the epoch of YYYY-MM-DDTHH:MM:SS; -1: this is none."""
    cdef int64_t year = number(p, 4), month = number(p + 5, 2), day = number(p + 8, 2)
    cdef int64_t hour = number(p + 11, 2), minute = number(p + 14, 2), second = number(p + 17, 2)
    cdef int64_t era, shifted, of_year
    if p[4] != c'-' or p[7] != c'-' or p[10] != c'T' or p[13] != c':' or p[16] != c':':
        return -1
    if year < 1970 or month < 1 or month > 12 or day < 1 or day > 28 + (month != 2) * 3 - (
        month == 4 or month == 6 or month == 9 or month == 11
    ) + (month == 2 and (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0))):
        return -1
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return -1
    # Days in the proleptic Gregorian calendar, years counted from March.
    shifted = year - (month <= 2)
    era = shifted // 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    shifted -= era * 400
    return (era * 146097 + shifted * 365 + shifted // 4 - shifted // 100 + of_year - 719468) * 86400 + (
        hour * 3600 + minute * 60 + second
    )


cdef inline bint is_id(const char *p) noexcept:
    """Whether this may be the id of a message, as `mta.model.id_text` writes it."""
    for i in range(NAME_SIZE):
        if not (c'0' <= p[i] <= c'9' or c'A' <= p[i] <= c'Z') or p[i] in (c'I', c'L', c'O', c'U'):
            return False
    return True


cdef inline bint has(const char *p, const char *end, const char *word, Py_ssize_t size) noexcept:
    return end - p >= size and memcmp(p, word, size) == 0


cdef inline const char *upto(const char *p, const char *end, char octet) noexcept:
    return <const char *>memchr(p, octet, end - p) if p < end else NULL


cdef inline str text(const char *begin, const char *end):
    return PyUnicode_DecodeUTF8(<char *>begin, end - begin, "replace")


cdef class Piece:
    """One piece of the log while it is read."""

    cdef bytes data
    cdef const char *start
    cdef list endings, others
    cdef dict waiting           # where the `received` line of a message begins, by id
    cdef char second_text[19]
    cdef int64_t second
    cdef readonly int64_t first, last   # the times of the oldest line and of the newest

    def __cinit__(self, bytes data not None):
        self.data = data
        self.start = PyBytes_AS_STRING(data)
        self.endings = []
        self.others = []
        self.waiting = {}
        self.second = -1
        self.first = self.last = 0

    cdef int64_t time_of(self, const char *p) noexcept:
        cdef int64_t milli
        if p[19] != c'.' or p[23] != c'Z':
            return -1
        milli = number(p + 20, 3)
        if self.second < 0 or memcmp(p, self.second_text, 19) != 0:
            self.second = second_of(p)
            for i in range(19):
                self.second_text[i] = p[i]
        return self.second * 1000 + milli if milli >= 0 and self.second >= 0 else -1

    cdef int read(self) except -1:
        cdef const char *p = self.start
        cdef const char *stop = p + PyBytes_GET_SIZE(self.data)
        cdef Line line
        while p < stop:
            line.begin = p
            line.end = upto(p, stop, c'\n')
            if line.end == NULL:
                line.end = stop
            p = line.end + 1
            if not self.take(&line):
                self.others.append(text(line.begin, line.end))
        cdef list arrivals = []
        for begin in self.waiting.values():
            line.begin = self.start + <Py_ssize_t>begin
            line.end = upto(line.begin, stop, c'\n')
            arrivals.append(text(line.begin, stop if line.end == NULL else line.end))
        self.others[:0] = arrivals  # so that whoever reads on knows of them first
        return 0

    cdef int take(self, Line *line) except -1:
        """Whether it was one of the two."""
        cdef int64_t at
        cdef str name
        if line.end - line.begin < EVENT + RECEIVED or line.begin[STAMP] != c' ' or line.begin[EVENT - 1] != c' ':
            return False
        if not is_id(line.begin + NAME):
            return False
        at = self.time_of(line.begin)
        if at < 0:
            return False
        if has(line.begin + EVENT, line.end, b"received ", RECEIVED):
            name = PyUnicode_DecodeASCII(<char *>line.begin + NAME, NAME_SIZE, "replace")
            if name in self.waiting:
                return False
            self.waiting[name] = line.begin - self.start
        elif not has(line.begin + EVENT, line.end, b"delivered ", DELIVERED) or not self.delivered(line, at):
            return False
        if not self.first or at < self.first:
            self.first = at
        if at > self.last:
            self.last = at
        return True

    cdef int delivered(self, Line *line, int64_t at) except -1:
        cdef const char *p = line.begin + EVENT + DELIVERED
        cdef const char *quote = upto(p, line.end, c'"')
        cdef const char *delay
        cdef Text to, hop
        cdef str name, recipient, reply
        if quote == NULL or upto(quote + 1, line.end, c'"') != line.end - 1:
            return False  # the only quotation marks of it are around the status
        if not has(p, line.end, b"to=<", 4) or quote - p < 8 or memcmp(quote - 8, b" status=", 8) != 0:
            return False
        to.begin = p + 4
        to.end = upto(to.begin, quote, c'>')
        if to.end == NULL or not has(to.end, quote, b"> relay=", 8):
            return False
        hop.begin = to.end + 8
        if quote - 8 <= hop.begin or upto(hop.begin, quote, c'>') != NULL:
            return False
        delay = <const char *>memrchr(hop.begin, c' ', quote - 8 - hop.begin)
        if delay == NULL or not has(delay, quote - 8, b" delay=", 7) or quote - 8 - (delay + 7) > 12:
            return False
        for i in range(quote - 8 - (delay + 7)):
            if not (c'0' <= delay[7 + i] <= c'9' or delay[7 + i] == c'.'):
                return False
        if quote - 8 == delay + 7 or upto(to.begin, to.end, c'<') != NULL:
            return False
        hop.end = delay
        if has(hop.begin, hop.end, b"none", 4) and hop.end - hop.begin == 4:
            hop.end = hop.begin
        name = PyUnicode_DecodeASCII(<char *>line.begin + NAME, NAME_SIZE, "replace")
        recipient, reply = text(to.begin, to.end), text(quote + 1, line.end - 1)
        self.endings.append((name, at, 0, recipient, text(hop.begin, hop.end), reply) + self.origin(name))
        return True

    cdef tuple origin(self, str name):
        """Sender, client, size and notes of a message with one recipient, if it came in this piece; it is done with then."""
        cdef const char *stop = self.start + PyBytes_GET_SIZE(self.data)
        cdef const char *p
        cdef const char *end
        cdef Text client, helo, sender, first
        cdef int64_t several = 0, size = 0
        cdef int digits
        begin = self.waiting.get(name)
        if begin is None:
            return UNKNOWN
        p = self.start + <Py_ssize_t>begin
        end = upto(p, stop, c'\n')
        if end == NULL:
            end = stop
        if upto(p, end, c'"') != NULL:
            return UNKNOWN
        p += EVENT + RECEIVED
        if not has(p, end, b"client=", 7):
            return UNKNOWN
        client.begin = p + 7
        client.end = upto(client.begin, end, c' ')
        if client.end == NULL or client.end == client.begin or not has(client.end, end, b" helo=", 6):
            return UNKNOWN
        helo.begin = client.end + 6
        helo.end = upto(helo.begin, end, c' ')
        if helo.end == NULL or not has(helo.end, end, b" from=<", 7):
            return UNKNOWN
        sender.begin = helo.end + 7
        sender.end = upto(sender.begin, end, c'>')
        if sender.end == NULL or not has(sender.end, end, b"> to=<", 6):
            return UNKNOWN
        first.begin = sender.end + 6
        first.end = upto(first.begin, end, c'>')
        if first.end == NULL or not has(first.end, end, b"> recipients=", 13):
            return UNKNOWN
        if upto(sender.begin, sender.end, c'<') != NULL or upto(first.begin, first.end, c'<') != NULL:
            return UNKNOWN
        p = first.end + 13
        if not has(p, end, b"1 size=", 7):
            return UNKNOWN  # several recipients: others may end in another piece
        p += 7
        digits = 0
        while p < end and digits < 15 and c'0' <= p[0] <= c'9':
            size = size * 10 + (p[0] - c'0')
            digits += 1
            p += 1
        if not digits or (p < end and p[0] != c' '):
            return UNKNOWN
        del self.waiting[name]
        notes = text(p + 1, end) if p < end else None
        return text(sender.begin, sender.end), text(client.begin, client.end), size, notes


cdef tuple UNKNOWN = (None, None, None, None)


def scan(bytes data not None):
    """Rows of what was delivered, all other lines, and the times of the oldest and the newest line that was taken."""
    cdef Piece piece = Piece(data)
    piece.read()
    return piece.endings, piece.others, piece.first, piece.last
