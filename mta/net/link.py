"""Links between the processes of one server: batches of records over a SEQPACKET socket pair.

Invariants
- One packet is one whole record: a process killed mid-send leaves no half frame, so the pair, which the supervisor
  keeps, serves the successor.
- `send` never blocks and never drops silently: it returns False when the peer's buffer is full, and the caller
  decides (arrivals may be dropped and announced by a Position; jobs and results are kept and sent by `flush`).
- A record larger than `MAX_PACKET` is the caller's mistake; batches are cut well below.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

import msgspec

from mta.model import LinkRecord

MAX_PACKET = 128 << 10
BATCH = 256  # records in one packet, at most
_BUFFER = 4 << 20
_READS = 16  # packets taken in one wake-up, so that one busy link cannot hold the loop


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, with room for some thousand records in flight."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return pair


class Link:
    """One end. `receive` is called with each record, `drained` after those of one wake-up."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        receive: Callable[[LinkRecord], None],
        drained: Callable[[], None] | None = None,
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._receive = receive
        self._drained = drained
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[bytes], LinkRecord] = msgspec.msgpack.Decoder(LinkRecord).decode
        self._waiting: deque[bytes] = deque()
        self._writing = False
        loop.add_reader(sock.fileno(), self._readable)

    def try_send(self, record: LinkRecord) -> bool:
        """Send now or not at all; False when there is no room."""
        return not self._waiting and self._put(self._encode(record))

    def send(self, record: LinkRecord) -> None:
        """Send now, or keep it and send it in order as soon as there is room."""
        packet = self._encode(record)
        if self._waiting or not self._put(packet):
            self._waiting.append(packet)
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sock.fileno(), self._writable)

    @property
    def backlog(self) -> int:
        """Packets kept for want of room."""
        return len(self._waiting)

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
            self._writing = False

    def _put(self, packet: bytes) -> bool:
        try:
            self._sock.send(packet)
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def _writable(self) -> None:
        while self._waiting:
            if not self._put(self._waiting[0]):
                return
            self._waiting.popleft()
        self._writing = False
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(_READS):
            try:
                packet = self._sock.recv(MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionResetError:  # closed with something unread in it
                packet = b""
            if not packet:  # the supervisor closed the pair or died: the server is stopping
                self._loop.remove_reader(self._sock.fileno())
                break
            self._receive(self._decode(packet))
        if self._drained is not None:
            self._drained()
