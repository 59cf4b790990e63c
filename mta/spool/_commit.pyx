# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Group commit by a native thread, and the walk over records that needs a checksum each.

One `Committer` serves one log of one process. Records are copied into a batch; while the thread writes and syncs one
batch, the next one fills. There is no timer: the size of a batch is what arrived during the last sync.

A batch, and what a crash leaves of it:

    step                      then                       a crash before the step ends
    filling                   -                          nothing of it on disk, nobody was answered
    1 pwrite                  2; error: 4                some of its records, any of them, whole or torn: unanswered
    2 fdatasync               3; error: 4                the same
    3 reported good           250                        it is on disk
    4 cut off (ftruncate, or  reported as failed: 451;   some of its records may be there, and be delivered though
      zeros), fdatasync       the segment is retired     their clients come again: twice rather than never

The cut is tried before the report, so nobody who reads the log meets a message that was answered 451. Where the disk
refuses the cut as well, this is counted (`uncut`); the copy may then be delivered beside the one that comes again.

With an `interval` (spool.durability) step 2 is left out, and done for all that was written once in so many nanoseconds,
before a batch of another segment is written, and at the end. When that fails there is nobody left to be told 451: the
failure is reported with no records, and the segment is retired, not cut, for what it holds was answered 250.

Invariants
- INVARIANT: without an interval a batch is reported without error only after `pwrite` of all its octets and
  `fdatasync` succeeded.
- INVARIANT: after a failed write or sync nothing is written to that segment again: later batches for it fail too
  (the kernel may have dropped the dirty pages, so a second sync that succeeds proves nothing).
- A descriptor is not used any more once a batch of a later segment was reported.
- Batches are written and reported in the order in which they were begun.
- The thread is made in the process that uses it, never inherited over a fork, and takes no signals.

