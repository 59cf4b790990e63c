"""Hosts of a domain that cannot be used: the next one is tried, and when there is none the mail waits and says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kit.dns import Zone
from tests.kit.peer import CLOSE
from tests.kit.server import Server
from tests.kit.sink import ScriptedServer, Sink, refused_port

TEXT = b"Subject: x\r\n\r\nhello\r\n"
RECORDS = {
    "far.test": ["MX 10 mx1.far.test.", "MX 20 mx2.far.test."],
    "equal.test": ["MX 10 mx1.far.test.", "MX 10 mx2.far.test."],
    "half.test": ["MX 10 missing.far.test.", "MX 20 mx2.far.test."],
    "mx1.far.test": ["A 127.0.0.1"],
    "mx2.far.test": ["A 127.0.0.9"],
}
SOON = {"first": "0.2s", "jitter": 0.0, "factor": 1.0, "expiry": "1h"}


@pytest.mark.parametrize(
    "greeting", [b"554 5.3.2 no service\r\n", b"421 4.3.2 closing\r\n", CLOSE], ids=["554", "421", "closes"]
)
def test_the_next_host_is_tried_when_one_gives_no_service(tmp_path: Path, greeting: bytes) -> None:
    with (
        ScriptedServer({"greeting": greeting}) as first,
        Sink(host="127.0.0.9", port=first.port) as second,
        Zone(RECORDS) as zone,
        Server(tmp_path, dns=zone.address, delivery={"port": first.port}, retry=SOON) as server,
    ):
        server.send("ann@home.test", ["bob@far.test"], TEXT)
        assert second.wait(1)[0].recipients == ("bob@far.test",)
        server.wait_empty()
        assert server.letters("ann") == []
        assert first.connections >= 1


def test_a_host_without_an_address_is_passed_over(tmp_path: Path) -> None:
    with (
        Zone(RECORDS) as zone,
        Sink(host="127.0.0.9") as second,
        Server(tmp_path, dns=zone.address, delivery={"port": second.port}) as server,
    ):
        server.send("ann@home.test", ["bob@half.test"], TEXT)
        second.wait(1)
        server.wait_empty()


@pytest.mark.parametrize("alive", ["127.0.0.1", "127.0.0.9"])
def test_of_equals_the_one_that_answers_gets_the_mail(tmp_path: Path, alive: str) -> None:
    with (
        Zone(RECORDS) as zone,
        Sink(host=alive) as sink,
        Server(tmp_path, dns=zone.address, delivery={"port": sink.port}, retry=SOON) as server,
    ):
        for number in range(8):
            server.send("ann@home.test", [f"bob{number}@equal.test"], TEXT)
        sink.wait(8)
        server.wait_empty()


def test_when_all_refuse_the_mail_waits_and_says_why(tmp_path: Path) -> None:
    with Zone(RECORDS) as zone, Server(tmp_path, dns=zone.address, delivery={"port": refused_port()}) as server:
        message_id = server.send("ann@home.test", ["bob@far.test"], TEXT)
        server.wait_part(message_id, "deferred")
        (part,) = json.loads(server.ctl("queue", "show", message_id, "--json"))["parts"]
        assert part["state"] == "deferred"
        assert "refused" in part["reason"].lower()
        assert server.letters("ann") == []
