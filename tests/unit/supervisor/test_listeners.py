"""Listening sockets: own ones, and those of systemd."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mta import listeners
from mta.config.settings import Address
from mta.listeners import Sockets, open_sockets, silence
from mta.premises import StartError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def address() -> Iterator[Address]:
    """An address that nobody uses, held by a socket that is bound and does not listen."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", holder.getsockname()[1])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_BUSY_PATIENCE", 0.0)


def close(sockets: Sockets) -> None:
    for row in sockets.values():
        for sock in row:
            sock.close()


def test_one_socket_for_each_receiver(address: Address) -> None:
    sockets = open_sockets([address], 3, {})
    assert len({sock.fileno() for sock in sockets[address]}) == 3
    for sock in sockets[address]:
        assert sock.getsockname() == (address.host, address.port)
        assert not sock.getblocking()
        assert not sock.get_inheritable()
    with socket.create_connection((address.host, address.port)):
        pass
    close(sockets)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_leaves_ipv4_alone() -> None:
    with socket.socket(socket.AF_INET6) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        holder.bind(("::", 0))
        port = holder.getsockname()[1]
        sockets = open_sockets([Address("::", port)], 1, {})
        with socket.socket() as four:
            assert four.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        close(sockets)


@pytest.mark.usefixtures("impatient")
def test_a_second_server_does_not_join_in(address: Address) -> None:
    sockets = open_sockets([address], 1, {})
    with pytest.raises(StartError, match=f"cannot listen on {address}: another program") as caught:
        open_sockets([address], 1, {})
    assert caught.value.code == 75
    close(sockets)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(StartError, match="this machine does not have that address"):
        open_sockets([Address("192.0.2.1", 2525)], 1, {})


def test_a_port_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listeners, "_bind", refuse)
    with pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1:25: ports below 1024 need root") as caught:
        open_sockets([Address("127.0.0.1", 25)], 1, {})
    assert caught.value.code == 77


def test_a_silenced_socket_refuses_until_it_listens_again(address: Address) -> None:
    sockets = open_sockets([address], 1, {})
    (sock,) = sockets[address]
    silence(sock)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port))
    sock.listen()
    with socket.create_connection((address.host, address.port)):
        pass
    close(sockets)


# What systemd does: descriptors from 3 on, and the pid of the process they are meant for.
ACTIVATED = """
import os, sys
from mta.config.settings import Address
from mta.listeners import open_sockets
from mta.premises import StartError
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
os.environ["LISTEN_FDS"] = sys.argv[2]
wanted = [Address("127.0.0.1", int(port)) for port in sys.argv[3:]]
try:
    sockets = open_sockets(wanted, 2)
except StartError as error:
    sys.exit(str(error))
print([[sock.fileno() for sock in sockets[address]] for address in wanted], "LISTEN_FDS" in os.environ)
"""


def activated(given: int, ports: list[int], extra: list[int], pid_offset: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program that is given listening sockets on the first `given` ports, and asks for `ports`."""
    with ExitStack() as stack:
        socks = []
        for port in (ports + extra)[:given]:
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            sock.listen()
            socks.append(fcntl.fcntl(sock, fcntl.F_DUPFD, 200))  # out of the way of 3, 4, ...
            stack.callback(os.close, socks[-1])
        # a shell moves them to 3, 4, ... as systemd would have them
        moves = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(socks))
        words = [sys.executable, "-c", ACTIVATED, str(pid_offset), str(given), *map(str, ports)]
        return subprocess.run(
            ["bash", "-c", f'exec "$@" {moves}', "bash", *words],
            cwd=ROOT,
            pass_fds=socks,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Ports that nobody uses."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(2)]
        for sock in found:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
        yield [sock.getsockname()[1] for sock in found]


def test_sockets_of_systemd_are_shared_by_all_receivers(ports: list[int]) -> None:
    done = activated(2, ports, [])
    assert done.stdout == "[[3, 3], [4, 4]] False\n", done.stderr


def test_an_address_that_systemd_did_not_give_is_named(ports: list[int]) -> None:
    done = activated(1, ports, [])
    assert done.returncode == 1
    assert done.stderr == (
        f"systemd gave no socket for 127.0.0.1:{ports[1]}; add it to mta.socket or remove the listener\n"
    )


def test_a_socket_that_no_listener_wants_is_closed_with_a_warning(ports: list[int]) -> None:
    done = activated(2, ports[:1], ports[1:])
    assert done.stdout == "[[3, 3]] False\n"
    assert f"systemd gave 127.0.0.1:{ports[1]}, for which there is no [[listener]]" in done.stderr


def test_sockets_meant_for_another_process_are_left_alone(address: Address) -> None:
    done = activated(0, [address.port], [], pid_offset=1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")