Failure: an errno in the report of the batch. MemoryError from `append` leaves the batches as they were.
Bounds: `append` reserves the room it then fills; `record_at` compares each length with what is left before it reads.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #ifndef MTA_SOURCE_HASH
    #define MTA_SOURCE_HASH ""
    #endif
    """
    const char *MTA_SOURCE_HASH

cdef extern from "crc32c.h" nogil:
    void mta_crc_setup()
    uint32_t mta_crc32c(uint32_t crc, const void *data, size_t n)

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    int CLOCK_MONOTONIC

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t *, void *, void *(*)(void *) noexcept nogil, void *)
    int pthread_join(pthread_t, void **)
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t *)
    int pthread_condattr_setclock(pthread_condattr_t *, int)
    int pthread_condattr_destroy(pthread_condattr_t *)
    int pthread_cond_init(pthread_cond_t *, const pthread_condattr_t *)
    int pthread_cond_timedwait(pthread_cond_t *, pthread_mutex_t *, const timespec *)
    int pthread_cond_signal(pthread_cond_t *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_destroy(pthread_cond_t *)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *)
    int pthread_sigmask(int, const sigset_t *, sigset_t *)
    int SIG_SETMASK

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *data, size_t n, int64_t offset)
    ssize_t pwrite(int fd, const void *data, size_t n, int64_t offset)
    ssize_t write(int fd, const void *data, size_t n)
    int fdatasync(int fd)
    int ftruncate(int fd, int64_t length)
    int close(int fd)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int EFD_NONBLOCK
    int EFD_CLOEXEC

SOURCE_HASH = MTA_SOURCE_HASH.decode("ascii")

cdef enum:
    HEADER = 40
    MAGIC = 0x3152544D      # "MTR1", little endian
    MESSAGE = 1             # mta.spool.format.MESSAGE
    MESSAGE_HEAD = 16       # mta.spool.format.MESSAGE_HEAD
    FIRST_READ = 8192       # header, envelope and text of most messages in one call
    FIRST_ROOM = 256 * 1024
    KEPT_ROOM = 2 * 1024 * 1024
    KEPT_BATCHES = 4

mta_crc_setup()


cdef struct Record:         # the layout of mta.spool.format.RECORD, little endian, no padding
    uint32_t magic
    uint8_t kind
    uint8_t flags
    uint16_t reserved
    uint64_t generation
    uint32_t length
    uint32_t crc
    uint64_t id
    uint64_t time_ms


cdef struct Batch:
    Batch *next
    char *data
    size_t room
    size_t length
    int64_t offset
    uint64_t segment
    uint32_t records
    int fd
    int error
    int taken


cdef struct Shared:
    pthread_mutex_t lock
    pthread_cond_t wake
    Batch *head             # begun and not yet done; the first may be with the thread
    Batch *tail
    Batch *done
    Batch *done_tail
    Batch *spare
    uint64_t bad_segment    # the newest one that failed; 0: none
    int spares
    int kicked
    int stop
    int event
    int dirty_fd            # with an interval: written and not synced, if dirty_segment is not 0
    uint64_t dirty_segment
    uint64_t dirty_since
    uint64_t interval       # 0: every batch is synced before it is reported
    size_t waiting
    uint64_t batches
    uint64_t octets
    uint64_t failures
    uint64_t uncut
    uint64_t syncs
    uint64_t sync_ns
    uint64_t sync_max_ns


cdef uint64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


cdef int write_whole(int fd, const char *data, size_t n, int64_t offset) noexcept nogil:
    cdef ssize_t sent
    while n:
        sent = pwrite(fd, data, n, offset)
        if sent < 0:
            if errno == EINTR:
                continue
            return errno
        if sent == 0:
            return EIO
        data += sent
        offset += sent
        n -= sent
    return 0


cdef int commit(Batch *batch, int synced) noexcept nogil:
    cdef int error = write_whole(batch.fd, batch.data, batch.length, batch.offset)
    if error == 0 and synced and fdatasync(batch.fd) != 0:  # INVARIANT: only this makes a 250 true
        error = errno
    return error


cdef int cut(Batch *batch) noexcept nogil:
    """Make what may have reached the file of a failed batch unreadable, now and after a crash; 0 when that is done.

    Cut off, for that needs no room; else overwritten. This sync proves nothing about the batch, and need not.
    """
    cdef int error = 0
    if ftruncate(batch.fd, batch.offset) != 0:
        memset(batch.data, 0, batch.length)
        error = write_whole(batch.fd, batch.data, batch.length, batch.offset)
    return fdatasync(batch.fd) or error


cdef void report(Shared *s, Batch *batch) noexcept nogil:
    """Put a batch to what `collect` gives; called with the lock held."""
    batch.next = NULL
    if s.done_tail:
        s.done_tail.next = batch
    else:
        s.done = batch
    s.done_tail = batch


cdef int is_due(Shared *s) noexcept nogil:
    """Whether what was written must be synced now, before anything else."""
    if s.dirty_segment == 0:
        return 0
    if s.head and s.head.segment != s.dirty_segment:
        return 1
    return (s.stop and not s.head) or now_ns() - s.dirty_since >= s.interval


cdef int sync_dirty(Shared *s) noexcept nogil:
    """Sync what was written; called with the lock held, which is released meanwhile. Whether there is a report."""
    cdef uint64_t segment = s.dirty_segment
    cdef uint64_t began = now_ns()
    cdef uint64_t took
    cdef int fd = s.dirty_fd
    cdef int error = 0
    cdef Batch *failed
    s.dirty_segment = 0
    pthread_mutex_unlock(&s.lock)
    if fdatasync(fd) != 0:
        error = errno
    took = now_ns() - began
    pthread_mutex_lock(&s.lock)
    s.syncs += 1
    s.sync_ns += took
    if took > s.sync_max_ns:
        s.sync_max_ns = took
    if error == 0:
        return 0
    s.failures += 1
    s.bad_segment = segment
    failed = <Batch *>calloc(1, sizeof(Batch))
    if failed == NULL:
        return 0    # the next batch of the segment fails, and tells
    failed.segment = segment
    failed.error = error
    report(s, failed)
    return 1


cdef void sleep(Shared *s) noexcept nogil:
    """Until there may be something to do."""
    cdef timespec until
    cdef uint64_t due
    if s.dirty_segment == 0:
        pthread_cond_wait(&s.wake, &s.lock)
        return
    due = s.dirty_since + s.interval
    until.tv_sec = <int64_t>(due // 1000000000)
    until.tv_nsec = <long>(due % 1000000000)
    pthread_cond_timedwait(&s.wake, &s.lock, &until)


cdef void process(Shared *s, Batch *batch) noexcept nogil:
    """Write a batch and have it reported; called with the lock held, which is released meanwhile."""
    cdef uint64_t began
    cdef uint64_t took = 0
    cdef int uncut = 0
    batch.taken = 1
    if batch.next == NULL:
        s.kicked = 0
    if batch.segment == s.bad_segment:
        batch.error = EIO
    else:
        pthread_mutex_unlock(&s.lock)
        began = now_ns()
        batch.error = commit(batch, s.interval == 0)
        took = now_ns() - began
        if batch.error:
            uncut = cut(batch) != 0
        pthread_mutex_lock(&s.lock)
        if s.interval == 0:
            s.syncs += 1
        elif batch.error == 0 and s.dirty_segment == 0:
            s.dirty_fd = batch.fd
            s.dirty_segment = batch.segment
            s.dirty_since = began
    if batch.error:
        s.bad_segment = batch.segment
        s.failures += 1
        s.uncut += uncut
    s.batches += 1
    s.octets += batch.length
    s.sync_ns += took
    if took > s.sync_max_ns:
        s.sync_max_ns = took
    s.waiting -= batch.length
    s.head = batch.next
    if s.head == NULL:
        s.tail = NULL
    report(s, batch)


cdef void *work(void *argument) noexcept nogil:
    """The thread: take a batch, make it durable, report it, until told to stop and nothing is left."""
    cdef Shared *s = <Shared *>argument
    cdef int told
    cdef uint64_t one = 1
    pthread_mutex_lock(&s.lock)
    while True:
        if is_due(s):
            told = sync_dirty(s)
        elif s.head and (s.kicked or s.stop):
            process(s, s.head)
            told = 1
        elif s.stop:
            break
        else:
            sleep(s)
            told = 0
        if told:
            pthread_mutex_unlock(&s.lock)
            write(s.event, &one, 8)     # likewise without the lock, which the loop takes first thing
            pthread_mutex_lock(&s.lock)
    pthread_mutex_unlock(&s.lock)
    return NULL


cdef class Committer:
    """The thread of one log. `event` is readable when `collect` has something to report.

    `interval_ns`: 0, or what was written is synced once in so many nanoseconds, and reported before.
    """

    cdef Shared *shared
    cdef pthread_t thread
    cdef bint running
    cdef readonly int event

    def __cinit__(self, uint64_t interval_ns=0):
        cdef sigset_t blocked, before
        cdef pthread_condattr_t clock
        self.event = -1
        self.running = False
        self.shared = <Shared *>calloc(1, sizeof(Shared))
        if self.shared == NULL:
            raise MemoryError
        pthread_mutex_init(&self.shared.lock, NULL)
        pthread_condattr_init(&clock)
        pthread_condattr_setclock(&clock, CLOCK_MONOTONIC)
        pthread_cond_init(&self.shared.wake, &clock)
        pthread_condattr_destroy(&clock)
        self.shared.interval = interval_ns
        self.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.event < 0:
            raise OSError(errno, "eventfd")
        self.shared.event = self.event
        sigfillset(&blocked)
        pthread_sigmask(SIG_SETMASK, &blocked, &before)
        error = pthread_create(&self.thread, NULL, work, self.shared)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if error:
            raise OSError(error, "the commit thread could not be started")
        self.running = True

    def __dealloc__(self):
        if self.shared == NULL:
            return
        self.finish()
        free_batches(self.shared.done)
        free_batches(self.shared.spare)
        pthread_mutex_destroy(&self.shared.lock)
        pthread_cond_destroy(&self.shared.wake)
        if self.event >= 0:
            close(self.event)
        free(self.shared)

    cdef int finish(self) noexcept:
        cdef Shared *s = self.shared
        if self.running:
            self.running = False
            pthread_mutex_lock(&s.lock)
            s.stop = 1
            pthread_cond_signal(&s.wake)
            pthread_mutex_unlock(&s.lock)
            with nogil:
                pthread_join(self.thread, NULL)
        return 0

    def close(self):
        """Write what waits, end the thread. `collect` still reports afterwards."""
        self.finish()

    def append(self, int fd, uint64_t segment, int64_t offset, uint8_t kind, uint8_t flags, uint64_t generation,
               uint64_t id, uint64_t time_ms, tuple parts):
        """Copy a record, header first, into the batch for `offset` of a segment; returns its padded length.

        `segment` is a number that no other open segment of this log has (not 0). Nothing is written before `kick`.
        """
        return self.put(fd, segment, offset, kind, flags, generation, id, time_ms, NULL, 0, parts)

    def append_message(self, int fd, uint64_t segment, int64_t offset, uint8_t flags, uint64_t generation,
                       uint64_t id, uint64_t time_ms, uint64_t large, uint32_t checksum,
                       bytes envelope not None, bytes head not None, bytes body not None):
        """The same for a MESSAGE: its head, then envelope and text.

        `large`, `checksum`: octets in the body file, and their crc32c.
        """
        cdef uint8_t lengths[MESSAGE_HEAD]
        cdef uint32_t size = <uint32_t>PyBytes_GET_SIZE(envelope)
        memset(lengths, 0, MESSAGE_HEAD)
        memcpy(lengths, &size, 4)
        memcpy(lengths + 4, &checksum, 4)
        memcpy(lengths + 8, &large, 8)
        return self.put(
            fd, segment, offset, MESSAGE, flags, generation, id, time_ms, lengths, MESSAGE_HEAD, (envelope, head, body)
        )

    cdef Py_ssize_t put(self, int fd, uint64_t segment, int64_t offset, uint8_t kind, uint8_t flags,
                        uint64_t generation, uint64_t id, uint64_t time_ms, const uint8_t *first, size_t first_size,
                        tuple parts) except -1:
        cdef size_t payload = first_size, length
        cdef Py_ssize_t n
        cdef Batch *batch
        cdef char *at
        cdef Record header
        cdef bytes part
        if not self.running:
            raise ValueError("the log is closed")
        for part in parts:
            payload += PyBytes_GET_SIZE(part)
        if payload > 0x7FFFFFFF:
            raise ValueError("a record cannot be this large")
        length = (HEADER + payload + 7) & ~<size_t>7
        header.magic = MAGIC
        header.kind = kind
        header.flags = flags
        header.reserved = 0
        header.generation = generation
        header.length = <uint32_t>payload
        header.crc = 0
        header.id = id
        header.time_ms = time_ms
        cdef uint32_t crc = mta_crc32c(0, &header, HEADER)
        if first_size:
            crc = mta_crc32c(crc, first, first_size)
        for part in parts:
            crc = mta_crc32c(crc, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
        header.crc = crc
        pthread_mutex_lock(&self.shared.lock)
        batch = self.batch_for(fd, segment, offset, length)
        if batch == NULL:
            pthread_mutex_unlock(&self.shared.lock)
            raise MemoryError
        at = batch.data + batch.length
        memcpy(at, &header, HEADER)
        at += HEADER
        if first_size:
            memcpy(at, first, first_size)
            at += first_size
        for part in parts:
            n = PyBytes_GET_SIZE(part)
            memcpy(at, PyBytes_AS_STRING(part), n)
            at += n
        memset(at, 0, length - HEADER - payload)
        batch.length += length
        batch.records += 1
        self.shared.waiting += length
        pthread_mutex_unlock(&self.shared.lock)
        return length

    cdef Batch *batch_for(self, int fd, uint64_t segment, int64_t offset, size_t length) noexcept:
        """The batch that takes `length` octets at `offset`; called with the lock held."""
        cdef Shared *s = self.shared
        cdef Batch *batch = s.tail
        if batch == NULL or batch.taken or batch.segment != segment or batch.offset + <int64_t>batch.length != offset:
            batch = s.spare
            if batch != NULL:
                s.spare = batch.next
                s.spares -= 1
            else:
                batch = <Batch *>calloc(1, sizeof(Batch))
                if batch == NULL:
                    return NULL
            batch.next = NULL
            batch.length = 0
            batch.records = 0
            batch.error = 0
            batch.taken = 0
            batch.offset = offset
            batch.segment = segment
            batch.fd = fd
            if not make_room(batch, length):
                free(batch.data)
                free(batch)
                return NULL
            if s.tail:
                s.tail.next = batch
            else:
                s.head = batch
            s.tail = batch
            return batch
        return batch if make_room(batch, length) else NULL

    def kick(self):
        """Let the thread write what was appended."""
        cdef Shared *s = self.shared
        cdef bint wake
        pthread_mutex_lock(&s.lock)
        # A batch that the thread has taken counts for nothing: a mark set for it would outlive it, and swallow the
        # wake-up of the next one.
        wake = s.tail and not s.tail.taken and not s.kicked
        if wake:
            s.kicked = 1
        pthread_mutex_unlock(&s.lock)
        # Signalled without the lock, or the thread would wake only to wait for it: two context switches a commit.
        if wake:
            pthread_cond_signal(&s.wake)

    def collect(self):
        """Finished batches, in order: a list of (segment, start, end, records, errno).

        One without records is a failed sync of an interval: what was reported of that segment before may be lost.
        """
        cdef Shared *s = self.shared
        cdef Batch *batch
        cdef Batch *following
        cdef list reports = []
        pthread_mutex_lock(&s.lock)
        batch = s.done
        s.done = s.done_tail = NULL
        pthread_mutex_unlock(&s.lock)
        while batch:
            following = batch.next
            reports.append(
                (batch.segment, batch.offset, batch.offset + <int64_t>batch.length, batch.records, batch.error)
            )
            if s.spares < KEPT_BATCHES and batch.room <= KEPT_ROOM:
                pthread_mutex_lock(&s.lock)
                batch.next = s.spare
                s.spare = batch
                s.spares += 1
                pthread_mutex_unlock(&s.lock)
            else:
                free(batch.data)
                free(batch)
            batch = following
        return reports

    @property
    def waiting(self):
        """Octets appended and not yet durable."""
        return self.shared.waiting

    @property
    def statistics(self):
        """(batches, octets, failures, seconds in write and sync, longest of them, syncs, failed batches not cut off)"""
        cdef Shared *s = self.shared
        return (s.batches, s.octets, s.failures, s.sync_ns / 1e9, s.sync_max_ns / 1e9, s.syncs, s.uncut)


cdef int make_room(Batch *batch, size_t length) noexcept:
    cdef size_t room = batch.room if batch.room else FIRST_ROOM
    cdef char *data
    while room < batch.length + length:
        room *= 2
    if room != batch.room:
        data = <char *>realloc(batch.data, room)
        if data == NULL:
            return 0
        batch.data = data
        batch.room = room
    return 1


cdef void free_batches(Batch *batch) noexcept:
    cdef Batch *following
    while batch:
        following = batch.next
        free(batch.data)
        free(batch)
        batch = following


def crc32c(const uint8_t[::1] data not None, uint32_t start=0):
    """CRC-32C of a buffer, continued from `start`."""
    return mta_crc32c(start, &data[0], data.shape[0]) if data.shape[0] else start


cdef size_t record_at(const uint8_t *data, size_t offset, size_t limit, uint64_t generation,
                      Record *header) noexcept nogil:
    """Room of the valid record of this generation at data[offset:limit]; 0 where there is none."""
    cdef uint32_t crc
    cdef size_t length
    if limit < HEADER or offset > limit - HEADER:
        return 0
    memcpy(header, data + offset, HEADER)
    if header.magic != MAGIC or header.generation != generation:
        return 0
    length = (HEADER + <size_t>header.length + 7) & ~<size_t>7
    if length > limit - offset:
        return 0
    crc = header.crc
    header.crc = 0
    if mta_crc32c(mta_crc32c(0, header, HEADER), data + offset + HEADER, header.length) != crc:
        return 0
    return length


def scan(const uint8_t[::1] data not None, uint64_t generation, size_t offset, size_t base=0):
    """Walk the valid records of one generation in data[offset:].

    Returns ([(kind, flags, offset, payload length, id), ...], end): `end` is where the first octets lie that are no
    whole, undamaged record of this generation. `base` is added to all offsets that are returned.
    """
    cdef list found = []
    cdef Record header
    cdef size_t limit = data.shape[0]
    cdef size_t length
    while True:
        length = record_at(&data[0], offset, limit, generation, &header) if limit else 0
        if length == 0:
            return found, offset + base
        found.append((header.kind, header.flags, offset + base, header.length, header.id))
        offset += length


def find(const uint8_t[::1] data not None, uint64_t generation, size_t offset):
    """Where the next valid record of a generation begins, at or behind data[offset:]; -1 where none does."""
    cdef Record header
    cdef size_t limit = data.shape[0]
    offset = (offset + 7) & ~<size_t>7
    if limit < HEADER:
        return -1
    while offset <= limit - HEADER:
        if record_at(&data[0], offset, limit, generation, &header):
            return offset
        offset += 8
    return -1


cdef ssize_t read_whole(int fd, char *data, size_t n, int64_t offset) noexcept nogil:
    """Octets read, fewer than n only at the end of the file; -1: errno says why."""
    cdef size_t got = 0
    cdef ssize_t some
    while got < n:
        some = pread(fd, data + got, n - got, offset + <int64_t>got)
        if some < 0:
            if errno == EINTR:
                continue
            return -1
        if some == 0:
            break
        got += some
    return got


def read_message(int fd, int64_t offset, uint64_t generation, int64_t room):
    """The message of the record at `offset` of a segment with `room` octets.

    Returns (flags, id, octets in the body file, their crc32c, envelope, text). OSError from the disk; ValueError with
    the fault where there is no undamaged message of this generation.
    """
    cdef char first[FIRST_READ]
    cdef char *data = first
    cdef ssize_t got, rest
    cdef size_t end
    cdef Record header
    cdef uint32_t crc, size, checksum
    cdef uint64_t large
    if offset < 0 or offset > room:
        raise ValueError("ends behind its segment")
    got = read_whole(fd, first, FIRST_READ, offset)
    if got < 0:
        raise OSError(errno, "cannot be read")
    if got < HEADER:
        raise ValueError("ends early")
    memcpy(&header, first, HEADER)
    if header.magic != MAGIC or header.generation != generation or header.kind != MESSAGE:
        raise ValueError("holds no message")
    end = HEADER + <size_t>header.length
    if <int64_t>end > room - offset:    # the length is not to be believed before the checksum
        raise ValueError("ends behind its segment")
    try:
        if end > <size_t>got:
            data = <char *>malloc(end)
            if data == NULL:
                raise MemoryError
            memcpy(data, first, got)
            rest = read_whole(fd, data + got, end - got, offset + got)
            if rest < 0:
                raise OSError(errno, "cannot be read")
            got += rest
        crc = header.crc
        header.crc = 0
        if <size_t>got < end or mta_crc32c(mta_crc32c(0, &header, HEADER), data + HEADER, header.length) != crc:
            raise ValueError("fails its checksum")
        if header.length < MESSAGE_HEAD:
            raise ValueError("is of another version: it has no envelope")
        memcpy(&size, data + HEADER, 4)
        memcpy(&checksum, data + HEADER + 4, 4)
        memcpy(&large, data + HEADER + 8, 8)
        if size > header.length - MESSAGE_HEAD:
            raise ValueError("is of another version: its envelope ends behind it")
        return (
            header.flags,
            header.id,
            large,
            checksum,
            PyBytes_FromStringAndSize(data + HEADER + MESSAGE_HEAD, size),
            PyBytes_FromStringAndSize(data + HEADER + MESSAGE_HEAD + size, header.length - MESSAGE_HEAD - size),
        )
    finally:
        if data != first:
            free(data)


cdef enum:
    WINDOW = 1 << 18        # octets read at once: neighbours mostly lie in the same ones


cdef struct Seen:            # of one record: where its envelope was kept
    uint64_t id
    uint64_t size           # of the message, body file included; 0: there is no undamaged one
    size_t at
    uint32_t length
    int found


cdef struct Window:
    char *data
    size_t room, used
    int64_t offset


cdef const char *look(int fd, Window *w, int64_t offset, size_t n) noexcept nogil:
    """`n` octets of the file at `offset`; NULL where there are fewer, or no memory."""
    cdef ssize_t got
    cdef char *grown
    if offset >= w.offset and <size_t>(offset - w.offset) + n <= w.used:
        return w.data + (offset - w.offset)
    if n > w.room:
        grown = <char *>realloc(w.data, n)
        if grown == NULL:
            return NULL
        w.data = grown
        w.room = n
    got = read_whole(fd, w.data, w.room if n < WINDOW else n, offset)
    w.offset = offset
    w.used = got if got > 0 else 0
    return w.data if w.used >= n else NULL


cdef const char *message_at(int fd, Window *w, int64_t offset, uint64_t generation, int64_t room,
                            Record *header) noexcept nogil:
    """The payload of an undamaged MESSAGE of this generation; NULL where there is none."""
    cdef const char *data
    cdef uint32_t crc
    if offset < 0 or offset + HEADER > room:
        return NULL
    data = look(fd, w, offset, HEADER)
    if data == NULL:
        return NULL
    memcpy(header, data, HEADER)
    if header.magic != MAGIC or header.generation != generation or header.kind != MESSAGE:
        return NULL
    if header.length < MESSAGE_HEAD or <int64_t>header.length > room - offset - HEADER:
        return NULL
    data = look(fd, w, offset, HEADER + <size_t>header.length)
    if data == NULL:
        return NULL
    crc = header.crc
    header.crc = 0
    if mta_crc32c(mta_crc32c(0, header, HEADER), data + HEADER, header.length) != crc:
        return NULL
    return data + HEADER


def read_envelopes(int fd, uint64_t generation, int64_t room, list offsets not None):
    """Of each record at some (ascending) offsets of a segment: (id, octets of the message, envelope), or None.

    None where there is no undamaged message of this generation. Reads without the GIL, neighbours in one go, and checks
    every octet of each record like `read_message`.
    """
    cdef size_t count = len(offsets), n, kept = 0, keep_room = WINDOW
    cdef int64_t *places = <int64_t *>calloc(count + 1, sizeof(int64_t))
    cdef Seen *seen = <Seen *>calloc(count + 1, sizeof(Seen))
    cdef char *keep = <char *>malloc(keep_room)
    cdef char *grown
    cdef const char *payload
    cdef Window w
    cdef Record header
    cdef uint32_t size
    cdef uint64_t large
    cdef bint full = False
    w.data = <char *>malloc(WINDOW)
    w.room = WINDOW
    w.used = 0
    w.offset = 0
    try:
        if places == NULL or seen == NULL or keep == NULL or w.data == NULL:
            raise MemoryError
        for n in range(count):
            places[n] = offsets[n]
        with nogil:
            for n in range(count):
                payload = message_at(fd, &w, places[n], generation, room, &header)
                if payload == NULL:
                    continue
                memcpy(&size, payload, 4)
                memcpy(&large, payload + 8, 8)
                if size > header.length - MESSAGE_HEAD:
                    continue
                if kept + size > keep_room:
                    grown = <char *>realloc(keep, 2 * (kept + size))
                    if grown == NULL:
                        full = True
                        break
                    keep = grown
                    keep_room = 2 * (kept + size)
                memcpy(keep + kept, payload + MESSAGE_HEAD, size)
                seen[n].found = 1
                seen[n].id = header.id
                seen[n].size = header.length - MESSAGE_HEAD - size + large
                seen[n].at = kept
                seen[n].length = size
                kept += size
        if full:
            raise MemoryError
        return [
            (seen[n].id, seen[n].size, PyBytes_FromStringAndSize(keep + seen[n].at, seen[n].length))
            if seen[n].found else None
            for n in range(count)
        ]
    finally:
        free(places)
        free(seen)
        free(keep)
        free(w.data)
