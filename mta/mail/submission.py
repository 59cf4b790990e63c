"""What a submission server does to a text (RFC 6409 §8), and whom its From names (RFC 5322 §3.6.2).

The header is read generously: a field counts wherever it stands before the first empty line, in any case, with blanks
before its colon, behind lines that are no fields. Some reader further on will see it so, and what a reader sees as the
author must have been looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_HIDDEN = (b"bcc", b"resent-bcc")  # RFC 5322 §3.6.3: recipients must not learn of each other
_TOKEN = re.compile(
    r'(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<special>[()<>,;:])|(?P<blank>\s+)|(?P<text>[^"()<>,;:\s]+)', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field, from `start` up to `end`, its CRLF included; `name` in lower case."""

    name: bytes
    start: int
    value: int
    end: int


def header_end(text: bytes) -> int:
    """Where the empty line begins that ends the header; -1 when there is none."""
    if text.startswith(b"\r\n"):
        return 0
    found = text.find(b"\r\n\r\n")
    return found + 2 if found >= 0 else -1


def fields(text: bytes, end: int) -> Iterator[Field]:
    """The fields of text[:end], with their continuation lines."""
    at = 0
    while at < end:
        behind = _line_end(text, at, end)
        while behind < end and text[behind : behind + 1] in (b" ", b"\t"):
            behind = _line_end(text, behind, end)
        match = _FIELD.match(text, at, behind)
        if match is not None:
            yield Field(match[1].lower(), at, match.end(), behind)
        at = behind


def completed(text: bytes, date: bytes, message_id: bytes) -> bytes:
    """The text with a Date and a Message-ID where they were missing, and without Bcc."""
    end = header_end(text)
    found = list(fields(text, len(text) if end < 0 else end))
    names = {field.name for field in found}
    headless = end != 0 and (not found or found[0].start > 0)  # begins with no field: that was a body alone
    if headless and not {b"date", b"message-id"} <= names:
        names.clear()
    added = b"" if b"date" in names else b"Date: " + date + b"\r\n"
    if b"message-id" not in names:
        added += b"Message-ID: " + message_id + b"\r\n"
    parts, at = [added], 0
    if added and headless:
        parts.append(b"\r\n")
    for field in found:
        if field.name in _HIDDEN:
            parts.append(text[at : field.start])
            at = field.end
    return b"".join([*parts, text[at:]])


def authors(text: bytes) -> list[str] | None:
    """The addresses in all From fields; None when one of them cannot be understood."""
    end = header_end(text)
    found: list[str] = []
    for field in fields(text, len(text) if end < 0 else end):
        if field.name == b"from":
            addresses = read_addresses(text[field.value : field.end].decode("utf-8", "surrogateescape"))
            if not addresses:
                return None
            found += addresses
    return found


def read_addresses(value: str) -> list[str] | None:
    """The addresses of a list (RFC 5322 §3.4), groups and routes included; None when it is malformed."""
    found: list[str] = []
    outside = inside = ""
    state, depth, at = "outside", 0, 0
    value = re.sub(r"\\[()]", "", value)  # escaped brackets can only stand in comments and quoted strings
    for token in _TOKEN.finditer(value):
        if token.start() != at:
            return None  # a quotation mark without its fellow
        at = token.end()
        special = token["special"] or ""
        if depth and token["quoted"]:
            return None  # readers differ on where such a comment ends, and so on whom they show
        if special == "(" or depth:
            depth += (special == "(") - (special == ")")
        elif special == "<" and state == "outside":
            state, inside = "inside", ""
        elif special == ">" and state == "inside":
            state = "behind"
            found.append(inside)
        elif state == "inside":
            inside = "" if special == ":" else inside + (token["quoted"] or token["text"] or special)
        elif special in (",", ";", ":") and special:
            if state == "outside" and outside and special != ":":
                found.append(outside)
            state, outside = "outside", ""
        elif special:
            return None
        elif not token["blank"]:
            if state == "behind":
                return None
            outside += token[0]
    if at != len(value) or depth or state == "inside":
        return None
    if state == "outside" and outside:
        found.append(outside)
    return found if all(found) else None


def _line_end(text: bytes, at: int, end: int) -> int:
    found = text.find(b"\r\n", at, end)
    return found + 2 if found >= 0 else end
