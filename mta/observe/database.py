"""A small database beside the spool: an SQLite file with one writer thread, so that no sync ever stops an event loop.

For what must outlive a restart and is not mail: suppressed addresses, history, learned limits, what operators did. Mail
never depends on it.

Invariants
- `write` returns at once. What is written in one turn of the loop, or while a commit is under way, is one transaction.
- Writes take effect in the order in which they were asked for; `rows` does not see those that wait. `flush` returns
  when all before it are committed: a process may die then; after a machine's end the file is whole, but may lack the
  newest.
- What waits is bounded: beyond `_MOST_WAITING` rows, further ones are dropped and counted in `dropped`.

Failure: a file that is no database is moved aside and begun anew, with a note. While the disk takes nothing, what waits
is tried again every second, and `trouble` says why; a statement that is wrong in itself is an error of ours, told on
standard error and passed over.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

Row = tuple[Any, ...]

_MOST_WAITING: Final = 200_000  # rows
_MOST_AT_ONCE: Final = 20_000  # rows in a transaction, about
_AGAIN: Final = 1.0  # seconds after a failure
_BUSY: Final = 30.0  # seconds that another process may hold the file


class Database:
    """One file. `schema` brings an empty one to version 1, that to version 2 and so on, an SQL script each."""

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        self.path = path
        self.trouble = ""  # why nothing is written at present; "" when all is well
        self.dropped = 0  # rows that found no room
        _usable(path, schema)
        self._waiting = 0
        self._counting = threading.Lock()
        self._asked: queue.SimpleQueue[tuple[str, list[Row]] | Callable[[], None] | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"writer of {path.name}", daemon=True)
        self._thread.start()

    def write(self, statement: str, *rows: Row) -> None:
        """Execute a statement soon, once for each row."""
        with self._counting:
            if self._waiting + len(rows) > _MOST_WAITING:
                self.dropped += len(rows)
                return
            self._waiting += len(rows)
        self._asked.put((statement, list(rows)))

    async def flush(self) -> None:
        """All that was written before is committed."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def told() -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits any more
                loop.call_soon_threadsafe(_settle, done)

        self._asked.put(told)
        await done

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Read, at once: before there is a loop, or in a thread."""
        with closing(_connect(self.path)) as connection:
            return connection.execute(statement, parameters).fetchall()

    async def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Read in a thread, behind all that was written before."""
        await self.flush()
        return await asyncio.to_thread(self.rows, statement, parameters)

    def close(self) -> None:
        """Write what waits, if the disk takes it, and end."""
        self._stopping = True
        self._asked.put(None)
        self._thread.join()

    # ---- in the thread

    def _run(self) -> None:
        with closing(_connect(self.path)) as connection:
            while (batch := self._gathered()) is not None:
                statements = [item for item in batch if isinstance(item, tuple)]
                while statements and not self._written(connection, statements) and not self._stopping:
                    time.sleep(_AGAIN)
                with self._counting:
                    self._waiting -= sum(len(rows) for _, rows in statements)
                for item in batch:
                    if not isinstance(item, tuple):
                        item()

    def _gathered(self) -> list[tuple[str, list[Row]] | Callable[[], None]] | None:
        """All that was asked for by now, at least something; None when it is time to end."""
        batch: list[tuple[str, list[Row]] | Callable[[], None]] = []
        rows = 0
        while not batch or (rows < _MOST_AT_ONCE and not self._asked.empty()):
            item = self._asked.get()
            if item is None:
                if batch:
                    self._asked.put(None)
                return batch or None
            batch.append(item)
            rows += len(item[1]) if isinstance(item, tuple) else 0
        return batch

    def _written(self, connection: sqlite3.Connection, statements: Iterable[tuple[str, list[Row]]]) -> bool:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for statement, rows in statements:
                _execute(connection, statement, rows)
            connection.execute("COMMIT")
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            self.trouble = f"{self.path}: {error}"
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return False
        self.trouble = ""
        return True


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _execute(connection: sqlite3.Connection, statement: str, rows: list[Row]) -> None:
    try:
        connection.executemany(statement, rows)
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.InterfaceError, OverflowError, ValueError):
        traceback.print_exc()  # ours; the rest of the transaction is right


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: whole after a crash, the newest rows may be missing
    return connection


def _usable(path: Path, schema: Sequence[str]) -> None:
    """Make the file, or bring it up to date."""
    try:
        _migrate(path, schema)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # the disk, or another process: not the file
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        os.replace(path, aside)
        for tail in ("-wal", "-shm"):
            path.with_name(path.name + tail).unlink(missing_ok=True)
        print(f"mta: {path} is damaged ({error}); it is {aside.name} now, and begun anew", file=sys.stderr, flush=True)
        _migrate(path, schema)


def _migrate(path: Path, schema: Sequence[str]) -> None:
    with closing(_connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(schema):
            raise sqlite3.OperationalError(f"{path} was made by a newer version of this program")
        for number in range(version, len(schema)):
            connection.executescript(f"BEGIN;\n{schema[number]};\nPRAGMA user_version = {number + 1};\nCOMMIT;")
    path.chmod(0o600)
