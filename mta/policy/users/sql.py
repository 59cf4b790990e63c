"""A database as a source of accounts: SQLite by the standard library, PostgreSQL by asyncpg.

The operator's query gets the user's name as :user and gives rows with columns of these names:

    credential   an Argon2id hash or a SCRAM verifier; NULL in rows that only bring an address
    address      an address, or "@domain", that the user may send as; may be missing

INVARIANT: the name reaches the database as a parameter, never as part of the query's text.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from mta.policy.passwords import check_credential
from mta.policy.users.accounts import Account, Unavailable, folded

PARAMETER = re.compile(r"(?<!:):user\b")
_SECONDS = 10.0
_MOST_ROWS = 1000
_Rows = Sequence[Mapping[str, Any]]


class Database(Protocol):
    async def rows(self, name: str) -> _Rows:
        """What the query gives for a user. Unavailable."""

    async def close(self) -> None:
        """End connections and threads."""


class SqlSource:
    """An AccountSource."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, name: str) -> Account | None:
        rows = await self._database.rows(name)
        if not rows:
            return None
        credentials = dict.fromkeys(str(row["credential"]) for row in rows if row.get("credential"))
        addresses = dict.fromkeys(folded(str(row["address"])) for row in rows if row.get("address"))
        usable = tuple(text for text in credentials if _is_credential(text, name))
        return Account(name=name, credentials=usable, aliases=tuple(addresses))

    async def close(self) -> None:
        await self._database.close()


def _is_credential(text: str, name: str) -> bool:
    try:
        check_credential(text)
    except ValueError as error:
        print(f"mta: a credential of {name!r} in the database {error}", file=sys.stderr, flush=True)
        return False
    return True


class Sqlite:
    """Read-only, in a thread of its own."""

    def __init__(self, path: Path, query: str) -> None:
        self._uri = f"file:{quote(str(path))}?mode=ro"
        self._query = query
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None

    async def rows(self, name: str) -> _Rows:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, name)
        except sqlite3.Error as error:
            raise Unavailable(f"SQLite: {error}") from None

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ask(self, name: str) -> _Rows:
        if self._connection is None:
            self._connection = sqlite3.connect(self._uri, uri=True, timeout=_SECONDS)
            self._connection.row_factory = sqlite3.Row
        try:
            found = self._connection.execute(self._query, {"user": name}).fetchmany(_MOST_ROWS)
        except sqlite3.Error:
            self._connection.close()
            self._connection = None  # the file may have been replaced
            raise
        return [dict(row) for row in found]


class Postgres:
    """A small pool, opened when it is first needed."""

    def __init__(self, url: str, query: str) -> None:
        self._url = url
        self._query = PARAMETER.sub("$1", query)
        self._pool: Any = None
        self._opening = asyncio.Lock()

    async def rows(self, name: str) -> _Rows:
        import asyncpg  # an extra, and not needed by anybody else

        try:
            async with asyncio.timeout(_SECONDS):
                pool = await self._open(asyncpg)
                found = await pool.fetch(self._query, name)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable(f"PostgreSQL: {error or type(error).__name__}") from None
        return [dict(row) for row in found[:_MOST_ROWS]]

    async def _open(self, asyncpg: Any) -> Any:
        async with self._opening:
            if self._pool is None:
                # No prepared statements: a pooler between us and the server may not keep them.
                self._pool = await asyncpg.create_pool(self._url, min_size=0, max_size=4, statement_cache_size=0)
            return self._pool

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
