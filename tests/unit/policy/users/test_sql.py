"""Databases as a source of users: real ones."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from mta.policy.passwords import make_credentials
from mta.policy.users.accounts import Account, Unavailable
from mta.policy.users.sql import Database, Postgres, Sqlite, SqlSource
from tests.kit.postgres import postgres

CREDENTIALS = make_credentials("secret", ["SHA-256"])
QUERY = "SELECT credential, address FROM users LEFT JOIN addresses USING (name) WHERE name = :user ORDER BY 1, 2"
TABLES = (
    "CREATE TABLE users (name TEXT, credential TEXT)",
    "CREATE TABLE addresses (name TEXT, address TEXT)",
    *(f"INSERT INTO users VALUES ('alice', '{credential}')" for credential in CREDENTIALS),
    "INSERT INTO users VALUES ('bob', 'plain text')",
    "INSERT INTO addresses VALUES ('alice', 'Sales@x.test'), ('alice', '@y.test')",
)


async def check(database: Database) -> None:
    source = SqlSource(database)
    alice = Account(name="alice", credentials=CREDENTIALS, aliases=("@y.test", "sales@x.test"))
    assert await source.find("alice") == alice
    assert await source.find("bob") == Account(name="bob")  # and nobody can log in with that
    for name in ("nobody", "' OR 1=1 --", "", "a:user"):
        assert await source.find(name) is None
    assert await asyncio.gather(*(source.find("alice") for _ in range(10))) == [alice] * 10


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    path = tmp_path / "users?.db"
    connection = sqlite3.connect(path)
    with connection:
        for statement in TABLES:
            connection.execute(statement)
    connection.close()
    return path


def test_sqlite(sqlite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(check(Sqlite(sqlite, QUERY)))
    told = capsys.readouterr().err
    assert "a credential of 'bob' in the database is no SCRAM verifier" in told
    assert "plain text" not in told


def test_a_database_that_is_not_there(tmp_path: Path, sqlite: Path) -> None:
    async def go() -> None:
        for path, query in ((tmp_path / "none.db", QUERY), (sqlite, "SELECT x FROM y WHERE z = :user")):
            with pytest.raises(Unavailable):
                await SqlSource(Sqlite(path, query)).find("alice")
        with pytest.raises(Unavailable):
            await SqlSource(Postgres(f"postgresql://mail@/postgres?host={tmp_path}", QUERY)).find("alice")

    asyncio.run(go())


@pytest.mark.slow
def test_postgresql() -> None:
    async def go(url: str) -> None:
        database = Postgres(url, QUERY)
        await check(database)
        wrong = Postgres(url, "SELECT nonsense WHERE '' = :user")
        with pytest.raises(Unavailable):
            await SqlSource(wrong).find("alice")
        await wrong.close()
        await database.close()

    with postgres(";".join(TABLES)) as url:
        asyncio.run(go(url))
