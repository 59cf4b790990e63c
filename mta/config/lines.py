"""Where a key stands in a TOML file: tomllib reads values and forgets their lines.

A small scanner, not a parser: it runs over text that tomllib has accepted (or refused, then nobody asks it), follows
tables, arrays of tables, dotted and quoted keys, and skips over strings and arrays of several lines.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEYS = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE = re.compile(rf"\s*(\[\[?)\s*({_KEYS})\s*\]")
_KEY = re.compile(rf"\s*({_KEYS})\s*=(.*)$")


class Lines:
    """Line numbers (from 1) by path: ("listener", 0, "address")."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        self._read(text.split("\n"))

    def of(self, path: Path) -> int:
        """The line of a key, or of the nearest table around it; 1 where neither is written out."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 1

    def _read(self, lines: list[str]) -> None:
        table: Path = ()
        number = 0
        while number < len(lines):
            line = lines[number]
            here = number + 1
            header = _TABLE.match(line)
            if header:
                table = self._enter(_split(header[2]), array=header[1] == "[[")
                for depth in range(1, len(table) + 1):
                    self._lines.setdefault(table[:depth], here)
            elif key := _KEY.match(line):
                path = table + _split(key[1])
                for depth in range(len(table) + 1, len(path) + 1):
                    self._lines.setdefault(path[:depth], here)
                number = _end_of_value(lines, number, key[2])
            number += 1

    def _enter(self, names: tuple[str, ...], *, array: bool) -> Path:
        path: Path = ()
        for name in names[:-1]:
            path += (name,)
            if path in self._counts:
                path += (self._counts[path],)
        path += (names[-1],)
        if array:
            self._counts[path] = self._counts.get(path, -1) + 1
            path += (self._counts[path],)
        return path


def _split(keys: str) -> tuple[str, ...]:
    """The names of a dotted key; a quoted one is written as a string is."""
    parts = re.findall(_PART, keys)
    return tuple(tomllib.loads(f"part = {part}")["part"] if part[0] in "\"'" else part for part in parts)


def _end_of_value(lines: list[str], number: int, value: str) -> int:
    """The number of the line on which a value that begins on line `number` ends."""
    depth = 0
    quote = ""
    while True:
        depth, quote = _follow(value, depth, quote)
        if (depth <= 0 and quote not in ('"""', "'''")) or number + 1 >= len(lines):
            return number
        number += 1
        value = lines[number]


def _follow(text: str, depth: int, quote: str) -> tuple[int, str]:
    """Bracket depth and open quote after a line."""
    at = 0
    while at < len(text):
        if quote:
            if text[at] == "\\" and quote[0] == '"':
                at += 2
                continue
            if text.startswith(quote, at):
                at += len(quote)
                quote = ""
                continue
        elif text[at] == "#":
            break
        elif text[at] in "\"'":
            triple = text[at] * 3
            quote = triple if text.startswith(triple, at) else text[at]
            at += len(quote)
            continue
        else:
            depth += (text[at] in "[{") - (text[at] in "]}")
        at += 1
    return depth, quote if len(quote) == 3 else ""
