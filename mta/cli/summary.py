"""`mta queue summary`: how old what is queued is, by site or by what else it has in common, as a table."""

from __future__ import annotations

import argparse
import json

import msgspec

from mta.control.client import Client

_SHOWN = 25  # lines, where a person reads them and has not said how many


def run(client: Client, arguments: argparse.Namespace) -> int:
    limit = arguments.limit if arguments.limit is not None else 0 if arguments.json else _SHOWN
    words = arguments.words or ["all"]
    lines, end = client.answer("queue.summary", filter=words, by=arguments.by, limit=limit)
    if arguments.json:
        print(json.dumps({**end, "table": lines}))
        return 0
    for row in table(msgspec.convert(lines, list[Line]), msgspec.convert(end, End)):
        print(row)
    return 0


class Line(msgspec.Struct):
    """A line of the table, as it comes from the server."""

    name: str
    total: int
    ages: list[int]


class End(msgspec.Struct):
    """What is said of the whole."""

    ages: list[int]
    lines: int
    totals: list[int]


def table(lines: list[Line], end: End) -> list[str]:
    """Rows of text: a head, the sum, a line each, and what was left out."""
    totals = end.totals or [0] * (len(end.ages) + 1)
    heads = ["", "TOTAL", *(f"<{_span(age)}" for age in end.ages), "older"]
    cells = [["all", str(sum(totals)), *map(str, totals)]]
    cells += [[line.name, str(line.total), *map(str, line.ages)] for line in lines]
    widths = [max(len(row[column]) for row in (heads, *cells)) for column in range(len(heads))]
    rows = ["  ".join(map(str.rjust, (row[0].ljust(widths[0]), *row[1:]), widths)) for row in (heads, *cells)]
    if end.lines > len(lines):
        rows.append(f"and {end.lines - len(lines)} more; --limit 0 shows all")
    return rows


def _span(seconds: int) -> str:
    """As short as it can be said exactly."""
    unit, size = next((u, s) for u, s in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if seconds % s == 0)
    return f"{seconds // size}{unit}"
