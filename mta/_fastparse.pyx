# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, auto_pickle=False
"""The two SMTP sessions' loops over octets, sans-IO: input in, flags and reply octets out.

Purpose: parse what a peer sends at a few nanoseconds an octet, and keep an idle session at a few hundred octets.
Owns: the state of one connection, the octets that wait in it, and the tape of what was said last. No socket, file or
policy; the one look at a clock is the stamp of each line on a tape, on which nothing depends.

Invariants
- What a session answers depends on the octets alone, never on how they were cut into packets.
- Only CRLF ends a command line; only CRLF.CRLF, or .CRLF right behind the line of DATA, ends a text
  (RFC 5321 §2.3.8, §4.1.1.4). Anything that another server might take for a line end gets the text refused.
- What BDAT says is read as that many octets before anything is said to it, so no octet of a refused chunk is obeyed;
  when the size cannot be read, the session ends (RFC 3030 §2).
- Memory in a session is bounded: a command line by `config.line`, a text by `config.chunk` and one read (when the
  caller takes what BODY offers), input behind a parked message by `KEPT_LIMIT`.
- A tape keeps no response of a login, no octet of a text and no line that is no command: only how long they were.
- Bounds checks are off: every loop below runs over [0, n) of a length that its caller got from the buffer
  protocol or from the allocation itself; the look-ahead of `mta_clean` stays inside n.

Failure: bad input becomes a reply, never an exception. MemoryError, an exception out of `judge` (or of another function
of the caller's: `gate`, `refused`, `commands`) and calls out of
order (resume() without a message, any call from inside `judge`) are raised; the session can then only be closed.

RFC 5321 (commands, paths, texts), RFC 1870 (SIZE), RFC 2034 and RFC 3463 (enhanced codes), RFC 2920 (pipelining),
RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 6152 (8BITMIME), RFC 3030 (CHUNKING, BINARYMIME), RFC 2033 (LMTP), RFC 3461
(DSN), RFC 8689 (REQUIRETLS), RFC 6531 (SMTPUTF8), RFC 4865 (FUTURERELEASE), RFC 2852 (DELIVERBY), RFC 6710
(MT-PRIORITY), RFC 9422 (LIMITS).

`mta.protocol.server` and the modules beside it (`commands`, `extensions`, `parameters`, `paths`, `text`) say the same
in plain Python; the same tests run against both.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, memmove, memset, strlen

import binascii as _binascii
import time as _time

ctypedef unsigned char octet

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    # Owned by hand: the text of a message grows in place and is handed out without a copy.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *, Py_ssize_t) except NULL
    int resize_bytes "_PyBytes_Resize"(PyObject **, Py_ssize_t) except -1
    char *bytes_start "PyBytes_AS_STRING"(PyObject *)
    Py_ssize_t bytes_room "PyBytes_GET_SIZE"(PyObject *)
    void drop "Py_XDECREF"(PyObject *)

cdef extern from *:
    """
    #ifndef MTA_SOURCE_HASH
    #define MTA_SOURCE_HASH ""
    #endif

    /* The loops below hold no branch, so that the compiler makes vector code of them: 16 octets a step.
       Each reads p[0..n], one octet more than it judges. */

    /* Is anything in p[0..n) but plain text and whole CRLFs that no dot follows? A CR must stand before each
       LF and nowhere else: one exclusive-or finds a bare CR and a bare LF alike. */
    static inline __attribute__((always_inline)) int
    mta_suspect(const unsigned char *p, const size_t n)
    {
        unsigned char found = 0;
        for (size_t i = 0; i < n; i++) {
            unsigned char a = p[i], b = p[i + 1];
            found |= (unsigned char)((a == '\\r') ^ (b == '\\n'));
            found |= (unsigned char)(a == 0);
            found |= (unsigned char)((a == '\\n') & (b == '.'));
        }
        return found;
    }

    /* How much of p[0..n) is plain beyond doubt; p[0] is known not to be a bare LF. Ends on no CR. */
    static inline size_t
    mta_clean(const unsigned char *p, size_t n)
    {
        size_t k = 0;
        while (k + 512 < n && !mta_suspect(p + k, 512)) k += 512;
        while (k + 64 < n && !mta_suspect(p + k, 64)) k += 64;
        while (k + 16 < n && !mta_suspect(p + k, 16)) k += 16;
        if (k && p[k - 1] == '\\r') k++;        /* its LF is at p[k]: mta_suspect has looked */
        return k;
    }

    /* Is anything in p[1..n) but whole CRLFs and text without NUL, p[0] being known already? */
    static inline __attribute__((always_inline)) int
    mta_spoilt(const unsigned char *p, const size_t n)
    {
        unsigned char found = 0;
        for (size_t i = 1; i < n; i++) {
            found |= (unsigned char)((p[i - 1] == '\\r') ^ (p[i] == '\\n'));
            found |= (unsigned char)(p[i] == 0);
        }
        return found;
    }

    /* Does a command line hold what no command may? (RFC 5321 §2.3.8, §4.1.2) */
    static inline int
    mta_unfit(const unsigned char *p, size_t n)
    {
        unsigned char found = 0;
        for (size_t i = 0; i < n; i++)
            found |= (unsigned char)((p[i] == '\\r') | (p[i] == '\\n') | (p[i] == 0));
        return found;
    }
    """
    const char *MTA_SOURCE_HASH
    size_t mta_clean(const octet *p, size_t n) noexcept nogil
    int mta_spoilt(const octet *p, size_t n) noexcept nogil
    int mta_unfit(const octet *p, size_t n) noexcept nogil

SOURCE_HASH = MTA_SOURCE_HASH.decode("ascii")

# Flags of receive, resume and close, in the order in which the caller handles them.
OUTPUT = 1
DISCARD = 2
BODY = 4
MESSAGE = 8
STARTTLS = 16
CLOSE = 32
AUTH = 64
SLOW = 1024

cdef enum:
    F_OUTPUT = 1
    F_DISCARD = 2
    F_BODY = 4
    F_MESSAGE = 8
    F_STARTTLS = 16
    F_CLOSE = 32
    F_AUTH = 64
    F_SLOW = 1024

# What a session may offer besides STARTTLS and AUTH: bits of ServerConfig's `offers`.
EXTENSIONS = {
    "PIPELINING": 1,
    "SIZE": 2,
    "8BITMIME": 4,
    "ENHANCEDSTATUSCODES": 8,
    "SMTPUTF8": 16,
    "DSN": 32,
    "CHUNKING": 64,
    "BINARYMIME": 128,
    "REQUIRETLS": 256,
    "FUTURERELEASE": 512,
    "DELIVERBY": 1024,
    "MT-PRIORITY": 2048,
    "LIMITS": 4096,
}

cdef enum:
    X_PIPELINING = 1
    X_SIZE = 2
    X_8BITMIME = 4
    X_STATUS_CODES = 8
    X_BASIC = 15
    X_SMTPUTF8 = 16
    X_DSN = 32
    X_CHUNKING = 64
    X_BINARYMIME = 128
    X_REQUIRETLS = 256
    X_FUTURERELEASE = 512
    X_DELIVERBY = 1024
    X_MT_PRIORITY = 2048
    X_LIMITS = 4096
    X_AUTH = 1 << 30  # not in `offers`: the AUTH parameter of MAIL is taken where logins are

cdef enum:
    HT = 9
    LF = 10
    CR = 13
    SP = 32
    DOT = 46


# ---- octets that wait ------------------------------------------------------------------------------------------

cdef struct Octets:
    octet *data
    Py_ssize_t size
    Py_ssize_t room


cdef int octets_add(Octets *to, const octet *p, Py_ssize_t n) except -1:
    """Append; the buffer at least doubles when it is too small."""
    cdef Py_ssize_t room
    cdef void *data
    if n <= 0:
        return 0
    if to.size + n > to.room:
        room = max(to.size + n, 2 * to.room, 64)
        data = realloc(to.data, room)
        if data == NULL:
            raise MemoryError
        to.data = <octet *>data
        to.room = room
    memcpy(to.data + to.size, p, n)
    to.size += n
    return 0


cdef int octets_add_bytes(Octets *to, bytes more) except -1:
    return octets_add(to, <const octet *>PyBytes_AS_STRING(more), PyBytes_GET_SIZE(more))


cdef bytes octets_take(Octets *of):
    """All of them, leaving none."""
    cdef bytes taken = PyBytes_FromStringAndSize(<const char *>of.data, of.size)
    octets_free(of)
    return taken


cdef void octets_free(Octets *of) noexcept:
    free(of.data)
    of.data = NULL
    of.size = 0
    of.room = 0


# ---- the tape of a session: what was said last, as `mta.protocol.tape` has it -----------------------------------

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        int64_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *to)

SAID = 0
REPLIED = 1
TEXT_PASSED = 2
TLS_BEGAN = 3

cdef enum:
    T_SAID = 0
    T_REPLIED = 1
    T_TEXT = 2
    T_TLS = 3
    LEAST_TAPE = 1024
    LONGEST_ENTRY = 400  # octets of a line that are kept
    REALTIME_COARSE = 5  # 6 ns, where the exact clock takes 25

cdef struct Entry:
    int64_t total  # octets of the line or text
    uint32_t stamp  # milliseconds since the tape began
    uint16_t kept  # octets that follow
    octet kind
    octet spare

cdef struct Tape:
    Octets entries
    Py_ssize_t most  # octets
    Py_ssize_t head  # where the opening ends, which stays; 0: not yet
    Py_ssize_t dropped  # entries behind the head that made room
    Py_ssize_t lost  # entries for which there was no room while the tape was marked
    int64_t began
    uint32_t slow
    uint32_t now  # milliseconds since it began
    uint32_t last  # when the newest entry was made
    octet kind
    octet marked


cdef inline int tape_time(Tape *of) noexcept:
    """Called where octets come or go, so that not each entry asks the clock."""
    cdef timespec now
    cdef int64_t milliseconds
    if of == NULL:
        return 0
    clock_gettime(REALTIME_COARSE, &now)
    milliseconds = now.tv_sec * 1000 + now.tv_nsec // 1000000
    if of.began == 0:
        of.began = milliseconds
    of.now = <uint32_t>(milliseconds - of.began)
    return 0


cdef inline int tape(Tape *to, octet kind, const octet *p, Py_ssize_t kept, Py_ssize_t total) except -1:
    return tape_entry(to, kind, p, kept, total) if to != NULL else 0


cdef inline int tape_entry(Tape *to, octet kind, const octet *p, Py_ssize_t kept, Py_ssize_t total) except -1:
    """Note a line or text of that many octets, and the first of them."""
    cdef Entry entry
    cdef octet *at
    if kept > LONGEST_ENTRY:
        kept = LONGEST_ENTRY
    if to.entries.size + <Py_ssize_t>sizeof(Entry) + kept > to.entries.room and not tape_grow(to, kept):
        return 0
    entry.total = total
    entry.stamp = to.now
    entry.kept = <uint16_t>kept
    entry.kind = kind
    entry.spare = 0
    if kind == T_REPLIED:
        if to.slow and to.kind != T_REPLIED and to.now - to.last >= to.slow and to.entries.size:
            to.marked = True
    elif to.head == 0 and kind == T_SAID and kept >= 4 and same_word(p, b"MAIL", 4):
        to.head = to.entries.size
    to.last = to.now
    to.kind = kind
    at = to.entries.data + to.entries.size
    memcpy(at, &entry, sizeof(Entry))
    memcpy(at + sizeof(Entry), p, kept)
    to.entries.size += sizeof(Entry) + kept
    return 0


cdef bint tape_grow(Tape *to, Py_ssize_t kept) except -1:
    """Make room for an entry; False: there is none."""
    cdef Py_ssize_t need = to.entries.size + sizeof(Entry) + kept, room
    cdef void *data
    if need > to.most:
        if to.marked:
            to.lost += 1
            return False
        tape_make_room(to)
        need = to.entries.size + sizeof(Entry) + kept
    if need > to.entries.room:
        room = min(to.most, max(need, 2 * to.entries.room, 128))
        data = realloc(to.entries.data, room)
        if data == NULL:
            raise MemoryError
        to.entries.data = <octet *>data
        to.entries.room = room
    return True


cdef inline Py_ssize_t tape_next(Tape *of, Py_ssize_t at) noexcept nogil:
    cdef Entry entry
    memcpy(&entry, of.entries.data + at, sizeof(Entry))
    return at + sizeof(Entry) + entry.kept


cdef int tape_make_room(Tape *of) noexcept nogil:
    """Half of what is behind the opening goes; the opening itself stays, up to a quarter of all."""
    cdef Py_ssize_t at = 0, goal
    if of.head == 0 or of.head > of.most // 4:
        while at < of.entries.size and at < of.most // 4:
            at = tape_next(of, at)
        of.head = at
    at = of.head
    goal = at + (of.most - at) // 2
    while at < of.entries.size and at < goal:
        at = tape_next(of, at)
        of.dropped += 1
    memmove(of.entries.data + of.head, of.entries.data + at, of.entries.size - at)
    of.entries.size -= at - of.head
    return 0


cdef tuple tape_taken(Tape *of):
    """What is on it, which stays there, without the mark."""
    cdef Entry entry
    cdef Py_ssize_t at = 0, lost
    cdef const char *p
    cdef list entries = []
    if of == NULL:
        return 0, 0, 0, entries
    lost = of.lost
    while at < of.entries.size:
        memcpy(&entry, of.entries.data + at, sizeof(Entry))
        p = <const char *>of.entries.data + at + sizeof(Entry)
        if at == of.head and of.dropped:
            entries.append(None)
        entries.append((entry.stamp, entry.kind, entry.total, p[:entry.kept]))
        at = tape_next(of, at)
    of.marked = False
    of.lost = 0
    return of.began, of.dropped, lost, entries


cdef int tape_length(Py_ssize_t most) except -1:
    if most and most < LEAST_TAPE:
        raise ValueError("a tape has no room for so little")
    return 0


cdef Tape *new_tape(Py_ssize_t most, uint32_t slow) except? NULL:
    """NULL for a session without one."""
    cdef Tape *made
    if most == 0:
        return NULL
    made = <Tape *>realloc(NULL, sizeof(Tape))
    if made == NULL:
        raise MemoryError
    memset(made, 0, sizeof(Tape))
    made.most = most
    made.slow = slow
    return made


cdef void free_tape(Tape *tape) noexcept:
    if tape != NULL:
        octets_free(&tape.entries)
        free(tape)


# ---- scanning --------------------------------------------------------------------------------------------------

cdef enum:
    ATEXT = 1  # RFC 5322 §3.2.3
    LABEL = 2  # what a label of a domain may hold; the underscore is no letter of a host name, but is met in mail
    DIGIT = 4
    HEX = 8
    HELLO = 16  # what the argument of HELO and EHLO may hold

cdef octet KIND[256]


cdef int fill_kinds() except -1:
    cdef int c
    for c in range(256):
        KIND[c] = HELLO if 33 <= c <= 126 and c not in b"<>" else 0
    for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-":
        KIND[c] |= ATEXT | LABEL
    for c in b"!#$%&'*+/=?^`{|}~":
        KIND[c] |= ATEXT
    for c in b"0123456789":
        KIND[c] |= DIGIT
    for c in b"0123456789abcdefABCDEF":
        KIND[c] |= HEX
    return 0


fill_kinds()


cdef inline bint same_word(const octet *p, const char *word, Py_ssize_t n) noexcept nogil:
    """Are the n octets the word, which is given in upper case, in any case?"""
    cdef Py_ssize_t i
    cdef octet c
    for i in range(n):
        c = p[i]
        if 97 <= c <= 122:
            c -= 32
        if c != <octet>word[i]:
            return False
    return True


cdef inline bint has_8bit(const octet *p, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef octet seen = 0
    for i in range(n):
        seen |= p[i]
    return seen > 127


cdef inline Py_ssize_t trimmed(const octet *p, Py_ssize_t n) noexcept nogil:
    """The length without blanks at the end."""
    while n > 0 and (p[n - 1] == SP or p[n - 1] == HT):
        n -= 1
    return n


cdef inline Py_ssize_t past_blanks(const octet *p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    while i < n and (p[i] == SP or p[i] == HT):
        i += 1
    return i


# Each scan_ function takes octets p[i..n) and returns the place behind what it knows, or -1.

cdef inline bint is_unwanted(uint32_t c) noexcept nogil:
    """Controls, line and paragraph separators, what turns directions, and what is no character."""
    return (
        c < 0xA0 or 0x2028 <= c <= 0x202E or 0x2066 <= c <= 0x2069 or c == 0xFEFF
        or 0xFDD0 <= c <= 0xFDEF or c & 0xFFFE == 0xFFFE
    )


cdef Py_ssize_t scan_utf8(const octet *p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """One character beyond ASCII in its shortest form (RFC 6531 §3.3, RFC 3629 §4)."""
    cdef uint32_t c = p[i], least
    cdef int more
    if 0xC2 <= c <= 0xDF:
        c, more, least = c & 0x1F, 1, 0x80
    elif 0xE0 <= c <= 0xEF:
        c, more, least = c & 0x0F, 2, 0x800
    elif 0xF0 <= c <= 0xF4:
        c, more, least = c & 0x07, 3, 0x10000
    else:
        return -1
    if n - i <= more:
        return -1
    for _ in range(more):
        i += 1
        if p[i] & 0xC0 != 0x80:
            return -1
        c = c << 6 | p[i] & 0x3F
    if c < least or c > 0x10FFFF or 0xD800 <= c <= 0xDFFF or is_unwanted(c):
        return -1
    return i + 1


cdef inline Py_ssize_t scan_run(const octet *p, Py_ssize_t i, Py_ssize_t n, octet kind, bint utf8) noexcept nogil:
    """Past all octets of a kind and, where UTF-8 may stand, its characters; -1 where it is malformed."""
    while True:
        while i < n and KIND[p[i]] & kind:
            i += 1
        if not utf8 or i >= n or p[i] < 0x80:
            return i
        i = scan_utf8(p, i, n)
        if i < 0:
            return -1


cdef Py_ssize_t scan_domain(const octet *p, Py_ssize_t i, Py_ssize_t n, bint utf8) noexcept nogil:
    """A label beyond ASCII may be longer than 63 octets here: its limit is that of its A-label (RFC 5890 §2.3.2.1)."""
    cdef Py_ssize_t first = i, label
    while True:
        label = i
        i = scan_run(p, i, n, LABEL, utf8)
        if i <= label or p[label] == c"-" or p[i - 1] == c"-":
            return -1
        if i - label > 63 and not (utf8 and has_8bit(p + label, i - label)):
            return -1
        if i == n or p[i] != DOT:
            return i if i - first <= 255 else -1
        i += 1


cdef Py_ssize_t scan_dot_string(const octet *p, Py_ssize_t i, Py_ssize_t n, bint utf8) noexcept nogil:
    cdef Py_ssize_t atom
    while True:
        atom = i
        i = scan_run(p, i, n, ATEXT, utf8)
        if i <= atom:
            return -1
        if i == n or p[i] != DOT:
            return i
        i += 1


cdef Py_ssize_t scan_quoted(const octet *p, Py_ssize_t i, Py_ssize_t n, bint utf8) noexcept nogil:
    """p[i] is the opening quote."""
    i += 1
    while i < n:
        if p[i] == c'"':
            return i + 1
        if utf8 and p[i] >= 0x80:
            i = scan_utf8(p, i, n)
            if i < 0:
                return -1
            continue
        if p[i] == c"\\":
            i += 1
            if i == n:
                return -1
        if not 32 <= p[i] <= 126:
            return -1
        i += 1
    return -1


cdef bint is_ipv4(const octet *p, Py_ssize_t n) noexcept nogil:
    """Four decimal numbers; a leading zero is refused, since some readers would take it for octal."""
    cdef Py_ssize_t i = 0, first
    cdef int part, value
    for part in range(4):
        first = i
        value = 0
        while i < n and i - first < 3 and KIND[p[i]] & DIGIT:
            value = value * 10 + p[i] - 48
            i += 1
        if i == first or value > 255 or (p[first] == 48 and i - first > 1):
            return False
        if part < 3:
            if i == n or p[i] != DOT:
                return False
            i += 1
    return i == n


cdef bint is_ipv6(const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 5321 §4.1.3, but "::" may stand for one group (RFC 4291 §2.2)."""
    cdef Py_ssize_t i = 0, first
    cdef int groups = 0
    cdef bint gap = False
    if n >= 2 and p[0] == c":" and p[1] == c":":
        gap = True
        i = 2
    while i < n or not gap:
        first = i
        while i < n and KIND[p[i]] & HEX:
            i += 1
        if i < n and p[i] == DOT:
            if not is_ipv4(p + first, n - first):
                return False
            groups += 2
            break
        if i == first or i - first > 4:
            return False
        groups += 1
        if i == n:
            break
        if p[i] != c":" or i + 1 == n or groups > 8:
            return False
        i += 1
        if p[i] == c":":
            if gap:
                return False
            gap = True
            i += 1
    return groups <= 7 if gap else groups == 8


