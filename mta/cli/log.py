"""`mta log ...`: what became of mail, and what was refused, from the history beside a running server or without one."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator

from mta.cli.common import CONFIG, NOTHING, USAGE, fail, settings
from mta.config.settings import Settings
from mta.history.archive import folder_of
from mta.history.find import Finder, Row
from mta.history.story import moment


def run(arguments: argparse.Namespace) -> int:
    words = arguments.words or ["all"]
    with open_history(settings(arguments.config)) as finder:
        look, line = (finder.endings, ending_text) if arguments.action == "find" else (finder.refusals, refusal_text)
        try:
            return _print(look(words, arguments.limit), json.dumps if arguments.json else line)
        except ValueError as error:
            fail(USAGE, f"mta: {error}")


def history(config: Settings, *about: str) -> Finder | None:
    """The history, if there is one. `about`: ids, where only these are of interest."""
    return open_history(config, *about) if config.history.keep and config.log.path is not None else None


def open_history(config: Settings, *about: str) -> Finder:
    """The history, or the end with the reason why there is none."""
    if not config.history.keep:
        fail(CONFIG, "mta: there is no history: [history] keep is 0")
    if config.log.path is None:
        fail(
            CONFIG,
            "mta: there is no history: it is made from the mail log, which goes to standard error; set [log] path",
        )
    return Finder(
        folder_of(config.server.state_dir),
        config.log.path,
        config.history.keep,
        time.time(),
        lambda text: print(f"mta: {text}", file=sys.stderr),
        only=about,
    )


def _print(rows: Iterator[Row], line: Callable[[Row], str]) -> int:
    code = NOTHING
    for row in rows:
        print(line(row))
        code = 0
    return code


def ending_text(row: Row) -> str:
    attempts = "1 attempt" if row["attempts"] == 1 else f"{row['attempts']} attempts"
    via = f" via {row['site']}" if row["site"] else ""
    blamed = f" ({row['class']})" if row["class"] else ""
    return (
        f"{moment(row['at'])}  {row['id']}  {row['state']}{via}, {attempts}  <{_known(row['sender'])}> ->"
        f" <{_known(row['recipient'])}>\n{'':21}{row['reply']}{blamed}"
    )


def refusal_text(row: Row) -> str:
    sender = f" from <{row['sender']}>" if row["sender"] is not None else ""
    recipient = f" to <{row['recipient']}>" if row["recipient"] is not None else ""
    helo = f" ({row['helo']})" if row["helo"] else ""
    return (
        f"{moment(row['at'])}  {row['session']}  {row['verb'] or 'refused'} of {row['client']}{helo}{sender}{recipient}"
        f"\n{'':21}{row['reply']}"
    )


def _known(address: object) -> str:
    return "?" if address is None else str(address)
