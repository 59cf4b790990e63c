"""One database file of the history: a stretch of time, and how far the mail log is in it.

    ending   how it ended for a recipient        arrival  messages of which not all has ended
    step     what happened to a message before   refusal  commands that were refused
    source   the files of the mail log, each known by its first line: what of them is in here begins at `start`, and
             ends at `position`

Invariants
- INVARIANT: rows and the positions up to which they were read are one transaction: a kill loses nothing and doubles
  nothing.
- Rows are only added. What is too old goes with its whole file, which costs nothing; so does what is damaged.
- A file that is still written has no index but those that cost nothing; `close` adds the others, sorted, in a third of
  the time.

Failure: sqlite3.Error. A full disk rolls the transaction back; a damaged file is the owner's to move aside.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from mta.history.steps import Arrival, Digest, Ending, joined

_VERSION: Final = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE ending (id TEXT, at INTEGER, state INTEGER, recipient TEXT, hop TEXT, reply TEXT, sender TEXT, client TEXT,
                     size INTEGER, notes TEXT);
CREATE INDEX ending_unknown ON ending (id) WHERE sender IS NULL;
CREATE TABLE arrival (id TEXT PRIMARY KEY, at INTEGER, sender TEXT, client TEXT, size INTEGER, recipient TEXT,
                      recipients INTEGER, notes TEXT) WITHOUT ROWID;
CREATE TABLE step (id TEXT, at INTEGER, event TEXT, recipient TEXT, hop TEXT, text TEXT);
CREATE INDEX step_id ON step (id);
CREATE TABLE refusal (session TEXT, at INTEGER, client TEXT, helo TEXT, verb TEXT, sender TEXT, recipient TEXT,
                      reply TEXT, notes TEXT);
CREATE TABLE source (name BLOB PRIMARY KEY, start INTEGER, position INTEGER, at INTEGER) WITHOUT ROWID;
"""
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS ending_id ON ending (id)",
    "CREATE INDEX IF NOT EXISTS ending_recipient ON ending (recipient COLLATE NOCASE)",
)

Positions = dict[bytes, tuple[int, int]]  # by first line: octets read, and the time of the newest line among them


class Partition:
    """See the module. `path` None: in memory, for what is not on disk yet."""

    def __init__(self, path: Path | None, *, create: bool = False, readonly: bool = False) -> None:
        self.path = path
        self._unknown: set[str] = set()
        if path is None:
            self.db = sqlite3.connect(":memory:", isolation_level=None)
        else:
            mode = "rwc" if create else "ro" if readonly else "rw"
            self.db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=10.0
            )
        try:
            self._prepare(create=create or path is None, readonly=readonly)
        except sqlite3.Error:
            self.db.close()
            raise

    def _prepare(self, *, create: bool, readonly: bool) -> None:
        if create:
            self.db.execute("PRAGMA journal_mode = WAL")
        if not readonly:
            # Synced at checkpoints alone: what a power cut takes is read from the log again.
            self.db.execute("PRAGMA synchronous = NORMAL")
            self.db.execute("PRAGMA cache_size = -2048")
        if create:
            self.db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, not {_VERSION}")

    def disconnect(self) -> None:
        self.db.close()

    # ---- writing

    def add(self, found: Digest, positions: Mapping[bytes, tuple[int, int]]) -> None:
        """Take in what was read, and up to where; all or nothing."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            _insert(db, "ending", 10, found.endings)
            _insert(db, "step", 6, found.steps)
            _insert(db, "refusal", 9, found.refusals)
            _insert(db, "arrival", 8, found.arrivals.values(), "OR REPLACE ")
            for name in self._unknown & found.arrivals.keys():
                self.explain(name, found.arrivals[name])
            self._note(positions)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        # Several processes write the log: what came may stand a little behind what became of it.
        self._unknown = {row[0] for row in found.endings if row[6] is None}

    def begin(self, positions: Positions) -> None:
        """What is read from here on belongs in here."""
        rows = [(name, position, position, at) for name, (position, at) in positions.items()]
        self.db.executemany("INSERT INTO source VALUES (?, ?, ?, ?)", rows)

    def _note(self, positions: Mapping[bytes, tuple[int, int]]) -> None:
        rows = [(name, position, at) for name, (position, at) in positions.items()]
        self.db.executemany(
            "INSERT INTO source VALUES (?, 0, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET position = excluded.position, at = excluded.at",
            rows,
        )

    def explain(self, name: str, arrival: Arrival) -> None:
        whole = joined(Ending(name, 0, 0, None, None, ""), arrival)
        self.db.execute(
            "UPDATE ending SET recipient = coalesce(recipient, ?), sender = ?, client = ?, size = ?, notes = ?"
            " WHERE id = ? AND sender IS NULL",
            (whole.recipient, arrival.sender, arrival.client, arrival.size, arrival.notes, name),
        )

    def close(self) -> None:
        """Nothing more is added: make what is sorted by id and by recipient easy to find."""
        for statement in _INDEXES:
            self.db.execute(statement)
        self.mark("closed", 1)
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def mark(self, key: str, value: int) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # ---- reading

    def mark_of(self, key: str) -> int | None:
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def positions(self) -> Positions:
        return {name: (position, at) for name, position, at in self.db.execute("SELECT name, position, at FROM source")}

    def starts(self) -> dict[bytes, int]:
        return dict(self.db.execute("SELECT name, start FROM source").fetchall())

    def arrival(self, name: str) -> Arrival | None:
        row = self.db.execute("SELECT * FROM arrival WHERE id = ?", (name,)).fetchone()
        return Arrival(*row) if row is not None else None

    def rows(self) -> int:
        """About how many there are: rows are never taken out."""
        return sum(
            self.db.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0]
            for table in ("ending", "step", "refusal")
        )

    def octets(self) -> int:
        (pages,) = self.db.execute("PRAGMA page_count").fetchone()
        (size,) = self.db.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(size)

    def check(self) -> None:
        """sqlite3.DatabaseError if it is damaged."""
        (found,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)


def _insert(
    db: sqlite3.Connection, table: str, columns: int, rows: Iterable[tuple[object, ...]], how: str = ""
) -> None:
    db.executemany(f"INSERT {how}INTO {table} VALUES ({', '.join('?' * columns)})", rows)
