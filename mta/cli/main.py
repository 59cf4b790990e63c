"""The `mta` command: words to verbs. Each family of verbs is a module, loaded when it is used."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from mta.cli import queue_words, site
from mta.cli.common import UNAVAILABLE, USAGE


def main(words: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = _parser()
    arguments, more = parser.parse_known_args(words)
    if more:
        # Filter words may stand on both sides of an option; argparse takes only the first group of them.
        if arguments.module not in ("queue", "log", "trace") or any(word.startswith("-") for word in more):
            parser.error(f"unrecognized arguments: {' '.join(more)}")
        arguments.words += more
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has seen enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: argparse.Namespace) -> int:
    from mta.control.client import NoServer, Refused

    module = importlib.import_module(f"mta.cli.{arguments.module}")
    try:
        code: int = module.run(arguments)
        sys.stdout.flush()
    except NoServer as error:
        print(f"mta: {error}", file=sys.stderr)
        return UNAVAILABLE
    except Refused as error:
        print(f"mta: {error}", file=sys.stderr)
        return USAGE if error.code == "usage" else UNAVAILABLE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mta", description="A mail server, and what operates it.")
    parser.set_defaults(config=None)
    # The same option on every level; without a default of its own, a level where it is not given changes nothing.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for level in (parser, common):
        level.add_argument("-c", dest="config", default=argparse.SUPPRESS, metavar="FILE", help="the configuration")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _verb(verbs, common, "serve", "run the server in the foreground")
    _verb(verbs, common, "check", "say what is wrong with the configuration and its surroundings")
    status = _verb(verbs, common, "status", "what the server does")
    status.add_argument("--json", action="store_true", help="for programs")
    _top_parser(_verb(verbs, common, "top", "rates, queue, sites, processes and failures, live"))
    _trace_parser(_verb(verbs, common, "trace", "what was said in SMTP sessions that went wrong"))
    _send_parser(_verb(verbs, common, "send", "send one message, read from standard input"))
    queue_words.declare(_verb(verbs, common, "queue", "look at the queue and change it"), common)
    site.declare(_verb(verbs, common, "site", "the hosts that mail waits for, and what they get"), common)
    _log_parser(_verb(verbs, common, "log", "what became of mail that is no longer queued"), common)
    _suppress_parser(_verb(verbs, common, "suppress", "the addresses that are not written to"), common)
    _spool_parser(_verb(verbs, common, "spool", "look at the queue's files"), common)
    _user_parser(_verb(verbs, common, "user", "who may log in: the users file"), common)
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    name: str,
    text: str,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text, parents=[common])
    verb.set_defaults(module=name)
    return verb


def _top_parser(top: argparse.ArgumentParser) -> None:
    top.add_argument("--once", action="store_true", help="one picture, of one interval")
    top.add_argument("--json", action="store_true", help="for programs: one object a line")
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="default: %(default)s")
    top.add_argument(
        "--sites", type=int, default=10, metavar="N", help="lines in a table of sites; default: %(default)s"
    )


def _trace_parser(trace: argparse.ArgumentParser) -> None:
    trace.add_argument(
        "words", nargs="*", metavar="FILTER", help="site=… client=… id=… host=… why=… side=in|out; last, last=N"
    )
    trace.add_argument("--follow", action="store_true", help="go on with those that come")
    trace.add_argument("--json", action="store_true", help="for programs: one object a line")


def _send_parser(send: argparse.ArgumentParser) -> None:
    send.add_argument("-f", dest="sender", required=True, metavar="ADDRESS", help="envelope sender; '' is the null one")
    send.add_argument(
        "-t", dest="recipients", required=True, action="append", metavar="ADDRESS", help="may be repeated"
    )
    send.add_argument("--server", default="127.0.0.1:25", metavar="HOST:PORT", help="default: %(default)s")


def _suppress_parser(suppress: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = suppress.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {
        "list": "one line an entry; a pattern chooses addresses: '*@example.net'",
        "add": "put addresses on the list; '-' reads them from standard input, '@DOMAIN' is all of a domain",
        "remove": "take addresses off; '-' reads them from standard input",
        "check": "whether an address is on it, for the tenant or for everybody; exit code 1 if not",
        "export": "all entries as CSV",
    }
    for name, text in texts.items():
        action = actions.add_parser(name, help=text, description=text, parents=[common])
        action.add_argument(
            "--tenant", metavar="NAME", help="whose list; '*' is everybody's (default: nobody's, or all)"
        )
        if name == "list":
            action.add_argument("pattern", nargs="?", default="", metavar="PATTERN")
        if name in ("add", "remove"):
            action.add_argument("addresses", nargs="+", metavar="ADDRESS")
        if name == "check":
            action.add_argument("address", metavar="ADDRESS")
        if name in ("list", "check"):
            action.add_argument("--json", action="store_true", help="for programs")
        if name == "add":
            action.add_argument("--reason", metavar="TEXT", help="why; senders are told")
            action.add_argument("--for", dest="keep", metavar="DURATION", help="30d, for instance; default: for ever")


def _spool_parser(spool: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = spool.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {"check": "verify every record, beside a running server or without", "stats": "what the server writes"}
    for name, text in texts.items():
        action = actions.add_parser(name, help=text, description=text, parents=[common])
        action.add_argument("--json", action="store_true", help="for programs")
        if name == "check":
            action.add_argument(
                "--repair", action="store_true", help="put in order what can be; the server must not run"
            )


def _user_parser(user: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = user.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {
        "add": "add a user; the password is asked for, or read from standard input",
        "passwd": "change a password",
        "alias": "change the addresses that a user may send as besides his name",
        "certificate": "change the client certificates that a user may log in with",
        "delete": "take a user out",
        "list": "one line a user",
    }
    for name, text in texts.items():
        action = actions.add_parser(name, help=text, description=text, parents=[common])
        if name == "list":
            action.add_argument("--json", action="store_true", help="for programs")
            continue
        action.add_argument("name", metavar="NAME", help="mostly the user's address")
        if name in ("add", "passwd"):
            action.add_argument("--password-file", metavar="FILE", help="its first line is the password")
        if name == "add":
            action.add_argument(
                "--alias", action="append", default=[], metavar="ADDRESS", help="or @DOMAIN; repeatable"
            )
        if name in ("alias", "certificate"):
            what = ("ADDRESS", "or @DOMAIN") if name == "alias" else ("FILE", "in PEM, or the certificate's SHA-256")
            for option in ("add", "remove"):
                action.add_argument(
                    f"--{option}", action="append", default=[], metavar=what[0], help=f"{what[1]}; repeatable"
                )


def _log_parser(log: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = log.add_subparsers(dest="action", required=True, metavar="ACTION")
    times = "age>1h, time>2026-11-27T09:30"
    texts = {
        "find": (
            "what became of mail, newest first, a recipient at a time",
            "all, id=… state=delivered|bounced|expired|deleted, sender=… recipient=… domain=… site=… client=… class=…"
            f" (globs), reply~… (regular expression), attempts>3 size>1M {times} (since it ended)",
        ),
        "refused": (
            "commands of clients that were refused, newest first",
            "all, session=… client=… helo=… verb=… sender=… recipient=… domain=… class=… (globs), reply~… (regular"
            f" expression), {times}",
        ),
    }
    for name, (text, filters) in texts.items():
        epilog = f"filters: {filters}; joined by and, or, not and brackets; != and !~ for the opposite"
        action = actions.add_parser(name, help=text, description=text, parents=[common], epilog=epilog)
        action.add_argument("words", nargs="*", metavar="FILTER")
        action.add_argument("--json", action="store_true", help="for programs")
        action.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many")


if __name__ == "__main__":
    sys.exit(main())
