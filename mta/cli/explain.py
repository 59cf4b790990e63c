"""`mta queue explain`: why mail is where it is, and what became of what is not there any more.

    ID                 of a message, queued or gone: a sentence for each of its parts, then all that has a say in it
    S...               of a session, from the reply to a refused command: what was refused, and why
    ADDRESS            all mail for it that is queued, gone or was refused, newest first, a sentence each
    FILTER             a sentence for each queued message

The tree stands under the sentence where one message is asked for, not under each of many.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence

from mta.cli.common import NOTHING, settings
from mta.cli.log import history
from mta.control.client import Client
from mta.history import story
from mta.history.find import Finder

Row = dict[str, object]
Branches = list[tuple[str, str]]

_ID = re.compile("[0-9A-Z]{12}", re.IGNORECASE)
_SESSION = re.compile("S[0-9A-Z]{12}", re.IGNORECASE)
_MOST = 20  # of each kind, for an address


def run(client: Client, arguments: argparse.Namespace) -> int:
    words: list[str] = [word.upper() if _ID.fullmatch(word) else word for word in arguments.words]
    config = settings(arguments.config)
    one = words[0] if len(words) == 1 else ""
    if _SESSION.fullmatch(one):
        rows = _session(one.upper(), history(config, one.upper()))
    elif _is_address(one):
        rows = _address(client, one, history(config))
    elif all(map(_ID.fullmatch, words)):
        rows = (row for word in words for row in _message(client, word, history(config, word)))
    else:
        rows = _chosen(client, words)
    return _print(rows, as_json=arguments.json, trees=bool(_ID.fullmatch(one)))


def _is_address(word: str) -> bool:
    return "@" in word and not re.search(r"^[a-z]+[=!~<>]|[*?\s()]", word)


# ---- what there is to tell: rows with `id`, `parts` with a sentence (`why`) and a tree, and "kind"


def _message(client: Client, name: str, finder: Finder | None) -> Iterator[Row]:
    if finder is None:
        yield from client.rows("queue.explain", id=name)
        return
    with finder:
        queued = list(client.rows("queue.explain", id=name))
        gone = list(finder.endings([f"id={name}"]))
        steps = finder.steps(name)
        for row in queued:
            yield {**row, "history": story.timeline(steps)}
        if gone:
            yield _gone(name, gone, [] if queued else steps)


def _gone(name: str, rows: Sequence[Row], steps: Sequence[Row] | None) -> Row:
    parts = [{"state": row["state"], "why": story.sentence(row), "at": row["at"]} for row in rows]
    return {"id": name, "parts": parts, "history": story.tree(rows, steps) if steps is not None else []}


def _session(name: str, finder: Finder | None) -> Iterator[Row]:
    if finder is not None:
        with finder:
            for row in finder.refusals([f"session={name}"]):
                yield _refused(row)


def _refused(row: Row) -> Row:
    parts = [{"state": "refused", "why": story.refusal(row), "at": row["at"]}]
    return {"id": row["session"], "parts": parts, "history": []}


def _address(client: Client, address: str, finder: Finder | None) -> Iterator[Row]:
    """Queued mail is shown first: it is what somebody can do something about."""
    chosen = f'recipient="{address}"'
    queued = sorted({str(row["id"]) for row in client.rows("queue.list", filter=[chosen])}, reverse=True)
    for name in queued[:_MOST]:
        yield from client.rows("queue.explain", id=name)
    if len(queued) > _MOST:
        print(f"mta: {len(queued) - _MOST} more are queued: mta queue list '{chosen}'", file=sys.stderr)
    if finder is None:
        return
    with finder:
        past = [_gone(str(row["id"]), [row], None) for row in finder.endings([chosen], _MOST)]
        past += [_refused(row) for row in finder.refusals([chosen], _MOST)]
    yield from sorted(past, key=_when, reverse=True)


def _when(row: Row) -> float:
    parts = row["parts"]
    assert isinstance(parts, list)
    return float(parts[0]["at"])


def _chosen(client: Client, words: Sequence[str]) -> Iterator[Row]:
    filter = [f"id={word}" if _ID.fullmatch(word) else word for word in words]
    for name in dict.fromkeys(str(row["id"]) for row in client.rows("queue.list", filter=filter)):
        yield from client.rows("queue.explain", id=name)


# ---- on paper


def _print(rows: Iterator[Row], *, as_json: bool, trees: bool) -> int:
    code = NOTHING
    for row in rows:
        code = 0
        print(json.dumps(row) if as_json else explained(row, trees=trees))
    if code:
        print("mta: nothing is known of that: it is not in the queue, nor in the history", file=sys.stderr)
    return code


def explained(row: Row, *, trees: bool) -> str:
    """A sentence for each part, each with its tree, if that is wanted, below, and what happened before to all of it."""
    parts, past = row["parts"], row.get("history", ())
    assert isinstance(parts, list)
    assert isinstance(past, Sequence)
    before = [(label, text) for label, text in past] if trees else []
    many = len(parts) > 1
    lines = [str(row["id"])] if many else []
    for part in parts:
        domain = f"{part['domain']}: " if "domain" in part else ""
        lines.append(f"  {domain}{part['why']}" if many else f"{row['id']}  {part['why']}")
        branches = [(str(one["label"]), str(one["text"])) for one in part.get("tree", ())] if trees else []
        lines += drawn(branches if many else branches + before)
    return "\n".join(lines + (drawn(before) if many else []))


def drawn(branches: Branches) -> list[str]:
    """As a tree."""
    width = max((len(label) for label, _ in branches), default=0)
    last = len(branches) - 1
    return [f"  {'└─' if n == last else '├─'} {label:{width}}  {text}" for n, (label, text) in enumerate(branches)]
