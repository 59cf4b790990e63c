"""The next hop of the kill storm: takes everything, and enters each copy in the ledger before it answers."""

from __future__ import annotations

import asyncio
from typing import cast

from tests.crash.storm.ledger import Ledger

_END = b"\r\n.\r\n"
_ANSWERS = {
    b"EH": b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n",
    b"HE": b"250 sink.test\r\n",
    b"MA": b"250 2.1.0 ok\r\n",
    b"RC": b"250 2.1.5 ok\r\n",
    b"RS": b"250 2.0.0 ok\r\n",
    b"NO": b"250 2.0.0 ok\r\n",
    b"DA": b"354 go on\r\n",
    b"QU": b"221 2.0.0 bye\r\n",
}


class SinkSession(asyncio.Protocol):
    """One connection of a courier. A text that its courier did not live to end is forgotten."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._buffer = bytearray()
        self._searched = 0
        self._in_text = False
        self._domain = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own kind, which is no subclass
        self._transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies: list[bytes] = []
        while self._take_text(replies) if self._in_text else self._take_command(replies):
            pass
        if replies:
            self._transport.write(b"".join(replies))
            if replies[-1].startswith(b"221"):
                self._transport.close()

    def _take_text(self, replies: list[bytes]) -> bool:
        # The text begins behind the CRLF of its DATA line, which stays in the buffer so that ".CRLF" alone ends it.
        end = self._buffer.find(_END, self._searched)
        if end < 0:
            self._searched = max(0, len(self._buffer) - len(_END) + 1)
            return False
        text = bytes(self._buffer[: end + 2]).replace(b"\r\n..", b"\r\n.")[2:]
        del self._buffer[: end + len(_END)]
        self._in_text = False
        self._ledger.arrived(text, self._domain)
        replies.append(b"250 2.0.0 taken\r\n")
        return bool(self._buffer)

    def _take_command(self, replies: list[bytes]) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        verb = line[:2].upper()
        if verb == b"RC":
            self._domain = line[line.rfind(b"@") + 1 : line.rfind(b">")]
        replies.append(_ANSWERS.get(verb, b"500 5.5.2 what?\r\n"))
        self._in_text = verb == b"DA"
        self._searched = 0
        del self._buffer[: end if self._in_text else end + 2]
        return bool(self._buffer)
