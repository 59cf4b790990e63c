"""Directories, lock and user."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mta.premises import StartError, find_account, lock, make_directories

ROOT = Path(__file__).parents[3]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directories_are_made_for_us_alone(tmp_path: Path) -> None:
    make_directories(tmp_path / "a" / "state", tmp_path / "run", None)
    assert mode(tmp_path / "a" / "state") == 0o700
    assert mode(tmp_path / "run") == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o777, 0o1777])
def test_a_runtime_directory_that_others_may_write_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(bits)
    with pytest.raises(StartError, match=r"runtime_dir: .* can be written by others"):
        make_directories(tmp_path / "state", tmp_path / "run", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_runtime_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 12345, -1)
    with pytest.raises(StartError, match="belongs to user 12345"):
        make_directories(tmp_path / "state", tmp_path / "run", None)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"state_dir: cannot make .*/file/state: Not a directory"):
        make_directories(tmp_path / "file" / "state", tmp_path / "run", None)


def test_the_lock_is_held_until_its_last_copy_is_closed(tmp_path: Path) -> None:
    first = lock(tmp_path, None)
    copy = os.dup(first)
    os.close(first)
    with pytest.raises(StartError, match=rf"another server \(pid {os.getpid()}\) uses {tmp_path}") as caught:
        lock(tmp_path, None, patience=0.0)
    assert caught.value.code == 75
    os.close(copy)
    os.close(lock(tmp_path, None, patience=0.0))


def test_a_user_that_does_not_exist() -> None:
    with pytest.raises(StartError, match="there is no user 'nobody-of-that-name'") as caught:
        find_account("nobody-of-that-name")
    assert caught.value.code == 78


def test_no_user_is_nobody_to_become() -> None:
    assert find_account("") is None


def test_who_is_not_root_becomes_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(StartError, match="only root can become 'nobody'") as caught:
        find_account("nobody")
    assert caught.value.code == 77


DROP = """
import os, sys
from pathlib import Path
from mta.premises import drop_privileges, find_account, lock, make_directories
account = find_account("nobody")
base = Path(sys.argv[1])
make_directories(base / "state", base / "run", account)
lock(base / "state", account)
drop_privileges(account)
(base / "state" / "spool").mkdir()
print(os.getresuid(), os.getresgid(), 0 in os.getgroups())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_user_for_good() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)  # tmp_path cannot be entered by others
        done = subprocess.run([sys.executable, "-c", DROP, base], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout == f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} False\n", done.stderr
        assert Path(base, "state", "lock").stat().st_uid == nobody.pw_uid