cdef Py_ssize_t scan_literal(const octet *p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """p[i] is the opening bracket (RFC 5321 §4.1.3). No tag but IPv6 was ever registered."""
    cdef const octet *close = <const octet *>memchr(p + i, c"]", n - i)
    cdef Py_ssize_t first = i + 1, size
    if close == NULL:
        return -1
    size = close - (p + first)
    if size >= 5 and same_word(p + first, b"IPV6:", 5):
        return first + size + 1 if is_ipv6(p + first + 5, size - 5) else -1
    return first + size + 1 if is_ipv4(p + first, size) else -1


cdef enum:
    BAD_PATH = 0
    MAILBOX = 1
    NULL_PATH = 2
    POSTMASTER = 3  # without a domain (RFC 5321 §4.1.1.3)

cdef struct Path:
    Py_ssize_t first  # the mailbox is p[first..behind)
    Py_ssize_t behind
    Py_ssize_t end  # the place behind the path


cdef Py_ssize_t scan_route(const octet *p, Py_ssize_t i, Py_ssize_t n, bint utf8) noexcept nogil:
    """p[i] is the first "@" of a source route."""
    while True:
        i = scan_domain(p, i + 1, n, utf8)
        if i < 0 or i == n:
            return -1
        if p[i] == c":":
            return i + 1
        if p[i] != c"," or i + 1 == n or p[i + 1] != c"@":
            return -1
        i += 1


cdef int scan_path(const octet *p, Py_ssize_t n, Path *path, bint utf8) noexcept nogil:
    """What kind of path stands at the start of p[0..n) (RFC 5321 §4.1.2, §4.5.3.1); `utf8`: RFC 6531 §3.3."""
    cdef Py_ssize_t i = 1, local
    if n < 2 or p[0] != c"<":
        return BAD_PATH
    path.first = path.behind = 1
    path.end = 2
    if p[1] == c">":
        return NULL_PATH
    if p[1] == c"@":
        i = scan_route(p, 1, n, utf8)
        if i < 0 or i == n:
            return BAD_PATH
    path.first = i
    local = scan_quoted(p, i, n, utf8) if p[i] == c'"' else scan_dot_string(p, i, n, utf8)
    if local < 0 or local == n or local - i > 64:
        return BAD_PATH
    if p[local] == c">":
        path.behind = local
        path.end = local + 1
        return POSTMASTER if local == 11 and i == 1 and same_word(p + 1, b"POSTMASTER", 10) else BAD_PATH
    if p[local] != c"@" or local + 1 == n:
        return BAD_PATH
    i = scan_literal(p, local + 1, n) if p[local + 1] == c"[" else scan_domain(p, local + 1, n, utf8)
    if i < 0 or i == n or p[i] != c">" or i + 1 > 256:
        return BAD_PATH
    path.behind = i
    path.end = i + 1
    return MAILBOX


def parse_path(bytes argument not None, bint utf8=False):
    cdef const octet *p = <const octet *>PyBytes_AS_STRING(argument)
    cdef Path path
    cdef int kind = scan_path(p, PyBytes_GET_SIZE(argument), &path, utf8)
    if kind == BAD_PATH:
        return None
    if kind == POSTMASTER:
        return b"postmaster", path.end
    return p[path.first:path.behind], path.end


# ---- texts: dots off, and the end ----------------------------------------------------------------------------------

cdef enum:
    # Where in a text the next octet stands. The first two are what mta_clean may start from.
    IN_LINE = 0
    LINE_START = 1
    AFTER_CR = 2  # the CR is not written yet
    AFTER_DOT = 3  # a dot that began its line; it is never written
    AFTER_DOT_CR = 4
    TEXT_END = 5

cdef enum:
    BARE_CR = 1
    BARE_LF = 2
    NUL = 4

cdef struct TextScan:
    octet place
    octet faults
    Py_ssize_t written


cdef Py_ssize_t scan_text(TextScan *scan, const octet *p, Py_ssize_t n, octet *out) noexcept nogil:
    """Undo dot-stuffing (RFC 5321 §4.5.2), find the end and what spoils a text. Returns how much of p was read.

    `out` has room for n + 1 octets (a CR may wait from the last packet), or is NULL to count them only.
    """
    cdef Py_ssize_t i = 0, w = 0, k, step_until = 0
    cdef octet place = scan.place, c
    while i < n:
        c = p[i]
        if place <= LINE_START and i >= step_until:
            if c != LF and not (c == DOT and place == LINE_START):
                k = mta_clean(p + i, n - i)
                if k:
                    if out != NULL:
                        memcpy(out + w, p + i, k)
                    w += k
                    i += k
                    place = LINE_START if p[i - 1] == LF else IN_LINE
            # mta_clean stopped short of 16 octets that want a closer look.
            step_until = i + 16
            continue
        i += 1
        if place <= LINE_START:
            if c == CR:
                place = AFTER_CR
                continue
            if c == DOT and place == LINE_START:
                place = AFTER_DOT
                continue
        elif place == AFTER_CR:
            if out != NULL:
                out[w] = CR
            w += 1
            if c == LF:
                if out != NULL:
                    out[w] = LF
                w += 1
                place = LINE_START
                continue
            scan.faults |= BARE_CR
            if c == CR:
                continue
        elif place == AFTER_DOT:
            if c == CR:
                place = AFTER_DOT_CR
                continue
        else:
            if c == LF:
                place = TEXT_END
                break
            scan.faults |= BARE_CR
            if out != NULL:
                out[w] = CR
            w += 1
            if c == CR:
                place = AFTER_CR
                continue
        if c == LF:
            scan.faults |= BARE_LF
        elif c == 0:
            scan.faults |= NUL
        if out != NULL:
            out[w] = c
        w += 1
        place = IN_LINE
    scan.place = place
    scan.written = w
    return i


cdef int look_at(TextScan *scan, const octet *p, Py_ssize_t n) noexcept nogil:
    """Note what spoils a text that is kept as it is; its place is IN_LINE or AFTER_CR."""
    cdef Py_ssize_t i = 0, whole
    cdef octet c
    while i < n:
        # A block that is clean beyond its first octet needs no closer look at the others.
        whole = min(n - i, 4096)
        if whole > 1 and not mta_spoilt(p + i, whole):
            look_at_octet(scan, p[i])
            i += whole
            scan.place = AFTER_CR if p[i - 1] == CR else IN_LINE
            continue
        whole += i
        while i < whole:
            look_at_octet(scan, p[i])
            i += 1
    return 0


cdef inline void look_at_octet(TextScan *scan, octet c) noexcept nogil:
    if (scan.place == AFTER_CR) != (c == LF):
        scan.faults |= BARE_CR if scan.place == AFTER_CR else BARE_LF
    if c == 0:
        scan.faults |= NUL
    scan.place = AFTER_CR if c == CR else IN_LINE


# ---- replies of the server -------------------------------------------------------------------------------------

cdef bytes R_OK = b"250 2.0.0 Ok\r\n"
cdef bytes R_SENDER_OK = b"250 2.1.0 Sender ok\r\n"
cdef bytes R_RECIPIENT_OK = b"250 2.1.5 Recipient ok\r\n"
cdef bytes R_GO_AHEAD = b"354 Send the text and end it with <CR><LF>.<CR><LF>\r\n"
cdef bytes R_BYE = b"221 2.0.0 Bye\r\n"
cdef bytes R_CHUNK_OK = b"250 2.0.0 Chunk taken\r\n"
cdef bytes R_START_TLS = b"220 2.0.0 Ready to start TLS\r\n"
cdef bytes R_VERIFY = b"252 2.1.5 Cannot verify the user, but mail for it can be tried\r\n"

cdef bytes R_TOO_MANY_ERRORS = b"421 4.7.0 Too many errors, closing the connection\r\n"
cdef bytes R_TOO_IDLE = b"421 4.7.0 Too many commands and no mail, closing the connection\r\n"
cdef bytes R_TOO_MUCH_MAIL = b"421 4.7.0 Too many messages in one session, connect again for more\r\n"
cdef bytes R_HTTP = b"421 4.7.0 This server takes mail and speaks no HTTP, closing the connection\r\n"
cdef bytes R_TOO_FAR_AHEAD = b"421 4.7.0 Too much input before the reply to a message, closing the connection\r\n"
cdef bytes R_LOST_TRACK = b"421 4.7.0 What follows cannot be told from a text, closing the connection\r\n"
cdef bytes R_TOO_MANY_RECIPIENTS = b"452 4.5.3 Too many recipients, send the others another copy\r\n"

cdef bytes R_UNKNOWN = b"500 5.5.2 Command not recognized\r\n"
cdef bytes R_UNFIT = b"500 5.5.2 A command holds no bare CR, bare LF or NUL, and ends with CRLF\r\n"
cdef bytes R_LONG_LINE = b"500 5.5.2 Command line too long\r\n"
cdef bytes R_LONG_RESPONSE = b"500 5.5.6 The response is too long\r\n"
cdef bytes R_NO_BASE64 = b"501 5.5.2 The response is not base64\r\n"
cdef bytes R_AUTH_SYNTAX = b"501 5.5.4 Write AUTH and a mechanism, and perhaps a first response in base64\r\n"
cdef bytes R_NO_ARGUMENT = b"501 5.5.4 This command takes no argument\r\n"
cdef bytes R_HELLO_SYNTAX = b"501 5.5.4 Say your host name behind HELO or EHLO\r\n"
cdef bytes R_HELLO_NAME = b"501 5.5.2 This is no host name or address literal\r\n"
cdef bytes R_VERIFY_SYNTAX = b"501 5.5.4 Say a user name behind VRFY\r\n"
cdef bytes R_MAIL_SYNTAX = b"501 5.5.4 Write MAIL FROM:<address>\r\n"
cdef bytes R_RCPT_SYNTAX = b"501 5.5.4 Write RCPT TO:<address>\r\n"
cdef bytes R_BAD_SENDER = b"501 5.1.7 Bad sender address syntax\r\n"
cdef bytes R_BAD_RECIPIENT = b"501 5.1.3 Bad recipient address syntax\r\n"
cdef bytes R_BAD_SIZE = b"501 5.5.4 SIZE takes a number of at most 20 digits\r\n"
cdef bytes R_BAD_BODY = b"501 5.5.4 BODY takes 7BIT or 8BITMIME\r\n"
cdef bytes R_BAD_BINARY_BODY = b"501 5.5.4 BODY takes 7BIT, 8BITMIME or BINARYMIME\r\n"
cdef bytes R_BAD_CHUNK = b"501 5.5.4 Write BDAT, a size, and LAST with the last chunk\r\n"
cdef bytes R_BAD_RET = b"501 5.5.4 RET takes FULL or HDRS\r\n"
cdef bytes R_BAD_ENVID = b"501 5.5.4 ENVID takes up to 100 characters, xtext of printable ASCII\r\n"
cdef bytes R_BAD_SMTPUTF8 = b"501 5.5.4 SMTPUTF8 takes no value\r\n"
cdef bytes R_BAD_AUTH = b"501 5.5.4 AUTH takes <> or an address as xtext\r\n"
cdef bytes R_BAD_HOLDFOR = b"501 5.5.4 HOLDFOR takes a number of seconds\r\n"
cdef bytes R_BAD_HOLDUNTIL = b"501 5.5.4 HOLDUNTIL takes a time such as 2030-01-31T12:00:00Z\r\n"
cdef bytes R_HOLD_BEYOND = b"501 5.5.4 The time to hold it until is past, or later than EHLO tells\r\n"
cdef bytes R_BAD_BY = b"501 5.5.4 BY takes seconds, a semicolon, and N or R, perhaps with T\r\n"
cdef bytes R_BY_PAST = b"501 5.5.4 BY with R takes a time above zero\r\n"
cdef bytes R_BY_TOO_SOON = b"555 5.4.7 The time of BY is shorter than EHLO tells\r\n"
cdef bytes R_HOLD_AFTER_BY = b"501 5.5.4 It would be held until after the time of BY\r\n"
cdef bytes R_BAD_PRIORITY = b"501 5.5.2 MT-PRIORITY takes a number from -9 to 9\r\n"
cdef bytes R_BAD_REQUIRETLS = b"501 5.5.4 REQUIRETLS takes no value\r\n"
cdef bytes R_BAD_NOTIFY = b"501 5.5.4 NOTIFY takes NEVER, or some of SUCCESS, FAILURE, DELAY\r\n"
cdef bytes R_BAD_ORCPT = b"501 5.5.4 ORCPT takes a type, a semicolon, and an address as xtext\r\n"
cdef bytes R_TWICE = b"501 5.5.4 A parameter is given twice\r\n"
cdef bytes R_NOT_IMPLEMENTED = b"502 5.5.1 Command not implemented\r\n"
cdef bytes R_NESTED = b"503 5.5.1 A transaction is open already; RSET ends it\r\n"
cdef bytes R_HELLO_FIRST = b"503 5.5.1 Say EHLO or HELO first\r\n"
cdef bytes R_EHLO_FIRST = b"503 5.5.1 Say EHLO first\r\n"
cdef bytes R_IN_TRANSACTION = b"503 5.5.1 A transaction is open; RSET ends it\r\n"
cdef bytes R_LOGGED_IN = b"503 5.5.1 You are logged in already\r\n"
cdef bytes R_AUTH_NEEDS_TLS = b"538 5.7.11 Logins are taken under TLS only, say STARTTLS first\r\n"
cdef bytes R_LHLO_FIRST = b"503 5.5.1 Say LHLO first\r\n"
cdef bytes R_TEXT_BEGAN = b"503 5.5.1 The text has begun; RSET ends the transaction\r\n"
cdef bytes R_BEGAN_WITH_BDAT = b"503 5.5.1 This transaction has begun with BDAT; RSET ends it\r\n"
cdef bytes R_BINARY_BY_BDAT = b"503 5.5.1 A binary text comes by BDAT\r\n"
cdef bytes R_NO_RECIPIENTS_LMTP = b"503 5.5.1 No valid recipients\r\n"
cdef bytes R_UNDER_TLS_ONLY = b"530 5.7.10 Say STARTTLS first, REQUIRETLS holds under TLS only\r\n"
cdef bytes R_MAIL_FIRST = b"503 5.5.1 Say MAIL first\r\n"
cdef bytes R_TLS_ALREADY = b"503 5.5.1 TLS is active already\r\n"
cdef bytes R_TOO_LARGE = b"552 5.3.4 The message is larger than this server takes\r\n"
cdef bytes R_NON_ASCII = b"553 5.6.7 An address with non-ASCII characters cannot be taken here\r\n"
cdef bytes R_NEEDS_SMTPUTF8 = b"553 5.6.7 An address with non-ASCII characters needs SMTPUTF8 behind MAIL\r\n"
cdef bytes R_VERIFY_NEEDS_SMTPUTF8 = b"553 5.6.7 A name with non-ASCII characters needs SMTPUTF8 behind it\r\n"
cdef bytes R_VERIFY_NO_UTF8 = b"501 5.5.4 This name is not UTF-8\r\n"
cdef bytes R_SENDER_NO_IDN = b"553 5.1.8 The domain of this address is none of IDNA2008\r\n"
cdef bytes R_RECIPIENT_NO_IDN = b"553 5.1.2 The domain of this address is none of IDNA2008\r\n"
cdef bytes R_NO_RECIPIENTS = b"554 5.5.1 No valid recipients\r\n"
cdef bytes R_UNKNOWN_PARAMETER = b"555 5.5.4 Parameter not recognized\r\n"

cdef tuple R_FAULTS = tuple(
    b"550 5.6.0 The text holds a " + b", a ".join(
        name for bit, name in enumerate((b"bare CR", b"bare LF", b"NUL")) if faults >> bit & 1
    ) + b"; it must be lines that end with CRLF\r\n"
    for faults in range(8)
)


# ---- the server session ----------------------------------------------------------------------------------------

cdef class ServerConfig:
    cdef public bytes refuse_mail
    cdef Py_ssize_t message_size
    cdef Py_ssize_t recipients
    cdef Py_ssize_t errors
    cdef Py_ssize_t slow_errors
    cdef Py_ssize_t idle_commands
    cdef Py_ssize_t mails
    cdef Py_ssize_t line
    cdef Py_ssize_t chunk
    cdef bint starttls
    cdef bint chunking
    cdef bint lmtp
    cdef readonly bytes greeting
    cdef bytes hello
    cdef bytes hello_plain
    cdef bytes hello_tls
    cdef bytes help_plain
    cdef bytes help_tls
    cdef uint32_t offers_plain
    cdef uint32_t offers_tls
    cdef bint auth_plain
    cdef bint auth_tls
    cdef object judge_sender
    cdef object gate
    cdef object refused
    cdef dict commands
    cdef object ascii_mailbox
    cdef object clock
    cdef int64_t hold
    cdef int64_t deliver_by
    cdef Py_ssize_t tape
    cdef uint32_t tape_slow

    def __cinit__(
        self,
        *,
        bytes hostname not None,
        Py_ssize_t message_size,
        Py_ssize_t recipients,
        Py_ssize_t errors=20,
        Py_ssize_t slow_errors=0,
        Py_ssize_t idle_commands=0,
        Py_ssize_t mails=0,
        Py_ssize_t line=2048,
        Py_ssize_t chunk=262144,
        bint starttls=False,
        bytes mechanisms not None=b"",
        bytes mechanisms_tls not None=b"",
        judge_sender=None,
        bint chunking=False,
        bint lmtp=False,
        uint32_t offers=X_BASIC,
        gate=None,
        refused=None,
        dict commands=None,
        tuple keywords=(),
        ascii_mailbox=None,
        clock=None,
        int64_t hold=0,
        int64_t deliver_by=0,
        Py_ssize_t tape=0,
        uint32_t tape_slow=0,
    ):
        if min(message_size, recipients, errors, line, chunk) < 1:
            raise ValueError("the limits of a session are numbers above zero")
        tape_length(tape)
        self.tape = tape
        self.tape_slow = tape_slow
        self.refuse_mail = b""
        self.message_size = message_size
        self.recipients = recipients
        self.errors = errors
        self.slow_errors = slow_errors
        self.idle_commands = idle_commands
        self.mails = mails
        self.line = max(line, LONGEST_AUTH_LINE) if mechanisms or mechanisms_tls else line
        self.chunk = chunk
        self.starttls = starttls
        self.auth_plain = bool(mechanisms)
        self.auth_tls = bool(mechanisms_tls)
        self.judge_sender = judge_sender
        self.gate = gate
        self.refused = refused
        self.commands = commands
        self.ascii_mailbox = ascii_mailbox
        if clock is None and offers & (X_FUTURERELEASE | X_DELIVERBY):
            raise ValueError("FUTURERELEASE and DELIVERBY need a clock")
        self.clock = clock
        self.hold = hold
        self.deliver_by = deliver_by
        self.lmtp = lmtp
        self.greeting = b"220 %b %b\r\n" % (hostname, b"LMTP" if lmtp else b"ESMTP")
        self.hello = b"250 %b\r\n" % hostname
        if chunking:
            offers |= X_CHUNKING | X_BINARYMIME
        self.chunking = offers & X_CHUNKING != 0
        self.offers_plain = offers & ~<uint32_t>X_REQUIRETLS | (X_AUTH if mechanisms else 0)
        self.offers_tls = offers | (X_AUTH if mechanisms_tls else 0)
        self.hello_plain = extended_hello(self, hostname, self.offers_plain, mechanisms, starttls, keywords)
        self.hello_tls = extended_hello(self, hostname, self.offers_tls, mechanisms_tls, False, keywords)
        self.help_plain = help_text(self.offers_plain, starttls, lmtp)
        self.help_tls = help_text(self.offers_tls, False, lmtp)


cdef bytes LATEST = b"<latest>"  # stands where each EHLO tells until when mail may be held


cdef bytes utc_text(int64_t seconds):
    return _time.strftime("%Y-%m-%dT%H:%M:%SZ", _time.gmtime(seconds)).encode("ascii")


cdef bytes extended_hello(ServerConfig c, bytes hostname, uint32_t offered, bytes mechanisms, bint starttls, tuple more):
    """The whole reply to EHLO; STARTTLS not twice (RFC 3207 §4.2)."""
    cdef list lines = [hostname]
    if offered & X_PIPELINING:
        lines.append(b"PIPELINING")
    if offered & X_SIZE:
        lines.append(b"SIZE %d" % c.message_size)
    if offered & X_8BITMIME:
        lines.append(b"8BITMIME")
    if offered & X_SMTPUTF8:
        lines.append(b"SMTPUTF8")
    if offered & X_DSN:
        lines.append(b"DSN")
    if offered & X_CHUNKING:
        lines.append(b"CHUNKING")
    if offered & X_BINARYMIME:
        lines.append(b"BINARYMIME")
    if offered & X_REQUIRETLS:
        lines.append(b"REQUIRETLS")
    if offered & X_FUTURERELEASE:
        lines.append(b"FUTURERELEASE %d %b" % (c.hold, LATEST))
    if offered & X_DELIVERBY:
        lines.append(b"DELIVERBY %d" % c.deliver_by if c.deliver_by else b"DELIVERBY")
    if offered & X_MT_PRIORITY:
        lines.append(b"MT-PRIORITY MIXER")
    if offered & X_LIMITS:
        # RFC 9422 §4: numbers of at most six digits. A session that may send any number of messages is not told so.
        lines.append(b"LIMITS %bRCPTMAX=%d" % (
            b"MAILMAX=%d " % min(c.mails, LARGEST_LIMIT) if c.mails else b"", min(c.recipients, LARGEST_LIMIT)
        ))
    if mechanisms:
        lines.append(b"AUTH " + mechanisms)
    if starttls:
        lines.append(b"STARTTLS")
    lines += more
    if offered & X_STATUS_CODES:
        lines.append(b"ENHANCEDSTATUSCODES")
    last = lines.pop()
    return b"".join([b"250-%b\r\n" % line for line in lines]) + b"250 %b\r\n" % last


cdef bytes help_text(uint32_t offered, bint starttls, bint lmtp):
    """The commands that are there now."""
    cdef list commands = [b"LHLO"] if lmtp else [b"EHLO", b"HELO"]
    commands += [b"MAIL", b"RCPT", b"DATA"]
    if offered & X_CHUNKING:
        commands.append(b"BDAT")
    commands += [b"RSET", b"NOOP", b"VRFY", b"HELP"]
    if offered & X_AUTH:
        commands.append(b"AUTH")
    if starttls:
        commands.append(b"STARTTLS")
    commands.append(b"QUIT")
    return b"214 2.0.0 Commands: %b; see RFC %b\r\n" % (b" ".join(commands), b"2033" if lmtp else b"5321")


cdef class MailOptions:
    """What a transaction asks for besides SIZE and BODY; `mta.model.Options` says what each means."""

    cdef readonly bint utf8
    cdef readonly bint binary
    cdef readonly bint require_tls
    cdef readonly str ret
    cdef readonly bytes envid
    cdef readonly bytes hold
    cdef readonly int64_t hold_until
    cdef readonly int64_t deliver_by
    cdef readonly bint by_return
    cdef readonly bint by_trace
    cdef readonly int priority
    cdef readonly bytes auth
    cdef readonly list notices  # NOTIFY and ORCPT of each accepted recipient, once one of them came with any

    def __cinit__(self):
        self.ret = ""
        self.envid = b""
        self.hold = b""


cdef enum:
    # What the next input is.
    COMMANDS = 0
    TEXT = 1
    PARKED = 2  # kept until resume()
    HANDSHAKE = 3  # plaintext behind STARTTLS, dropped (RFC 3207 §6)
    CLOSED = 4  # of no interest
    AUTHENTICATING = 5  # kept until the caller has judged what the client said
    RESPONSE = 6  # a response to a challenge
    CHUNK = 7  # the octets behind BDAT, kept or dropped
    SLOWED = 8  # kept until wake()

cdef enum:
    KEPT_LIMIT = 1 << 20
    LONGEST_AUTH_LINE = 12290  # RFC 4954 §4, with the CRLF
    LARGEST_LIMIT = 999999  # RFC 9422 §4
    SHOWN_LINE = 512  # octets of a refused command that are passed on
    SLICE = 16384  # octets of a text for which room is made at once

cdef Py_ssize_t MOST = PY_SSIZE_T_MAX  # the largest chunk that BDAT may name

cdef class ServerSession:
    cdef ServerConfig config
    cdef public object owner
    cdef object judge
    cdef bytes _sender
    cdef bytes _helo
    cdef list _recipients
    cdef MailOptions _options  # None in plain transactions
    cdef bytes reply  # output, as long as it is one reply: nothing is copied in lock-step
    cdef bytes farewell  # goes out behind the reply to the parked message
    cdef object _user
    cdef tuple auth  # mechanism and response, until the caller takes them
    cdef Octets out
    cdef Octets line  # a command line that is not whole yet
    cdef Octets kept  # input behind a parked message, from kept_from on
    cdef Py_ssize_t kept_from
    cdef Py_ssize_t line_total
    cdef PyObject *text  # a bytes object of our own, with room
    cdef Py_ssize_t text_size  # octets in it
    cdef Py_ssize_t size  # octets of the text so far
    cdef Py_ssize_t error_count
    cdef bytes chunk_refusal  # what all chunks get until the transaction is over
    cdef Py_ssize_t chunk_left
    cdef octet line_head[4]  # of a command line that is not whole yet, too long ones included
    cdef octet chunk_last
    cdef octet chunked  # a BDAT has come in this transaction
    cdef octet refusal_told
    cdef octet _binary
    cdef Py_ssize_t idle_count
    cdef Py_ssize_t mail_count
    cdef Py_ssize_t line_count
    cdef const octet *command  # the line that is being obeyed
    cdef Py_ssize_t command_size
    cdef bytes about  # what a refusal is about, where it is no line
    cdef int flags
    cdef octet state
    cdef octet place
    cdef octet faults
    cdef octet line_last
    cdef octet busy
    cdef octet mail
    cdef octet _esmtp
    cdef octet _tls
    cdef octet _eight_bit
    cdef octet _spoke
    cdef Tape *tape  # NULL: nothing is kept

    def __cinit__(self, ServerConfig config not None, judge):
        self.config = config
        self.tape = new_tape(config.tape, config.tape_slow)
        self.judge = judge
        self._sender = b""
        self._helo = b""
        self._user = ""
        self.about = b""

    def __dealloc__(self):
        drop(self.text)
        octets_free(&self.out)
        octets_free(&self.line)
        octets_free(&self.kept)
        free_tape(self.tape)

    # -- what the connection does --

    def greet(self):
        tape_time(self.tape)
        self.say(self.config.greeting)
        return self.raised()

    def receive(self, buffer, Py_ssize_t size):
        cdef Py_buffer view
        cdef Py_ssize_t used
        self.enter()
        try:
            PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
            try:
                if not 0 <= size <= view.len:
                    raise ValueError("size is not within the buffer")
                used = self.parse(<const octet *>view.buf, size)
                if used < size:
                    self.keep(<const octet *>view.buf + used, size - used)
            finally:
                PyBuffer_Release(&view)
        finally:
            self.busy = False
        return self.raised()

    def resume(self, bytes reply not None):
        if self.state != PARKED:
            raise RuntimeError("no message waits for its reply")
        reply = self.for_each_recipient(reply)
        self.reset()
        return self.go_on(reply, COMMANDS)

    def take_auth(self):
        cdef tuple taken = (b"", None) if self.auth is None else self.auth
        self.auth = None
        return taken

    def challenge(self, bytes data not None):
        return self.judged(b"334 " + _binascii.b2a_base64(data, newline=False) + b"\r\n", RESPONSE)

    def authenticated(self, bytes reply not None, user):
        if self.state == AUTHENTICATING:
            self._user = user
        return self.judged(reply, COMMANDS)

    def auth_failed(self, bytes reply not None):
        return self.judged(reply, COMMANDS)

    cdef judged(self, bytes reply, octet state):
        if self.state != AUTHENTICATING:
            raise RuntimeError("no AUTH waits for its reply")
        return self.go_on(reply, state)

    cdef go_on(self, bytes reply, octet state):
        """Say it, and read on in this state, beginning with what was kept. A refused AUTH counts as an error."""
        cdef bint refused = self.state == AUTHENTICATING and reply.startswith(b"5")
        self.enter()
        try:
            self.state = state
            if refused:
                self.about = b"AUTH"
                self.refuse(reply)
            else:
                self.say(reply)
            if self.state != CLOSED:
                if self.farewell is not None:
                    self.end(self.farewell)
                else:
                    self.kept_from += self.parse(self.kept.data + self.kept_from, self.kept.size - self.kept_from)
        except BaseException:
            self.forget_kept()
            raise
        finally:
            self.busy = False
        if self.kept_from == self.kept.size or self.state == CLOSED:
            self.forget_kept()
        return self.raised()

    def wake(self):
        if self.state != SLOWED:
            raise RuntimeError("the session is not held back")
        return self.go_on(b"", COMMANDS)

    def restart(self, judge, user):
        """From a command of `config.commands`: the client is another one than it was."""
        self.reset()
        self._helo = b""
        self._esmtp = False
        self._user = user
        self.judge = judge

    def close(self, bytes reply not None):
        self.enter()
        self.busy = False
        if self.state == PARKED or self.state == AUTHENTICATING:
            # The client learns first what became of its message or its AUTH.
            if self.farewell is None:
                self.farewell = reply
                self.forget_kept()
        elif self.state != CLOSED:
            self.forget_kept()
            self.end(reply)
        return self.raised()

    def secured(self, ServerConfig config=None):
        self.enter()
        self.busy = False
        if config is not None:
            self.config = config
        self.reset()
        self._helo = b""
        self._esmtp = False
        self._user = ""
        self._tls = True
        tape(self.tape, T_TLS, NULL, 0, 0)
        if self.state == HANDSHAKE:
            self.state = COMMANDS

    def take_output(self):
        cdef bytes reply = self.reply
        if self.out.size:
            return octets_take(&self.out)
        if reply is None:
            return b""
        self.reply = None
        return reply

    def take_body(self):
        cdef object text
        if self.text == NULL:
            return b""
        self.resize_text(self.text_size)
        text = <object>self.text
        self.drop_text()
        return text

    def take_tape(self):
        return tape_taken(self.tape)

    @property
    def marked(self):
        return self.tape != NULL and self.tape.marked != 0

    @property
    def sender(self):
        return self._sender

    @property
    def recipients(self):
        return [] if self._recipients is None else self._recipients

    @property
    def options(self):
        return self._options

    @property
    def helo(self):
        return self._helo

    @property
    def esmtp(self):
        return bool(self._esmtp)

    @property
    def tls(self):
        return bool(self._tls)

    @property
    def user(self):
        return self._user

    @property
    def eight_bit(self):
        return bool(self._eight_bit)

    @property
    def binary(self):
        return bool(self._binary)

    @property
    def body_size(self):
        return self.size

    @property
    def parked(self):
        return self.state == PARKED or self.state == AUTHENTICATING or self.state == SLOWED

    @property
    def slowed(self):
        return self.state == SLOWED

    @property
    def lines(self):
        return self.line_count

    @property
    def in_data(self):
        return self.state == TEXT or self.state == CHUNK

    @property
    def in_transaction(self):
        return bool(self.mail)

    @property
    def spoke(self):
        return bool(self._spoke)

    @property
    def errors(self):
        return self.error_count

    # -- output and flags --

    cdef int enter(self) except -1:
        # `judge` runs while the input is being read: whatever it called here would free octets in use.
        if self.busy:
            raise RuntimeError("a session is not called from inside its judge")
        self.busy = True
        tape_time(self.tape)
        return 0

    cdef int raised(self) noexcept:
        cdef int flags = self.flags
        self.flags = 0
        if self.reply is not None or self.out.size:
            flags |= F_OUTPUT
        if self.text_size > self.config.chunk and self.state != PARKED:
            flags |= F_BODY
        return flags

    cdef int say(self, bytes reply) except -1:
        if not reply:
            return 0
        if self.tape != NULL:
            self.tape_reply(reply)
        if self.out.size == 0:
            if self.reply is None:
                self.reply = reply
                return 0
            octets_add_bytes(&self.out, self.reply)
            self.reply = None
        return octets_add_bytes(&self.out, reply)

    cdef int tape_reply(self, bytes reply) except -1:
        """What was said in a login stays off the tape; a refusal marks it."""
        cdef const octet *p = <const octet *>PyBytes_AS_STRING(reply)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(reply) - 2
        # Looking at the third octet is safe: the shortest reply is a CRLF, behind which there is a NUL.
        tape_entry(self.tape, T_REPLIED, p, 3 if p[0] == c"3" and p[1] == c"3" and p[2] == c"4" else n, n)
        if p[0] >= c"4":
            self.tape.marked = True
        return 0

    cdef int tape_command(self, const octet *p, Py_ssize_t n) except -1:
        """What is no command may be anything: the rest of a text that was not wanted, or a password."""
        return tape_entry(self.tape, T_SAID, p, shown_size(self, p, n), n)

    cdef int refuse(self, bytes reply) except -1:
        """Say it and count it."""
        self.put_off(reply)
        self.error_count += 1
        if self.error_count >= self.config.errors:
            self.end(self.named(R_TOO_MANY_ERRORS))
        elif self.config.slow_errors and self.error_count >= self.config.slow_errors:
            self.state = SLOWED
            self.flags |= F_SLOW
        return 0

    cdef int put_off(self, bytes reply) except -1:
        """Say it; it is no fault of the client."""
        return self.say(self.named(reply))

    cdef bytes named(self, bytes reply):
        """A refusal as the caller wants it said, who may note it."""
        if self.config.refused is None:
            return reply
        if self.command == NULL:
            return <bytes?>self.config.refused(self.owner, reply, self.about)
        return <bytes?>self.config.refused(self.owner, reply, self.command[:min(self.command_size, SHOWN_LINE)])

    cdef int idle(self, bytes reply) except -1:
        """The answer to a command that moves no mail."""
        self.idle_count += 1
        if self.config.idle_commands and self.idle_count > self.config.idle_commands:
            return self.end(self.named(R_TOO_IDLE))
        return self.say(reply)

    cdef int end(self, bytes reply) except -1:
        if self.state == TEXT or self.chunked:
            self.flags |= F_DISCARD
        self.flags &= ~<int>F_SLOW
        self.flags |= F_CLOSE
        self.state = CLOSED
        self.drop_text()
        octets_free(&self.line)
        return self.say(reply)

    cdef int lose_track(self, bytes reply) except -1:
        """A BDAT that cannot be understood: what follows may be text as well as commands, so nothing is read of it."""
        self.refuse(reply)
        return 0 if self.state == CLOSED else self.end(self.named(R_LOST_TRACK))

    cdef bytes for_each_recipient(self, bytes reply):
        """What a text is answered: in LMTP once for each recipient (RFC 2033 §4.2)."""
        if not self.config.lmtp or self._recipients is None:
            return reply
        return reply * len(self._recipients)

    cdef int reset(self) except -1:
        if self.chunked:
            self.flags |= F_DISCARD
            self.chunked = False
        self.forget_refusal()
        self.mail = False
        self._sender = b""
        self._recipients = None
        self._options = None
        self._eight_bit = False
        self._binary = False
        self.size = 0
        self.drop_text()
        return 0

    cdef int forget_refusal(self) except -1:
        self.chunk_refusal = None
        self.refusal_told = False
        return 0

    # -- input --

    cdef Py_ssize_t parse(self, const octet *p, Py_ssize_t n) except -1:
        """Returns how much was read: all, unless the session is parked."""
        cdef Py_ssize_t used = 0
        while used < n:
            if self.state == COMMANDS:
                used += self.read_line(p + used, n - used)
            elif self.state == TEXT:
                used += self.read_text(p + used, n - used)
            elif self.state == CHUNK:
                used += self.read_chunk(p + used, n - used)
            elif self.state == RESPONSE:
                used += self.read_line(p + used, n - used)
            elif self.state == PARKED or self.state == AUTHENTICATING or self.state == SLOWED:
                return used
            else:
                return n
        return n

    cdef int keep(self, const octet *p, Py_ssize_t n) except -1:
        cdef Py_ssize_t waiting = self.kept.size - self.kept_from
        if self.farewell is not None:
            return 0
        if waiting + n > KEPT_LIMIT:
            self.farewell = self.named(R_TOO_FAR_AHEAD)
            return self.forget_kept()
        if self.kept_from:
            memmove(self.kept.data, self.kept.data + self.kept_from, waiting)
            self.kept.size = waiting
            self.kept_from = 0
        return octets_add(&self.kept, p, n)

    cdef int forget_kept(self) except -1:
        octets_free(&self.kept)
        self.kept_from = 0
        return 0

    cdef Py_ssize_t read_line(self, const octet *p, Py_ssize_t n) except -1:
        """Take a line up to its CRLF, or what there is of it."""
        cdef const octet *found = <const octet *>memchr(p, LF, n)
        cdef Py_ssize_t size
        if found != NULL and self.line_total == 0 and found > p and (found - 1)[0] == CR:
            size = found - p + 1
            self.whole_line(p, size, p)
            return size
        while found != NULL:
            size = found - p + 1
            if ((found - 1)[0] if found > p else self.line_last) == CR:
                self.hold(p, size)
                self.whole_held_line()
                return size
            found = <const octet *>memchr(found + 1, LF, n - size)
        self.hold(p, n)
        return n

    cdef int hold(self, const octet *p, Py_ssize_t n) except -1:
        """Keep part of a line; of one that is too long, only the length, the beginning and the last octet."""
        if self.line_total < 4:
            memcpy(self.line_head + self.line_total, p, min(n, 4 - self.line_total))
        self.line_total += n
        self.line_last = p[n - 1]
        if self.line_total > self.config.line:
            octets_free(&self.line)
            return 0
        return octets_add(&self.line, p, n)

    cdef int whole_held_line(self) except -1:
        cdef Octets line = self.line
        cdef Py_ssize_t total = self.line_total
        self.line = Octets(NULL, 0, 0)
        self.line_total = 0
        self.line_last = 0
        try:
            return self.whole_line(line.data, total, self.line_head)
        finally:
            octets_free(&line)

    cdef int whole_line(self, const octet *p, Py_ssize_t total, const octet *head) except -1:
        """A line with its CRLF; p may be read only when it is not too long, up to four octets of head always."""
        self._spoke = True
        self.line_count += 1
        if self.state == RESPONSE:
            self.about = b"AUTH"
            tape(self.tape, T_SAID, NULL, 0, total - 2)
            return self.hear(p, total)
        self.about = b""
        if total > self.config.line or mta_unfit(p, total - 2):
            tape(self.tape, T_SAID, NULL, 0, total - 2)
            return self.not_understood(R_LONG_LINE if total > self.config.line else R_UNFIT, head, total)
        if self.tape != NULL:
            self.tape_command(p, total - 2)
        self.command = p
        self.command_size = total - 2
        try:
            return dispatch(self, p, total - 2)
        finally:
            self.command = NULL

    cdef int not_understood(self, bytes reply, const octet *head, Py_ssize_t n) except -1:
        return self.lose_track(reply) if n >= 4 and same_word(head, b"BDAT", 4) else self.refuse(reply)

    cdef int hear(self, const octet *p, Py_ssize_t total) except -1:
        """A response to a challenge; one that cannot be read ends the exchange (RFC 4954 §4)."""
        cdef bytes response
        self.state = COMMANDS
        if total > self.config.line:
            return self.refuse(R_LONG_RESPONSE)
        if total == 3 and p[0] == c"*":
            return self.begin_auth(b"", None)
        response = decoded(p, total - 2)
        return self.refuse(R_NO_BASE64) if response is None else self.begin_auth(b"", response)

    cdef int begin_auth(self, bytes mechanism, bytes response) except -1:
        self.state = AUTHENTICATING
        self.flags |= F_AUTH
        self.auth = (mechanism, response)
        return 0

    cdef int make_room(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t need = self.text_size + more, room
        if self.text == NULL:
            self.text = new_bytes(NULL, need)
            return 0
        room = bytes_room(self.text)
        if need > room:
            self.resize_text(max(need, min(2 * room, self.config.chunk)))
        return 0

    cdef int resize_text(self, Py_ssize_t room) except -1:
        cdef Py_ssize_t size = self.text_size
        self.text_size = 0  # what is left when there is no memory
        if room != bytes_room(self.text):
            resize_bytes(&self.text, room)
        self.text_size = size
        return 0

    cdef int drop_text(self) except -1:
        drop(self.text)
        self.text = NULL
        self.text_size = 0
        return 0

    cdef Py_ssize_t read_text(self, const octet *p, Py_ssize_t n) except -1:
        """Take part of a text, up to its end at most."""
        cdef TextScan scan
        cdef octet *out = NULL
        cdef bint sound = not self.faults and self.size <= self.config.message_size
        cdef Py_ssize_t used
        if n > SLICE:
            n = SLICE
        if sound:
            self.make_room(n + 1)
            out = <octet *>bytes_start(self.text) + self.text_size
        scan.place = self.place
        scan.faults = self.faults
        used = scan_text(&scan, p, n, out)
        self.place = scan.place
        self.faults = scan.faults
        self.size += scan.written
        if not self.faults and self.size <= self.config.message_size:
            self.text_size += scan.written
        elif sound:
            self.drop_text()
        if self.place == TEXT_END:
            self.text_ended()
        return used

    cdef int begin_chunk(self, Py_ssize_t size, bint last, bytes refusal) except -1:
        """Read so many octets. With a refusal, or after one, they are dropped."""
        self.state = CHUNK
        self.chunk_left = size
        self.chunk_last = last
        if self.mail and not self.chunked and self.config.chunking:
            self.chunked = True
            self.place = IN_LINE
            self.faults = 0
        if refusal is not None and self.chunk_refusal is None:
            self.chunk_refusal = refusal
            self.drop_text()
        return 0 if size else self.chunk_ended()

    cdef Py_ssize_t read_chunk(self, const octet *p, Py_ssize_t n) except -1:
        if n > self.chunk_left:
            n = self.chunk_left
        if self.chunk_refusal is None:
            self.take_chunk(p, n)
        else:
            self.size += n  # so that who looks at the clock sees that something comes
        self.chunk_left -= n
        if self.chunk_left == 0:
            self.chunk_ended()
        return n

    cdef int take_chunk(self, const octet *p, Py_ssize_t n) except -1:
        """Keep part of a chunk, which is known to be within the limit."""
        cdef TextScan scan
        cdef octet spoilt = self.faults
        self.size += n
        if not self._binary:
            scan.place = self.place
            scan.faults = self.faults
            look_at(&scan, p, n)
            self.place = scan.place
            self.faults = scan.faults
        if not self.faults:
            self.make_room(n)
            memcpy(bytes_start(self.text) + self.text_size, p, n)
            self.text_size += n
        elif not spoilt:
            self.drop_text()
        return 0

    cdef int chunk_ended(self) except -1:
        self.state = COMMANDS
        if self.chunk_refusal is not None:
            return self.refuse_chunk()
        if not self.chunk_last:
            return self.say(R_CHUNK_OK)
        if self.place == AFTER_CR:
            self.faults |= BARE_CR
        return self.text_ended()

    cdef int refuse_chunk(self) except -1:
        """Only the first refusal of a transaction is an error: the other chunks were under way (RFC 3030 §2)."""
        cdef bytes reply = self.chunk_refusal
        cdef bint told = self.refusal_told
        self.refusal_told = True
        if self.chunk_last:
            if self.chunked:
                reply = self.for_each_recipient(reply)
                self.reset()
            self.forget_refusal()
        if not self.chunked:
            self.size = 0
        if self.command == NULL:
            self.about = b"BDAT"
        return self.put_off(reply) if told else self.refuse(reply)

    cdef int text_ended(self) except -1:
        cdef bytes reply
        tape(self.tape, T_TEXT, NULL, 0, self.size)
        if self.command == NULL:
            self.about = b"DATA"
        if self.size > self.config.message_size:
            reply = R_TOO_LARGE
        elif self.faults:
            reply = <bytes>R_FAULTS[self.faults]
        else:
            self.chunked = False
            self.state = PARKED
            self.flags |= F_MESSAGE
            self.idle_count = 0
            return 0
        self.flags |= F_DISCARD
        self.state = COMMANDS
        reply = self.for_each_recipient(reply)
        self.reset()
        return self.refuse(reply)


# ---- the commands of the server: rows of verb and handler -------------------------------------------------------

ctypedef int (*Handler)(ServerSession, const octet *, Py_ssize_t) except -1

cdef struct Row:
    uint32_t verb
    Handler handle

cdef enum:
    ROWS = 16

cdef Row TABLE[ROWS]


cdef inline uint32_t verb_of(const octet *p) noexcept nogil:
    """Four letters in upper case as one number. Only letters become letters when this bit is cleared."""
    cdef uint32_t verb
    memcpy(&verb, p, 4)
    return verb & 0xDFDFDFDFu


cdef uint32_t V_MAIL = verb_of(<const octet *>PyBytes_AS_STRING(b"MAIL"))
cdef uint32_t V_FROM = verb_of(<const octet *>PyBytes_AS_STRING(b"FROM"))
cdef uint32_t V_RCPT = verb_of(<const octet *>PyBytes_AS_STRING(b"RCPT"))
cdef uint32_t V_BDAT = verb_of(<const octet *>PyBytes_AS_STRING(b"BDAT"))
cdef uint32_t V_EHLO = verb_of(<const octet *>PyBytes_AS_STRING(b"EHLO"))
cdef uint32_t V_HELO = verb_of(<const octet *>PyBytes_AS_STRING(b"HELO"))
cdef uint32_t V_LHLO = verb_of(<const octet *>PyBytes_AS_STRING(b"LHLO"))
cdef uint32_t V_AUTH = verb_of(<const octet *>PyBytes_AS_STRING(b"AUTH"))

# What may stand behind AUTH on a tape: of any other word nobody knows whether it is a mechanism or a secret.
cdef tuple MECHANISMS = (
    b"PLAIN", b"LOGIN", b"CRAM-MD5", b"DIGEST-MD5", b"EXTERNAL", b"GSSAPI", b"NTLM", b"OAUTHBEARER", b"XOAUTH2",
    b"SCRAM-SHA-1", b"SCRAM-SHA-1-PLUS", b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS",
)


cdef Py_ssize_t shown_size(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    """How much of a line may be kept: a verb, and behind it what is no secret and no text."""
    cdef uint32_t verb
    cdef Py_ssize_t i
    if n < 4:
        return 0
    verb = verb_of(p)
    if n == 4 or p[4] == SP:
        if verb == V_MAIL:
            return n if n > 10 and verb_of(p + 5) == V_FROM and p[9] == c":" else 4
        if verb == V_RCPT:
            return n if n > 8 and same_word(p + 5, b"TO:", 3) else 4
        if verb == V_BDAT:
            return n
        if verb == V_EHLO or verb == V_HELO or verb == V_LHLO or verb == V_AUTH:
            i = min(5, n)
            while i < n and p[i] != SP:
                i += 1
            return i if verb != V_AUTH or (<bytes>p[min(5, n):i]).upper() in MECHANISMS else 4
        for i in range(ROWS):
            if TABLE[i].verb == verb:
                return 4
        return 0
    if n >= 8 and same_word(p, b"STARTTLS", 8) and (n == 8 or p[8] == SP):
        return 8
    if s.config.commands is not None and n > 9 and (same_word(p, b"XCLIENT ", 8) or same_word(p, b"XFORWARD ", 9)):
        return n
    return 0


cdef int dispatch(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    cdef int i
    cdef uint32_t verb
    cdef Py_ssize_t size
    n = trimmed(p, n)
    size = 4 if n == 4 or (n > 4 and p[4] == SP) else 8
    if n < size or (n > size and p[size] != SP):
        return on_rare(s, p, n)
    if size == 8:
        return on_starttls(s, n) if same_word(p, b"STARTTLS", 8) else on_rare(s, p, n)
    verb = verb_of(p)
    for i in range(ROWS):
        if TABLE[i].verb == verb:
            # The argument begins behind the blank, where there is one.
            return TABLE[i].handle(s, p + 5, n - 5) if n > 5 else TABLE[i].handle(s, p + 4, 0)
    return on_rare(s, p, n)


cdef frozenset HTTP_VERBS = frozenset((b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PRI", b"PUT", b"TRACE"))


cdef int on_rare(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    """What no row of the table is for."""
    cdef Py_ssize_t size = 0
    cdef bytes verb, reply
    while size < n and p[size] != SP:
        size += 1
    if size > 16:
        return s.not_understood(R_UNKNOWN, p, n)
    verb = (<bytes>p[:size]).upper()
    if s.config.commands is not None and verb in s.config.commands:
        reply = <bytes?>s.config.commands[verb](s.owner, p[min(size + 1, n):n])
        return s.refuse(reply) if reply[0] == c"5" else s.say(reply)
    if size < n and verb in HTTP_VERBS:
        return s.end(s.named(R_HTTP))
    return s.not_understood(R_UNKNOWN, p, n)


cdef int on_hello(ServerSession s, const octet *p, Py_ssize_t n, bint esmtp) except -1:
    cdef bytes hello
    cdef Py_ssize_t i = past_blanks(p, 0, n), first = i
    if i == n:
        return s.refuse(R_HELLO_SYNTAX)
    while i < n and KIND[p[i]] & HELLO:
        i += 1
    if i < n or n - first > 255:
        return s.refuse(R_HELLO_NAME)
    s.reset()
    s._helo = p[first:n]
    s._esmtp = esmtp
    if not esmtp:
        return s.idle(s.config.hello)
    hello = s.config.hello_tls if s._tls else s.config.hello_plain
    if s.config.offers_plain & X_FUTURERELEASE:
        hello = hello.replace(LATEST, utc_text(<int64_t>s.config.clock() // 1000 + s.config.hold))
    return s.idle(hello)


cdef int on_ehlo(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    return s.refuse(R_UNKNOWN) if s.config.lmtp else on_hello(s, p, n, True)


cdef int on_helo(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    return s.refuse(R_UNKNOWN) if s.config.lmtp else on_hello(s, p, n, False)


cdef int on_lhlo(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    return on_hello(s, p, n, True) if s.config.lmtp else s.refuse(R_UNKNOWN)


# ---- parameters of MAIL and RCPT: rows of keyword, extension and reader ------------------------------------------

cdef enum:
    # Slots: parameters of one slot exclude each other.
    S_SIZE = 1
    S_BODY = 2
    S_PLAIN = 3  # what leaves a transaction plain
    S_RET = 4
    S_ENVID = 8
    S_REQUIRETLS = 16
    S_NOTIFY = 32
    S_ORCPT = 64
    S_SMTPUTF8 = 128
    S_AUTH = 256
    S_HOLD = 512
    S_BY = 1024
    S_PRIORITY = 2048

cdef enum:
    LONGEST_ENVID = 100  # RFC 3461 §4.4
    LONGEST_ORCPT = 500  # RFC 3461 §4.2
    LONGEST_AUTH = 500  # RFC 4954 §3

cdef struct Slice:
    const octet *p
    Py_ssize_t n

cdef struct Parameters:
    uint32_t given  # slots
    uint64_t size
    uint32_t offered
    bint eight_bit
    bint binary
    bint utf8  # the transaction is one of SMTPUTF8
    bint hdrs
    int notify
    Slice envid
    Slice orcpt
    Slice auth
    int64_t hold  # seconds: of a span, or since the epoch
    Slice hold_said
    bint hold_until
    int64_t by
    bint by_return
    bint by_trace
    int priority

# Takes the n octets at p behind "=", n is -1 without one. False: they mean nothing.
ctypedef bint (*Reader)(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil

cdef struct Rule:
    const char *keyword
    Py_ssize_t size
    uint32_t needs
    uint32_t slot
    Reader read

cdef enum:
    MAIL_RULES = 11
    RCPT_RULES = 2

cdef Rule MAIL_RULE[MAIL_RULES]
cdef Rule RCPT_RULE[RCPT_RULES]


cdef bint read_size(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 1870 §4."""
    cdef Py_ssize_t i
    if not 1 <= n <= 20:
        return False
    for i in range(n):
        if not KIND[p[i]] & DIGIT:
            return False
        # Twenty digits may be more than 64 bits hold: the largest number that can still grow stays.
        if to.size < <uint64_t>1 << 60:
            to.size = to.size * 10 + p[i] - 48
    return True


cdef bint read_body(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 6152 §2, RFC 3030 §3."""
    if n == 4 and same_word(p, b"7BIT", 4):
        return True
    to.eight_bit = True
    if n == 8 and same_word(p, b"8BITMIME", 8):
        return True
    to.binary = n == 10 and same_word(p, b"BINARYMIME", 10) and to.offered & X_BINARYMIME != 0
    return to.binary


cdef bint read_ret(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 3461 §4.3."""
    to.hdrs = n == 4 and same_word(p, b"HDRS", 4)
    return to.hdrs or (n == 4 and same_word(p, b"FULL", 4))


cdef inline int hex_value(octet c) noexcept nogil:
    """Of a digit of xtext, which knows capitals only; -1 for anything else."""
    if 48 <= c <= 57:
        return c - 48
    return c - 55 if 65 <= c <= 70 else -1


cdef bint is_xtext(const octet *p, Py_ssize_t n, bint wide) noexcept nogil:
    """RFC 3461 §4: what is encoded must be printable, so that no notice can be broken by it; `wide`: ASCII or not."""
    cdef Py_ssize_t i = 0
    cdef int c
    if n < 1:
        return False
    while i < n:
        if p[i] == c"+":
            if n - i < 3 or hex_value(p[i + 1]) < 0 or hex_value(p[i + 2]) < 0:
                return False
            c = hex_value(p[i + 1]) * 16 + hex_value(p[i + 2])
            if not (32 <= c <= 126 or (wide and c >= 128)):
                return False
            i += 3
        elif 33 <= p[i] <= 126 and p[i] != c"=":
            i += 1
        else:
            return False
    return True


cdef bint read_envid(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    to.envid = Slice(p, n)
    return n <= LONGEST_ENVID and is_xtext(p, n, False)


cdef bint read_alone(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    return n < 0


cdef bint read_notify(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 3461 §4.1: NEVER alone, or a list."""
    cdef Py_ssize_t i = 0, first, size
    if n == 5 and same_word(p, b"NEVER", 5):
        to.notify = 1
        return True
    while True:
        first = i
        while i < n and p[i] != c",":
            i += 1
        size = i - first
        if size == 7 and same_word(p + first, b"SUCCESS", 7):
            to.notify |= 2
        elif size == 7 and same_word(p + first, b"FAILURE", 7):
            to.notify |= 4
        elif size == 5 and same_word(p + first, b"DELAY", 5):
            to.notify |= 8
        else:
            return False
        if i == n:
            return True
        i += 1


cdef Py_ssize_t scan_escape(const octet *p, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """One backslash, x, and a character's number in braces (RFC 6533 §3); p[i] is the backslash."""
    cdef uint32_t c = 0
    cdef Py_ssize_t first = i + 3
    if n - i < 6 or p[i + 1] != c"x" or p[i + 2] != c"{":
        return -1
    i = first
    while i < n and i - first < 6 and hex_value(p[i]) >= 0:
        c = c * 16 + hex_value(p[i])
        i += 1
    if i - first < 2 or i == n or p[i] != c"}":
        return -1
    if 33 <= c <= 126 or not (is_unwanted(c) or 0xD800 <= c <= 0xDFFF or c > 0x10FFFF):
        return i + 1
    return -1


cdef bint is_utf8_address(const octet *p, Py_ssize_t n, bint raw) noexcept nogil:
    """An original recipient of type utf-8 (RFC 6533 §3); `raw`: characters may stand for themselves."""
    cdef Py_ssize_t i = 0, first
    if n < 1:
        return False
    while i < n:
        if p[i] == c"\\":
            i = scan_escape(p, i, n)
        elif p[i] >= 0x80:
            i = scan_utf8(p, i, n) if raw else -1
        else:
            first = i
            while i < n and p[i] != c"\\" and p[i] < 0x80:
                i += 1
            if not is_xtext(p + first, i - first, False):
                return False
        if i < 0:
            return False
    return True


cdef bint read_orcpt(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 3461 §4.2: a type, a semicolon, and xtext."""
    cdef Py_ssize_t i = 0
    if n > LONGEST_ORCPT:
        return False
    while i < n and KIND[p[i]] & ATEXT:
        i += 1
    to.orcpt = Slice(p, n)
    if not 0 < i < n or p[i] != c";":
        return False
    if i == 5 and same_word(p, b"UTF-8", 5):
        return is_utf8_address(p + 6, n - 6, to.utf8)
    # Postfix (3.7, 2022) writes an address in UTF-8 as xtext of type rfc822, against RFC 6533 §3.
    return is_xtext(p + i + 1, n - i - 1, to.utf8)


cdef bint read_auth(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 4954 §5; whether it stands for an address is looked at when all is read."""
    to.auth = Slice(p, n)
    return n <= LONGEST_AUTH and is_xtext(p, n, True)


cdef Py_ssize_t scan_number(const octet *p, Py_ssize_t i, Py_ssize_t n, int most, int64_t *value) noexcept nogil:
    """Up to `most` digits; the place behind them, or -1 where there is none."""
    cdef Py_ssize_t first = i
    value[0] = 0
    while i < n and i - first < most and KIND[p[i]] & DIGIT:
        value[0] = value[0] * 10 + p[i] - 48
        i += 1
    return i if i > first else -1


cdef bint read_hold_for(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 4865 §4: up to nine digits, the first no zero."""
    to.hold_said = Slice(p, n)
    return n > 0 and p[0] != c"0" and scan_number(p, 0, n, 9, &to.hold) == n


cdef bint scan_field(const octet *p, Py_ssize_t digits, int64_t least, int64_t most, int64_t *value) noexcept nogil:
    """A number of just so many digits, within its limits."""
    return scan_number(p, 0, digits, <int>digits, value) == digits and least <= value[0] <= most


cdef int64_t days_since_epoch(int64_t year, int64_t month, int64_t day) noexcept nogil:
    """Of a day of the Gregorian calendar; years begin in March here, so that a leap day is their last one."""
    cdef int64_t shifted = year - (1 if month <= 2 else 0), era = shifted // 400, in_era = shifted - era * 400
    cdef int64_t in_year = (153 * (month + (9 if month <= 2 else -3)) + 2) // 5 + day - 1
    return era * 146097 + in_era * 365 + in_era // 4 - in_era // 100 + in_year - 719468


cdef int64_t days_in_month(int64_t year, int64_t month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef bint read_hold_until(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 4865 §4, RFC 3339 §5.6: YYYY-MM-DDThh:mm:ss, parts of a second, and Z or +hh:mm."""
    cdef int64_t year, month, day, hour, minute, second, hours, minutes
    cdef Py_ssize_t i = 19, first
    to.hold_until = True
    to.hold_said = Slice(p, n)
    if n < 20 or p[4] != c"-" or p[7] != c"-" or p[10] & 0xDF != c"T" or p[13] != c":" or p[16] != c":":
        return False
    if not (scan_field(p, 4, 1970, 9999, &year) and scan_field(p + 5, 2, 1, 12, &month)
            and scan_field(p + 8, 2, 1, days_in_month(year, month), &day) and scan_field(p + 11, 2, 0, 23, &hour)
            and scan_field(p + 14, 2, 0, 59, &minute) and scan_field(p + 17, 2, 0, 60, &second)):
        return False
    if p[i] == DOT:
        i += 1
        first = i
        while i < n and KIND[p[i]] & DIGIT:
            i += 1
        if i == first or i == n:
            return False
    to.hold = days_since_epoch(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    if i + 1 == n:
        return p[i] & 0xDF == c"Z"
    if i + 6 != n or (p[i] != c"+" and p[i] != c"-") or p[i + 3] != c":":
        return False
    if not (scan_field(p + i + 1, 2, 0, 23, &hours) and scan_field(p + i + 4, 2, 0, 59, &minutes)):
        return False
    to.hold += (1 if p[i] == c"-" else -1) * (hours * 3600 + minutes * 60)
    return True


cdef bint read_by(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 2852 §4: a number of seconds with or without a sign, a semicolon, N or R, and perhaps T."""
    cdef Py_ssize_t i = 1 if n > 0 and (p[0] == c"+" or p[0] == c"-") else 0
    cdef bint negative = i == 1 and p[0] == c"-"
    i = scan_number(p, i, n, 9, &to.by)
    if i < 0 or not i + 2 <= n <= i + 3 or p[i] != c";":
        return False
    if negative:
        to.by = -to.by
    to.by_return = same_word(p + i + 1, b"R", 1)
    to.by_trace = n == i + 3
    return (to.by_return or same_word(p + i + 1, b"N", 1)) and (not to.by_trace or same_word(p + i + 2, b"T", 1))


cdef bint read_priority(Parameters *to, const octet *p, Py_ssize_t n) noexcept nogil:
    """RFC 6710 §4."""
    if n == 1 and KIND[p[0]] & DIGIT:
        to.priority = p[0] - 48
        return True
    if n == 2 and p[0] == c"-" and KIND[p[1]] & DIGIT and p[1] != 48:
        to.priority = 48 - p[1]
        return True
    return False


cdef bytes read_parameter(ServerSession s, Parameters *known, Rule *rules, int count, tuple wrong,
                          const octet *p, Py_ssize_t n):
    """Read one; returns the refusal, or None."""
    cdef const octet *equals = <const octet *>memchr(p, c"=", n)
    cdef Py_ssize_t size = equals - p if equals != NULL else n
    cdef int i
    for i in range(count):
        if rules[i].size != size or not same_word(p, rules[i].keyword, size):
            continue
        if not rules[i].needs & known.offered:
            return R_UNDER_TLS_ONLY if rules[i].needs & s.config.offers_tls & X_REQUIRETLS else R_UNKNOWN_PARAMETER
        if known.given & rules[i].slot:
            return R_TWICE
        if not rules[i].read(known, p + size + 1, n - size - 1):
            return R_BAD_BINARY_BODY if rules[i].slot == S_BODY and known.offered & X_BINARYMIME else <bytes>wrong[i]
        known.given |= rules[i].slot
        return None
    return R_UNKNOWN_PARAMETER


cdef bytes read_parameters(ServerSession s, Parameters *known, Rule *rules, int count, tuple wrong,
                           const octet *p, Py_ssize_t n):
    """Read all; returns the refusal, or None."""
    cdef Py_ssize_t i = 0, first
    cdef bytes refusal
    known.offered = s.config.offers_tls if s._tls else s.config.offers_plain
    while i < n:
        if p[i] == SP:
            i += 1
            continue
        first = i
        while i < n and p[i] != SP:
            i += 1
        if not s._esmtp:
            return R_UNKNOWN_PARAMETER
        refusal = read_parameter(s, known, rules, count, wrong, p + first, i - first)
        if refusal is not None:
            return refusal
    return None


cdef bytes mail_parameters(ServerSession s, Parameters *known, const octet *p, Py_ssize_t n):
    """Those of MAIL, and what only several of them together show."""
    cdef bytes refusal = read_parameters(s, known, MAIL_RULE, MAIL_RULES, MAIL_WRONG, p, n)
    if refusal is not None:
        return refusal
    if known.size > <uint64_t>s.config.message_size:
        return R_TOO_LARGE
    if known.given & S_AUTH and not is_identity(known):
        return R_BAD_AUTH
    return beyond(s, known) if known.given & (S_HOLD | S_BY) else None


cdef bint is_identity(Parameters *known):
    """Does AUTH= stand for nobody or for a mailbox? It is decoded here, as a path (RFC 4954 §5)."""
    cdef octet decoded[LONGEST_AUTH + 2]
    cdef Py_ssize_t i = 0, n = 1
    cdef Path path
    decoded[0] = c"<"
    while i < known.auth.n:
        if known.auth.p[i] == c"+":
            decoded[n] = <octet>(hex_value(known.auth.p[i + 1]) * 16 + hex_value(known.auth.p[i + 2]))
            i += 3
        else:
            decoded[n] = known.auth.p[i]
            i += 1
        n += 1
    if n == 3 and decoded[1] == c"<" and decoded[2] == c">":
        return True
    decoded[n] = c">"
    n += 1
    # A source route is none: the mailbox begins behind the bracket.
    return (
        scan_path(decoded, n, &path, known.given & S_SMTPUTF8 != 0) == MAILBOX and path.first == 1 and path.end == n
    )


cdef bytes beyond(ServerSession s, Parameters *known):
    """The refusal of times that cannot be kept, or None; turns them into milliseconds since the epoch."""
    cdef int64_t now = s.config.clock()
    if known.given & S_HOLD:
        known.hold = known.hold * 1000 if known.hold_until else now + known.hold * 1000
        if not now < known.hold <= now + s.config.hold * 1000:
            return R_HOLD_BEYOND
    if known.given & S_BY:
        if known.by_return and known.by <= 0:
            return R_BY_PAST
        if known.by_return and known.by < s.config.deliver_by:
            return R_BY_TOO_SOON
        known.by = now + known.by * 1000
    if known.given & S_HOLD and known.given & S_BY and known.hold > known.by:
        return R_HOLD_AFTER_BY
    return None


cdef bytes rcpt_parameters(ServerSession s, Parameters *known, const octet *p, Py_ssize_t n):
    memset(known, 0, sizeof(known[0]))
    known.utf8 = s._options is not None and s._options.utf8
    return read_parameters(s, known, RCPT_RULE, RCPT_RULES, RCPT_WRONG, p, n)


cdef MailOptions mail_options(Parameters *known):
    cdef MailOptions options = MailOptions.__new__(MailOptions)
    options.utf8 = known.given & S_SMTPUTF8 != 0
    options.binary = known.binary
    if known.given & S_RET:
        options.ret = "HDRS" if known.hdrs else "FULL"
    if known.given & S_ENVID:
        options.envid = known.envid.p[:known.envid.n]
    options.require_tls = known.given & S_REQUIRETLS != 0
    if known.given & S_AUTH:
        options.auth = known.auth.p[:known.auth.n]
    if known.given & S_HOLD:
        options.hold = (b"until;" if known.hold_until else b"for;") + known.hold_said.p[:known.hold_said.n]
    options.hold_until = known.hold
    options.deliver_by = known.by
    options.by_return = known.by_return
    options.by_trace = known.by_trace
    options.priority = known.priority
    return options


cdef int note_wishes(ServerSession s, Parameters *known) except -1:
    """Keep what this recipient came with; those before it came with nothing."""
    if known.given and s._options is None:
        s._options = MailOptions.__new__(MailOptions)
    if known.given and s._options.notices is None:
        s._options.notices = [(0, b"")] * (0 if s._recipients is None else len(s._recipients))
    if s._options.notices is None:
        return 0
    if not known.given:
        s._options.notices.append((0, b""))
        return 0
    s._options.notices.append((known.notify, known.orcpt.p[:known.orcpt.n] if known.given & S_ORCPT else b""))
    return 0


cdef int set_rule(Rule *rule, const char *keyword, uint32_t needs, uint32_t slot, Reader read) except -1:
    rule.keyword = keyword
    rule.size = strlen(keyword)
    rule.needs = needs
    rule.slot = slot
    rule.read = read
    return 0


set_rule(&MAIL_RULE[0], b"SIZE", X_SIZE, S_SIZE, read_size)
set_rule(&MAIL_RULE[1], b"BODY", X_8BITMIME, S_BODY, read_body)
set_rule(&MAIL_RULE[2], b"RET", X_DSN, S_RET, read_ret)
set_rule(&MAIL_RULE[3], b"ENVID", X_DSN, S_ENVID, read_envid)
set_rule(&MAIL_RULE[4], b"REQUIRETLS", X_REQUIRETLS, S_REQUIRETLS, read_alone)
set_rule(&MAIL_RULE[5], b"SMTPUTF8", X_SMTPUTF8, S_SMTPUTF8, read_alone)
set_rule(&MAIL_RULE[6], b"AUTH", X_AUTH, S_AUTH, read_auth)
set_rule(&MAIL_RULE[7], b"HOLDFOR", X_FUTURERELEASE, S_HOLD, read_hold_for)
set_rule(&MAIL_RULE[8], b"HOLDUNTIL", X_FUTURERELEASE, S_HOLD, read_hold_until)
set_rule(&MAIL_RULE[9], b"BY", X_DELIVERBY, S_BY, read_by)
set_rule(&MAIL_RULE[10], b"MT-PRIORITY", X_MT_PRIORITY, S_PRIORITY, read_priority)

set_rule(&RCPT_RULE[0], b"NOTIFY", X_DSN, S_NOTIFY, read_notify)
set_rule(&RCPT_RULE[1], b"ORCPT", X_DSN, S_ORCPT, read_orcpt)

# What is said when a reader finds nothing, in the order of the rules.
cdef tuple MAIL_WRONG = (
    R_BAD_SIZE, R_BAD_BODY, R_BAD_RET, R_BAD_ENVID, R_BAD_REQUIRETLS, R_BAD_SMTPUTF8, R_BAD_AUTH, R_BAD_HOLDFOR,
    R_BAD_HOLDUNTIL, R_BAD_BY, R_BAD_PRIORITY,
)
cdef tuple RCPT_WRONG = (R_BAD_NOTIFY, R_BAD_ORCPT)


cdef inline bint path_stands_alone(const octet *p, Py_ssize_t end, Py_ssize_t n) noexcept nogil:
    return end == n or p[end] == SP


cdef inline bint offers_utf8(ServerSession s) noexcept:
    return s._esmtp and s.config.offers_plain & X_SMTPUTF8 != 0


cdef int scan_wide_path(ServerSession s, const octet *p, Py_ssize_t n, Path *path) noexcept:
    """What may yet be a path where scan_path found none: one in UTF-8, if that is offered."""
    return scan_path(p, n, path, True) if offers_utf8(s) and has_8bit(p, n) else BAD_PATH


cdef bytes with_ascii_domain(ServerSession s, bytes mailbox):
    """The mailbox with the A-labels of its domain; None where there are none (RFC 6531 §3.2, RFC 5891 §4)."""
    cdef Py_ssize_t at = mailbox.rfind(b"@")
    if s.config.ascii_mailbox is None or mailbox[at + 1:].isascii():
        return mailbox
    return <bytes?>s.config.ascii_mailbox(mailbox) or None


cdef int on_mail(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    cdef Path path
    cdef int kind
    cdef Py_ssize_t i
    cdef bytes refusal, sender
    cdef bint wide = False
    cdef Parameters known
    s.mail_count += 1
    if s.config.mails and s.mail_count > s.config.mails:
        return s.end(s.named(R_TOO_MUCH_MAIL))
    if not s._helo:
        return s.refuse(R_LHLO_FIRST if s.config.lmtp else R_HELLO_FIRST)
    if s.mail:
        return s.refuse(R_NESTED)
    if n < 5 or not same_word(p, b"FROM:", 5):
        return s.refuse(R_MAIL_SYNTAX)
    i = past_blanks(p, 5, n)
    p += i
    n -= i
    kind = scan_path(p, n, &path, False)
    if kind == BAD_PATH:
        kind = scan_wide_path(s, p, n, &path)
        wide = True
    if kind == BAD_PATH or kind == POSTMASTER or not path_stands_alone(p, path.end, n):
        return s.refuse(R_NON_ASCII if has_8bit(p, n) and not offers_utf8(s) else R_BAD_SENDER)
    memset(&known, 0, sizeof(known))
    if path.end < n:
        refusal = mail_parameters(s, &known, p + path.end, n - path.end)
        if refusal is not None:
            return s.refuse(refusal)
    sender = p[path.first:path.behind]
    if wide:
        if not known.given & S_SMTPUTF8:
            return s.refuse(R_NEEDS_SMTPUTF8)
        sender = with_ascii_domain(s, sender)
        if sender is None:
            return s.refuse(R_SENDER_NO_IDN)
    if s.config.refuse_mail:
        return s.put_off(s.config.refuse_mail)
    if s.config.gate is not None:
        refusal = <bytes?>s.config.gate(s.owner)
        if refusal:
            return s.put_off(refusal)
    if s.config.judge_sender is not None:
        refusal = <bytes?>s.config.judge_sender(sender, s._user)
        if refusal:
            return s.refuse(refusal)
    s._sender = sender
    s._eight_bit = known.eight_bit
    s._binary = known.binary
    if known.given & ~<uint32_t>S_PLAIN or known.binary:
        s._options = mail_options(&known)
    s.forget_refusal()
    s.mail = True
    return s.say(R_SENDER_OK)


cdef int on_rcpt(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    cdef Path path
    cdef int kind
    cdef Py_ssize_t i
    cdef bytes address, refusal
    cdef bint wide = False
    cdef Parameters known
    if not s.mail:
        return s.refuse(R_MAIL_FIRST)
    if s.chunked:
        return s.refuse(R_TEXT_BEGAN)
    if n < 3 or not same_word(p, b"TO:", 3):
        return s.refuse(R_RCPT_SYNTAX)
    i = past_blanks(p, 3, n)
    p += i
    n -= i
    kind = scan_path(p, n, &path, False)
    if kind == BAD_PATH:
        kind = scan_wide_path(s, p, n, &path)
        wide = True
    if kind == BAD_PATH or kind == NULL_PATH or not path_stands_alone(p, path.end, n):
        return s.refuse(R_NON_ASCII if has_8bit(p, n) and not offers_utf8(s) else R_BAD_RECIPIENT)
    known.given = 0
    if path.end < n:
        refusal = rcpt_parameters(s, &known, p + path.end, n - path.end)
        if refusal is not None:
            return s.refuse(refusal)
    address = b"postmaster" if kind == POSTMASTER else p[path.first:path.behind]
    if wide:
        if s._options is None or not s._options.utf8:
            return s.refuse(R_NEEDS_SMTPUTF8)
        address = with_ascii_domain(s, address)
        if address is None:
            return s.refuse(R_RECIPIENT_NO_IDN)
    if s._recipients is not None and len(s._recipients) >= s.config.recipients:
        return s.put_off(R_TOO_MANY_RECIPIENTS)
    refusal = <bytes?>s.judge(address)
    if refusal:
        return s.refuse(refusal) if refusal[0] == c"5" else s.put_off(refusal)
    if known.given or s._options is not None:
        note_wishes(s, &known)
    if s._recipients is None:
        s._recipients = [address]
    else:
        s._recipients.append(address)
    return s.say(R_RECIPIENT_OK)


cdef int on_data(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    if n:
        return s.refuse(R_NO_ARGUMENT)
    if not s.mail:
        return s.refuse(R_MAIL_FIRST)
    if s.chunked:
        return s.refuse(R_BEGAN_WITH_BDAT)
    if s._recipients is None:
        return s.refuse(R_NO_RECIPIENTS_LMTP if s.config.lmtp else R_NO_RECIPIENTS)
    if s._binary:
        return s.refuse(R_BINARY_BY_BDAT)  # RFC 3030 §3
    s.state = TEXT
    s.place = LINE_START
    s.faults = 0
    return s.say(R_GO_AHEAD)


cdef int on_bdat(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    cdef Py_ssize_t i = 0
    cdef uint64_t size = 0
    while i < n and i < 20 and KIND[p[i]] & DIGIT:
        # What has passed the largest number already stays beyond it.
        size = size * 10 + p[i] - 48 if size <= <uint64_t>MOST // 10 else <uint64_t>MOST + 1
        i += 1
    if i == 0 or size > <uint64_t>MOST or (i < n and not (n == i + 5 and same_word(p + i, b" LAST", 5))):
        return s.lose_track(R_BAD_CHUNK)
    return s.begin_chunk(<Py_ssize_t>size, i < n, why_no_chunk(s, <Py_ssize_t>size))


cdef bytes why_no_chunk(ServerSession s, Py_ssize_t size):
    """The reply to a chunk that is not taken, or None."""
    if not s.config.chunking:
        return R_NOT_IMPLEMENTED
    if not s._esmtp:
        return R_LHLO_FIRST if s.config.lmtp else R_EHLO_FIRST
    if not s.mail:
        return R_MAIL_FIRST
    if s._recipients is None:
        return R_NO_RECIPIENTS_LMTP if s.config.lmtp else R_NO_RECIPIENTS
    return R_TOO_LARGE if size > s.config.message_size - s.size else None


cdef int on_rset(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    if n:
        return s.refuse(R_NO_ARGUMENT)
    s.reset()
    return s.idle(R_OK)


cdef int on_quit(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    return s.refuse(R_NO_ARGUMENT) if n else s.end(R_BYE)


cdef bytes decoded(const octet *p, Py_ssize_t n):
    """The octets behind base64; None when it is none."""
    try:
        return _binascii.a2b_base64(<bytes>p[:n], strict_mode=True)
    except _binascii.Error:
        return None


cdef inline bint in_mechanism(octet c) noexcept nogil:
    return c"A" <= c <= c"Z" or c"a" <= c <= c"z" or c"0" <= c <= c"9" or c == c"-" or c == c"_"


cdef int on_auth(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    cdef Py_ssize_t i = 0
    cdef bytes mechanism, response = None
    s.command_size = 4  # what stands behind it is secret
    if not (s.config.auth_tls if s._tls else s.config.auth_plain):
        return s.refuse(R_AUTH_NEEDS_TLS if s.config.auth_tls and not s._tls else R_NOT_IMPLEMENTED)
    if not s._esmtp:
        return s.refuse(R_EHLO_FIRST)
    if s._user:
        return s.refuse(R_LOGGED_IN)
    if s.mail:
        return s.refuse(R_IN_TRANSACTION)
    while i < n and in_mechanism(p[i]):
        i += 1
    if not 1 <= i <= 20 or (i < n and (p[i] != SP or memchr(p + i + 1, SP, n - i - 1) != NULL)):
        return s.refuse(R_AUTH_SYNTAX)
    mechanism = (<bytes>p[:i]).upper()
    if i < n:
        response = b"" if n == i + 2 and p[i + 1] == c"=" else decoded(p + i + 1, n - i - 1)
        if response is None:
            return s.refuse(R_NO_BASE64)
    return s.begin_auth(mechanism, response)


cdef int on_noop(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    return s.idle(R_OK)


cdef int on_help(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    return s.idle(s.config.help_tls if s._tls else s.config.help_plain)


cdef int on_vrfy(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    cdef Py_ssize_t i = 0
    if n == 0:
        return s.refuse(R_VERIFY_SYNTAX)
    if offers_utf8(s) and has_8bit(p, n):
        # RFC 6531 §3.7.4.2
        if n < 9 or p[n - 9] != SP or not same_word(p + n - 8, b"SMTPUTF8", 8):
            return s.refuse(R_VERIFY_NEEDS_SMTPUTF8)
        while i < n:
            i = i + 1 if p[i] < 0x80 else scan_utf8(p, i, n)
            if i < 0:
                return s.refuse(R_VERIFY_NO_UTF8)
    return s.idle(R_VERIFY)


cdef int on_unwanted(ServerSession s, const octet *p, Py_ssize_t n) except -1:
    return s.refuse(R_NOT_IMPLEMENTED)


cdef int on_starttls(ServerSession s, Py_ssize_t n) except -1:
    if n > 8:
        return s.refuse(R_NO_ARGUMENT)
    if s._tls:
        return s.refuse(R_TLS_ALREADY)
    if not s.config.starttls:
        return s.refuse(R_NOT_IMPLEMENTED)
    s.reset()
    s.state = HANDSHAKE
    s.flags |= F_STARTTLS
    return s.say(R_START_TLS)


cdef int set_row(int i, bytes verb, Handler handle) except -1:
    TABLE[i].verb = verb_of(<const octet *>PyBytes_AS_STRING(verb))
    TABLE[i].handle = handle
    return 0


# The common ones first: the table is searched in order.
set_row(0, b"RCPT", on_rcpt)
set_row(1, b"MAIL", on_mail)
set_row(2, b"DATA", on_data)
set_row(3, b"RSET", on_rset)
set_row(4, b"EHLO", on_ehlo)
set_row(5, b"QUIT", on_quit)
set_row(6, b"HELO", on_helo)
set_row(7, b"NOOP", on_noop)
set_row(8, b"VRFY", on_vrfy)
set_row(9, b"HELP", on_help)
set_row(10, b"EXPN", on_unwanted)
set_row(11, b"ETRN", on_unwanted)
set_row(12, b"TURN", on_unwanted)
set_row(13, b"AUTH", on_auth)
set_row(14, b"BDAT", on_bdat)
set_row(15, b"LHLO", on_lhlo)


# ---- the client session ----------------------------------------------------------------------------------------
#
# `mta/protocol/client.py` is its reference, with the theory of operation; the stages, the order of decisions and
# the names are the same here.

from cpython.unicode cimport PyUnicode_DecodeUTF8

READY = 64
NEXT = 128
SEND = 256
DONE = 512

cdef enum:
    _F_OUTPUT = 1
    _F_STARTTLS = 16
    _F_CLOSE = 32
    _F_READY = 64
    _F_NEXT = 128
    _F_SEND = 256
    _F_DONE = 512

    _LONGEST_REPLY = 65536
    _SHOWN = 80  # octets of a broken reply that a failure quotes

# What the next reply will answer; _ST_HANDSHAKE: nothing, TLS begins; _ST_TEXT: a chunk, or nothing, we are to send the
# text.
cdef enum:
    _ST_GREETING
    _ST_EHLO
    _ST_HELO
    _ST_STARTTLS
    _ST_HANDSHAKE
    _ST_IDLE
    _ST_RSET
    _ST_MAIL
    _ST_RCPT
    _ST_DATA
    _ST_TEXT
    _ST_FINAL
    _ST_QUIT
    _ST_CLOSED

cdef tuple _STAGES = (
    "GREETING", "EHLO", "HELO", "STARTTLS", "HANDSHAKE", "IDLE", "RSET", "MAIL", "RCPT", "DATA", "TEXT", "FINAL", "QUIT",
    "CLOSED",
)
cdef str _EARLY_OCTETS = "octets between the reply to STARTTLS and the handshake"


cdef Py_ssize_t _dots_to_double(const char *text, Py_ssize_t size, bint line_start) noexcept nogil:
    """How many dots stand at the start of a line."""
    cdef const char *end = text + size
    cdef const char *at = text
    cdef Py_ssize_t found = 0
    while at < end:
        at = <const char *> memchr(at, c".", end - at)
        if at == NULL:
            break
        if ((at - 1)[0] == c"\n") if at > text else line_start:
            found += 1
        at += 1
    return found


cdef void _copy_stuffed(char *target, const char *text, Py_ssize_t size, bint line_start) noexcept nogil:
    """Copy with those dots doubled; the target has room for them."""
    cdef const char *end = text + size
    cdef const char *done = text
    cdef const char *at = text
    while at < end:
        at = <const char *> memchr(at, c".", end - at)
        if at == NULL:
            break
        if ((at - 1)[0] == c"\n") if at > text else line_start:
            memcpy(target, done, at - done)
            target += at - done
            target[0] = c"."
            target += 1
            done = at
        at += 1
    memcpy(target, done, end - done)


cdef bytes _stuffed(const char *text, Py_ssize_t size, bint line_start, bytes tail):
    """The stuffed text with `tail` behind it, in one allocation."""
    cdef Py_ssize_t dots = _dots_to_double(text, size, line_start)
    cdef Py_ssize_t more = PyBytes_GET_SIZE(tail)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size + dots + more)
    cdef char *target = PyBytes_AS_STRING(result)
    if dots:
        _copy_stuffed(target, text, size, line_start)
    else:
        memcpy(target, text, size)
    memcpy(target + size + dots, PyBytes_AS_STRING(tail), more)
    return result


def stuff(text):
    """Dot-stuff a text (RFC 5321 §4.5.2); behind a bare LF too, so that no server takes it for an end."""
    cdef Py_buffer view
    PyObject_GetBuffer(text, &view, PyBUF_SIMPLE)
    try:
        return _stuffed(<const char *> view.buf, view.len, True, b"")
    finally:
        PyBuffer_Release(&view)


cdef int _check_line(bytes part) except -1:
    cdef char *octets = PyBytes_AS_STRING(part)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(part)
    if memchr(octets, c"\n", size) != NULL or memchr(octets, c"\r", size) != NULL:
        raise ValueError("a line end in a command")
    return 0


cdef int _fill(list replies, Py_ssize_t index, int code, tuple reply) except -1:
    """Note a reply; 421 answers all that is outstanding of its kind."""
    replies[index] = reply
    if code == 421:
        for index in range(index + 1, len(replies)):
            replies[index] = reply
    return 0


cdef bytes _with_parameters(bytes command, bytes parameters):
    """A command with these before its CRLF."""
    _check_line(parameters)
    return command[:PyBytes_GET_SIZE(command) - 2] + parameters + b"\r\n"


cdef int _add_parameters(list commands, bytes mail, object rcpt) except -1:
    """Put parameters behind MAIL and, where there are any, each RCPT."""
    cdef Py_ssize_t index
    cdef bytes parameters
    commands[0] = _with_parameters(commands[0], mail)
    if rcpt and len(rcpt) != len(commands) - 1:
        raise ValueError("not as many parameters as recipients")
    for index, parameters in enumerate(rcpt, 1):
        commands[index] = _with_parameters(commands[index], parameters)
    return 0


cdef class TransactionResult:
    """What came of one offered transaction."""

    cdef readonly object token
    cdef readonly tuple mail
    cdef readonly list recipients
    cdef readonly tuple data
    cdef readonly list finals
    cdef readonly bint dotted
    cdef list _commands  # MAIL, each RCPT, and DATA unless it is chunked
    cdef bint _chunked
    cdef bint _sent
    cdef Py_ssize_t _accepted
    cdef int _mail_code

    def __cinit__(self):
        self.recipients = []
        self.finals = []


cdef class ClientSession:
    """One connection to a server."""

    cdef Tape *_tape  # NULL: nothing is kept
    cdef Py_ssize_t _text_octets  # of the current text, given so far
    cdef bytes _helo
    cdef bint _lmtp
    cdef int _stage
    cdef int _flags
    cdef list _out
    cdef list _results
    cdef TransactionResult _current
    cdef TransactionResult _next
    cdef Py_ssize_t _index  # of the RCPT or the final reply that comes next
    cdef bint _reset_due
    cdef bint _behind  # octets came behind the line that is looked at
    cdef bytes _pending  # a line whose end has not come
    cdef list _lines  # of a reply of many lines so far, without their codes
    cdef Py_ssize_t _octets  # of the reply so far
    cdef int _before_last, _last  # the last octets of the text so far, -1: none
    cdef Py_ssize_t _chunks  # not the last ones, sent and not answered
    cdef bint _chunk_refused
    cdef bint _esmtp, _starttls, _may_pipeline
    cdef bint _size, _eight_bit
    cdef readonly bint pipelining
    cdef readonly tuple greeting
    cdef readonly dict extensions
    cdef readonly tuple failure
    cdef readonly bint tls
    cdef readonly tuple tls_refusal
    cdef readonly uint32_t replies
    cdef readonly str ended_in

    def __init__(
        self,
        bytes helo,
        *,
        bint lmtp=False,
        bint esmtp=True,
        bint starttls=False,
        bint pipelining=True,
        Py_ssize_t tape=0,
        uint32_t tape_slow=0,
    ):
        tape_length(tape)
        free_tape(self._tape)
        self._tape = new_tape(tape, tape_slow)
        self._helo = helo
        self._lmtp = lmtp
        self._esmtp = esmtp or lmtp
        self._starttls = starttls
        self._may_pipeline = pipelining
        self.ended_in = ""
        self._stage = _ST_GREETING
        self._out = []
        self._results = []
        self._pending = b""
        self._lines = []
        self.extensions = {}

    def __dealloc__(self):
        free_tape(self._tape)

    # ---- what the caller does

    def receive(self, buffer, Py_ssize_t size):
        cdef Py_buffer view
        tape_time(self._tape)
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if size < 0 or size > view.len:
                raise ValueError("size is not within the buffer")
            self._take_in(<const char *> view.buf, size)
        finally:
            PyBuffer_Release(&view)
        return self._take_flags()

    def offer(
        self,
        token,
        bytes sender,
        recipients,
        Py_ssize_t size,
        bint eight_bit,
        bytes mail_parameters=b"",
        rcpt_parameters=(),
        bint chunked=False,
    ):
        cdef TransactionResult transaction
        if not _ST_IDLE <= self._stage < _ST_QUIT or self._next is not None:
            raise RuntimeError("no room for a transaction")
        if not recipients:
            raise ValueError("a transaction without recipients")
        transaction = self._transaction(token, sender, recipients, size, eight_bit)
        if mail_parameters or rcpt_parameters:
            _add_parameters(transaction._commands, mail_parameters, rcpt_parameters)
        if chunked:
            transaction._chunked = True
        else:
            transaction._commands.append(b"DATA\r\n")
        if self._current is None:
            self._current = transaction
            self._flags |= _F_NEXT
            tape_time(self._tape)
            self._begin()
        else:
            self._next = transaction
            if self._stage == _ST_FINAL:
                self._ride()
        return self._take_flags()

    def send_body(self, chunk, bint last):
        cdef Py_buffer view
        if self._stage == _ST_CLOSED:
            return self._take_flags()
        if self._stage != _ST_TEXT:
            raise RuntimeError("nobody waits for a text")
        tape_time(self._tape)
        PyObject_GetBuffer(chunk, &view, PyBUF_SIMPLE)
        try:
            if self._current._chunked:
                self._append_chunk(<const char *> view.buf, view.len, last)
            else:
                self._append_text(<const char *> view.buf, view.len, last)
        finally:
            PyBuffer_Release(&view)
        return self._take_flags()

    def quit(self):
        if self._current is not None:
            raise RuntimeError("a transaction is in hand")
        if self._stage < _ST_QUIT:
            tape_time(self._tape)
            self._speak(b"QUIT\r\n")
            self._stage = _ST_QUIT
        return self._take_flags()

    def secured(self):
        if self._stage != _ST_HANDSHAKE:
            raise RuntimeError("no handshake was asked for")
        self.extensions = {}
        self.pipelining = self._size = self._eight_bit = False
        self.tls = True
        tape_time(self._tape)
        tape(self._tape, T_TLS, NULL, 0, 0)
        self._introduce()
        return self._take_flags()

    def lost(self):
        if self._stage != _ST_CLOSED:
            self._end()
            self._flags &= ~_F_CLOSE
        return self._take_flags()

    def take_output(self):
        cdef list out = self._out
        if len(out) == 1:
            return out.pop()
        cdef bytes output = b"".join(out)
        out.clear()
        return output

    def take_results(self):
        cdef list results = self._results
        self._results = []
        return results

    def take_tape(self):
        return tape_taken(self._tape)

    @property
    def marked(self):
        return self._tape != NULL and self._tape.marked != 0

    @property
    def in_hand(self):
        return (self._current is not None) + (self._next is not None)

    @property
    def awaits_final(self):
        return self._stage == _ST_FINAL

    # ---- replies

    cdef int _take_in(self, const char *at, Py_ssize_t size) except -1:
        cdef bytes joined
        cdef const char *end
        cdef const char *stop
        if self._pending:
            # Kept alive by the local name while it is parsed.
            joined = self._pending + at[:size]
            self._pending = b""
            at = PyBytes_AS_STRING(joined)
            size = PyBytes_GET_SIZE(joined)
        end = at + size
        if self._stage == _ST_HANDSHAKE and size:
            self._break(_EARLY_OCTETS)
        while self._stage != _ST_CLOSED:
            stop = <const char *> memchr(at, c"\n", end - at) if at < end else NULL
            if self._octets + ((end if stop == NULL else stop + 1) - at) > _LONGEST_REPLY:
                self._break("reply longer than 64 KiB")
            elif stop == NULL:
                if at < end:
                    self._pending = at[:end - at]
                break
            else:
                self._behind = stop + 1 < end
                self._line(at, stop - at)
                at = stop + 1
        return 0

    cdef int _line(self, const char *line, Py_ssize_t size) except -1:
        cdef char mark
        self._octets += size + 1
        if size and line[size - 1] == c"\r":
            size -= 1
        tape(self._tape, T_REPLIED, <const octet *>line, size, size)
        mark = line[3] if size > 3 else c" "
        if (
            size < 3
            or not c"2" <= line[0] <= c"5"
            or not c"0" <= line[1] <= c"9"
            or not c"0" <= line[2] <= c"9"
            or (mark != c" " and mark != c"-")
        ):
            shown = line[:min(size, _SHOWN)].decode("utf-8", "backslashreplace")
            self._break(f"not an SMTP reply: {shown}")
            return 0
        if mark == c"-":
            self._lines.append(line[4:size] if size > 4 else b"")
            return 0
        cdef int code = (line[0] - 48) * 100 + (line[1] - 48) * 10 + line[2] - 48
        cdef str text
        if self._lines:
            self._lines.append(line[4:size] if size > 4 else b"")
            text = b"\n".join(self._lines).decode("utf-8", "backslashreplace")
            self._lines.clear()
        else:
            text = PyUnicode_DecodeUTF8(line + 4, size - 4, "backslashreplace") if size > 4 else ""
        self._octets = 0
        return self._reply(code, text)

    cdef int _reply(self, int code, str text) except -1:
        self.replies += 1
        self._note(code, (code, text))
        if code == 421 and self._stage != _ST_QUIT:
            self.failure = (code, text)
            self._end()
        elif not self._advance(code, text):
            self._break(f"reply out of place: {code} {text[:_SHOWN]}")
        return 0

    cdef int _note(self, int code, tuple reply) except -1:
        """Keep the reply where it belongs."""
        cdef int stage = self._stage
        cdef TransactionResult current = self._current
        if stage == _ST_GREETING:
            self.greeting = reply
        # A refusal fits everywhere; 3yz is an answer to DATA alone, and DATA has no other good answer.
        if current is None or (code < 400 and (code >= 300) != (stage == _ST_DATA)):
            return 0
        if stage == _ST_MAIL:
            current.mail = reply
            current._mail_code = code
        elif stage == _ST_RCPT:
            _fill(current.recipients, self._index, code, reply)
            current._accepted += code < 300
        elif stage == _ST_DATA:
            current.data = reply
        elif stage == _ST_FINAL:
            if not self._chunk_refused and (not self._chunks or code == 421):
                _fill(current.finals, self._index, code, reply)
        elif stage == _ST_TEXT and code >= 400:
            current.finals = [reply] * len(current.finals)
        return 0

    cdef bint _advance(self, int code, str text) except -1:
        """What follows from a reply; False when it has no meaning at this stage."""
        cdef int stage = self._stage
        if stage == _ST_MAIL:
            return self._mail_answered(code)
        if stage == _ST_RCPT:
            return self._rcpt_answered(code)
        if stage == _ST_DATA:
            return self._data_answered(code)
        if stage == _ST_FINAL:
            return self._final_answered(code, text)
        if stage == _ST_RSET:
            self._stage = _ST_MAIL
            if not self.pipelining:
                self._say(0)
            return True
        if stage == _ST_QUIT:
            self._end()
            return True
        if stage == _ST_TEXT:
            if code < 300 and self._chunks:
                self._chunks -= 1
                return True
            # A refusal in the middle of the text: the server will not read the rest as text.
            if code >= 400:
                self.failure = (code, text)
                self._end()
            return code >= 400
        if stage == _ST_STARTTLS:
            return self._starttls_answered(code, text)
        if stage == _ST_IDLE or stage == _ST_HANDSHAKE:
            return False
        return self._introduced(code, text)

    cdef bint _starttls_answered(self, int code, str text) except -1:
        if code >= 400:
            self.tls_refusal = (code, text)
            self._stage = _ST_IDLE
            self._flags |= _F_READY
        elif code >= 300:
            return False
        elif self._behind:
            self._break(_EARLY_OCTETS)
        else:
            self._stage = _ST_HANDSHAKE
            self._flags |= _F_STARTTLS
        return True

    cdef int _introduce(self) except -1:
        self._speak((b"LHLO " if self._lmtp else b"EHLO " if self._esmtp else b"HELO ") + self._helo + b"\r\n")
        self._stage = _ST_EHLO if self._esmtp else _ST_HELO
        return 0

    cdef bint _introduced(self, int code, str text) except -1:
        """Greeting, EHLO, LHLO and HELO."""
        if code < 300:
            if self._stage == _ST_GREETING:
                self._introduce()
                return True
            if self._stage == _ST_EHLO:
                self._learn(text)
                if self._starttls and not self.tls and "STARTTLS" in self.extensions:
                    self._speak(b"STARTTLS\r\n")
                    self._stage = _ST_STARTTLS
                    return True
            self._stage = _ST_IDLE
            self._flags |= _F_READY
            return True
        if self._stage == _ST_EHLO and code >= 500 and not self._lmtp:
            self._speak(b"HELO " + self._helo + b"\r\n")
            self._stage = _ST_HELO
            return True
        if code < 400:
            return False
        self.failure = (code, text)
        self._speak(b"QUIT\r\n")
        self._end()
        return True

    cdef int _learn(self, str text) except -1:
        for line in text.split("\n")[1:]:
            keyword, _, parameters = line.strip(" ").partition(" ")
            self.extensions[keyword.upper()] = parameters
        self.pipelining = self._may_pipeline and "PIPELINING" in self.extensions
        self._size = "SIZE" in self.extensions
        self._eight_bit = "8BITMIME" in self.extensions
        return 0

    cdef bint _mail_answered(self, int code) except -1:
        if 300 <= code < 400:
            return False
        self._stage = _ST_RCPT
        self._index = 0
        if not self.pipelining:
            if code < 300:
                self._say(1)
            else:
                self._finish()
        return True

    cdef bint _rcpt_answered(self, int code) except -1:
        cdef TransactionResult current = self._current
        if 300 <= code < 400:
            return False
        self._index += 1
        if self._index < len(current.recipients):
            if not self.pipelining:
                self._say(self._index + 1)
        elif current._chunked:
            if current._accepted and 0 < current._mail_code < 300:
                self._want_text()
            else:
                self._finish()
        elif self.pipelining or current._accepted:
            self._stage = _ST_DATA
            if not self.pipelining:
                self._say(self._index + 1)
        else:
            self._finish()
        return True

    cdef bint _data_answered(self, int code) except -1:
        cdef TransactionResult current = self._current
        if code >= 400:
            self._finish()
            return True
        if code < 300 or not 0 < current._mail_code < 300:
            return False
        if current._accepted:
            self._want_text()
            return True
        if self._lmtp:
            return False  # no recipient, no reply to the dot: nobody could tell where we are
        current.finals = [None]
        self._speak(b".\r\n")
        self._enter_final()
        self._ride()
        return True

    cdef int _want_text(self) except -1:
        self._current.finals = [None] * (self._current._accepted if self._lmtp else 1)
        self._stage = _ST_TEXT
        self._text_octets = 0
        self._last = self._before_last = -1
        self._chunks = 0
        self._chunk_refused = False
        self._flags |= _F_SEND if self._next is not None else _F_SEND | _F_NEXT
        return 0

    cdef bint _final_answered(self, int code, str text) except -1:
        if 300 <= code < 400:
            return False
        if self._chunks:
            self._chunks -= 1
            if code >= 400 and not self._chunk_refused:
                self._chunk_refused = True
                self._current.finals = [(code, text)] * len(self._current.finals)
            return True
        self._index += 1
        if self._index == len(self._current.finals):
            self._finish()
        return True

    # ---- what is said

    cdef TransactionResult _transaction(
        self, object token, bytes sender, object recipients, Py_ssize_t size, bint eight_bit
    ):
        cdef TransactionResult made = TransactionResult.__new__(TransactionResult)
        cdef bytes recipient
        cdef bytes parameters = b" SIZE=%d" % size if self._size else b""
        _check_line(sender)
        if eight_bit and self._eight_bit:
            parameters += b" BODY=8BITMIME"
        cdef list commands = [b"MAIL FROM:<" + sender + b">" + parameters + b"\r\n"]
        for recipient in recipients:
            _check_line(recipient)
            commands.append(b"RCPT TO:<" + recipient + b">\r\n")
        made.token = token
        made.recipients = [None] * (len(commands) - 1)
        made._commands = commands
        return made

    cdef int _speak(self, bytes command) except -1:
        self._out.append(command)
        return self._tape_command(command)

    cdef int _tape_command(self, bytes command) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(command) - 2
        return tape(self._tape, T_SAID, <const octet *>PyBytes_AS_STRING(command), size, size)

    cdef int _tape_envelope(self, TransactionResult of) except -1:
        cdef bytes command
        if self._tape != NULL:
            for command in of._commands:
                self._tape_command(command)
        return 0

    cdef int _say(self, Py_ssize_t index) except -1:
        return self._speak(self._current._commands[index])

    cdef int _begin(self) except -1:
        """Send the envelope of the current transaction, or as much of it as may go now."""
        self._stage = _ST_MAIL
        self._current._sent = True
        if self._reset_due:
            self._reset_due = False
            self._stage = _ST_RSET
            self._speak(b"RSET\r\n")
        if self.pipelining:
            self._out.extend(self._current._commands)
            self._tape_envelope(self._current)
        elif self._stage == _ST_MAIL:
            self._say(0)
        return 0

    cdef int _ride(self) except -1:
        """Send the next envelope behind the final dot of the current text."""
        if self._next is not None and self.pipelining and not self._current._chunked:
            self._next._sent = True
            self._out.extend(self._next._commands)
            self._tape_envelope(self._next)
        return 0

    cdef int _append_text(self, const char *text, Py_ssize_t size, bint last) except -1:
        cdef bint line_start = self._last == -1 or self._last == c"\n"
        cdef bytes tail = b""
        self._text_octets += size
        if size:
            # Unsigned: an octet 255 is not the -1 that stands for none.
            self._before_last = <octet> text[size - 2] if size > 1 else self._last
            self._last = <octet> text[size - 1]
        if last:
            if self._last == -1 or (self._last == c"\n" and self._before_last == c"\r"):
                tail = b".\r\n"
            else:
                tail = b"\r\n.\r\n"
            tape(self._tape, T_TEXT, NULL, 0, self._text_octets)
            if self._next is not None and self.pipelining:
                # One allocation holds text, dot and the riding envelope.
                self._next._sent = True
                tail += b"".join(self._next._commands)
                self._tape_envelope(self._next)
            self._current.dotted = True
            self._enter_final()
        if size or last:
            self._out.append(_stuffed(text, size, line_start, tail))
        return 0

    cdef int _append_chunk(self, const char *text, Py_ssize_t size, bint last) except -1:
        cdef bytes command
        if last or size:
            command = b"BDAT %d LAST\r\n" % size if last else b"BDAT %d\r\n" % size
            self._tape_command(command)
            self._out.append(command + text[:size])
        if last:
            self._current.dotted = True
            self._enter_final()
        elif size:
            self._chunks += 1
        return 0

    cdef int _enter_final(self) except -1:
        self._stage = _ST_FINAL
        self._index = 0
        return 0

    # ---- ends

    cdef int _finish(self) except -1:
        """The current transaction is over: on to the next one."""
        self._results.append(self._current)
        self._reset_due = 0 < self._current._mail_code < 300 and (self._stage != _ST_FINAL or self._chunk_refused)
        self._chunk_refused = False
        self._current = self._next
        self._next = None
        self._flags |= _F_NEXT
        if self._current is None:
            self._stage = _ST_IDLE
        elif self._current._sent:
            self._stage = _ST_MAIL
        else:
            self._begin()
        return 0

    cdef int _break(self, str text) except -1:
        self.failure = (0, text)
        return self._end()

    cdef int _end(self) except -1:
        if self._current is not None:
            self._results.append(self._current)
        if self._next is not None:
            self._results.append(self._next)
        self._current = self._next = None
        self.ended_in = _STAGES[self._stage]
        self._stage = _ST_CLOSED
        self._pending = b""
        self._flags = _F_CLOSE | self._flags & _F_READY
        return 0

    cdef int _take_flags(self):
        cdef int flags = self._flags
        self._flags = 0
        if self._out:
            flags |= _F_OUTPUT
        if self._results:
            flags |= _F_DONE
        return flags
