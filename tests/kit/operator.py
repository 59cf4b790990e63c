"""An operator that is none, served on a real control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from mta.control.access import Access
from mta.control.protocol import SOCKET_NAME, Json, encode
from mta.control.server import ControlServer
from mta.model import StoreError
from mta.queue.deeds import Order, TooMany
from tests.kit.background import Background

STATUS: Json = {
    "hostname": "mx.example.org",
    "messages": 2,
    "uptime": 61,
    "durability": "fsync",
    "recovered": True,
    "deliveries": {"deferred": 1, "active": 0},
    "spool": {"segments": 3, "commits": 7, "syncs": 7, "free": 0.123456},
    "counters": {"accepted": 0},
    "processes": [{"role": "receiver", "worker": 0, "pid": 42}],
}


OPERATIONS: list[Json] = [
    {
        "number": 2,
        "began": 1_795_000_100.0,
        "ended": None,
        "uid": 0,
        "user": "root",
        "verb": "bounce",
        "filter": "sender=a@b.test",
        "arguments": {"reason": "no"},
        "messages": 0,
        "result": "",
    },
    {
        "number": 1,
        "began": 1_795_000_000.0,
        "ended": 1_795_000_001.0,
        "uid": 1000,
        "user": "ann",
        "verb": "hold",
        "filter": "all",
        "arguments": {},
        "messages": 5,
        "result": "done",
    },
]


def row(number: int, **changes: object) -> Json:
    """What a queue tells of a delivery."""
    return {
        "id": f"{number:012d}",
        "state": "deferred",
        "age": 7200.0,
        "size": 1234,
        "attempts": 3,
        "next": None,
        "reason": "451 4.3.0 later",
        "sender": "a@example.com",
        "recipients": ["u@example.org"],
    } | changes


class FakeOperator:
    """Keeps what it was asked; the word "bad" is a wrong filter, "full" a fault of the spool, "bug" one of ours."""

    def __init__(self, rows: Sequence[Json] = ()) -> None:
        self.rows = list(rows)
        self.calls: list[tuple[str, list[str]]] = []
        self.given = 0
        self.orders: list[Order] = []

    @property
    def overview(self) -> None:
        return None

    @property
    def status(self) -> Callable[[], Json]:
        return lambda: STATUS

    def _note(self, verb: str, words: Sequence[str]) -> int:
        self.calls.append((verb, list(words)))
        if "bad" in words:
            raise ValueError("bad is no filter")
        if "full" in words:
            raise StoreError("the disk is full")
        if "bug" in words:
            raise RuntimeError("a bug for the test")
        return len(self.rows)

    async def count(self, words: Sequence[str]) -> int:
        return self._note("count", words)

    async def listing(self, words: Sequence[str], limit: int) -> AsyncGenerator[list[bytes], None]:
        self._note("list", words)
        rows = self.rows[: limit or None]
        for first in range(0, len(rows), 64):
            batch = [encode(found)[:-1] for found in rows[first : first + 64]]
            self.given += len(batch)
            yield batch
            await asyncio.sleep(0)

    async def summary(self, words: Sequence[str], by: str) -> tuple[Sequence[int], Sequence[Json]]:
        self._note("summary", [*words, by])
        return (300, 3600), [{"name": f"site {n}", "total": n + 1, "ages": [n, 1, 0]} for n in range(2)]

    async def show(self, text: str) -> Json | None:
        self._note("show", [text])
        return next((r for r in self.rows if r["id"] == text), None)

    async def explain(self, text: str) -> Json | None:
        self._note("explain", [text])
        return next(({"id": text, "parts": [{"why": "It waits."}]} for r in self.rows if r["id"] == text), None)

    async def act(self, order: Order) -> Json:
        self.orders.append(order)
        messages = self._note(order.verb, order.words)
        if order.dry_run:
            return {"messages": messages, "operation": 0, "sample": self.rows[:10]}
        if order.most and messages > order.most:
            self.calls.pop()
            raise TooMany(messages)
        return {"messages": messages, "operation": len(self.orders)}

    async def log(self, limit: int) -> list[Json]:
        self._note("log", [str(limit)])
        return OPERATIONS[: limit or None]


class Control(Background):
    """The control socket of a fake operator in a folder."""

    def __init__(self, folder: Path, operator: FakeOperator, access: Access | None = None) -> None:
        self.folder = folder
        self.path = folder / SOCKET_NAME
        self.operator = operator
        self._access = access

    async def opened(self) -> None:
        self._server = ControlServer(self.operator, self._access)
        await self._server.start(self.path)

    async def closing(self) -> None:
        await self._server.close()
