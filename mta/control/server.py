"""The control socket's server, in the queue manager's process: connections, back-pressure, cancelling.

Who may talk is in `mta.control.access`, what can be said in `mta.control.verbs`. A connection is two tasks: one reads
frames, at most `_MOST_WAITING` ahead, and sees to cancelling; the other answers one request after another.

Invariants
- A slow reader is waited for, and only what it asked waits with it: rows are made as they are taken.
- Between two requests, and within long ones, the loop has its turn: mail goes on whatever is asked here.
- Memory is bounded: connections, frames that wait, and octets of a frame are.

Failure: garbage gets one error, after the answers to what came before it, and the connection is closed; a fault of ours
is told and printed. None of these harms mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from mta.control.access import Access, Peer, uid_of
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
from mta.control.verbs import VERBS, Operator, Request, Rows, Verb
from mta.model import StoreError
from mta.queue.deeds import TooMany

_MOST_WAITING = 64  # requests of a connection that are read ahead
_MOST_CONNECTIONS = 200
_BACKLOG = 1024


async def serve_control(runtime_dir: Path, access: Access, operator: Operator) -> Callable[[], Awaitable[None]]:
    """Open the socket; the coroutine function that closes it."""
    server = ControlServer(operator, access, runtime_dir)
    await server.start(runtime_dir / SOCKET_NAME)
    return server.close


class ControlServer:
    """One socket and its connections."""

    def __init__(self, operator: Operator, access: Access | None = None, runtime_dir: Path | None = None) -> None:
        self._runtime_dir = runtime_dir
        self._operator = operator
        self._access = access or Access()
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
        if self._access.others:  # the kernel lets them in, and we ask who it is
            os.chmod(path, 0o666)
            os.chmod(path.parent, path.parent.stat().st_mode & 0o777 | 0o011)
        accept = self._accept
        self._server = await asyncio.start_unix_server(accept, sock=sock, limit=MAX_FRAME, backlog=_BACKLOG)

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
        uid = uid_of(writer.get_extra_info("socket"))
        peer = self._access.peer(uid)
        if peer is None:
            writer.write(encode(_refusal(None, "denied", f"user {uid} may not control this server")))
        elif len(self._tasks) > _MOST_CONNECTIONS:
            text = f"{_MOST_CONNECTIONS} others are connected already; try again later"
            writer.write(encode(_refusal(None, "busy", text)))
        else:
            with contextlib.suppress(ConnectionError):  # the peer is gone: there is nobody to tell
                await Conversation(self._operator, peer, reader, writer, self._runtime_dir).run()


class Conversation:
    """One connection."""

    def __init__(
        self,
        operator: Operator,
        peer: Peer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        runtime_dir: Path | None,
    ) -> None:
        self._runtime_dir = runtime_dir
        self._operator = operator
        self._peer = peer
        self._reader = reader
        self._writer = writer
        # Requests; octets: our last words; None: nothing more comes.
        self._waiting: asyncio.Queue[Json | bytes | None] = asyncio.Queue(_MOST_WAITING)
        self._cancelled: set[object] = set()  # numbers of waiting requests that are not wanted any more
        self._ahead: list[object] = []  # numbers of the waiting ones
        self._running: tuple[object, asyncio.Task[None]] | None = None

    async def run(self) -> None:
        reading = asyncio.get_running_loop().create_task(self._read())
        try:
            await self._work()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    # ---- reading

    async def _read(self) -> None:
        last = b""
        try:
            while True:
                frame = decode(await self._reader.readuntil(b"\n"))
                if "cancel" in frame:
                    self._cancel(frame)
                    await self._writer.drain()
                else:
                    self._ahead.append(_number(frame))
                    await self._waiting.put(frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the end, or half a frame, which is none
        except asyncio.LimitOverrunError:
            last = encode(_refusal(None, "protocol", f"a request is at most {MAX_FRAME} octets"))
        except ProtocolError as error:
            last = encode(_refusal(None, "protocol", str(error)))
        await self._waiting.put(last)
        await self._waiting.put(None)

    def _cancel(self, frame: Json) -> None:
        """Answered at once, whatever is under way."""
        wanted = frame["cancel"]
        if not isinstance(wanted, int | str):
            self._writer.write(encode(_refusal(_number(frame), "usage", "cancel must be the id of a request")))
            return
        done = True
        if self._running is not None and self._running[0] == wanted:
            self._running[1].cancel()
        elif wanted in self._ahead:
            self._cancelled.add(wanted)
        else:
            done = False
        self._writer.write(encode({"id": _number(frame), "end": {"cancelled": done}}))

    # ---- answering

    async def _work(self) -> None:
        while (request := await self._waiting.get()) is not None:
            if isinstance(request, bytes):
                self._writer.write(request)
                continue
            number = _number(request)
            self._ahead.remove(number)
            if number in self._cancelled:
                self._cancelled.discard(number)
                self._writer.write(encode(_refusal(number, "cancelled", "it was cancelled before it began")))
            else:
                await self._answer_in_task(number, request)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def _answer_in_task(self, number: object, request: Json) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(number, request))
        self._running = number, task
        try:
            await asyncio.wait({task})
        finally:
            self._running = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            text = "it was cancelled; what it had done by then stays"
            self._writer.write(encode(_refusal(number, "cancelled", text)))
        else:
            task.result()

    async def _answer(self, number: object, request: Json) -> None:
        writer = self._writer
        try:
            verb, asked = self._parse(request)
            async with contextlib.aclosing(verb.run(self._operator, asked)) as frames:
                async for frame in frames:
                    writer.write(_rows(number, frame) if isinstance(frame, Rows) else encode({"id": number, **frame}))
                    await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            raise
        except PermissionError as error:
            writer.write(encode(_refusal(number, "denied", str(error))))
        except ValueError as error:
            writer.write(encode(_refusal(number, "usage", str(error))))
        except TooMany as error:
            writer.write(encode(_refusal(number, "many", str(error))))
        except StoreError as error:
            writer.write(encode(_refusal(number, "failed", f"the spool says: {error}")))
        except Exception:  # noqa: BLE001 - a bug of ours: told here, and mail goes on
            traceback.print_exc()
            writer.write(encode(_refusal(number, "internal", "an error in the server; its standard error says more")))

    def _parse(self, request: Json) -> tuple[Verb, Request]:
        if request.get("v") != VERSION:
            raise ValueError(f"protocol version {request.get('v')!r} is not spoken here; this is version {VERSION}")
        verb = VERBS.get(str(request.get("verb")))
        if verb is None:
            raise ValueError(f"unknown verb {request.get('verb')!r}; known are {', '.join(VERBS)}")
        arguments = request.get("args", {})
        if not isinstance(arguments, dict):
            raise ValueError("args must be an object")
        if verb.role == "admin" and not self._peer.admin:
            raise PermissionError(f"{self._peer.name} may look, and change nothing")
        return verb, Request(self._peer, arguments, self._runtime_dir)


def _number(frame: Json) -> object:
    """The id of a request, which its answers repeat; one that cannot be compared is none."""
    number = frame.get("id")
    return number if isinstance(number, int | str) else None


def _rows(number: object, rows: Rows) -> bytes:
    head = encode({"id": number})[:-2] + b',"row":'
    return head + (b"}\n" + head).join(rows.encoded) + b"}\n" if rows.encoded else b""


def _refusal(number: object, code: str, text: str) -> Json:
    return {"id": number, "error": {"code": code, "text": text}}
