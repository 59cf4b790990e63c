"""The users file: what it may hold, and that a change of it harms nothing else."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mta.policy.passwords import is_password_of, make_credentials, scram_verifier
from mta.policy.users.accounts import Account, Unavailable
from mta.policy.users.userfile import (
    UserFile,
    UserFileError,
    alias_address,
    change_user,
    format_line,
    load_users,
    parse_line,
    user_name,
)

HASH = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$PCgzVmJ2d9R0FbLNR9iTNtF5C3EVo3eMNBPjR7lNKSY"
ALICE = Account(name="alice@x.test", credentials=(HASH,), aliases=("sales@x.test", "@y.test"))


def put(path: Path, account: Account) -> None:
    change_user(path, account.name, lambda _: account)


def test_lines() -> None:
    assert parse_line(format_line(ALICE)) == ALICE
    assert parse_line("Alice@X.test disabled") == Account(name="alice@x.test", disabled=True)
    assert parse_line("") is None
    assert parse_line("# alice@x.test") is None


@pytest.mark.parametrize(
    "line", ["a secret", "a $argon2id$x", "a $2b$05$abc", "a alias=nobody", "a alias=@", "\x07 disabled"]
)
def test_wrong_lines_do_not_tell_what_is_in_them(line: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_line(line)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["", "a b", "#a", "a\tb", "a\u2028b", "a\n"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(ValueError):
        user_name(name)


def test_names_and_aliases_are_folded() -> None:
    assert user_name("Älice@X.test") == "älice@x.test"
    assert alias_address("@X.Test") == "@x.test"


def test_a_change_leaves_the_rest_alone(tmp_path: Path) -> None:
    path = tmp_path / "users"
    put(path, ALICE)
    path.write_text(f"# the boss\n{format_line(ALICE)}\n\nbroken line here\nbob@x.test disabled\n")
    path.chmod(0o640)
    change_user(path, "alice@x.test", lambda old: replace(old, disabled=True) if old else None)
    put(path, Account(name="carol@x.test"))
    change_user(path, "bob@x.test", lambda old: None)
    assert path.read_text() == f"# the boss\n{format_line(ALICE)}  disabled\n\nbroken line here\ncarol@x.test\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["users"]


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    put(tmp_path / "users", ALICE)
    assert (tmp_path / "users").stat().st_mode & 0o777 == 0o600


def test_a_failed_change_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "users"
    put(path, ALICE)

    def fail(old: Account | None) -> Account:
        raise UserFileError("no")

    with pytest.raises(UserFileError):
        change_user(path, "alice@x.test", fail)
    assert load_users(path)[0] == {"alice@x.test": ALICE}
    with pytest.raises(UserFileError):
        put(tmp_path / "nowhere" / "users", ALICE)


def test_what_is_left_of_a_crash_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".users.new").write_text("half a li")
    put(tmp_path / "users", ALICE)
    assert [p.name for p in tmp_path.iterdir()] == ["users"]


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "users"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: put(path, Account(name=f"user{n}")), range(40)))
    assert len(load_users(path)[0]) == 40


def test_problems_are_told_by_line() -> None:
    from mta.policy.users.userfile import read_users

    users, problems = read_users("a disabled\nb secret\na\n")
    assert list(users) == ["a"]
    assert [problem.partition(":")[0] for problem in problems] == ["line 2", "line 3"]
    assert users["a"].disabled


def test_the_server_sees_a_change(tmp_path: Path) -> None:
    path = tmp_path / "users"

    async def go() -> None:
        source = UserFile(path)
        with pytest.raises(Unavailable):
            await source.find("alice@x.test")
        put(path, ALICE)
        assert await source.find("alice@x.test") == ALICE
        put(path, replace(ALICE, disabled=True))
        found = await source.find("alice@x.test")
        assert found is not None
        assert found.disabled
        os.unlink(path)
        with pytest.raises(Unavailable):
            await source.find("alice@x.test")

    asyncio.run(go())


def test_credentials() -> None:
    credentials = make_credentials("pässword", ["SHA-256", "SHA-1"])
    assert [c.split("$")[0] or c.split("$")[1] for c in credentials] == ["argon2id", "SCRAM-SHA-256", "SCRAM-SHA-1"]
    for some in (credentials, credentials[1:], credentials[2:]):
        assert is_password_of(some, "pässword")
        assert is_password_of(some, "pa\u0308ssword")  # another way to type it
        assert not is_password_of(some, "password")
    assert not is_password_of((), "x")
    assert not is_password_of(credentials, "\0")
    assert scram_verifier(credentials, "SHA-256") is not None
    assert scram_verifier(credentials[:1], "SHA-256") is None
    with pytest.raises(ValueError):
        make_credentials("", [])
