# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, auto_pickle=False
"""The way of octets between a socket of uvloop and a sans-IO session, both of receivers and of couriers.

A protocol of asyncio whose calls from the loop are C. It sends at once, or together with others at the end of a turn of
the loop: a write wakes the peer, and a peer on this machine that has no processor of its own takes ours at once, so that
eight replies are eight switches of context there and back. Where that is seen to happen, one system call (io_submit)
writes what a turn has to send; each write costs a little more in it. Figures are in docs/decisions/wire.md.

Invariants
- All connections of a process read into one buffer: the session copies what it must keep before it returns.
- Octets leave in order: by write(2) or by the outbox while nothing waits in the transport, through the transport from the first
  partial write on until it is empty again, and always once `indirect` was called.
- Nothing is written to a descriptor after `connection_lost`, for it may be another's then.
- A result of io_submit is there when it returns: sockets that do not block are written in it, or refuse.

Failure: a write that fails for good calls `cut_off`; whatever a session or a subclass raises goes to the loop. Where the
system refuses io_submit, the writes are made one by one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int16_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

cdef extern from *:
    """
    #ifndef MTA_SOURCE_HASH
    #define MTA_SOURCE_HASH ""
    #endif

    #include <linux/aio_abi.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    static long mta_io_setup(unsigned n, aio_context_t *c) { return syscall(SYS_io_setup, n, c); }
    static long mta_io_destroy(aio_context_t c) { return syscall(SYS_io_destroy, c); }
    static long mta_io_submit(aio_context_t c, long n, struct iocb **l) { return syscall(SYS_io_submit, c, n, l); }
    static long mta_io_getevents(aio_context_t c, long n, struct io_event *e)
    {
        return syscall(SYS_io_getevents, c, n, n, e, (void *)0);
    }
    """
    const char *MTA_SOURCE_HASH
    ctypedef unsigned long aio_context_t
    struct iocb:
        uint64_t aio_data
        uint16_t aio_lio_opcode
        int16_t aio_reqprio
        uint32_t aio_fildes
        uint64_t aio_buf
        uint64_t aio_nbytes
        int64_t aio_offset
    struct io_event:
        uint64_t data
        int64_t res
    int IOCB_CMD_PWRITE
    long mta_io_setup(unsigned, aio_context_t *)
    long mta_io_destroy(aio_context_t)
    long mta_io_submit(aio_context_t, long, iocb **)
    long mta_io_getevents(aio_context_t, long, io_event *)

cdef extern from "<sys/resource.h>":
    struct rusage:
        long ru_nivcsw
    int getrusage(int, rusage *)
    int RUSAGE_THREAD

cdef extern from "<unistd.h>":
    Py_ssize_t c_write "write"(int fd, const void *data, size_t n)

SOURCE_HASH = MTA_SOURCE_HASH.decode("ascii")

cdef enum:
    OUTPUT = 1      # of mta._fastparse
    MOST = 64       # writes in one call
    FEW = 2         # that are cheaper one by one
    PROBE = 256     # single writes after which is looked how often they cost the processor
    DEAR = 64       # times in those that are too many
    TRUST = 2048    # turns until single writes are tried again
    LARGE = 65536   # octets that do not wait for the end of the turn


cdef class Outbox:
    """What the connections of one process have to send at the end of this turn of its loop."""

    cdef object soon
    cdef object flush_later
    cdef list wires
    cdef aio_context_t context
    cdef readonly bint batches  # whether many can be written in one call
    cdef readonly bint gathers  # whether they are now
    cdef bint always
    cdef int turns  # for which they are
    cdef int writes  # single ones since `losses` was read
    cdef long losses  # of the processor, not asked for
    cdef iocb controls[MOST]
    cdef iocb *pointers[MOST]
    cdef io_event events[MOST]

    def __init__(self, loop, *, batches=None):
        self.soon = loop.call_soon
        self.flush_later = self.flush
        self.wires = []
        self.batches = (batches is None or batches) and mta_io_setup(MOST, &self.context) == 0
        self.always = self.gathers = self.batches and bool(batches)
        self.losses = self.lost()
        memset(self.controls, 0, sizeof(self.controls))

    def __dealloc__(self):
        if self.batches:
            mta_io_destroy(self.context)

    cdef int add(self, Wire wire) except -1:
        if not self.wires:
            self.soon(self.flush_later)
        self.wires.append(wire)
        return 0

    cdef int wrote(self) noexcept:
        """One was written alone."""
        cdef long losses
        self.writes += 1
        if self.writes < PROBE:
            return 0
        losses = self.lost()
        self.gathers = self.batches and losses - self.losses > DEAR
        self.turns = TRUST
        self.writes = 0
        self.losses = losses
        return 0

    cdef long lost(self) noexcept:
        cdef rusage usage
        getrusage(RUSAGE_THREAD, &usage)
        return usage.ru_nivcsw

    def flush(self):
        """Write all that waits."""
        cdef list wires = self.wires
        cdef Py_ssize_t start, n = len(wires)
        self.wires = []
        if n > FEW:
            for start in range(0, n, MOST):
                self.write_many(wires, start, min(n, start + MOST))
        else:
            for wire in wires:
                (<Wire>wire).flush()
        self.turns -= 1
        if self.turns <= 0 and not self.always:
            self.gathers = False
            self.losses = self.lost()

    cdef int write_many(self, list wires, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef Wire wire
        cdef iocb *control
        cdef long n = 0, done, i
        cdef list written = []
        cdef bytes data
        for i in range(start, end):
            wire = <Wire>wires[i]
            if wire.pending is None:
                continue  # sent before its turn
            control = &self.controls[n]
            control.aio_data = n
            control.aio_lio_opcode = IOCB_CMD_PWRITE
            control.aio_fildes = wire.fd
            control.aio_buf = <uint64_t>PyBytes_AS_STRING(wire.pending)
            control.aio_nbytes = PyBytes_GET_SIZE(wire.pending)
            self.pointers[n] = control
            written.append(wire)
            n += 1
        done = mta_io_submit(self.context, n, self.pointers) if n else 0
        if done > 0:
            done = mta_io_getevents(self.context, done, self.events)
        for i in range(done):
            wire = <Wire>written[self.events[i].data]
            data, wire.pending = wire.pending, None
            wire.sent(data, self.events[i].res)
        for i in range(max(done, 0), n):
            (<Wire>written[i]).flush()  # the kernel had no room for these
        return 0


cdef class Wire:
    cdef public object transport
    cdef public object session
    cdef public object active
    cdef object clock
    cdef object buffer
    cdef Outbox outbox
    cdef bytes pending  # in the outbox
    cdef int fd
    cdef bint clear  # nothing waits in the transport

    def __init__(self, buffer, clock, Outbox outbox not None):
        self.buffer = buffer
        self.clock = clock
        self.outbox = outbox
        self.active = clock.tick
        self.fd = -1

    # ---- called by the event loop

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, Py_ssize_t nbytes):
        cdef int flags = self.session.receive(self.buffer, nbytes)
        self.heard()
        if flags == OUTPUT:  # nearly always
            self.send(self.session.take_output())
        else:
            self.act(flags)

    # ---- called by the subclass

    def direct(self, int fd):
        """The transport is this plain socket, and nothing waits in it."""
        self.fd = fd
        self.clear = True

    def indirect(self):
        """From now on all goes through the transport."""
        self.flush()
        self.fd = -1

    def lose(self):
        """The connection is lost: nothing more is sent."""
        self.pending = None
        self.fd = -1

    cpdef send(self, bytes data):
        if self.fd >= 0:
            if not self.clear:
                self.clear = self.transport.get_write_buffer_size() == 0
            if self.clear:
                if self.pending is not None:
                    self.pending += data
                elif self.outbox.gathers:
                    self.pending = data
                    self.outbox.add(self)
                else:
                    self.pending = data
                    self.flush()
                    self.outbox.wrote()
                    return
                if PyBytes_GET_SIZE(self.pending) >= LARGE:
                    self.flush()
                return
        self.transport.write(data)
        self.held_back()

    cpdef flush(self):
        """Send now what waits for the end of the turn."""
        cdef bytes data = self.pending
        cdef Py_ssize_t written
        if data is None:
            return
        self.pending = None
        written = c_write(self.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        while written < 0 and errno == EINTR:
            written = c_write(self.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.sent(data, written if written >= 0 else -errno)

    cdef int sent(self, bytes data, int64_t result) except -1:
        """The system took so many octets, or said why not."""
        if result == PyBytes_GET_SIZE(data):
            return 0
        if result < 0:
            if result != -EAGAIN:
                self.cut_off()
                return 0
            result = 0
        self.clear = False
        self.transport.write(data[result:])
        self.held_back()
        return 0

    # ---- for the subclass to fill

    cdef int heard(self) except -1:
        return 0

    def act(self, int flags):
        """The session has raised these; 0 when it had nothing to say."""

    def cut_off(self):
        """The socket takes nothing any more."""

    def held_back(self):
        """Some octets wait in the transport."""


cdef class ListeningWire(Wire):
    cdef int heard(self) except -1:
        self.active = self.clock.tick
        return 0
