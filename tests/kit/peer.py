"""A small scripted SMTP or LMTP server on a loopback port or a unix socket.

`script` says what to answer: by verb ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "." for the text, "QUIT"), octets, or
a list of them of which the last one repeats, or a function of the line. CLOSE ends the connection instead of an
answer, HANG never answers. With `tls` it begins the handshake behind its "220" to STARTTLS; from then on the script's
"EHLO TLS" counts. A chunked text is answered by "BDAT", its last part by ".".
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

CLOSE = b"<close>"
HANG = b"<hang>"

Answer = bytes | list[bytes] | Callable[[str], bytes]

_GOOD: dict[str, Answer] = {
    "greeting": b"220 peer.example ESMTP\r\n",
    "EHLO": b"250-peer.example\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n",
    "LHLO": b"250-peer.example\r\n250 PIPELINING\r\n",
    "HELO": b"250 peer.example\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go\r\n",
    ".": b"250 2.0.0 taken\r\n",
    "BDAT": b"250 2.0.0 octets taken\r\n",
    "STARTTLS": b"220 2.0.0 go\r\n",
    "RSET": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}
PLAIN_EHLO = b"250 peer.example\r\n"


@dataclass
class Message:
    sender: str
    recipients: list[str]
    text: bytes
    connection: int
    tls: bool = False


@dataclass
class Peer:
    """Start it with `await start()`; what it got is in `messages`, every line it heard in `heard`."""

    script: dict[str, Answer] = field(default_factory=dict)
    lmtp: bool = False
    tls: ssl.SSLContext | None = None
    names: list[str | None] = field(default_factory=list)  # asked for by SNI
    messages: list[Message] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    most: int = 0
    port: int = 0

    async def start(self, path: str = "") -> Peer:
        self._stopping = asyncio.Event()
        self._turns: dict[str, int] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        if path:
            self._server = await asyncio.start_unix_server(self._serve, path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self._server.close()
        self._stopping.set()
        for writer in list(self._writers):
            writer.close()
        while True:
            await asyncio.sleep(0)
            if not self._writers:
                return

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        self._writers.add(writer)
        try:
            await self._session(reader, writer, self.connections)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, _Closed):
            pass
        finally:
            self.open -= 1
            writer.close()
            self._writers.discard(writer)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await self._say(writer, "greeting", "")
        sender, recipients, secured, chunks = "", list[str](), False, b""
        while True:
            line = (await reader.readuntil(b"\n")).decode("latin-1").rstrip("\r\n")
            self.heard.append(line)
            verb = "STARTTLS" if line.upper() == "STARTTLS" else line[:4].upper()
            if verb == "BDAT":
                chunks += await reader.readexactly(int(line.split(" ")[1]))
                if line.upper().endswith(" LAST"):
                    self.messages.append(Message(sender, recipients, chunks, number, secured))
                    chunks = b""
                    for recipient in recipients if self.lmtp else [""]:
                        await self._say(writer, ".", recipient)
                    continue
            if secured and verb + " TLS" in self.script:
                verb += " TLS"
            answer = await self._say(writer, verb, line)
            if verb == "MAIL":
                sender, recipients = line, []
            elif verb == "RCPT" and answer.startswith(b"2"):
                recipients.append(line[len("RCPT TO:<") : -1])
            elif verb == "DATA" and answer.startswith(b"3"):
                text = await _read_text(reader)
                self.messages.append(Message(sender, recipients, text, number, secured))
                for recipient in recipients if self.lmtp else [""]:
                    await self._say(writer, ".", recipient)
            elif verb == "STARTTLS" and answer.startswith(b"220") and self.tls:
                await writer.start_tls(self.tls)
                secured = True
            elif verb == "QUIT":
                return

    async def _say(self, writer: asyncio.StreamWriter, what: str, line: str) -> bytes:
        answer = self._answer(what, line)
        if answer == HANG:
            await self._stopping.wait()
        if answer in (CLOSE, HANG):
            raise _Closed
        writer.write(answer)
        await writer.drain()
        return answer

    def _answer(self, what: str, line: str) -> bytes:
        answer = self.script.get(what) or _GOOD.get(what, b"500 5.5.2 what?\r\n")
        if callable(answer):
            return answer(line)
        if isinstance(answer, list):
            turn = self._turns.get(what, 0)
            self._turns[what] = turn + 1
            return answer[min(turn, len(answer) - 1)]
        return answer


class _Closed(Exception):
    """The script ends this connection here."""


async def _read_text(reader: asyncio.StreamReader) -> bytes:
    """Up to the final dot, unstuffed."""
    lines: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\n")
        if line == b".\r\n":
            return b"".join(lines)
        lines.append(line[1:] if line.startswith(b".") else line)
