"""The picture of `mta top`: figures from two looks, and nothing that a peer says is obeyed."""

from __future__ import annotations

import io
from io import StringIO
from typing import Any

from rich.console import Console

from mta.cli import top
from mta.cli.top import _short, _span, picture, with_rates

COUNTERS = (
    "messages_accepted octets_accepted recipients_refused sessions_opened deliveries_done deliveries_deferred"
    " deliveries_failed connections_opened"
)


def frame(now: float = 100.0, **changes: Any) -> dict[str, Any]:
    return {
        "now": now,
        "hostname": "mx.test",
        "messages": 7,
        "uptime": 3725.0,
        "durability": "commit",
        "recovered": True,
        "deliveries": {"ready": 3, "active": 0, "deferred": 4, "held": 0, "resolving": 0, "ambiguous": 0},
        "counters": dict.fromkeys(COUNTERS.split(), 0),
        "busiest": [],
        "slowest": [],
        "processes": [{"role": "queue", "worker": 0, "pid": 7, "cpu": 1.0, "memory": 50_000_000, "deaths": 0}],
        "failures": [],
    } | changes


def site(name: str, **changes: Any) -> dict[str, Any]:
    states = dict.fromkeys(("ready", "active", "deferred", "held", "resolving"), 0)
    more = {"source": "", "open": 1, "connections": 20, "service": 0.25, "gate": "open", "sentence": ""}
    return {"site": name, **states, **more, **changes}


def shown(first: dict[str, Any], second: dict[str, Any], width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(picture(with_rates(first, second)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rates_are_the_difference_of_two_looks() -> None:
    later = frame(102.0, counters=dict.fromkeys(COUNTERS.split(), 50))
    later["processes"][0]["cpu"] = 1.5
    rated = with_rates(frame(), later)
    assert rated["rates"]["received"] == 25.0
    assert rated["processes"][0]["load"] == 0.25


def test_a_process_that_was_not_there_before_has_done_nothing_yet() -> None:
    later = frame(101.0, processes=[{"role": "queue", "worker": 0, "pid": 8, "cpu": 9.0, "memory": 1, "deaths": 1}])
    assert with_rates(frame(), later)["processes"][0]["load"] == 0.0


def test_all_is_on_it() -> None:
    text = shown(
        frame(),
        frame(
            101.0,
            busiest=[site("far.test", deferred=4, gate="down", sentence="the site is down (refused)")],
            slowest=[site("slow.test", source="a")],
            failures=[
                {"at": 1.0, "side": "out", "peer": "far.test", "session": "C1", "why": "failed", "text": "550 no"}
            ],
        ),
    )
    for word in ("mx.test", "7 messages queued (3 ready, 4 deferred)", "up 1h 2m", "far.test", "the site is down"):
        assert word in text
    for word in ("a/slow.test", "0.250", "queue 0", "50M", "C1", "550 no"):
        assert word in text
    assert "not safe" not in text


def test_what_peers_say_is_no_markup() -> None:
    failure = {"at": 1.0, "side": "in", "peer": "[red]x", "session": "S1", "why": "refused", "text": "550 [/][link]"}
    text = shown(frame(), frame(101.0, failures=[failure], busiest=[site("[bold]evil", ready=1)]))
    assert "<- [red]x" in text
    assert "550 [/][link]" in text
    assert "[bold]evil" in text


def test_a_narrow_terminal_keeps_its_lines() -> None:
    text = shown(frame(), frame(101.0, busiest=[site("x" * 200, ready=1, sentence="y" * 300)]), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("xxx") >= 1


def test_a_server_that_is_not_safe_or_not_ready_says_so() -> None:
    text = shown(frame(), frame(101.0, durability="interval", recovered=False), width=200)
    assert "not safe when the machine stops" in text
    assert "still reading the spool" in text


def test_short_figures() -> None:
    given = (0, 0.5, 999.9, 1234, 12_345, 50_000_000, 5e15)
    assert [_short(n) for n in given] == ["0", "0.5", "999.9", "1234", "12.3K", "50M", "5000T"]
    assert [_span(n) for n in (5, 65, 3700, 90_000)] == ["0m 5s", "1m 5s", "1h 1m", "1d 1h"]


def test_a_long_reason_leaves_the_numbers_their_room() -> None:
    row = {"source": "", "site": "mx:mx.dead.example", "gate": "down", "open": 0, "connections": 5}
    row |= dict.fromkeys(top._STATES, 4711) | {"sentence": "the site is down, because " * 20}
    console = Console(width=120, file=StringIO())
    console.print(top._busiest([row]))
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().count("4711") == len(top._STATES)
