"""What notices say to people: the words of one language, from a file or the English ones built in.

A file is TOML, `LANGUAGE.toml`, with all keys of `Wording`; what stands in braces is put in when a notice is made.
`problems` says which braces are wrong, so that a mistake is found at the start and not in the first bounce.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mta.config.failures import Notices

SHIPPED: Final = Path(__file__).with_name("notices")
ENGLISH_NAME: Final = "en"


def _words(*holds: str) -> Any:
    """A text, and what may stand in braces in it."""
    return field(metadata={"holds": holds})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is said of the recipients with one fate."""

    subject: str = _words("hostname")  # where they are all there are
    text: str = _words("hostname")  # before the addresses
    then: str = field(default="", metadata={"holds": ("hostname", "until")})  # what comes next; {until}: delayed ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """All texts of a language."""

    server: str = _words("hostname")  # the first line
    said: str = _words("host")  # before the words of another host
    reason: str = _words()  # before a finding of this server
    more: str = _words("count")  # in place of recipients beyond the first hundred
    whole: str = _words()  # the last line, where the message is attached
    headers: str = _words()  # and where its headers are
    failed: Kind
    delayed: Kind
    delivered: Kind
    relayed: Kind
    double: Kind  # to the postmaster: what has no sender who could be told


ENGLISH: Final = Wording(
    server="This is the mail server {hostname}.",
    said="{host} said",
    reason="the reason",
    more="and {count} more recipients, who are in the attached report.",
    whole="Your message is attached.",
    headers="The headers of your message are attached.",
    failed=Kind(
        subject="Your message could not be delivered",
        text="Your message could not be delivered to:",
        then="It will not be tried again.",
    ),
    delayed=Kind(
        subject="Your message is delayed",
        text="Your message is not delivered yet to:",
        then="It will be tried again until {until}. You need not send it again.",
    ),
    delivered=Kind(subject="Your message was delivered", text="Your message was delivered to:"),
    relayed=Kind(
        subject="Your message was handed on",
        text="Your message was handed on to another mail server, which may not tell you when it is delivered, for:",
    ),
    double=Kind(
        subject="A notice could not be delivered",
        text="A message without a sender, such as a notice, could not be delivered to:",
        then="Nobody else is told.",
    ),
)


def problems(wording: Wording) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, what is wrong) of each text."""
    for name in (f.name for f in fields(Wording)):
        value = getattr(wording, name)
        if isinstance(value, Kind):
            for inner in fields(Kind):
                yield from _text_problems((name, inner.name), getattr(value, inner.name), inner.metadata["holds"])
        else:
            declared = next(f for f in fields(Wording) if f.name == name)
            yield from _text_problems((name,), value, declared.metadata["holds"])


def notices_problems(notices: Notices) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of [notices]."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", notices.language):
        yield "language", f'{notices.language!r} is no language; write "en", "de", "pt-BR"'
    if notices.templates is not None and not notices.templates.is_dir():
        yield "templates", f"{notices.templates} is no folder"
    if notices.postmaster and not re.fullmatch(r"[!-?A-~]{1,64}@[!-?A-~]{1,255}", notices.postmaster):
        yield "postmaster", f"{notices.postmaster!r} is no address"
    if notices.double_bounces and not notices.postmaster:
        yield "double_bounces", "means nothing without `postmaster`"


def _text_problems(key: tuple[str, ...], text: str, holds: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if key == ("delayed", "then"):
        allowed: tuple[str, ...] = holds
    else:
        allowed = tuple(name for name in holds if name != "until")
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        yield key, f"{error}; a brace of its own is written twice"
        return
    for _, name, form, conversion in parsed:
        if name is not None and (name not in allowed or form or conversion):
            known = ", ".join(f"{{{n}}}" for n in allowed) or "nothing"
            yield key, f"{{{name}}} is not known here; {known} may stand in braces"
    if any(not (c.isprintable() or c == "\n") for c in text):
        yield key, "has characters that are not printable"
    if key[-1] == "subject" and ("\n" in text or not text):
        yield key, "must be one line"
