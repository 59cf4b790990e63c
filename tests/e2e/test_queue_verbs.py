"""`mta queue`: what an operator sees and does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture(name="sink")
def fixture_sink() -> Iterator[Sink]:
    with Sink({"slow@busy.test": ["450 4.2.0 mailbox busy"] * 2 + [""]}) as sink:
        yield sink


@pytest.fixture(name="server")
def fixture_server(tmp_path: Path, sink: Sink) -> Iterator[Server]:
    with Server(tmp_path, routes={"busy.test": sink.next_hop, "*": "hold:"}) as server:
        yield server


@pytest.fixture(name="ids")
def fixture_ids(server: Server) -> dict[str, str]:
    """Three held messages and a deferred one."""
    ids = {
        "a": server.send("ann@here.test", ["bob@a.test"], TEXT),
        "b": server.send("ann@here.test", ["bob@b.test", "eve@sub.b.test"], TEXT),
        "c": server.send("carl@there.test", ["bob@a.test"], TEXT),
        "busy": server.send("carl@there.test", ["slow@busy.test"], TEXT),
    }
    server.wait_part(ids["busy"], "deferred")
    server.wait_part(ids["c"], "held")
    return ids


FILTERS = [
    (["all"], "a b c busy"),
    (["sender=ann@here.test"], "a b"),
    (["sender=*@there.test"], "c busy"),
    (["recipient=bob@a.test"], "a c"),
    (["recipient=eve@*"], "b"),
    (["domain=a.test"], "a c"),
    (["domain=*.b.test"], "b"),
    (["state=held"], "a b c"),
    (["state=deferred"], "busy"),
    (["sender=ann@here.test", "domain=a.test"], "a"),
    (["domain=nowhere.test"], ""),
]


def test_filters_choose(server: Server, ids: dict[str, str]) -> None:
    for words, expected in FILTERS:
        wanted = {ids[name] for name in expected.split()}
        listed = server.ctl("queue", "list", *words, "--json").splitlines()
        assert {json.loads(line)["id"] for line in listed} == wanted, words
        assert json.loads(server.ctl("queue", "count", *words, "--json"))["messages"] == len(wanted), words


def test_show_tells_all(server: Server, ids: dict[str, str]) -> None:
    row = server.show(ids["b"])
    assert row is not None
    assert row["sender"] == "ann@here.test"
    assert {part["domain"] for part in row["parts"]} == {"b.test", "sub.b.test"}
    assert all(part["state"] == "held" for part in row["parts"])
    text = server.ctl("queue", "show", ids["busy"])
    assert ids["busy"] in text
    assert "450 4.2.0 mailbox busy" in text


def test_a_hold_keeps_and_a_release_lets_go(server: Server, sink: Sink, ids: dict[str, str]) -> None:
    server.ctl("queue", "hold", f"id={ids['busy']}", "--yes")
    assert server.wait_part(ids["busy"], "held")
    server.ctl("queue", "retry", "all")
    assert server.count("state=held") == 4, "retry leaves held mail alone"
    server.ctl("queue", "release", f"id={ids['busy']}")
    server.wait_part(ids["busy"], "deferred")
    server.ctl("queue", "retry", f"id={ids['busy']}")
    assert sink.wait(1)[0].content.endswith(TEXT)


def test_a_retry_does_not_wait_for_its_time(server: Server, sink: Sink, ids: dict[str, str]) -> None:
    for _ in range(2):
        server.ctl("queue", "retry", "domain=busy.test")
    sink.wait(1)


def test_a_delete_takes_out_without_a_notice(server: Server, ids: dict[str, str]) -> None:
    done = json.loads(server.ctl("queue", "delete", "domain=a.test", "--yes", "--json"))
    assert done["messages"] == 2
    assert {row["id"] for row in server.rows()} == {ids["b"], ids["busy"]}
    assert server.status()["counters"]["bounces_made"] == 0
    assert f"{ids['a']} deleted" in _log(server)


def test_a_released_message_whose_route_is_hold_is_held_again(server: Server, ids: dict[str, str]) -> None:
    server.ctl("queue", "release", f"id={ids['a']}")
    assert "hold:" in server.wait_part(ids["a"], "held")["reason"]


def test_a_wrong_word_is_explained(server: Server) -> None:
    for words in (["count", "colour=blue"], ["list", "state=tired"], ["show", "nonsense"]):
        done = server.run("queue", *words)
        assert done.returncode != 0
        assert any(part in done.stderr for part in words[-1].split("=")), done.stderr
        assert "Traceback" not in done.stderr


def test_a_stopped_server_is_named(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.stop()
        done = server.run("queue", "count", "all")
        assert done.returncode != 0
        assert "server" in done.stderr
        assert "Traceback" not in done.stderr
        server.start()


def _log(server: Server) -> str:
    return server.log.read_text()


def test_why_mail_waits(server: Server, ids: dict[str, str]) -> None:
    busy, head, first, second = server.ctl("queue", "explain", ids["busy"], ids["b"]).splitlines()
    assert busy.startswith(f"{ids['busy']}  The 1st attempt at ")
    assert " ended with: 450 4.2.0 mailbox busy; the next attempt is in " in busy
    assert head == ids["b"]
    assert first.startswith("  b.test: It is held")
    assert first.endswith(f"the route for this domain is hold:; `mta queue release id={ids['b']}` lets it go.")
    assert second.startswith("  sub.b.test: It is held")
    by_filter = server.ctl("queue", "explain", "state=deferred", "reply~busy", "--json")
    assert json.loads(by_filter)["parts"][0]["state"] == "deferred"
    missing = server.run("queue", "explain", "1AHHN4AQ0C00")
    assert (missing.returncode, missing.stdout) == (1, "")


def test_expire_returns_mail_to_its_sender(server: Server, ids: dict[str, str]) -> None:
    both = f"id={ids['busy']} or id={ids['c']}"
    assert server.ctl("queue", "expire", both, "--yes").strip() == "2 messages"
    wait_for(lambda: server.count(both) == 0)
    notices = server.rows("sender=")
    assert sorted(row["recipients"] for row in notices) == [["carl@there.test"]] * 2
    assert server.count(f"id={ids['a']}") == 1
