"""kill -9 of any process under load: nothing acknowledged is lost or altered, few messages come twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.ledger import Account, Load
from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

RETRY = {"first": "0.3s", "ambiguous_wait": "0.3s", "factor": 1.0, "expiry": "1h"}
# How many messages may come twice after one kill. A courier has one on each of its connections; the queue manager has
# results in hand that are not on disk yet; a receiver has no part in deliveries.
TWICE = {"receiver": 0, "queue": 100, "courier": 40}
TWICE["supervisor"] = sum(TWICE.values())


def audited(load: Load, server: Server, arrived: Callable[[], list[bytes]]) -> Account:
    """The account once all that was acknowledged has gone."""
    ledger = load.stop()
    wait_for(lambda: not ledger.audit(arrived()).missing, 60, "the arrival of all that was acknowledged")
    server.wait_empty(60)
    account = ledger.audit(arrived())
    assert account.sound, account
    return account


def a_process(server: Server, role: str) -> int:
    """One of them, as soon as there is one again."""
    return wait_for(lambda: server.children().get(role), what=f"a {role}")[0]


def contents(sink: Sink) -> list[bytes]:
    return [got.content for got in sink.got]


@pytest.mark.parametrize("role", ["receiver", "queue", "courier"])
def test_a_process_is_killed(tmp_path: Path, role: str) -> None:
    with Sink() as sink, Server(tmp_path, routes={"*": sink.next_hop}, retry=RETRY) as server:
        with Load(server.port, "ann@here.test", "bob@far.test") as load:
            load.wait(60)
            pid = a_process(server, role)
            os.kill(pid, signal.SIGKILL)
            load.wait(60)
            account = audited(load, server, lambda: contents(sink))
            assert server.children()[role] != [pid]
        assert account.doubled <= TWICE[role], account


def test_the_supervisor_is_killed(tmp_path: Path) -> None:
    with Sink() as sink, Server(tmp_path, routes={"*": sink.next_hop}, retry=RETRY) as server:
        with Load(server.port, "ann@here.test", "bob@far.test") as load:
            load.wait(60)
            server.kill()
            server.start()
            load.wait(60)
            account = audited(load, server, lambda: contents(sink))
        assert account.doubled <= TWICE["supervisor"], account


def test_letters_survive_too(tmp_path: Path) -> None:
    """Delivery to a Maildir, while the courier is killed."""
    with Server(tmp_path, retry=RETRY) as server:
        with Load(server.port, "ann@here.test", "bob@home.test") as load:
            load.wait(60)
            pid = a_process(server, "courier")
            os.kill(pid, signal.SIGKILL)
            load.wait(60)
            account = audited(load, server, lambda: server.letters("bob"))
        assert account.doubled <= TWICE["courier"], account


@pytest.mark.slow
@pytest.mark.parametrize("roles", [("receiver",), ("queue",), ("courier",), ("receiver", "queue", "courier")])
def test_processes_are_killed_again_and_again(tmp_path: Path, roles: tuple[str, ...]) -> None:
    kills = 4
    with (
        Sink() as sink,
        Server(tmp_path, routes={"*": sink.next_hop}, retry=RETRY, receivers=2, couriers=2) as server,
    ):
        with Load(server.port, "ann@here.test", "bob@far.test", sessions=10, pause=0.002) as load:
            for turn in range(kills):
                load.wait(150, 60)
                role = roles[turn % len(roles)]
                pid = a_process(server, role)
                os.kill(pid, signal.SIGKILL)
            account = audited(load, server, lambda: contents(sink))
        assert account.doubled <= kills * max(TWICE[role] for role in roles), account


@pytest.mark.slow
def test_the_supervisor_is_killed_again_and_again(tmp_path: Path) -> None:
    kills = 5
    with (
        Sink() as sink,
        Server(tmp_path, routes={"*": sink.next_hop}, retry=RETRY, receivers=2, couriers=2) as server,
    ):
        with Load(server.port, "ann@here.test", "bob@far.test", sessions=10, pause=0.002) as load:
            for _ in range(kills):
                load.wait(150, 60)
                server.kill()
                server.start()
            account = audited(load, server, lambda: contents(sink))
        assert account.doubled <= kills * TWICE["supervisor"], account
