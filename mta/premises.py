"""What a server takes possession of before its first fork: its directories, their lock, its user.

INVARIANT: the lock is held by an open file that every child inherits. While one process of a server lives, no other
server gets the spool, even if the supervisor was killed.

Everything that can go wrong here is the operator's to mend, so it is a `StartError`: one line and an exit code.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import time
from dataclasses import dataclass
from pathlib import Path

EX_TEMPFAIL = os.EX_TEMPFAIL
EX_NOPERM = os.EX_NOPERM
EX_CONFIG = os.EX_CONFIG

_LOCK_PATIENCE = 3.0  # the children of a killed supervisor need a moment to vanish
_LOCK_POLL = 0.05


class StartError(Exception):
    """Why this server cannot start; `code` is the exit code (sysexits)."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Account:
    """The user to become."""

    name: str
    uid: int
    gid: int


def find_account(name: str) -> Account | None:
    """The account that `[server] user` names; None when there is nobody to become."""
    if not name:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise StartError(f"[server] user: there is no user {name!r}; create it or name another", EX_CONFIG) from None
    if os.geteuid() not in (0, entry.pw_uid):
        text = f"[server] user: only root can become {name!r}; start as root, or as {name!r} itself"
        raise StartError(text, EX_NOPERM)
    return Account(name, entry.pw_uid, entry.pw_gid)


def make_directories(state_dir: Path, runtime_dir: Path, account: Account | None) -> None:
    """Make what is missing, for the account's eyes only; refuse a runtime directory that others could tamper with."""
    for key, directory in (("state_dir", state_dir), ("runtime_dir", runtime_dir)):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if account is not None and os.geteuid() == 0:
                os.chown(directory, account.uid, account.gid)
        except OSError as error:
            raise StartError(f"[server] {key}: cannot make {directory}: {error.strerror}", EX_NOPERM) from None
    _check_private(runtime_dir, account)


def _check_private(directory: Path, account: Account | None) -> None:
    """INVARIANT: who can write here could put a socket of his own in place of the control socket."""
    status = directory.stat()
    owner = account.uid if account is not None else os.geteuid()
    if status.st_uid != owner:
        problem = f"belongs to user {status.st_uid}, not to {owner}; give it another owner"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o}); make it 0700"
    else:
        return
    raise StartError(f"[server] runtime_dir: {directory} {problem}, or name another directory", EX_NOPERM)


def lock(state_dir: Path, account: Account | None, patience: float = _LOCK_PATIENCE) -> int:
    """Make the spool ours; the descriptor holds it for as long as any copy of it is open."""
    path = state_dir / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StartError(f"cannot open {path}: {error.strerror}", EX_NOPERM) from None
    deadline = time.monotonic() + patience
    while not _locked(descriptor):
        if time.monotonic() > deadline:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            text = (
                f"another server (pid {holder}) uses {state_dir}; stop it, or give this one its own [server] state_dir"
            )
            raise StartError(text, EX_TEMPFAIL)
        time.sleep(_LOCK_POLL)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    if account is not None and os.geteuid() == 0:
        os.fchown(descriptor, account.uid, account.gid)
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def drop_privileges(account: Account | None) -> None:
    """Become the account for good. The order matters: who is no longer root cannot change groups."""
    if account is None or os.geteuid() != 0 or account.uid == 0:
        return
    os.initgroups(account.name, account.gid)
    os.setgid(account.gid)
    os.setuid(account.uid)
