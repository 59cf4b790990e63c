"""A next hop that keeps every octet it is sent, and trusts nobody to have stuffed a dot.

It takes everything. A text ends for it at the first CRLF.CRLF, so whoever lets a dot through unstuffed, or hides a
message in another one, shows it commands that `commands` then holds.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from tests.kit.background import Background
from tests.kit.smuggling import TRUE_END, unstuffed
from tests.kit.waiting import wait_for

_ANSWERS = {b"DATA": b"354 go\r\n", b"QUIT": b"221 2.0.0 bye\r\n"}
_EHLO = b"250-recorder.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME%b\r\n250 ENHANCEDSTATUSCODES\r\n"
_TOO_MUCH = 64 << 20


@dataclass
class Taken:
    """One connection: all of it, and what a strict reader makes of it."""

    raw: bytearray = field(default_factory=bytearray)
    commands: list[bytes] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)  # still stuffed, each with the CRLF before its final dot


class Recorder(Background):
    """`more` are EHLO keywords to offer beside the usual ones."""

    def __init__(self, more: tuple[bytes, ...] = ()) -> None:
        self.port = 0
        self.connections: list[Taken] = []
        self._ehlo = _EHLO % b"".join(b"\r\n250-" + keyword for keyword in more)

    @property
    def next_hop(self) -> str:
        return f"smtp:127.0.0.1:{self.port}"

    @property
    def texts(self) -> list[bytes]:
        """The texts of all messages, unstuffed."""
        return [unstuffed(text) for taken in self.connections for text in taken.texts]

    @property
    def commands(self) -> list[bytes]:
        return [command for taken in self.connections for command in taken.commands]

    def wait(self, count: int, timeout: float = 30.0) -> list[bytes]:
        """The texts, as soon as there are so many."""
        wait_for(lambda: len(self.texts) >= count, timeout, f"text {count} at the recorder")
        return self.texts

    def check(self) -> None:
        """Nothing that came could be read in two ways: no bare CR, no bare LF, and each text as strict and lenient
        readers alike see it: a line that begins with a dot begins with two."""
        for taken in self.connections:
            raw = bytes(taken.raw)
            assert not re.search(rb"\r(?!\n)|(?<!\r)\n", raw), _around(raw, rb"\r(?!\n)|(?<!\r)\n")
            for text in taken.texts:
                for line in text.split(b"\r\n"):
                    assert not line.startswith(b".") or line.startswith(b".."), line

    async def opened(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_TOO_MUCH)
        self.port = self._server.sockets[0].getsockname()[1]

    async def closing(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken = Taken()
        self.connections.append(taken)
        writer.write(b"220 recorder.test ESMTP\r\n")
        try:
            while not writer.is_closing():
                line = await self._until(reader, taken, b"\r\n")
                taken.commands.append(line)
                verb = line[:4].upper()
                writer.write(self._ehlo if verb == b"EHLO" else _ANSWERS.get(verb, b"250 2.0.0 ok\r\n"))
                if verb == b"DATA":
                    taken.texts.append(await self._text(reader, taken))
                    writer.write(b"250 2.0.0 taken\r\n")
                elif verb == b"QUIT":
                    writer.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _text(self, reader: asyncio.StreamReader, taken: Taken) -> bytes:
        """The CRLF of DATA counts as that of an empty text (RFC 5321 §4.1.1.4)."""
        text = b"\r\n"
        while not text.endswith(TRUE_END):
            text += await self._until(reader, taken, b"\r\n")
        return text[2 : -len(b".\r\n")]

    async def _until(self, reader: asyncio.StreamReader, taken: Taken, end: bytes) -> bytes:
        line = await reader.readuntil(end)
        taken.raw += line
        return line


def _around(raw: bytes, pattern: bytes) -> bytes:
    found = re.search(pattern, raw)
    assert found
    return raw[max(0, found.start() - 100) : found.end() + 100]
