"""What a name's answer means for its mail (RFC 5321 §5.1, RFC 7505)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.dns import Fault, Zone
from tests.kit.server import Server
from tests.kit.sink import Sink

TEXT = b"Subject: x\r\n\r\nhello\r\n"
RECORDS = {
    "null.test": ["MX 0 ."],
    "nothing.test": ["TXT x"],
    "dangling.test": ["MX 10 missing.dangling.test."],
    "later.test": ["MX 10 mx.later.test."],
    "mx.later.test": ["A 127.0.0.1"],
}


@pytest.mark.parametrize(
    ("domain", "status"),
    [("missing.test", "5."), ("null.test", "5.1.10"), ("nothing.test", "5."), ("dangling.test", "5.")],
)
def test_goes_back_at_once(tmp_path: Path, domain: str, status: str) -> None:
    with Zone(RECORDS) as zone, Server(tmp_path, dns=zone.address) as server:
        server.send("ann@home.test", [f"bob@{domain}"], TEXT)
        (letter,) = server.wait_letters("ann")
        server.wait_empty()
        assert f"\nStatus: {status}".encode() in letter
        assert f"bob@{domain}".encode() in letter


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "silent"])
def test_waits_and_says_why(tmp_path: Path, fault: Fault) -> None:
    with Zone(RECORDS, {"later.test": fault}) as zone, Server(tmp_path, dns=zone.address) as server:
        message_id = server.send("ann@home.test", ["bob@later.test"], TEXT)
        part = server.wait_part(message_id, "deferred")
        assert part["attempts"] >= 0
        assert "later.test" in part["reason"]
        assert server.letters("ann") == []


def test_goes_on_once_the_name_answers(tmp_path: Path) -> None:
    with Zone(RECORDS, {"later.test": "SERVFAIL"}) as zone, Sink() as sink:
        retry = {"first": "0.5s", "factor": 1.0}
        with Server(tmp_path, dns=zone.address, delivery={"port": sink.port}, retry=retry) as server:
            message_id = server.send("ann@home.test", ["bob@later.test"], TEXT)
            server.wait_part(message_id, "deferred")
            zone.set("later.test", RECORDS["later.test"])
            sink.wait(1)
            server.wait_empty()
