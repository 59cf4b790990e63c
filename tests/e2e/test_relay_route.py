"""Relay by [[route]]: the first match wins, hold: waits, discard: forgets."""

from __future__ import annotations

from pathlib import Path

from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"


def test_the_first_match_wins(tmp_path: Path) -> None:
    with Sink() as exact, Sink() as below, Sink() as rest:
        routes = {"a.test": exact.next_hop, "*.a.test": below.next_hop, "*": rest.next_hop}
        with Server(tmp_path, routes=routes) as server:
            server.send("ann@here.test", ["x@A.test", "y@deep.sub.a.test", "z@b.test"], TEXT)
            assert exact.wait(1)[0].recipients == ("x@A.test",)
            assert below.wait(1)[0].recipients == ("y@deep.sub.a.test",)
            assert rest.wait(1)[0].recipients == ("z@b.test",)
            server.wait_empty()
        assert [len(sink.got) for sink in (exact, below, rest)] == [1, 1, 1]


def test_connections_are_used_again(tmp_path: Path) -> None:
    with Sink() as sink, Server(tmp_path, routes={"*": sink.next_hop}, delivery={"connections": 2}) as server:
        with server.talk() as talk:
            talk.hello()
            for _ in range(50):
                talk.mail("ann@here.test", ["bob@a.test"], TEXT)
        sink.wait(50)
        server.wait_empty()
        assert sink.connections <= 10, "fifty messages in a row to one host"


def test_hold_waits_for_the_operator(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        message_id = server.send("ann@here.test", ["bob@a.test"], TEXT)
        part = server.wait_part(message_id, "held")
        assert "hold:" in part["reason"]
        assert server.count("state=held") == 1


def test_discard_forgets_and_says_so(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": "discard:"}) as server:
        message_id = server.send("ann@here.test", ["bob@a.test"], TEXT)
        server.wait_empty()
        wait_for(lambda: f"{message_id} delivered" in server.log.read_text(), what="a line about it in the mail log")
        assert "discard" in server.log.read_text()
