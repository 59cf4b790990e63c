"""The control socket's server, in the queue manager's process.

Who may talk: the server's own user and root, asked of the kernel (SO_PEERCRED); besides, the socket is 0600 in a
directory of 0700. Verbs are rows of a table. A slow reader is waited for (`drain`), garbage gets one error and the
connection is closed, a fault of ours is told and printed; none of these harms mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from mta.control.protocol import (
    MAX_FRAME,
    SOCKET_NAME,
    VERSION,
    Json,
    ProtocolError,
    decode,
    encode,
    socket_name,
)
from mta.model import StoreError

_PEER = struct.Struct("3i")  # pid, uid, gid
_BREATH = 64  # rows, each a read of the spool, after which mail has its turn


class Operator(Protocol):
    """What the queue manager offers; ValueError: the request is wrong, and how."""

    @property
    def status(self) -> Callable[[], Json]: ...
    async def count(self, words: Sequence[str]) -> int: ...
    def select(self, words: Sequence[str], limit: int) -> AsyncIterator[Json]: ...
    async def show(self, text: str) -> Json | None: ...
    async def explain(self, text: str) -> Json | None: ...
    async def retry(self, words: Sequence[str]) -> int: ...
    async def expire(self, words: Sequence[str]) -> int: ...
    async def delete(self, words: Sequence[str]) -> int: ...
    async def hold(self, words: Sequence[str]) -> int: ...
    async def release(self, words: Sequence[str]) -> int: ...


def own_or_root(uid: int) -> bool:
    return uid in (0, os.geteuid())


async def serve_control(runtime_dir: Path, operator: Operator) -> Callable[[], Awaitable[None]]:
    """Open the socket; the coroutine function that closes it."""
    server = ControlServer(operator)
    await server.start(runtime_dir / SOCKET_NAME)
    return server.close


class ControlServer:
    """One socket and its connections."""

    def __init__(self, operator: Operator, may_talk: Callable[[int], bool] = own_or_root) -> None:
        self._operator = operator
        self._may_talk = may_talk
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # left by a killed one; the supervisor's lock says that there is no other
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            with socket_name(path) as name:
                sock.bind(name)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, limit=MAX_FRAME)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # not in the task: it may be cancelled before its first step

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # the peer is gone: there is nobody to tell
            await self._converse(reader, writer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        uid = _PEER.unpack(raw)[1]
        if not self._may_talk(uid):
            writer.write(encode({"id": None, "error": _error("denied", f"user {uid} may not control this server")}))
            return
        try:
            while True:
                await self._answer(decode(await reader.readuntil(b"\n")), writer)
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            text = f"a request is at most {MAX_FRAME} octets"
            writer.write(encode({"id": None, "error": _error("protocol", text)}))
        except ProtocolError as error:
            writer.write(encode({"id": None, "error": _error("protocol", str(error))}))

    async def _answer(self, request: Json, writer: asyncio.StreamWriter) -> None:
        number = request.get("id")
        try:
            verb, arguments = _parse(request)
            async for row in verb(self._operator, arguments):
                writer.write(encode({"id": number, **row}))
                await writer.drain()
        except ConnectionError:
            raise
        except ValueError as error:
            writer.write(encode({"id": number, "error": _error("usage", str(error))}))
        except StoreError as error:
            writer.write(encode({"id": number, "error": _error("failed", f"the spool says: {error}")}))
        except Exception:  # noqa: BLE001 - a bug of ours: told here, and mail goes on
            traceback.print_exc()
            text = "an error in the server; its standard error says more"
            writer.write(encode({"id": number, "error": _error("internal", text)}))
        await writer.drain()


def _error(code: str, text: str) -> Json:
    return {"code": code, "text": text}


Verb = Callable[[Operator, Json], AsyncIterator[Json]]


def _parse(request: Json) -> tuple[Verb, Json]:
    if request.get("v") != VERSION:
        raise ValueError(f"protocol version {request.get('v')!r} is not spoken here; this is version {VERSION}")
    verb = _VERBS.get(str(request.get("verb")))
    if verb is None:
        raise ValueError(f"unknown verb {request.get('verb')!r}; known are {', '.join(_VERBS)}")
    arguments = request.get("args", {})
    if not isinstance(arguments, dict):
        raise ValueError("args must be an object")
    return verb, arguments


def _words(arguments: Json) -> list[str]:
    words = arguments.get("filter", [])
    if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        raise ValueError("filter must be a list of strings")
    return words


async def _status(operator: Operator, arguments: Json) -> AsyncIterator[Json]:
    yield {"end": operator.status()}


async def _list(operator: Operator, arguments: Json) -> AsyncIterator[Json]:
    limit = arguments.get("limit", 0)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise ValueError("limit must be a whole number, 0 for all")
    rows = 0
    async for row in operator.select(_words(arguments), limit):
        rows += 1
        yield {"row": row}
        if rows % _BREATH == 0:
            await asyncio.sleep(0)
    yield {"end": {"rows": rows}}


def _on_one(look: Callable[[Operator], Callable[[str], Awaitable[Json | None]]]) -> Verb:
    """A verb that takes an id and tells of this message, if it is there."""

    async def verb(operator: Operator, arguments: Json) -> AsyncIterator[Json]:
        row = await look(operator)(str(arguments.get("id", "")))
        if row is not None:
            yield {"row": row}
        yield {"end": {"rows": 0 if row is None else 1}}

    return verb


def _on_messages(act: Callable[[Operator], Callable[[Sequence[str]], Awaitable[int]]]) -> Verb:
    """A verb that takes a filter and tells how many messages it concerned."""

    async def verb(operator: Operator, arguments: Json) -> AsyncIterator[Json]:
        yield {"end": {"messages": await act(operator)(_words(arguments))}}

    return verb


_VERBS: dict[str, Verb] = {
    "status": _status,
    "queue.list": _list,
    "queue.show": _on_one(lambda operator: operator.show),
    "queue.explain": _on_one(lambda operator: operator.explain),
    "queue.count": _on_messages(lambda operator: operator.count),
    "queue.retry": _on_messages(lambda operator: operator.retry),
    "queue.delete": _on_messages(lambda operator: operator.delete),
    "queue.expire": _on_messages(lambda operator: operator.expire),
    "queue.hold": _on_messages(lambda operator: operator.hold),
    "queue.release": _on_messages(lambda operator: operator.release),
}
