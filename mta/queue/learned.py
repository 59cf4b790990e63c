"""What was learned of sites, and what operators said of them, over restarts: a small database beside the spool.

A row is one (site, source) of which there is anything to remember; it goes when there is not, or when nobody has
written it for `_KEPT` days. What an operator or a failure changes is written at once, what is learned every `EVERY`
seconds and at a stop; nothing here waits for a disk, and mail needs none of it.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from mta.observe.database import Database
from mta.queue.limits import Memo, SiteLimits

EVERY: Final = 30.0
_KEPT: Final = 30  # days
_DAY: Final = 86400.0
_SCHEMA: Final = (
    "CREATE TABLE sites (site TEXT NOT NULL, source TEXT NOT NULL, memo BLOB NOT NULL, written REAL NOT NULL,"
    " PRIMARY KEY (site, source)) WITHOUT ROWID",
)
_WRITE: Final = "INSERT OR REPLACE INTO sites VALUES (?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM sites WHERE site = ? AND source = ?"

Key = tuple[str, str]


class Learned:
    """The memory of one server; `path` None: none. Opened before there is mail: making the file waits for the disk.

    Failure: a file that cannot be opened is told on standard error, and nothing is remembered.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[Key, bytes] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[bytes], Memo] = msgspec.msgpack.Decoder(Memo).decode
        self._database = _opened(path) if path is not None else None
        if self._database is not None:
            young = clock() - _KEPT * _DAY
            self._database.write("DELETE FROM sites WHERE written < ?", (young,))
            rows = self._database.rows("SELECT site, source, memo FROM sites WHERE written >= ?", (young,))
            self._known = {(site, source): memo for site, source, memo in rows}

    def recall(self, key: Key, limits: SiteLimits) -> None:
        """What is remembered of a site holds again. A row that cannot be read is as good as none."""
        if memo := self._known.get(key):
            try:
                limits.recall(self._decode(memo), self._clock())
            except msgspec.DecodeError:
                del self._known[key]

    def keep(self, sites: Iterable[tuple[Key, SiteLimits]]) -> None:
        """Write what has changed."""
        database = self._database
        if database is None:
            return
        now = self._clock()
        for key, limits in sites:
            memo = limits.memo(now)
            if memo is None:
                if self._known.pop(key, None) is not None:
                    database.write(_DELETE, key)
            elif (packed := self._encode(memo)) != self._known.get(key):
                self._known[key] = packed
                database.write(_WRITE, (*key, packed, now))

    def close(self) -> None:
        if self._database is not None:
            self._database.close()


def _opened(path: Path) -> Database | None:
    try:
        return Database(path, _SCHEMA)
    except (sqlite3.Error, OSError) as error:
        print(f"mta: nothing is remembered of sites: {path} cannot be opened: {error}", file=sys.stderr, flush=True)
        return None
