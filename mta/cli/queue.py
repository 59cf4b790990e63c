"""`mta queue ...`: a thin client of the control socket."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from mta.cli import summary
from mta.cli.acting import act, log
from mta.cli.common import NOTHING, connect
from mta.cli.transfer import export, take
from mta.control.client import Client
from mta.control.rows import Delivery

Row = dict[str, object]
T = TypeVar("T")

_LINES = 512  # written at once
_MOMENTS = ("hold_until", "deliver_by")
_HEAD = f"{'ID':12}  {'STATE':9}  {'AGE':>6}  {'SIZE':>8}  {'ATTEMPTS':>8}  {'NEXT':>6}  SENDER -> RECIPIENTS"


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.config) as client:
        if arguments.action == "list":
            return _list(client, arguments.words or ["all"], arguments.limit, as_json=arguments.json)
        if arguments.action == "summary":
            return summary.run(client, arguments)
        if arguments.action == "explain":
            from mta.cli import explain  # late: with the history comes SQLite

            return explain.run(client, arguments)
        if arguments.action == "show":
            return _tell(client, "queue.show", arguments.words, None if arguments.json else _described)
        if arguments.action == "log":
            return log(client, arguments.limit, as_json=arguments.json)
        if arguments.action == "count":
            messages = client.count(*(arguments.words or ["all"]))
            print(json.dumps({"messages": messages}) if arguments.json else f"{messages} messages")
            return 0
        if arguments.action == "export":
            return export(client, arguments.words, arguments.file)
        if arguments.action == "import":
            return take(client, arguments.file, as_json=arguments.json)
        return act(client, arguments)


def _list(client: Client, words: Sequence[str], limit: int, *, as_json: bool) -> int:
    """Lines gather, so that a million of them take seconds."""
    write = sys.stdout.write
    if as_json:
        for raw in _gathered(client.typed_rows("queue.list", msgspec.Raw, filter=list(words), limit=limit)):
            write("".join([bytes(row).decode() + "\n" for row in raw]))
        return 0
    head = _HEAD + "\n"
    for rows in _gathered(client.list(*words, limit=limit)):
        write(head + "".join(map(_line, rows)))
        head = ""
    return 0


def _gathered(rows: Iterator[T]) -> Iterator[list[T]]:
    """A line at first, then more at once: who looks at a terminal or at `head` wants to see the first one soon."""
    size = 1
    while some := list(itertools.islice(rows, size)):
        yield some
        size = min(_LINES, 2 * size)


def _line(row: Delivery) -> str:
    recipients = row.recipients
    shown = ", ".join(recipients[:3]) + (f" and {len(recipients) - 3} more" if len(recipients) > 3 else "")
    line = (
        f"{row.id:12}  {row.state:9}  {_span(row.age):>6}  {row.size:>8}  {row.attempts:>8}"
        f"  {_until(row.next):>6}  <{row.sender}> -> {shown}\n"
    )
    return f"{line}{'':12}  {row.reason}\n" if row.reason else line


def _tell(client: Client, verb: str, words: Sequence[str], described: Callable[[Row], str] | None) -> int:
    """What the server knows of some messages; without `described` as JSON."""
    code = 0
    if not all(map(_may_be_id, words)):
        # A filter: the ids of what it chooses, each once. A bare id is the filter id=.
        chosen = [f"id={word}" if _may_be_id(word) else word for word in words]
        words = list(dict.fromkeys(str(row["id"]) for row in client.rows("queue.list", filter=chosen)))
        code = 0 if words else NOTHING
    for word in words:
        rows = list(client.rows(verb, id=word))
        if not rows:
            print(f"mta: no message {word} in the queue: it was delivered, bounced or deleted", file=sys.stderr)
            code = NOTHING
        for row in rows:
            print(json.dumps(row) if described is None else described(row))
    return code


def _may_be_id(word: str) -> bool:
    return word.isalnum() and word not in ("all", "and", "or", "not")


def _described(row: Row) -> str:
    lines = [
        f"{row['id']}  from <{row['sender']}>, {row['size']} octets, in the queue for {_span(row['age'])}",
    ]
    parts, wishes = row["parts"], row.get("wishes", {})
    assert isinstance(parts, list)
    assert isinstance(wishes, dict)
    lines += [f"  {name}: {_told(name, value)}" for name, value in wishes.items()]
    for part in parts:
        lines.append(
            f"  {part['domain']}: {part['state']}, {part['attempts']} attempts, via {part['site'] or 'no site yet'}"
        )
        if part["state"] == "ambiguous":
            lines.append(
                "    an attempt was cut short after the text was sent, so that it may have been delivered;"
                f" it is sent again in {_until(part['next'])}, or at once by `mta queue retry id={row['id']}`"
            )
        elif part["next"] is not None:
            lines.append(f"    next attempt in {_until(part['next'])}")
        if part["reason"]:
            lines.append(f"    because: {part['reason']}")
        lines += [f"    its sender was told that it is {word}" for word in part.get("told", ())]
        lines += [f"    <{r['address']}> {r['state']}{_dsn(r)}" for r in part["recipients"]]
    return "\n".join(lines)


def _told(name: str, value: object) -> str:
    """A parameter as people read it."""
    if name in _MOMENTS and isinstance(value, int | float):
        return f"{time.strftime('%Y-%m-%d %H:%M:%S %z', time.localtime(value))} (in {_until(value)})"
    return "yes" if value is True else str(value)


def _dsn(recipient: Row) -> str:
    notify, orcpt = recipient.get("notify"), recipient.get("orcpt")
    said = [f"notify {', '.join(notify)}"] if isinstance(notify, list) else []
    said += [f"orcpt {orcpt}"] if orcpt else []
    return f" ({'; '.join(said)})" if said else ""


def _span(seconds: object) -> str:
    """A duration in its largest unit, rounded: "1h" follows "59m"."""
    value = float(seconds) if isinstance(seconds, int | float) else 0.0
    for unit, size, most in (("s", 1, 60), ("m", 60, 60), ("h", 3600, 24)):
        if round(value / size) < most:
            return f"{value / size:.0f}{unit}"
    return f"{value / 86400:.0f}d"


def _until(moment: object) -> str:
    return _span(max(0.0, moment - time.time())) if isinstance(moment, int | float) else "-"
