"""Small databases: what is written is there, whatever the disk and the file are like."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mta.observe import database
from mta.observe.database import Database
from tests.kit.waiting import wait_for

SCHEMA = ("CREATE TABLE fruit (name TEXT PRIMARY KEY, count INTEGER)",)
ADD = "INSERT OR REPLACE INTO fruit VALUES (?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def fruit(path: Path) -> Iterator[Database]:
    opened = Database(path, SCHEMA)
    yield opened
    opened.close()


def test_what_is_flushed_is_on_disk(fruit: Database) -> None:
    async def main() -> None:
        fruit.write(ADD, ("apple", 1), ("pear", 2))
        fruit.write(ADD, ("apple", 3))
        await fruit.flush()
        with closing(sqlite3.connect(fruit.path)) as other:
            assert sorted(other.execute("SELECT * FROM fruit")) == [("apple", 3), ("pear", 2)]

    asyncio.run(main())


def test_a_query_sees_what_was_written_before(fruit: Database) -> None:
    async def main() -> None:
        fruit.write(ADD, *[(f"n{n}", n) for n in range(50_000)])
        assert await fruit.query("SELECT count(*), sum(count) FROM fruit WHERE count >= ?", (0,)) == [
            (50_000, sum(range(50_000)))
        ]

    asyncio.run(main())


def test_closing_writes_what_waits(path: Path) -> None:
    first = Database(path, SCHEMA)
    for n in range(1000):
        first.write(ADD, (str(n), n))
    first.close()
    again = Database(path, SCHEMA)
    assert again.rows("SELECT count(*) FROM fruit") == [(1000,)]
    again.close()


def test_an_older_file_is_brought_up_to_date(path: Path) -> None:
    first = Database(path, SCHEMA)
    first.write(ADD, ("apple", 1))
    first.close()
    second = Database(path, (*SCHEMA, "ALTER TABLE fruit ADD COLUMN colour TEXT DEFAULT 'red'"))
    assert second.rows("SELECT * FROM fruit") == [("apple", 1, "red")]
    second.close()
    with pytest.raises(sqlite3.OperationalError, match="newer version"):
        Database(path, SCHEMA)


def test_a_damaged_file_is_moved_aside(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(b"this is no database" * 1000)
    fruit = Database(path, SCHEMA)
    assert fruit.rows("SELECT * FROM fruit") == []
    fruit.close()
    assert "is damaged" in capfd.readouterr().err
    assert [p.read_bytes()[:4] for p in path.parent.glob("x.db.damaged-*")] == [b"this"]


def test_a_wrong_statement_harms_no_other(fruit: Database, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        fruit.write(ADD, ("apple", 1))
        fruit.write(ADD, ("pear",))
        fruit.write(ADD, ("plum", 3))
        assert await fruit.query("SELECT name FROM fruit ORDER BY name") == [("apple",), ("plum",)]

    asyncio.run(main())
    assert "Incorrect number of bindings" in capfd.readouterr().err


def test_while_the_file_is_held_by_another_it_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY", 0.01)
    monkeypatch.setattr(database, "_AGAIN", 0.01)
    fruit = Database(path, SCHEMA)

    async def main() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            fruit.write(ADD, ("apple", 1))
            await asyncio.to_thread(wait_for, lambda: fruit.trouble)
            other.execute("COMMIT")
        assert await fruit.query("SELECT * FROM fruit") == [("apple", 1)]
        assert fruit.trouble == ""

    asyncio.run(main())
    fruit.close()


def test_what_waits_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_MOST_WAITING", 10)
    fruit = Database(path, SCHEMA)
    fruit.write(ADD, *[(str(n), n) for n in range(11)])
    assert fruit.dropped == 11
    fruit.close()


def test_nobody_else_reads_it(fruit: Database) -> None:
    assert fruit.path.stat().st_mode & 0o077 == 0
