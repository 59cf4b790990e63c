"""What an operator did stays done, whatever is killed behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.control.client import Client
from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture(name="sink")
def fixture_sink() -> Iterator[Sink]:
    with Sink({}) as sink:
        yield sink


@pytest.fixture(name="server")
def fixture_server(tmp_path: Path) -> Iterator[Server]:
    """All mail is deferred."""
    busy = dict.fromkeys(("a@one.test", "b@one.test", "c@two.test"), ("450 4.2.0 mailbox busy",))
    with Sink(busy) as elsewhere, Server(tmp_path, routes={"*": elsewhere.next_hop}) as server:
        yield server


def _send(server: Server, sender: str, *to: str) -> str:
    message_id = server.send(sender, list(to), TEXT)
    for domain in dict.fromkeys(address.rpartition("@")[2] for address in to):
        server.wait_part(message_id, "deferred", domain)
    return message_id


def _killed(server: Server) -> None:
    server.kill()
    server.start()
    wait_for(lambda: server.status()["recovered"], 20, "a queue that is read again")


def test_what_was_done_stays_done_over_a_kill(server: Server, sink: Sink) -> None:
    kept, gone, moved, part = (
        _send(server, "kept@x.test", "a@one.test"),
        _send(server, "gone@x.test", "a@one.test"),
        _send(server, "moved@x.test", "a@one.test"),
        _send(server, "part@x.test", "a@one.test", "b@one.test", "c@two.test"),
    )
    with Client(server.runtime) as mta:
        held = mta.hold("sender=kept@*")
        assert (held.messages, mta.delete("sender=gone@*").messages) == (1, 1)
        assert mta.delete("recipient=b@one.test or domain=two.test recipient=c@*").messages == 1
        assert mta.hold(f"id={moved}").messages == 1
        assert mta.reroute(sink.next_hop, f"id={moved}").messages == 1
    _killed(server)
    assert server.show(gone) is None
    shown = server.show(part)
    assert shown is not None
    assert [(p["domain"], [r["state"] for r in p["recipients"]]) for p in shown["parts"]] == [
        ("one.test", ["pending", "done"])
    ]
    reason = server.wait_part(kept, "held")["reason"]
    assert f"(hold {held.operation}); before that: " in reason
    with Client(server.runtime) as mta:
        assert mta.undo(held.operation).messages == 1
        assert "mailbox busy" in server.wait_part(kept, "deferred")["reason"]
        assert mta.release(f"id={moved}").messages == 1
        assert sink.wait(1)[0].sender == "moved@x.test"
        log = list(mta.log())
    assert [(o.verb, o.messages, o.result) for o in log] == [
        ("release", 1, "done"),
        ("undo", 1, "done"),
        ("reroute", 1, "done"),
        ("hold", 1, "done"),
        ("delete", 1, "done"),
        ("delete", 1, "done"),
        ("hold", 1, "done"),
    ]
    assert {o.user for o in log} == {log[0].user}


def test_reroute_goes_at_once_and_can_be_taken_back(server: Server, sink: Sink) -> None:
    first, second = _send(server, "a@x.test", "a@one.test"), _send(server, "b@x.test", "b@one.test")
    wrong = server.run("queue", "reroute", f"id={first}", "--to", "mx:other.test")
    assert wrong.returncode == 2
    assert "is no next hop" in wrong.stderr
    server.ctl("queue", "reroute", f"id={first}", "--to", sink.next_hop)
    assert sink.wait(1)[0].sender == "a@x.test"
    server.ctl("queue", "reroute", f"id={second}", "--to", "hold:")
    server.wait_part(second, "held")
    server.ctl("queue", "reroute", f"id={second}", "--to", "rules")
    server.ctl("queue", "release", f"id={second}")
    assert "mailbox busy" in server.wait_part(second, "deferred")["reason"]


def test_a_bounce_tells_the_sender_why(server: Server, tmp_path: Path) -> None:
    message_id = _send(server, "ann@home.test", "a@one.test", "b@one.test")
    server.ctl("queue", "bounce", "recipient=a@one.test", "--reason", "the list is closed")
    (notice,) = server.wait_letters("ann")
    assert b"550 5.7.1 the list is closed" in notice
    assert b"a@one.test" in notice
    assert b"Final-Recipient: rfc822; b@one.test" not in notice
    wait_for(lambda: (server.show(message_id) or {})["parts"][0]["recipients"][0]["state"] == "done")
    row = server.wait_part(message_id, "deferred")
    assert [r["state"] for r in row["recipients"]] == ["done", "pending"]
    server.ctl("queue", "bounce", "all")
    server.wait_letters("ann", 2)
    server.wait_empty()


def test_many_are_asked_about_and_counted_first(server: Server) -> None:
    for number in range(3):
        _send(server, f"s{number}@x.test", "a@one.test")
    with Client(server.runtime) as mta:
        told = mta.delete("all", dry_run=True)
        assert (told.messages, len(told.sample), told.operation) == (3, 3, 0)
        assert mta.count("all") == 3
    shown = server.ctl("queue", "delete", "sender=s1@*", "--dry-run").splitlines()
    assert shown[0] == "delete would concern 1 messages, such as"
    assert json.loads(server.ctl("queue", "hold", "all", "--json"))["messages"] == 3
    last = server.ctl("queue", "log", "--limit", "1").splitlines()[1]
    assert last.split()[-3:] == ["hold", "3", "all"]
    wrong = server.run("queue", "delete", "state=held", "and", "agee>1h")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[1:] == ["  state=held and agee>1h", "                 ^^^^^^^"]


def test_other_addresses(server: Server, sink: Sink) -> None:
    first = _send(server, "ann@x.test", "a@one.test", "b@one.test", "c@two.test")
    server.ctl("queue", "hold", f"id={first}", "domain=one.test")
    wrong = server.run("queue", "edit", f"id={first}", "--recipient", "a@one.test=nobody")
    assert (wrong.returncode, "'nobody' is no address" in wrong.stderr) == (2, True)
    server.ctl(
        "queue", "edit", f"id={first}", "--recipient", "A@one.test=new@three.test", "--sender", "other@x.test", "--yes"
    )
    _killed(server)
    rows = {tuple(row["recipients"]): row for row in server.rows("all")}
    assert set(rows) == {("new@three.test",), ("b@one.test",), ("c@two.test",)}
    assert {row["sender"] for row in rows.values()} == {"other@x.test"}
    assert server.show(first) is None
    held = [row for row in server.rows("state=held") if "new@three.test" in row["recipients"]]
    assert held, "what was held is held"
    server.ctl("queue", "reroute", "all", "--to", sink.next_hop)
    server.ctl("queue", "release", "all")
    got = sink.wait(3)
    assert sorted(r for g in got for r in g.recipients) == ["b@one.test", "c@two.test", "new@three.test"]
    assert all(g.content.endswith(TEXT) for g in got)
    server.wait_empty()
