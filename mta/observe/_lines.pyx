# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, auto_pickle=False
"""Lines of the mail log, in one growing buffer until they are written.

A message has two lines in its plain life, `received` and `delivered`. In Python they took 2.1 and 2.5 us with all in the
processor's caches, and between the system calls of a busy process twice that.

Invariants
- Text from outside goes through `printable` unless each of its octets is a printable ASCII character that is no
  backslash: then that would change nothing.
- A line is whole in the buffer, or not in it at all.

Failure: MemoryError, and what `printable` raises; the line is not there then.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, strlen

cdef extern from *:
    """
    #ifndef MTA_SOURCE_HASH
    #define MTA_SOURCE_HASH ""
    #endif
    """
    const char *MTA_SOURCE_HASH

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL
    char *PyOS_double_to_string(double, char, int, int, int *) except NULL

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    int CLOCK_REALTIME

SOURCE_HASH = MTA_SOURCE_HASH.decode("ascii")

cdef const char *ALPHABET = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # mta.model.id_text
cdef enum:
    ID = 12
    STAMP = 19  # 2026-11-23T12:00:00


cdef class Lines:
    """`printable` makes text from outside safe, `stamp` writes a whole second down to it."""

    cdef object printable
    cdef object stamp_of
    cdef char *data
    cdef readonly Py_ssize_t size  # octets in the buffer
    cdef Py_ssize_t room
    cdef int64_t second
    cdef char stamp[STAMP]

    def __init__(self, printable, stamp):
        self.printable = printable
        self.stamp_of = stamp
        self.second = -1

    def __dealloc__(self):
        free(self.data)

    def take(self):
        """All lines; the buffer is empty then."""
        cdef bytes taken = PyBytes_FromStringAndSize(self.data, self.size)
        self.size = 0
        return taken

    def step(self, str message_id not None, str event not None, str fields not None):
        cdef Py_ssize_t start = self.size
        try:
            self.begin()
            self.words(message_id)
            self.octets(b" ", 1)
            self.words(event)
            self.octets(b" ", 1)
            self.words(fields)
            self.octets(b"\n", 1)
        except BaseException:
            self.size = start
            raise

    def received(
        self,
        str message_id not None,
        str client not None,
        bytes helo not None,
        bytes sender not None,
        bytes recipient not None,
        Py_ssize_t recipients,
        Py_ssize_t octets,
        str more not None,
    ):
        cdef Py_ssize_t start = self.size
        try:
            self.begin()
            self.words(message_id)
            self.literal(b" received client=")
            self.words(client)
            self.literal(b" helo=")
            self.foreign(helo)
            self.literal(b" from=<")
            self.foreign(sender)
            self.literal(b"> to=<")
            self.foreign(recipient)
            self.literal(b"> recipients=")
            self.number(recipients)
            self.literal(b" size=")
            self.number(octets)
            self.words(more)
            self.octets(b"\n", 1)
        except BaseException:
            self.size = start
            raise

    def delivered(self, uint64_t message_id, bytes recipient not None, str hop not None, double delay, str status not None):
        cdef Py_ssize_t start = self.size
        cdef char name[ID]
        cdef int i
        cdef char *text
        for i in range(ID):
            name[ID - 1 - i] = ALPHABET[message_id >> (5 * i) & 31]
        try:
            self.begin()
            self.octets(name, ID)
            self.literal(b" delivered to=<")
            self.foreign(recipient)
            self.literal(b"> relay=")
            self.words(hop or "none")
            self.literal(b" delay=")
            text = PyOS_double_to_string(delay if delay > 0 else 0.0, c"f", 1, 0, NULL)
            try:
                self.literal(text)
            finally:
                PyMem_Free(text)
            self.literal(b' status="')
            self.quoted(status)
            self.literal(b'"\n')
        except BaseException:
            self.size = start
            raise

    # ---- inside

    cdef int begin(self) except -1:
        """The time."""
        cdef timespec now
        cdef long milli
        cdef bytes stamp
        clock_gettime(CLOCK_REALTIME, &now)
        if now.tv_sec != self.second:
            stamp = self.stamp_of(now.tv_sec)
            if PyBytes_GET_SIZE(stamp) != STAMP:
                raise ValueError(f"{stamp!r} is no time")
            memcpy(self.stamp, PyBytes_AS_STRING(stamp), STAMP)
            self.second = now.tv_sec
        milli = now.tv_nsec // 1000000
        self.reserve(STAMP + 6)
        memcpy(self.data + self.size, self.stamp, STAMP)
        self.size += STAMP
        self.data[self.size] = c"."
        self.data[self.size + 1] = c"0" + milli // 100
        self.data[self.size + 2] = c"0" + milli // 10 % 10
        self.data[self.size + 3] = c"0" + milli % 10
        self.data[self.size + 4] = c"Z"
        self.data[self.size + 5] = c" "
        self.size += 6
        return 0

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t room = self.room
        cdef char *grown
        if self.size + more <= room:
            return 0
        room = max(2 * room, self.size + more, 4096)
        grown = <char *>realloc(self.data, room)
        if grown == NULL:
            raise MemoryError
        self.data = grown
        self.room = room
        return 0

    cdef int octets(self, const char *p, Py_ssize_t n) except -1:
        self.reserve(n)
        memcpy(self.data + self.size, p, n)
        self.size += n
        return 0

    cdef int literal(self, const char *p) except -1:
        return self.octets(p, strlen(p))

    cdef int number(self, Py_ssize_t value) except -1:
        cdef char digits[24]
        cdef int n = 24
        if value < 0:
            raise ValueError("a count cannot be below zero")
        while True:
            n -= 1
            digits[n] = c"0" + value % 10
            value //= 10
            if not value:
                return self.octets(digits + n, 24 - n)

    cdef int words(self, str text) except -1:
        """Our own text, or what is safe already."""
        cdef Py_ssize_t n
        cdef const char *p
        cdef bytes encoded
        try:
            p = PyUnicode_AsUTF8AndSize(text, &n)
        except UnicodeEncodeError:  # half of a surrogate pair
            encoded = text.encode("utf-8", "backslashreplace")
            return self.octets(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        return self.octets(p, n)

    cdef int foreign(self, bytes text) except -1:
        cdef const char *p = PyBytes_AS_STRING(text)
        cdef Py_ssize_t i, n = PyBytes_GET_SIZE(text)
        for i in range(n):
            if not 32 <= <unsigned char>p[i] < 127 or p[i] == c"\\":
                return self.words(self.printable(text))
        return self.octets(p, n)

    cdef int quoted(self, str text) except -1:
        """mta.observe.maillog.quoted, without its marks."""
        cdef Py_ssize_t i, n = 0
        cdef const char *p = PyUnicode_AsUTF8AndSize(text, &n) if text.isascii() else NULL
        cdef bint plain = p != NULL
        cdef Py_ssize_t start = self.size
        for i in range(n):
            if not 32 <= <unsigned char>p[i] < 127 or p[i] == c"\\":
                plain = False
                break
        if not plain:
            return self.words(self.printable(text).replace('"', "'"))
        self.octets(p, n)
        for i in range(start, self.size):
            if self.data[i] == c'"':
                self.data[i] = c"'"
        return 0
