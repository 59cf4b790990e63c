"""`mta trace ...`: what was said in sessions that went wrong, as a conversation or, for programs, as JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
import time

from mta.cli.common import NOTHING, USAGE, connect, fail

Row = dict[str, object]

_SIGNS = {"client": "C:", "server": "S:"}


def run(arguments: argparse.Namespace) -> int:
    words, limit = _asked(arguments.words)
    brief = not arguments.words and not arguments.follow
    found = 0
    with connect(arguments.config) as client:
        for row in client.rows("trace", filter=words, limit=limit, follow=arguments.follow):
            if arguments.json:
                print(json.dumps(row), flush=arguments.follow)
            elif brief:
                print(_brief(row))
            else:
                print(("\n" if found else "") + "\n".join(_lines(row)), flush=arguments.follow)
            found += 1
    if not found:
        print("mta: no transcript of such a session is kept", file=sys.stderr)
    return 0 if found else NOTHING


def _asked(words: list[str]) -> tuple[list[str], int]:
    """The filter, and how many of the newest: `last` is one, `last=3` three, else all."""
    limit = 0
    filter_words = []
    for word in words:
        name, _, value = word.partition("=")
        if name != "last":
            filter_words.append(word)
        elif value and not (value.isascii() and value.isdigit() and int(value)):
            fail(USAGE, f"mta: last={value}: how many of the newest? A number, or `last` alone for one")
        else:
            limit = int(value or 1)
    return filter_words, limit


def _brief(row: Row) -> str:
    """One line; the newest transcript is the last."""
    way = "->" if row["side"] == "out" else "<-"
    messages = row["messages"]
    assert isinstance(messages, list)
    about = " ".join(map(str, messages[-3:]))
    return f"{_moment(row['kept'])}  {row['session']:14} {row['why']:11} {way} {row['peer']}  {about}".rstrip()


def _lines(row: Row) -> list[str]:
    messages, lines = row["messages"], row["lines"]
    assert isinstance(messages, list)
    assert isinstance(lines, list)
    what = (
        f"with {row['host']} for site {row['peer']}" if row["side"] == "out" else f"from {row['peer']} at {row['host']}"
    )
    shown = [f"{row['session']}  {row['why']}, {what}, began {_moment(row['began'])}"]
    if messages:
        shown.append(f"  messages: {' '.join(map(str, messages))}")
    for line in lines:
        shown += _line(line, row)
    if row["lost"]:
        shown.append(f"  {'':9} ... {row['lost']} more lines, for which there was no room")
    return [*shown, f"  {'':9} -- {row['ended']}"]


def _line(line: Row, row: Row) -> list[str]:
    if "gap" in line:
        return [f"  {'':9} ... {line['gap']} lines are not kept"]
    at = line["at"]
    head = f"  {at:9.3f}" if isinstance(at, float | int) else ""
    if line.get("event") == "tls":
        told = " ".join(str(word) for word in (row["tls"], row["certificate"] and f"({row['certificate']})") if word)
        return [f"{head} -- TLS: {told or 'no more is known of it'}"]
    if line.get("event") == "text":
        return [f"{head} {_SIGNS['client']} [a text of {line['octets']} octets]"]
    sign, hidden = _SIGNS[str(line["who"])], line["hidden"]
    first, *more = str(line["text"]).split("\n")
    if hidden:
        what = f"[{hidden} octets not kept]"
        last = more or [first]
        last[-1] = f"{last[-1]} {what}".strip()
        first = first if more else last[0]
    return [f"{head} {sign} {first}", *(f"  {'':9} {sign} {each}" for each in more)]


def _moment(seconds: object) -> str:
    """In local time, to the millisecond."""
    value = float(seconds) if isinstance(seconds, int | float) else 0.0
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) + f".{int(value * 1000) % 1000:03d}"
