"""`mta site ...`: the hosts that mail waits for, what they get, and what an operator makes of that."""

from __future__ import annotations

import argparse
import json

from mta.cli.common import connect
from mta.config.values import seconds
from mta.control.client import Client
from mta.control.protocol import Json

_HEAD = f"{'SITE':44}  {'STATE':8}  {'READY':>8}  {'IN HAND':>8}  {'CONNECTIONS':>11}  WHY"


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.config) as client:
        if arguments.action == "list":
            return _list(client, arguments)
        if arguments.action == "show" or (arguments.action == "limits" and not _sets(arguments)):
            return _show(client, arguments)
        return _act(client, arguments)


def declare(site: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = site.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {
        "list": "one line a site that has had mail, the longest queue first",
        "show": "all that is known of a site: its mail, its limits, and the rules that say them",
        "pause": "give nothing more to it",
        "resume": "end a pause",
        "flush": "try all its mail now, whatever was learned of it",
        "limits": "show its limits, or set them in the place of rules and learning",
        "forget": "learn its limits anew",
    }
    for name, text in texts.items():
        action = actions.add_parser(name, help=text, description=text, parents=[common])
        help = "a name, one of its hosts, SOURCE/NAME, or a pattern with * and ?"
        action.add_argument("site", nargs="?" if name == "list" else None, default="*", metavar="SITE", help=help)
        action.add_argument("--json", action="store_true", help="for programs")
        if name == "list":
            action.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many lines")
        if name == "pause":
            action.add_argument("--for", dest="span", default="0", metavar="TIME", help='"30m", "2h"; else for ever')
            action.add_argument("--reason", default="", metavar="TEXT", help="what others read")
        if name == "limits":
            action.add_argument("--connections", type=int, metavar="N", help="at once; 0: as learned")
            action.add_argument("--rate", metavar="RATE", help='"100/m", "none"; "": by the rules')


def _sets(arguments: argparse.Namespace) -> bool:
    return arguments.connections is not None or arguments.rate is not None


def _list(client: Client, arguments: argparse.Namespace) -> int:
    for number, row in enumerate(client.rows("site.list", site=arguments.site, limit=arguments.limit)):
        if arguments.json:
            print(json.dumps(row))
            continue
        if not number:
            print(_HEAD)
        print(
            f"{_name(row):44}  {row['state']:8}  {row['ready']:>8}  {row['in_hand']:>8}  {row['connections']:>11}"
            f"  {row['why']}"
        )
    return 0


def _name(row: Json) -> str:
    return f"{row['source']}/{row['site']}" if row["source"] else str(row["site"])


def _show(client: Client, arguments: argparse.Namespace) -> int:
    for row in client.rows("site.show", site=arguments.site):
        if arguments.json:
            print(json.dumps(row))
            continue
        print(_name(row))
        lines = {name: value for name, value in row.items() if name not in ("site", "source", "limits")}
        limits = row["limits"]
        assert isinstance(limits, dict)
        for name, value in {**lines, **{f"limits.{key}": value for key, value in limits.items()}}.items():
            if value not in (None, "", [], {}):
                print(f"  {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return 0


def _act(client: Client, arguments: argparse.Namespace) -> int:
    more: Json = {}
    if arguments.action == "pause":
        more = {"seconds": _whole(arguments.span), "reason": arguments.reason}
    if arguments.action == "limits":
        more = {"connections": arguments.connections or 0, "rate": arguments.rate or ""}
    answer = client.call(f"site.{arguments.action}", site=arguments.site, **more)
    print(json.dumps(answer) if arguments.json else f"{answer['sites']} sites")
    return 0


def _whole(span: str) -> int:
    """A duration in seconds, at least one unless it is 0."""
    try:
        value = seconds(int(span) if span.isdigit() else span)
    except ValueError as error:
        raise SystemExit(f"mta: --for: {error}") from None
    return max(1, round(value)) if value else 0
