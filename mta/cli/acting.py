"""The verbs of `mta queue` that change messages, and the log of who did what.

Invariant: nothing that destroys, returns or keeps mail touches more than `_ASK_ABOVE` messages unless somebody said so:
the server counts and refuses (`most`), a person is asked, and a script has to say `--yes`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import msgspec

from mta.cli.common import NOTHING, USAGE, fail
from mta.control.client import Client, Refused
from mta.control.rows import Delivery, Done, Operation

_ASK_ABOVE = 100
_ASKED = frozenset({"edit", "delete", "expire", "bounce", "hold", "reroute"})
_ARGUMENTS = {"bounce": ("reason",), "reroute": ("to",), "undo": ("operation",)}
_LOG = f"{'NO':>6}  {'WHEN':19}  {'WHO':12}  {'VERB':8}  {'MESSAGES':>8}  FILTER"


def act(client: Client, arguments: argparse.Namespace) -> int:
    """Carry a verb out, or say what it would do."""
    verb = arguments.action
    names = _ARGUMENTS.get(verb, ())
    more = _edit(arguments) if verb == "edit" else {n: v for n in names if (v := getattr(arguments, n, None))}
    words = tuple(getattr(arguments, "words", ()))
    most = _ASK_ABOVE if verb in _ASKED and not arguments.yes else 0
    try:
        done = client.act(verb, *words, dry_run=arguments.dry_run, most=most, **more)
    except Refused as refused:
        if refused.code != "many":
            raise
        if not sys.stdin.isatty():
            print(f"mta: {refused}: add --yes (or look first, with --dry-run)", file=sys.stderr)
            return USAGE
        if not _agrees(f"{verb}: {refused} [y/N] "):
            return NOTHING
        done = client.act(verb, *words, **more)
    _say(done, verb, dry_run=arguments.dry_run, as_json=arguments.json)
    return 0


def _edit(arguments: argparse.Namespace) -> dict[str, Any]:
    pairs = [pair.partition("=") for pair in arguments.recipient]
    if wrong := [old for old, sign, new in pairs if not (old and sign and new)]:
        fail(USAGE, f"mta: --recipient {wrong[0]}: write OLD=NEW")
    more: dict[str, Any] = {"recipients": {old: new for old, _, new in pairs}}
    return more if arguments.sender is None else {**more, "sender": arguments.sender}


def _say(done: Done, verb: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(done).decode())
        return
    if dry_run:
        print(f"{verb} would concern {_messages(done.messages)}" + (", such as" if done.sample else ""))
        for delivery in done.sample:
            print(f"  {_short(delivery)}")
        return
    print(_messages(done.messages))
    if verb == "hold" and done.operation:  # aside: scripts read the number of messages
        print(f"to take it back: mta queue undo {done.operation}", file=sys.stderr)


def _messages(count: int) -> str:
    return f"{count} messages"


def _short(delivery: Delivery) -> str:
    more = f" and {len(delivery.recipients) - 1} more" if len(delivery.recipients) > 1 else ""
    to = (delivery.recipients or (delivery.domain,))[0]
    return f"{delivery.id}  {delivery.state:9}  <{delivery.sender}> -> {to}{more}"


def _agrees(question: str) -> bool:
    print(question, end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def log(client: Client, limit: int, *, as_json: bool) -> int:
    """Who did what, the newest first."""
    for number, operation in enumerate(client.log(limit)):
        if as_json:
            print(msgspec.json.encode(operation).decode())
            continue
        if not number:
            print(_LOG)
        print(_operation(operation))
    return 0


def _operation(done: Operation) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(done.began))
    told = [f"{name}={json.dumps(value)}" for name, value in done.arguments.items()]
    told += [f"({done.result or 'it was cut short, or is under way'})"] if done.result != "done" else []
    what = " ".join([done.filter, *told])
    return f"{done.number:>6}  {when}  {done.user:12}  {done.verb:8}  {done.messages:>8}  {what}"
