"""Unix sockets to listen on: their files, who may connect, what lies in the way, what is left."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta import local_sockets
from mta.config.settings import Address, Listener
from mta.listeners import open_sockets, silence
from mta.local_sockets import Access, access_of, answers, close_all, open_local
from mta.premises import EX_CONFIG, EX_NOPERM, EX_TEMPFAIL, Account, StartError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Short enough, whatever the folder of the tests is called."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield "listen"
    os.chdir(before)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_sockets, "_PATIENCE", 0.0)


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_all_receivers_share_one(path: str) -> None:
    address = Address("", 0, path)
    [first, second] = open_sockets([address], 2, {})[address]
    assert first is second
    connect(path)
    accepted, _ = first.accept()
    accepted.close()
    first.close()


def test_its_file_goes_with_it(path: str) -> None:
    sock = open_local(path, Access(), 5)
    sock.close()
    assert os.path.exists(path)
    close_all([sock, sock])
    assert not os.path.exists(path)


def test_a_file_of_somebody_else_stays(path: str) -> None:
    sock = open_local(path, Access(), 5)
    sock.close()
    other = open_local(path, Access(), 5)  # as if another server had come meanwhile
    sock.remove()
    connect(path)
    other.remove()
    other.close()
    assert not os.path.exists(path)


def test_only_who_made_it_removes_it(path: str) -> None:
    sock = open_local(path, Access(), 5)
    pid = os.fork()
    if pid == 0:
        sock.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    connect(path)
    sock.close()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
def test_permissions_are_those_asked_for(path: str, mode: int) -> None:
    before = os.umask(0o077)
    try:
        sock = open_local(path, Access(mode), 5)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    sock.close()


def test_a_left_over_socket_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
        old.listen()
    assert not answers(path)
    sock = open_local(path, Access(), 5)
    assert answers(path)
    sock.close()


@pytest.mark.parametrize("full", [False, True])
def test_a_socket_that_somebody_answers_stays(path: str, full: bool, impatient: None) -> None:
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as first:
        other.bind(path)
        other.listen(0)
        if full:
            first.connect(path)
        with pytest.raises(StartError, match="another program listens there") as caught:
            open_local(path, Access(), 5)
        assert caught.value.code == EX_TEMPFAIL
        assert answers(path)


@pytest.mark.parametrize("kind", ["file", "link", "directory", "datagram"])
def test_anything_else_in_the_way_is_an_error_and_stays(path: str, kind: str) -> None:
    if kind == "file":
        Path(path).write_text("precious")
    elif kind == "link":
        Path(path).symlink_to("precious")
    elif kind == "directory":
        Path(path).mkdir()
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(path)
            with pytest.raises(StartError, match="cannot listen on unix:listen: "):
                open_local(path, Access(), 5)
            assert os.path.exists(path)
            return
    with pytest.raises(StartError, match="there is a file that is no socket") as caught:
        open_local(path, Access(), 5)
    assert caught.value.code == EX_CONFIG
    assert os.path.lexists(path)


def test_a_missing_directory_is_named(path: str) -> None:
    with pytest.raises(StartError, match="there is no directory nowhere") as caught:
        open_local("nowhere/x", Access(), 5)
    assert caught.value.code == EX_CONFIG


def test_what_cannot_be_opened_leaves_nothing_behind(path: str) -> None:
    with pytest.raises(StartError, match="no directory"):
        open_sockets([Address("", 0, path), Address("", 0, "nowhere/x")], 1, {})
    assert not os.path.exists(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_owner_and_group(path: str) -> None:
    listener = Listener(address=(Address("", 0, path),), socket_group="daemon", socket_mode="0620")
    access = access_of(listener, Account("nobody", 65534, 65534))
    sock = open_local(path, access, 5)
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 1, 0o620)
    sock.close()
    assert access_of(Listener(address=()), None) == Access(0o660, -1, -1)


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(StartError, match="there is no group 'no-such-group'"):
        access_of(Listener(address=(), socket_group="no-such-group"), None)


def test_a_directory_that_may_not_be_written(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(StartError, match="must be able to write in") as caught:
        open_local(path, Access(), 5)
    assert caught.value.code == EX_NOPERM
    assert not os.path.exists(path)


def test_it_is_never_silenced(path: str) -> None:
    """Its clients wait for the next life of the receiver: a unix socket that was shut down stays shut."""
    sock = open_local(path, Access(), 5)
    silence(sock)
    connect(path)
    sock.close()


GIVEN = """
import os, sys
from mta.config.settings import Address
from mta.listeners import open_sockets
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "1"
address = Address("", 0, sys.argv[1])
print([(sock.fileno(), type(sock).__name__) for sock in open_sockets([address], 2)[address]])
"""


def test_systemd_may_give_it(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        high = os.dup2(sock.fileno(), 200)
        words = [sys.executable, "-c", GIVEN, path]
        done = subprocess.run(
            ["bash", "-c", f'exec "$@" 3<&{high}', "bash", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            pass_fds=[high],
            capture_output=True,
            text=True,
            check=False,
        )
        os.close(high)
    assert done.stdout == "[(3, 'socket'), (3, 'socket')]\n", done.stderr
