"""Clients and sink of the kill storm on one event loop, in a thread: the main thread does the killing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import uvloop

from tests.crash.storm.client import Client, Letters
from tests.crash.storm.ledger import Ledger
from tests.crash.storm.sink import SinkSession
from tests.kit.background import Background
from tests.kit.waiting import wait_for

FAR = (b"far.test", b"farther.test")
HELD = (b"held.test",)
_PATIENCE = 60.0


class Load(Background):
    """`sink` is the port of the next hop. Each `begin` starts clients that go on until `finish`."""

    new_loop = staticmethod(uvloop.new_event_loop)

    def __init__(self, seed: int) -> None:
        self.ledger = Ledger()
        self.clients: list[Client] = []
        self.sink = 0
        self._dice = random.Random(seed)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def opened(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SinkSession(self.ledger), "127.0.0.1", 0, backlog=512)
        self.sink = self._server.sockets[0].getsockname()[1]

    async def closing(self) -> None:
        self._server.close()

    def begin(self, port: int, sessions: int, domains: tuple[bytes, ...]) -> None:
        letters = Letters(self.ledger, self._dice, domains)
        self._stopping = False
        self.call(self._begin(port, sessions, letters, lambda: not self._stopping))

    async def _begin(self, port: int, sessions: int, letters: Letters, more: Callable[[], bool]) -> None:
        self.clients = [Client(port, self.ledger, letters, more, pipelined=n % 2 == 1) for n in range(sessions)]
        self._tasks = [asyncio.create_task(client.run()) for client in self.clients]

    def wait(self, acknowledged: int) -> None:
        """Until so many are acknowledged in all."""
        wait_for(lambda: self._reached(acknowledged), _PATIENCE, f"{acknowledged} acknowledged messages")

    def _reached(self, acknowledged: int) -> bool:
        assert not any(task.done() for task in self._tasks), f"a client ended: {self._tasks}"
        return self.ledger.acknowledged >= acknowledged

    def finish(self) -> None:
        """Let all clients end what they have in hand."""
        self._stopping = True
        self.call(self._join(), _PATIENCE)

    async def _join(self) -> None:
        await asyncio.gather(*self._tasks)
        self._tasks = []
