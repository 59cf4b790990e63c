"""Command lines of the server session: octets up to a CRLF, kept up to a limit (RFC 5321 §2.3.8, §4.5.3.1.4)."""

from __future__ import annotations


class LineReader:
    """Reads one command line up to its CRLF."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._octets = bytearray()
        self._last = b""
        self.head = b""  # the first four octets, of a line too long as well
        self.whole = False

    def read(self, data: bytes) -> int:
        """Returns how much of the data belongs to this line."""
        found = (self._last + data).find(b"\r\n")
        self.whole = found >= 0
        used = found + 2 - len(self._last) if self.whole else len(data)
        self._size += used
        self._octets += data[:used]
        self.head = (self.head + data[:used])[:4]
        self._last = data[used - 1 : used] if data[used - 1 : used] == b"\r" else b""
        if self.too_long:
            self._octets.clear()
        return used

    @property
    def too_long(self) -> bool:
        return self._size > self._limit

    @property
    def size(self) -> int:
        """Octets without the CRLF."""
        return self._size - 2

    @property
    def command(self) -> bytes:
        return bytes(self._octets[:-2])

    @property
    def unfit(self) -> bool:
        return any(octet in self.command for octet in b"\r\n\0")
