"""Mail with a hold time (RFC 4865), a deadline (RFC 2852) or a priority (RFC 6710), from the client to its end."""

from __future__ import annotations

import email
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.server import Server, free_port
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"
SENDER = "ann@home.test"


@pytest.fixture(name="sink")
def fixture_sink() -> Iterator[Sink]:
    with Sink({"bob@a.test": ["450 4.2.0 busy"]}) as sink:
        yield sink


@pytest.fixture(name="server")
def fixture_server(tmp_path: Path, sink: Sink) -> Iterator[Server]:
    """Strangers cannot move mail in time: the listener is one for own users, who are a network here."""
    port = free_port()
    listener = [{"address": f"127.0.0.1:{port}", "role": "submission"}]
    retry = {"first": "0.3s", "jitter": 0.0, "factor": 1.0}
    server = Server(
        tmp_path, routes={"a.test": sink.next_hop}, listener=listener, retry=retry, limits={"deliver_by": "1s"}
    )
    server.port = port
    with server:
        yield server


def part(server: Server, name: str) -> dict[str, Any]:
    shown = server.show(name)
    assert shown is not None
    return dict(shown["parts"][0])


def test_what_is_held_waits_through_a_flush_and_a_crash(server: Server) -> None:
    began = time.time()
    late = server.send(SENDER, ["eve@home.test"], TEXT, " HOLDFOR=86400")
    soon = server.send(SENDER, ["eve@home.test"], TEXT, " HOLDFOR=4")
    for name in (soon, late):
        found = server.wait_part(name, "deferred")
        assert found["reason"].startswith("held until ")
        assert found["attempts"] == 0
    wishes = (server.show(late) or {})["wishes"]
    assert wishes["hold_until"] == pytest.approx(began + 86400, abs=30)
    assert "hold_until: " in server.ctl("queue", "show", late)
    assert "sends it now" in server.ctl("queue", "explain", late)
    assert server.ctl("queue", "retry", "all").startswith("0 ")
    server.kill()
    server.start()
    assert server.wait_part(late, "deferred")["reason"].startswith("held until ")
    server.wait_letters("eve")
    assert time.time() >= began + 4
    wait_for(lambda: server.count() == 1, 20, "the end of the one that was due")
    assert server.ctl("queue", "retry", f"id={late}").startswith("1 ")
    server.wait_letters("eve", 2)
    server.wait_empty()


def test_what_is_late_goes_back_or_is_told(server: Server) -> None:
    returned = server.send(SENDER, ["bob@a.test"], TEXT, " BY=1;R")
    kept = server.send(SENDER, ["bob@a.test"], TEXT, " BY=1;N")
    letters = server.wait_letters("ann", 2)
    wait_for(lambda: server.show(returned) is None, 20, "the end of what went back")
    wait_for(lambda: part(server, kept)["told"] == ["late"], 20, "the notice on record")
    found = {}
    for letter in letters:
        payload: Any = email.message_from_bytes(letter).get_payload()
        about, block = payload[1].get_payload()
        assert about["Deliver-By-Date"]
        found[block["Action"]] = block["Status"]
    assert found == {"failed": "5.4.7", "delayed": "4.4.7"}
    assert part(server, kept)["state"] in ("deferred", "active", "ready")


def test_a_priority_is_kept(server: Server) -> None:
    name = server.send(SENDER, ["bob@a.test"], TEXT, " MT-PRIORITY=3")
    server.wait_part(name, "deferred")
    assert (server.show(name) or {})["wishes"] == {"priority": 3}


def test_a_sender_hears_that_the_next_host_knows_of_no_time(server: Server) -> None:
    """RFC 2852 §4.1.4.2: by-mode N, relayed to a host without DELIVERBY; who wants to hear nothing does not."""
    server.send("mute@home.test", ["eve@a.test"], TEXT, " BY=-5;N")
    server.send(SENDER, ["eve@a.test"], TEXT, " BY=600;N")
    (notice,) = server.wait_letters("ann")
    assert b"Action: relayed" in notice
    assert b"Deliver-By-Date: " in notice
    server.wait_empty()
    assert b"Action: relayed" not in b"".join(server.letters("mute"))
