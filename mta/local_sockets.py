"""Unix sockets to listen on: a socket and the file that clients find it by.

There is one for each address, which all receivers share: SO_REUSEPORT is of no use here. Its file is made with no
permissions at all and gets its owner and mode before anybody may connect. It is removed when the server stops, by the
process that made it and only if it is still the same file.

What lies in the way is replaced only if it is a socket that nobody answers, which is what a killed server leaves
behind; anything else is an error, and stays.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mta.config.settings import Listener
from mta.premises import EX_CONFIG, EX_NOPERM, EX_TEMPFAIL, Account, StartError

_PATIENCE = 1.0  # the last children of a killed server may still be closing theirs
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect: mode, owner and group of the file. -1: whoever makes it."""

    mode: int = 0o660
    owner: int = -1
    group: int = -1


class LocalSocket(socket.socket):
    """A listening socket that has made its file."""

    path: str = ""
    _made: tuple[int, ...] = ()

    def remove(self) -> None:
        """Remove the file, if it is ours. One that may not be removed is in nobody's way: nobody answers there."""
        with contextlib.suppress(OSError):
            if self._made == _identity(self.path):
                os.unlink(self.path)

    def made(self, path: str) -> None:
        self.path = path
        self._made = _identity(path)


def access_of(listener: Listener, account: Account | None) -> Access:
    """Who may connect to the unix addresses of a listener of a server that runs as this account."""
    mode = int(listener.socket_mode, 8)
    owner, group = (account.uid, account.gid) if account is not None and os.geteuid() == 0 else (-1, -1)
    if listener.socket_group:
        try:
            group = grp.getgrnam(listener.socket_group).gr_gid
        except KeyError:
            text = f"[[listener]] socket_group: there is no group {listener.socket_group!r}"
            raise StartError(text, EX_CONFIG) from None
    return Access(mode, owner, group)


def open_local(path: str, access: Access, backlog: int) -> LocalSocket:
    """Bind, listen and let clients in."""
    sock = LocalSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        sock.setblocking(False)
        with _no_permissions():
            sock.bind(path)
        sock.made(path)
        sock.listen(backlog)
        os.chown(path, access.owner, access.group)
        os.chmod(path, access.mode)
    except OSError as error:
        sock.remove()
        sock.close()
        raise _explained(path, error) from None
    except StartError:
        sock.close()
        raise
    return sock


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close them, and remove the files that they have made; those that systemd gave have theirs from systemd."""
    for sock in sockets:
        if isinstance(sock, LocalSocket):
            sock.remove()
        sock.close()


def answers(path: str) -> bool:
    """Whether somebody accepts connections there. OSError when it cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # its backlog is full
            return True
    return True


def _make_way(path: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise StartError(f"cannot listen on unix:{path}: there is a file that is no socket", EX_CONFIG)
        if not answers(path):
            os.unlink(path)
            return
        if time.monotonic() > deadline:
            text = f"another program listens there; stop it (`ss -lxp src {path}` names it) or take another path"
            raise StartError(f"cannot listen on unix:{path}: {text}", EX_TEMPFAIL)
        time.sleep(_POLL)


@contextlib.contextmanager
def _no_permissions() -> Iterator[None]:
    """What is made meanwhile can be used by nobody. The supervisor has no threads that could make anything else."""
    before = os.umask(0o777)
    try:
        yield
    finally:
        os.umask(before)


def _identity(path: str) -> tuple[int, ...]:
    """Who made which file, and when: the number of a file that is gone is soon given to another."""
    status = os.lstat(path)
    return os.getpid(), status.st_dev, status.st_ino, status.st_mtime_ns


def _explained(path: str, error: OSError) -> StartError:
    directory = Path(path).parent
    if error.errno == errno.ENOENT:
        return StartError(f"cannot listen on unix:{path}: there is no directory {directory}", EX_CONFIG)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text = f"{error.strerror}; this user must be able to write in {directory} and to give the file its group"
        return StartError(f"cannot listen on unix:{path}: {text}", EX_NOPERM)
    return StartError(f"cannot listen on unix:{path}: {error.strerror}", EX_CONFIG)
