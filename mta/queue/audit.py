"""Who did what to the queue by hand: each verb that changes something, in a database in `state_dir`.

Invariant: a verb is on record, with its number, before it touches a message, and its result behind it; where the disk
takes no record the verb goes on all the same, for it may be what frees the disk.

The numbers of operations grow for ever: a hold is taken back by its number, which is in the reason of what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mta.observe.database import Database

_SCHEMA = (
    """
    CREATE TABLE operations (
        number INTEGER PRIMARY KEY, began REAL NOT NULL, ended REAL, uid INTEGER NOT NULL,
        user TEXT NOT NULL, verb TEXT NOT NULL, filter TEXT NOT NULL, arguments TEXT NOT NULL,
        messages INTEGER NOT NULL, result TEXT NOT NULL
    )
    """,
)
_KEEP = 366 * 86400.0  # seconds
_PATIENCE = 2.0  # seconds that a verb waits for its record
_INSERT = "INSERT INTO operations VALUES (?, ?, NULL, ?, ?, ?, ?, ?, 0, '')"
_ENDED = "UPDATE operations SET ended = ?, messages = ?, result = ? WHERE number = ?"


class Doer(NamedTuple):
    """Whose hand it is."""

    uid: int
    name: str


class Audit:
    """One file."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)
        self._database.write("DELETE FROM operations WHERE began < ?", (time.time() - _KEEP,))
        ((newest,),) = self._database.rows("SELECT coalesce(max(number), 0) FROM operations")
        self._number: int = newest

    async def begin(self, doer: Doer, verb: str, words: Sequence[str], arguments: Mapping[str, object]) -> int:
        """The number of an operation that begins now."""
        self._number += 1
        number = self._number
        text = json.dumps(arguments)
        self._database.write(_INSERT, (number, time.time(), doer.uid, doer.name, verb, " ".join(words), text))
        await self.settle()
        return number

    def end(self, number: int, messages: int, result: str) -> None:
        self._database.write(_ENDED, (time.time(), messages, result, number))

    async def settle(self) -> None:
        """What was told is on record, if the disk takes it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._database.flush(), _PATIENCE)

    async def log(self, limit: int) -> list[dict[str, object]]:
        """The newest first; `limit` 0 means all."""
        rows = await self._database.query("SELECT * FROM operations ORDER BY number DESC LIMIT ?", (limit or -1,))
        names = ("number", "began", "ended", "uid", "user", "verb", "filter", "arguments", "messages", "result")
        return [dict(zip(names, row, strict=True)) | {"arguments": json.loads(row[7])} for row in rows]

    async def verb(self, number: int) -> str | None:
        """What an operation was; None: there is none of this number."""
        rows = await self._database.query("SELECT verb FROM operations WHERE number = ?", (number,))
        return str(rows[0][0]) if rows else None

    def close(self) -> None:
        self._database.close()
