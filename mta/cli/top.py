"""`mta top`: the server at a glance, again and again. Everything comes over the control socket.

Rates are the differences of two looks. What sites and peers say came escaped from the server; here it is kept from
being read as markup.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mta.cli.common import USAGE, connect, fail
from mta.control.client import Client

Frame = dict[str, Any]

_LEAST_INTERVAL = 0.1
_WIDTH = 200  # characters, where there is no terminal
_RATES = {  # what is shown: the counter it comes from
    "received": "messages_accepted",
    "octets": "octets_accepted",
    "refused": "recipients_refused",
    "sessions": "sessions_opened",
    "delivered": "deliveries_done",
    "deferred": "deliveries_deferred",
    "failed": "deliveries_failed",
    "connections": "connections_opened",
}
_STATES = ("ready", "active", "deferred", "held", "resolving")
_UNITS = ("", "K", "M", "G", "T")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.interval >= _LEAST_INTERVAL or arguments.sites < 1:
        fail(USAGE, f"mta: --interval is at least {_LEAST_INTERVAL} seconds, --sites at least 1")
    with connect(arguments.config) as client:
        frames = _frames(client, arguments.interval, arguments.sites)
        if arguments.json:
            for frame in frames:
                print(json.dumps(frame), flush=True)
                if arguments.once:
                    break
        elif arguments.once or not sys.stdout.isatty():
            # What reads this instead of a terminal wants the reasons whole, on one line each.
            Console(width=None if sys.stdout.isatty() else _WIDTH).print(picture(next(frames)))
        else:
            with Live(screen=True, auto_refresh=False) as live:
                for frame in frames:
                    live.update(picture(frame), refresh=True)
    return 0


def _frames(client: Client, interval: float, sites: int) -> Iterator[Frame]:
    """One for each interval, with rates."""
    before = client.call("top", sites=sites)
    while True:
        time.sleep(interval)
        frame = client.call("top", sites=sites)
        yield with_rates(before, frame)
        before = frame


def with_rates(before: Frame, frame: Frame) -> Frame:
    """The second of two looks, with what happened in between, by the second."""
    seconds = max(0.001, frame["now"] - before["now"])
    counted = before["counters"]
    rates = {name: (frame["counters"][key] - counted.get(key, 0)) / seconds for name, key in _RATES.items()}
    cpu = {process["pid"]: process["cpu"] for process in before["processes"]}
    processes = [
        {**process, "load": max(0.0, process["cpu"] - cpu.get(process["pid"], process["cpu"])) / seconds}
        for process in frame["processes"]
    ]
    return {**frame, "rates": {name: round(rate, 1) for name, rate in rates.items()}, "processes": processes}


def picture(frame: Frame) -> RenderableType:
    """All of it, from the top."""
    parts: list[RenderableType] = [_head(frame), _rates(frame)]
    for title, rows, table in (
        ("queue by site", frame["busiest"], _busiest),
        ("slowest sites", frame["slowest"], _slowest),
        ("processes", frame["processes"], _processes),
        ("last failures", frame["failures"][::-1], _failures),
    ):
        parts += [Text(""), Text(title, style="bold")]
        parts.append(table(rows) if rows else Text("  none", style="dim"))
    return Group(*parts)


def _head(frame: Frame) -> Text:
    deliveries = frame["deliveries"]
    states = ", ".join(f"{deliveries[state]} {state}" for state in (*_STATES, "ambiguous") if deliveries.get(state))
    line = Text(f"{frame['hostname']}  ", style="bold")
    line.append(f"{frame['messages']} messages queued" + (f" ({states})" if states else ""), style="not bold")
    line.append(f"  up {_span(frame['uptime'])}  durability {frame['durability']}", style="not bold")
    if frame["durability"] != "commit":
        line.append("  not safe when the machine stops", style="bold yellow")
    if not frame["recovered"]:
        line.append("  still reading the spool", style="bold yellow")
    return line


def _rates(frame: Frame) -> Table:
    table = _table(("", 0), ("/s", 1), ("in all", 1), ("", 0), ("/s", 1), ("in all", 1))
    counters, rates = frame["counters"], frame["rates"]
    cells = [(name, _short(rates[name]), _short(counters[key])) for name, key in _RATES.items()]
    half = len(cells) // 2
    for left, right in zip(cells[:half], cells[half:], strict=True):
        table.add_row(*left, *right)
    return table


def _busiest(rows: list[Frame]) -> Table:
    table = _table(("site", 0), *((state, 1) for state in _STATES), ("connections", 1), ("why no more", 0))
    for row in rows:
        table.add_row(
            Text(_named(row)),
            *(str(row[state]) for state in _STATES),
            f"{row['open']}/{row['connections']}",
            Text(row["sentence"]),
            style=None if row["gate"] == "open" else "yellow",
        )
    return table


def _slowest(rows: list[Frame]) -> Table:
    table = _table(("site", 0), ("s/delivery", 1), ("active", 1), ("ready", 1), ("connections", 1))
    for row in rows:
        connections = f"{row['open']}/{row['connections']}"
        table.add_row(Text(_named(row)), f"{row['service']:.3f}", str(row["active"]), str(row["ready"]), connections)
    return table


def _processes(rows: list[Frame]) -> Table:
    table = _table(("process", 0), ("pid", 1), ("CPU", 1), ("memory", 1), ("restarts", 1))
    for row in rows:
        table.add_row(
            f"{row['role']} {row['worker']}",
            str(row["pid"] or "-"),
            f"{row['load']:.0%}",
            _short(row["memory"]),
            str(row["deaths"]),
            style=None if row["pid"] and not row["deaths"] else "yellow" if row["pid"] else "red",
        )
    return table


def _failures(rows: list[Frame]) -> Table:
    table = _table(("at", 0), ("what", 0), ("with", 0), ("session", 0), ("said", 0))
    for row in rows:
        at = time.strftime("%H:%M:%S", time.localtime(row["at"]))
        way = "->" if row["side"] == "out" else "<-"
        table.add_row(at, row["why"], Text(f"{way} {row['peer']}"), row["session"], Text(row["text"]))
    return table


_SENTENCES = ("why no more", "said")


def _table(*columns: tuple[str, int]) -> Table:
    """Columns by title, and whether they hold numbers; what is too long is cut, and lines stay lines."""
    free = columns[-1][0] if columns[-1][0] in _SENTENCES else ""  # gets what the others leave
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=bool(free))
    for title, numbers in columns:
        justify: JustifyMethod = "right" if numbers else "left"
        ratio = 1 if free and title == free else None
        table.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis", ratio=ratio)
    return table


def _named(row: Frame) -> str:
    return f"{row['source']}/{row['site']}" if row["source"] else str(row["site"])


def _short(value: float) -> str:
    """At most four digits: 12.5K."""
    for unit in _UNITS[:-1]:
        if value < 10_000:
            return f"{value:.1f}{unit}" if value % 1 and value < 1000 else f"{value:.0f}{unit}"
        value /= 1000
    return f"{value:.0f}{_UNITS[-1]}"


def _span(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h" if days else f"{hours}h {minutes}m" if hours else f"{minutes}m {left}s"
