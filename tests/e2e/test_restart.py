"""A stop and a start in between: the queue is as it was."""

from __future__ import annotations

from pathlib import Path

from mta.model import id_time_ms, parse_id
from tests.kit.ledger import Ledger
from tests.kit.server import Server
from tests.kit.sink import Sink, refused_port

MESSAGES = 150


def fill(server: Server, count: int = MESSAGES) -> tuple[Ledger, set[str]]:
    ledger = Ledger()
    with server.talk() as talk:
        talk.hello()
        for number in range(count):
            text = ledger.enter(str(number), b"\r\n" + b"line %d\r\n" % number * (number % 50))
            ledger.acknowledged[str(number)] = talk.mail("ann@here.test", [f"bob{number % 7}@far.test"], text)
    return ledger, set(ledger.acknowledged.values())


def test_a_full_queue_survives_a_stop(tmp_path: Path) -> None:
    port = refused_port()
    routes = {"*": f"smtp:127.0.0.1:{port}"}
    with Server(tmp_path, routes=routes) as server:
        ledger, ids = fill(server)
        server.stop()
        server.start()
        assert {row["id"] for row in server.rows()} == ids
        with Sink(port=port) as sink:
            server.ctl("queue", "retry", "all")
            sink.wait(MESSAGES)
            server.wait_empty()
            account = ledger.audit(got.content for got in sink.got)
            assert account.sound, account
            assert account.doubled == 0


def test_a_full_queue_survives_a_kill(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        _, ids = fill(server)
        for _ in range(2):
            server.kill()
            server.start()
            assert {row["id"] for row in server.rows()} == ids
            assert server.count("state=held") == MESSAGES


def test_what_was_done_stays_done(tmp_path: Path) -> None:
    """Delivered, deleted and held: a restart brings nothing back and forgets nothing."""
    replies = {"busy@far.test": ["450 4.2.0 busy"]}
    with Sink(replies) as sink, Server(tmp_path, routes={"far.test": sink.next_hop, "*": "hold:"}) as server:
        server.send("ann@here.test", ["bob@far.test"], b"gone\r\n")
        mixed = server.send("ann@here.test", ["bob@far.test", "busy@far.test"], b"half gone\r\n")
        held = server.send("ann@here.test", ["bob@other.test"], b"held\r\n")
        deleted = server.send("ann@here.test", ["bob@other.test"], b"deleted\r\n")
        sink.wait(2)
        server.wait_part(mixed, "deferred")
        server.ctl("queue", "delete", f"id={deleted}", "--yes")
        for restart in (server.stop, server.kill):
            restart()
            server.start()
            rows = {row["id"]: row for row in server.rows()}
            assert set(rows) == {mixed, held}
            assert rows[mixed]["recipients"] == ["busy@far.test"]
            assert "busy" in rows[mixed]["reason"]
            assert rows[mixed]["attempts"] >= 1
            assert rows[held]["state"] == "held"
        assert len(sink.got) == 2


def test_ids_are_never_given_twice(tmp_path: Path) -> None:
    seen: list[str] = []
    with Server(tmp_path, routes={"*": "hold:"}, receivers=2) as server:
        for _ in range(3):
            seen += [server.send("a@x.test", ["b@y.test"], b"x\r\n") for _ in range(10)]
            server.kill()
            server.start()
    assert len(set(seen)) == len(seen)
    times = [id_time_ms(parse_id(text)) for text in seen]
    assert times == sorted(times), "ids sort by time; within a millisecond two receivers give theirs in any order"
