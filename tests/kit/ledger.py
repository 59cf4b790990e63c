"""Load that keeps account: what was acknowledged must arrive, unaltered, whatever is killed meanwhile.

Each message has a key of its own in its first header, X-Ledger, and random octets behind it. A session that loses its
connection opens another; a message without a 250 is never sent again, so whether it arrives is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.kit.background import Background
from tests.kit.talk import stuffed
from tests.kit.waiting import wait_for

_KEY = re.compile(rb"^X-Ledger: (\S+)\r?$", re.MULTILINE)
_PATIENCE = 0.02  # seconds before a refused connection is tried again
_ANSWER = 15.0


@dataclass
class Account:
    """What the ledger finds in what has arrived."""

    missing: list[str] = field(default_factory=list)  # acknowledged, but not there
    altered: list[str] = field(default_factory=list)
    doubled: int = 0  # copies beyond the first
    open: int = 0  # arrived without ever having been acknowledged

    @property
    def sound(self) -> bool:
        return not self.missing and not self.altered


@dataclass
class Ledger:
    """The digest of each message by its key, and the id that its 250 gave."""

    digests: dict[str, bytes] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)

    def enter(self, key: str, body: bytes) -> bytes:
        """The text of a new message, about which the body's digest is kept."""
        text = b"X-Ledger: " + key.encode() + b"\r\n" + body
        self.digests[key] = hashlib.sha256(text).digest()
        return text

    def audit(self, contents: Iterable[bytes]) -> Account:
        """Compare with what arrived; contents may have more headers in front."""
        account, copies = Account(), Counter[str]()
        for content in contents:
            found = _KEY.search(content)
            key = found[1].decode() if found else ""
            text = content[found.start() :] if found else content
            copies[key] += 1
            if self.digests.get(key) != hashlib.sha256(text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")).digest():
                account.altered.append(key or repr(content[:200]))
        account.missing = [f"{key} (id {self.acknowledged[key]})" for key in self.acknowledged if not copies[key]]
        account.doubled = sum(count - 1 for count in copies.values())
        account.open = sum(1 for key in copies if key not in self.acknowledged)
        return account


class Load(Background):
    """`sessions` clients that send one message after the other until told to stop."""

    def __init__(self, port: int, sender: str, recipient: str, *, sessions: int = 4, pause: float = 0.005) -> None:
        self.ledger = Ledger()
        self._port = port
        self._envelope = f"MAIL FROM:<{sender}>\r\n".encode(), f"RCPT TO:<{recipient}>\r\n".encode(), b"DATA\r\n"
        self._sessions = sessions
        self._pause = pause
        self._random = random.Random(1)
        self._count = 0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def wait(self, more: int, timeout: float = 20.0) -> None:
        """Until so many more messages than now are acknowledged."""
        target = len(self.ledger.acknowledged) + more
        wait_for(lambda: len(self.ledger.acknowledged) >= target, timeout, f"{more} more acknowledged messages")

    def stop(self) -> Ledger:
        """Finish what is in hand."""
        self._stopping = True
        self.call(self._join())
        return self.ledger

    async def opened(self) -> None:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._sessions)]

    async def _join(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        while not self._stopping:
            try:
                async with asyncio.timeout(_ANSWER):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    await self._session(reader, writer, number)
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            except (OSError, EOFError, TimeoutError, _Refused):
                await asyncio.sleep(_PATIENCE)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await _reply(reader)
        await _ask(reader, writer, f"EHLO client{number}.test\r\n".encode())
        while not self._stopping:
            self._count += 1
            key = f"{number}.{self._count}"
            for line in self._envelope:
                await _ask(reader, writer, line)
            text = self.ledger.enter(key, self._body())
            answer = await _ask(reader, writer, stuffed(text) + b".\r\n")
            self.ledger.acknowledged[key] = answer.split()[-1]
            await asyncio.sleep(self._pause)

    def _body(self) -> bytes:
        size = self._random.choice((0, 50, 2000, 20_000))
        lines = [self._random.randbytes(38).hex().encode() + b"\r\n" for _ in range(size // 78)]
        return b"\r\n" + b"".join(lines) + b".\r\n"


class _Refused(Exception):
    """The server answered 4xx or 5xx: this session is over."""


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> str:
    writer.write(data)
    return await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(_ANSWER):
        line = b"   -"
        while line[3:4] == b"-":
            line = await reader.readuntil(b"\n")
    if line[:1] not in b"23":
        raise _Refused(line)
    return line.decode("latin-1").rstrip()
