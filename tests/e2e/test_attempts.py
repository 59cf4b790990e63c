"""Processes die in the middle of an attempt: what never reached its dot goes out at once, what may have been taken is
marked, listed, and sent again after a wait or by hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_kill import a_process
from tests.kit.peer import HANG
from tests.kit.server import Server
from tests.kit.sink import ScriptedServer
from tests.kit.waiting import wait_for

TEXT = b"Subject: one\r\n\r\nhello\r\n"
STALLS_AFTER_THE_DOT: dict[str, Any] = {".": [HANG, b"250 2.0.0 taken\r\n"]}
STALLS_BEFORE_THE_TEXT: dict[str, Any] = {"DATA": [HANG, b"354 go\r\n"]}
LATER = {"ambiguous_wait": "1h"}
SOON = {"first": "0.5s", "ambiguous_wait": "0.5s"}


def courier(server: Server) -> None:
    os.kill(a_process(server, "courier"), signal.SIGKILL)


def both(server: Server) -> None:
    pids = [a_process(server, "queue"), a_process(server, "courier")]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def everything(server: Server) -> None:
    server.kill()
    server.start()


def everything_and_the_machine(server: Server) -> None:
    """As far as a test can: with a boot the runtime directory is empty, or what is in it is void."""
    server.kill()
    (server.runtime / "seats").unlink()
    server.start()


KILLERS = [courier, pytest.param(both, marks=pytest.mark.slow), everything]


def ambiguous(server: Server) -> list[dict[str, Any]]:
    return server.rows("state=ambiguous")


@pytest.mark.parametrize("kill", [courier, everything_and_the_machine])
def test_what_may_have_been_taken_is_listed_and_sent_again_by_hand(
    tmp_path: Path, kill: Callable[[Server], None]
) -> None:
    with (
        ScriptedServer(STALLS_AFTER_THE_DOT) as peer,
        Server(tmp_path, routes={"*": peer.next_hop}, retry=LATER) as server,
    ):
        name = server.send("ann@here.test", ["bob@far.test"], TEXT)
        wait_for(lambda: len(peer.messages) == 1, what="the text at the next hop")
        kill(server)
        (row,) = wait_for(lambda: ambiguous(server), what="an ambiguous delivery")
        assert (row["id"], row["state"], row["attempts"]) == (name, "ambiguous", 1)
        assert "may or may not have delivered it" in row["reason"]
        assert server.count("state=ambiguous") == server.count("state=deferred") == 1
        status = server.status()
        assert status["counters"]["messages_ambiguous"] == status["deliveries"]["ambiguous"] == 1
        shown = server.ctl("queue", "show", name)
        assert f"it is sent again in 1h, or at once by `mta queue retry id={name}`" in shown
        assert len(peer.messages) == 1
        server.ctl("queue", "retry", "state=ambiguous")
        server.wait_empty()
        assert len(peer.messages) == 2
        assert " ambiguous " in server.log.read_text()


@pytest.mark.parametrize("kill", [both, everything])
def test_it_is_sent_again_after_the_wait(tmp_path: Path, kill: Callable[[Server], None]) -> None:
    with (
        ScriptedServer(STALLS_AFTER_THE_DOT) as peer,
        Server(tmp_path, routes={"*": peer.next_hop}, retry=SOON) as server,
    ):
        server.send("ann@here.test", ["bob@far.test"], TEXT)
        wait_for(lambda: len(peer.messages) == 1, what="the text at the next hop")
        kill(server)
        server.wait_empty()
        assert len(peer.messages) == 2
        assert server.status()["counters"]["messages_ambiguous"] == 1


@pytest.mark.parametrize("kill", KILLERS)
def test_what_never_reached_its_dot_is_sent_again_at_once(tmp_path: Path, kill: Callable[[Server], None]) -> None:
    with (
        ScriptedServer(STALLS_BEFORE_THE_TEXT) as peer,
        Server(tmp_path, routes={"*": peer.next_hop}, retry=LATER) as server,
    ):
        server.send("ann@here.test", ["bob@far.test"], TEXT)
        wait_for(lambda: "DATA" in peer.heard, what="DATA at the next hop")
        kill(server)
        server.wait_empty()
        assert len(peer.messages) == 1
        assert server.status()["counters"]["messages_ambiguous"] == 0


def test_a_new_queue_manager_leaves_it_to_the_courier_that_has_it(tmp_path: Path) -> None:
    with (
        ScriptedServer(STALLS_AFTER_THE_DOT) as peer,
        Server(tmp_path, routes={"*": peer.next_hop}, retry=SOON, delivery={"data_timeout": "3s"}) as server,
    ):
        name = server.send("ann@here.test", ["bob@far.test"], TEXT)
        wait_for(lambda: len(peer.messages) == 1, what="the text at the next hop")
        old = a_process(server, "queue")
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: a_process(server, "queue") != old and server.status()["recovered"], what="another one")
        assert server.rows(f"id={name}")[0]["state"] == "active"
        # The courier's own time-out is what ends it; then nobody knows either.
        server.wait_empty()
        assert len(peer.messages) == 2
        assert server.status()["counters"]["messages_ambiguous"] == 1
