"""A next hop with room for so many connections, each of which takes its time for a message, and what it saw.

`room`, `seconds` and `answer` may be changed while it runs. Those that are one too many are greeted with 421; when the
room gets smaller, sessions are ended by 421 at their next MAIL.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.kit.background import Background


@dataclass
class Seen:
    """Counts since the last `look`. `area` is the sum over time of connections that were busy with a message."""

    began: float = field(default_factory=time.monotonic)
    taken: int = 0
    turned_away: int = 0
    ended: int = 0
    most_open: int = 0
    area: float = 0.0


class NarrowSink(Background):
    """See the module."""

    def __init__(self, room: int, seconds: float = 0.0, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self.room = room
        self.seconds = seconds
        self.answer = ""  # to RCPT; "" takes it
        self.open = 0
        self.seen = Seen()
        self.recipients: list[int] = []  # of each message
        self.per_connection: list[int] = []  # messages of each connection that has ended
        self.arrived: list[tuple[float, str]] = []  # when, and its first recipient
        self._busy = 0
        self._changed = time.monotonic()
        self._sessions: set[asyncio.Task[None]] = set()

    @property
    def next_hop(self) -> str:
        return f"smtp:{self.host}:{self.port}"

    def look(self) -> Seen:
        """What was seen since the last look, and begin anew."""

        async def exchange() -> Seen:
            self._weigh(0)
            seen, self.seen = self.seen, Seen(most_open=self.open)
            return seen

        return self.call(exchange())

    async def opened(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def closing(self) -> None:
        self._server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._session(reader, writer))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    def _weigh(self, change: int) -> None:
        now = time.monotonic()
        self.seen.area += self._busy * (now - self._changed)
        self._changed = now
        self._busy += change

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.open >= self.room:
            self.seen.turned_away += 1
            writer.write(b"421 4.7.0 too many connections from you\r\n")
            writer.close()
            return
        self.open += 1
        self.seen.most_open = max(self.seen.most_open, self.open)
        self.per_connection.append(0)
        place = len(self.per_connection) - 1
        try:
            writer.write(b"220 narrow.test ESMTP\r\n")
            async for reply in self._talk(reader, place):
                writer.write(reply)
                if reply.startswith((b"221", b"421")):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self.open -= 1
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, place: int) -> AsyncIterator[bytes]:
        recipients: list[str] = []
        while line := (await reader.readline()).decode("latin-1").rstrip("\r\n"):
            verb = line[:4].upper()
            if verb == "EHLO":
                yield b"250-narrow.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
            elif verb == "MAIL":
                if self.open > self.room:
                    self.seen.ended += 1
                    yield b"421 4.7.0 too many connections from you\r\n"
                    return
                recipients = []
                yield b"250 2.1.0 ok\r\n"
            elif verb == "RCPT":
                if not self.answer:
                    recipients.append(line[len("RCPT TO:<") : -1])
                yield (self.answer or "250 2.1.5 ok").encode() + b"\r\n"
            elif verb == "DATA" and recipients:
                yield b"354 go\r\n"
                await reader.readuntil(b"\r\n.\r\n")
                self._weigh(1)
                await asyncio.sleep(self.seconds)
                self._weigh(-1)
                self.seen.taken += 1
                self.recipients.append(len(recipients))
                self.per_connection[place] += 1
                self.arrived.append((time.monotonic(), recipients[0]))
                yield b"250 2.0.0 taken\r\n"
            elif verb == "DATA":
                yield b"503 5.5.1 nobody to send it to\r\n"
            else:
                yield b"221 2.0.0 bye\r\n" if verb == "QUIT" else b"250 2.0.0 ok\r\n"
