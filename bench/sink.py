"""The sink of the project: an SMTP server that takes everything, keeps nothing and counts, in a process of its own.

    python -m bench.sink PORT

It prints `mesg=N` and a carriage return a few milliseconds after the count has grown, which is how Postfix's
smtp-sink reports too, so that one reader serves both.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

_REPORT_SECONDS = 0.003
_EHLO = b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n"
_END = b"\r\n.\r\n"


class Counter:
    """Messages so far, told to the parent."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.count = 0
        self._told = False

    def add(self) -> None:
        self.count += 1
        if not self._told:
            self._told = True
            self._loop.call_later(_REPORT_SECONDS, self._tell)

    def _tell(self) -> None:
        self._told = False
        sys.stdout.write(f"mesg={self.count}\r")
        sys.stdout.flush()


class Session(asyncio.Protocol):
    """Reads commands by their first letter; in a text looks for nothing but its end."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._buffer = b""
        self._in_text = False
        self._answers = {
            b"E": _EHLO,
            b"H": b"250 sink.test\r\n",
            b"M": b"250 2.1.0 ok\r\n",
            b"R": b"250 2.1.5 ok\r\n",
            b"N": b"250 2.0.0 ok\r\n",
            b"D": b"354 go on\r\n",
            b"Q": b"221 2.0.0 bye\r\n",
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own kind, which is no subclass
        self._transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        replies: list[bytes] = []
        while self._take_text(replies) if self._in_text else self._take_command(replies):
            pass
        if replies:
            self._transport.write(b"".join(replies))
            if replies[-1].startswith(b"221"):
                self._transport.close()

    def _take_text(self, replies: list[bytes]) -> bool:
        # The text begins behind the CRLF of its DATA line, which is kept in the buffer so that ".CRLF" alone ends it.
        end = self._buffer.find(_END)
        if end < 0:
            self._buffer = self._buffer[-4:]
            return False
        self._buffer = self._buffer[end + 5 :]
        self._in_text = False
        self._counter.add()
        replies.append(b"250 2.0.0 taken\r\n")
        return bool(self._buffer)

    def _take_command(self, replies: list[bytes]) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        verb = self._buffer[:1].upper()
        replies.append(self._answers.get(verb, b"500 5.5.2 what?\r\n"))
        self._in_text = verb == b"D"
        self._buffer = self._buffer[end if self._in_text else end + 2 :]
        return bool(self._buffer)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    counter = Counter(loop)
    server = await loop.create_server(lambda: Session(counter), "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
