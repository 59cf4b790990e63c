"""Dovecot's authentication service as a judge of passwords: its client protocol, version 1.2, over a unix socket.

    S: VERSION 1 2 / MECH ... / SPID / CUID / COOKIE / DONE
    C: VERSION 1 2 / CPID pid
    C: AUTH id PLAIN service=smtp secured rip=... resp=base64
    S: OK id user=...   or   FAIL id user=... [temp] [code=...]

Fields are separated by tabs, lines end in LF. One connection a process, as Dovecot takes a process id only once; many
requests may be on their way. A lost connection fails what waits for it, and the next request opens another.
"""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

from mta.policy.users.accounts import Unavailable, User, folded

_VERSION = b"VERSION\t1\t"
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0  # Dovecot itself waits some seconds before it tells of a failure
_LONGEST_LINE = 16 << 10


class DovecotJudge:
    """A PasswordJudge."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._last = 0
        self._waiting: dict[bytes, asyncio.Future[list[bytes]]] = {}

    async def judge(self, name: str, password: str, client: str) -> User | None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                fields = await self._ask(name, password, client)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            raise Unavailable(f"Dovecot at {self._path}: {error or type(error).__name__}") from None
        if fields[0] == b"OK":
            named = next((f[5:].decode("utf-8") for f in fields if f.startswith(b"user=")), name)
            return None if b"nologin" in fields else User(folded(named))
        if b"temp" in fields or b"code=temp_fail" in fields:
            raise Unavailable(f"Dovecot at {self._path} has a temporary problem")
        return None

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _ask(self, name: str, password: str, client: str) -> list[bytes]:
        writer = await self._connection()
        self._last = self._last % 0x7FFFFFFF + 1
        request = b"%d" % self._last
        answer: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[request] = answer
        secret = base64.b64encode(b"\0%b\0%b" % (name.encode(), password.encode()))
        where = b"rip=%b\t" % client.encode("ascii") if client else b""
        writer.write(b"AUTH\t%b\tPLAIN\tservice=smtp\tsecured\t%bresp=%b\n" % (request, where, secret))
        try:
            return await answer
        finally:
            self._waiting.pop(request, None)

    async def _connection(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None or self._writer.is_closing():
                async with asyncio.timeout(_CONNECT_SECONDS):
                    reader, writer = await asyncio.open_unix_connection(self._path, limit=_LONGEST_LINE)
                    try:
                        await self._greet(reader, writer)
                    except BaseException:
                        writer.close()
                        raise
                self._writer = writer
                self._reading = asyncio.get_running_loop().create_task(self._read(reader, writer))
            return self._writer

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"VERSION\t1\t2\nCPID\t%d\n" % os.getpid())
        mechanisms = set()
        while (line := await _line(reader)) != b"DONE":
            if line.startswith(b"VERSION\t") and not line.startswith(_VERSION):
                raise ValueError("speaks another version of the protocol")
            if line.startswith(b"MECH\t"):
                mechanisms.add(line.split(b"\t")[1])
        if b"PLAIN" not in mechanisms:
            raise ValueError("does not check passwords (auth_mechanisms lacks plain)")

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        problem: Exception = EOFError("closed the connection")
        try:
            while True:
                fields = (await _line(reader)).split(b"\t")
                answer = self._waiting.get(fields[1]) if len(fields) > 1 and fields[0] in (b"OK", b"FAIL") else None
                if answer is not None and not answer.done():
                    answer.set_result(fields)
        except (OSError, EOFError, ValueError) as error:
            problem = error
        finally:
            writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(problem)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """One line; EOFError at the end, ValueError when it is too long."""
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError("closed the connection")
    return line[:-1]
