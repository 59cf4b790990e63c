"""`mta suppress ...`: the addresses that are not written to."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence

from mta.cli.common import NOTHING, USAGE, connect, fail
from mta.config import values
from mta.control.client import Client

Row = dict[str, object]
_COLUMNS = ("address", "tenant", "reason", "reply", "added", "expires")


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.config) as client:
        return _ACTIONS[arguments.action](client, arguments)


def _list(client: Client, arguments: argparse.Namespace) -> int:
    count = 0
    for row in _rows(client, arguments):
        count += 1
        print(json.dumps(row) if arguments.json else _line(row))
    return 0 if count or arguments.json else NOTHING


def _export(client: Client, arguments: argparse.Namespace) -> int:
    """CSV, with times as people and programs read them."""
    writer = csv.writer(sys.stdout)
    writer.writerow(_COLUMNS)
    for row in _rows(client, arguments):
        writer.writerow([_moment(row[name]) if name in ("added", "expires") else row[name] for name in _COLUMNS])
    return 0


def _check(client: Client, arguments: argparse.Namespace) -> int:
    """Exit code 0 for an address that is on the list, 1 for one that is not."""
    rows = list(client.rows("suppress.check", address=arguments.address, tenant=arguments.tenant or ""))
    for row in rows:
        print(json.dumps(row) if arguments.json else _line(row))
    if not rows and not arguments.json:
        print(f"{arguments.address} is not on the list")
    return 0 if rows else NOTHING


def _add(client: Client, arguments: argparse.Namespace) -> int:
    try:
        keep = values.seconds(arguments.keep) if arguments.keep else 0.0
    except ValueError as error:
        fail(USAGE, f"mta: --for: {error}")
    count = 0
    for address in _addresses(arguments.addresses):
        client.call(
            "suppress.add", address=address, tenant=arguments.tenant or "", reason=arguments.reason or "", keep=keep
        )
        count += 1
    print(f"{count} addresses")
    return 0


def _remove(client: Client, arguments: argparse.Namespace) -> int:
    count = 0
    for address in _addresses(arguments.addresses):
        found = client.call("suppress.remove", address=address, tenant=arguments.tenant or "")["entries"]
        assert isinstance(found, int)
        if not found:
            print(f"mta: {address} is not on the list", file=sys.stderr)
        count += found
    print(f"{count} addresses")
    return 0 if count else NOTHING


_ACTIONS = {"list": _list, "export": _export, "check": _check, "add": _add, "remove": _remove}


def _rows(client: Client, arguments: argparse.Namespace) -> Iterator[Row]:
    whose = {} if arguments.tenant is None else {"tenant": arguments.tenant}
    return client.rows("suppress.list", pattern=getattr(arguments, "pattern", ""), **whose)


def _addresses(words: Sequence[str]) -> Iterator[str]:
    """Those named, and for "-" a line each of standard input."""
    for word in words:
        if word == "-":
            yield from (line for line in map(str.strip, sys.stdin) if line)
        else:
            yield word


def _line(row: Row) -> str:
    until = f"until {_moment(row['expires'])}" if row["expires"] else "for ever"
    whose = f" (tenant {row['tenant']})" if row["tenant"] else ""
    said = f": {row['reply']}" if row["reply"] else ""
    return f"{row['address']}{whose}  {row['reason']}, since {_moment(row['added'])}, {until}{said}"


def _moment(seconds: object) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if isinstance(seconds, int | float) else ""
