"""The clients of the kill storm: sessions that send one message after the other and outlive every server.

Half of them wait for each reply, the other half pipeline (RFC 2920): the next envelope goes out with the final dot. A
session that loses its connection, or is refused for now, dials again and goes on with new messages; for how long it had
to do without a 250 is what it measures.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import cast

from tests.crash.storm.ledger import Ledger

_PATIENCE = 0.02  # seconds before a refused connection is tried again
_SIZES = (0, 100, 600, 2000, 4000)
_LARGE = (20_000, 50_000)  # some get a file of their own in the spool
_ONE_IN_LARGE = 50
_ONE_IN_TWO_DOMAINS = 10
_PRINTABLE = bytes(range(33, 127)) + b"\xe4\xf6\xfc"


class Letters:
    """Makes texts and envelopes, by seed."""

    def __init__(self, ledger: Ledger, dice: random.Random, domains: tuple[bytes, ...]) -> None:
        self._ledger = ledger
        self._dice = dice
        self._domains = domains
        # Lines of all lengths; every seventh begins with a dot, some are nothing but dots.
        lines = [bytes(dice.choices(_PRINTABLE, k=dice.randrange(79))) for _ in range(4000)]
        self._lines = [b"." * (n % 4) + line if n % 7 == 0 else line for n, line in enumerate(lines)]
        self._block = b"\r\n".join(self._lines) + b"\r\n"
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 2)

    def next(self) -> tuple[int, list[bytes], bytes]:
        """Token, commands up to DATA, and text with its final dot."""
        dice = self._dice
        domains = self._domains[: 2 if dice.randrange(_ONE_IN_TWO_DOMAINS) == 0 else 1]
        size = dice.choice(_SIZES if dice.randrange(_ONE_IN_LARGE) else _LARGE)
        start = self._starts[dice.randrange(1000)]
        end = self._block.find(b"\r\n", start + size) + 2 if size else start
        token, text = self._ledger.enter(b"Subject: storm\r\n\r\n" + self._block[start:end], domains)
        recipients = [b"RCPT TO:<user%d@%s>\r\n" % (token % 50, domain) for domain in domains]
        commands = [b"MAIL FROM:<sender@source.test>\r\n", *recipients, b"DATA\r\n"]
        return token, commands, text.replace(b"\r\n.", b"\r\n..") + b".\r\n"


class Client:
    """One session after the other, over and over. `more` tells whether another message is wanted."""

    def __init__(
        self, port: int, ledger: Ledger, letters: Letters, more: Callable[[], bool], *, pipelined: bool
    ) -> None:
        self.port = port
        self.ledger = ledger
        self.letters = letters
        self.more = more
        self.pipelined = pipelined
        self.refused: list[str] = []  # what should never be said to a client of this kind: 5xx
        self.deferrals = 0
        self.longest = 0.0  # between two 250 to texts, or from the start to the first
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()

    async def run(self) -> None:
        self._last = self._loop.time()
        while self.more():
            if not await self._connection():
                await asyncio.sleep(_PATIENCE)

    async def _connection(self) -> bool:
        """One, from its start to its end; whether that was a good one."""
        session = Session(self)
        try:
            await self._loop.create_connection(lambda: session, "127.0.0.1", self.port)
        except OSError:
            return False  # nobody listens: the supervisor is dead
        await session.ended
        return session.well_ended

    def served(self) -> None:
        now = self._loop.time()
        self.longest = max(self.longest, now - self._last)
        self._last = now


class Session(asyncio.Protocol):
    """One connection. `_due` has the steps whose replies are awaited, oldest first."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.well_ended = False
        self._due = [b"220"]
        self._unsent: list[bytes] = []
        self._part = b""
        self._text = b""
        self._token = -1
        self._sent = -1  # token of the text that was sent and not answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        lines = (self._part + data).split(b"\r\n")
        self._part = lines.pop()
        for line in lines:
            if line[3:4] != b"-" and not self.well_ended:
                self._replied(line)

    def _replied(self, line: bytes) -> None:
        step = self._due.pop(0) if self._due else b"nothing"
        if line[:1] not in b"23":
            self._refused(line)
        elif step == b"220":
            self._send(b"EHLO source.test\r\n")
        elif step == b"text":
            self._taken(line)
        elif step == b"QUIT":
            self.well_ended = True
            self._transport.close()
        elif step == b"DATA":
            self._send_text()
        elif step == b"EHLO":
            self._next()
        elif not self._client.pipelined:
            self._send(self._unsent.pop(0))

    def _refused(self, line: bytes) -> None:
        if line.startswith(b"4"):
            self._client.deferrals += 1
        else:
            self._client.refused.append(line.decode("latin-1"))
        self._transport.abort()

    def _taken(self, line: bytes) -> None:
        client = self._client
        client.ledger.promised(self._sent, line.split()[-1].decode())
        client.served()
        if not self._due:
            self._next()

    def _next(self) -> None:
        if self._client.more():
            self._begin(b"")
        else:
            self._send(b"QUIT\r\n")

    def _begin(self, before: bytes) -> None:
        """Send an envelope behind `before`, or the first command of it."""
        self._token, commands, self._text = self._client.letters.next()
        if self._client.pipelined:
            self._due += [command[:4] for command in commands]
            self._transport.write(before + b"".join(commands))
        else:
            self._unsent = commands[1:]
            self._send(commands[0])

    def _send(self, command: bytes) -> None:
        self._due.append(command[:4])
        self._transport.write(command)

    def _send_text(self) -> None:
        self._sent = self._token
        self._due.append(b"text")
        if self._client.pipelined and self._client.more():
            self._begin(self._text)
        else:
            self._transport.write(self._text)
