"""How `mta queue` is called: its actions and their arguments, for `mta.cli.main`."""

from __future__ import annotations

import argparse

_FILTERS = (
    "all, id=… state=… sender=… recipient=… domain=… site=… class=… (globs; ~ for regular expressions), reply~…,"
    " attempts>3 age>1h next<10m size>1M priority>0 hold=12; joined by and, or, not and brackets; != and !~ for not"
)
_LOOKING = {
    "list": "one line a delivery",
    "show": "all about messages, by id or filter",
    "explain": "why messages are still here, and what happens next, in one sentence each; by id or filter",
    "count": "how many messages",
    "summary": "a table of how much is queued for each site, and of what age",
}
_ACTING = {
    "hold": "keep until released",
    "release": "let held mail go",
    "retry": "try now what waits for a time",
    "reroute": "send to another next hop, from now on and over restarts",
    "edit": "give other addresses; each message that changes gets a new id, and is queued anew",
    "delete": "take out of the queue, without a notice to the sender",
    "expire": "give up: return to the sender now",
    "bounce": "return to the sender, for a reason",
}


def declare(queue: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = queue.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in {**_LOOKING, **_ACTING}.items():
        action = _action(actions, common, name, text, epilog=f"filters: {_FILTERS}")
        needs_words = name not in ("list", "count", "summary")
        action.add_argument(
            "words", nargs="+" if needs_words else "*", metavar="ID" if name in ("show", "explain") else "FILTER"
        )
        if name == "list":
            action.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many lines")
        if name == "summary":
            action.add_argument("--limit", type=int, metavar="N", help="at most so many lines, 0: all")
            action.add_argument("--by", choices=("site", "domain", "sender-domain", "tenant"), default="site")
        if name in _ACTING:
            action.add_argument("--dry-run", action="store_true", help="only say how many, and show some")
            action.add_argument("--yes", action="store_true", help="do not ask, however many it is")
        if name == "reroute":
            where = "smtp:HOST[:PORT], lmtp:HOST:PORT, hold:, discard:, or rules: where the configuration says"
            action.add_argument("--to", required=True, metavar="HOP", help=where)
        if name == "edit":
            action.add_argument("--sender", metavar="ADDRESS", help="the new one; '' is the null reverse-path")
            action.add_argument(
                "--recipient", action="append", default=[], metavar="OLD=NEW", help="a recipient's new address"
            )
        if name == "bounce":
            action.add_argument("--reason", metavar="TEXT", help="what the sender reads")
    taking = "messages as lines of a file that `import` takes back"
    export = _action(actions, common, "export", taking, f"filters: {_FILTERS}")
    export.add_argument("words", nargs="+", metavar="FILTER")
    export.add_argument("-o", dest="file", default="-", metavar="FILE", help="where to; standard output")
    taken = _action(actions, common, "import", "take messages in that were exported, here or elsewhere")
    taken.add_argument("file", nargs="?", default="-", metavar="FILE", help="where from; standard input")
    undo = _action(actions, common, "undo", "take a hold back: its mail waits again for what it waited for")
    undo.add_argument("operation", type=int, metavar="OPERATION", help="the number that hold told; see log")
    undo.add_argument("--dry-run", action="store_true", help="only say how many, and show some")
    undo.add_argument("--yes", action="store_true", help="do not ask")
    log = _action(actions, common, "log", "who did what to the queue, the newest first")
    log.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many lines; 0: all")


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    name: str,
    text: str,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=text, parents=[common], epilog=epilog)
    action.add_argument("--json", action="store_true", help="for programs")
    return action
