"""The shape of a text: how long its header and lines may be, how deep its multiparts, and how far it has come.

A text is looked at as it comes, part by part, and only for what there is a limit on; of what was seen at most a line's
beginning and one header are kept. Most texts are too short to break any rule, which `least` tells.

A mail that has been received very often goes round in a circle (RFC 5321 §6.3). The fields are counted only where the
header is so long that it can hold that many whole ones: one search of 1 us for most other texts of 5 to 10 kB, and
nothing for shorter ones.

RFC 5322 §2.1.1, RFC 5321 §4.5.3.1.6 (lines), RFC 2046 §5.1 (multiparts).
"""

from __future__ import annotations

import re
from typing import Final

from mta.config.settings import Limits

_LONG_HEADER: Final = b"552 5.3.4 The header of this message is longer than this server takes\r\n"
_MANY_LINES: Final = b"552 5.3.4 The header of this message has more lines than this server takes\r\n"
_LONG_LINE: Final = b"552 5.6.0 A line of this message is longer than this server takes\r\n"
_TOO_DEEP: Final = b"554 5.6.0 The parts of this message lie deeper in each other than this server takes\r\n"
_GOING_ROUND: Final = (
    b"554 5.4.6 This message has passed so many mail servers that it must be going round in a circle\r\n"
)

_RECEIVED: Final = b"\nreceived:"
_LEAST_RECEIVED: Final = 48  # octets of a whole one, with a host and a date
_KEPT_HEADER: Final = 65536  # octets of the header of a part that are looked at
_KEPT_LINE: Final = 1000
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_CONTENT_TYPE = re.compile(rb"(?i)(?:\A|\n)content-type[ \t]*:((?:[^\n]|\n[ \t])*)")
_BOUNDARY = re.compile(rb'(?i);\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')


class Shape:
    """The rules of one listener."""

    def __init__(self, limits: Limits) -> None:
        self.header_size = limits.header_size
        self.header_lines = limits.header_lines
        self.line_length = limits.line_length
        self.mime_depth = limits.mime_depth
        self.hops = limits.hops
        least = [1 << 62]
        least += [limits.header_size] if limits.header_size else []
        least += [2 * limits.header_lines] if limits.header_lines else []
        least += [limits.line_length] if limits.line_length else []
        # A multipart takes more than twenty octets of its container's header.
        least += [20 * limits.mime_depth] if limits.mime_depth else []
        self._least_of_others = min(least)
        # Octets that a text must have before it can break a rule.
        self.least = min(self._least_of_others, _LEAST_RECEIVED * limits.hops or 1 << 62)

    def of(self, text: bytes) -> bytes:
        """What is wrong with a whole text: a reply, or b""."""
        if len(text) <= self.least:
            return b""
        if len(text) <= self._least_of_others and text.find(b"\r\n\r\n", 0, self.least) >= 0:
            return b""  # the header is too short to have come in a circle
        return Look(self).at(text)


class Look:
    """At one text that comes in parts."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._header = 0  # octets of it so far; -1 when it is over
        self._lines = 0
        self._start: bytes | None = b""  # what may be the name of a field, until it is known whether it is
        self._hops = 0
        self._hop = b"\n"  # what a Received field may begin with, of what was seen
        self._tail = b"\r\n"  # the last octets, which an end of the header may begin with
        self._line = 0  # octets of a line that is not whole yet
        self._parts = _Parts(shape.mime_depth) if shape.mime_depth else None

    def at(self, part: bytes) -> bytes:
        """The refusal, or b""."""
        refusal = self._look_at_header(part) if self._header >= 0 else b""
        if not refusal and self._shape.line_length:
            refusal = self._look_at_lines(part)
        if not refusal and self._parts is not None and self._parts.too_deep(part):
            refusal = _TOO_DEEP
        return refusal

    def _look_at_header(self, part: bytes) -> bytes:
        if self._start is not None:
            part = self._start = self._start + part
            if len(part) < _KEPT_LINE and b":" not in part and b"\n" not in part:
                return b""
            self._start = None
            if not _FIELD.match(part) and not part.startswith(b"\r\n"):
                self._header = -1  # a text without a header
                return b""
        seen = self._tail + part
        end = seen.find(b"\r\n\r\n")
        here = len(part) if end < 0 else end + 2 - len(self._tail)
        self._header += here
        self._lines += part.count(b"\n", 0, max(0, here))
        shape = self._shape
        if shape.header_size and self._header - (end < 0 and seen.endswith(b"\n\r")) > shape.header_size:
            return _LONG_HEADER
        if shape.header_lines and self._lines > shape.header_lines:
            return _MANY_LINES
        if shape.hops and self._goes_round(part[: max(0, here)]):
            return _GOING_ROUND
        self._tail = seen[-3:]
        if end >= 0:
            self._header = -1
        return b""

    def _goes_round(self, part: bytes) -> bool:
        """Whether there have been too many Received fields, up to this part of the header."""
        seen = (self._hop + part).lower()
        self._hops += seen.count(_RECEIVED)
        self._hop = seen[1 - len(_RECEIVED) :]
        return self._hops >= self._shape.hops

    def _look_at_lines(self, part: bytes) -> bytes:
        """Steps from the last line end within reach to the next, so that most octets are never looked at."""
        limit = self._shape.line_length + 1  # with the CR
        start = -self._line
        while True:
            reach = start + limit
            if reach >= len(part):
                last = part.rfind(b"\n")
                self._line = len(part) - (last + 1 if last >= 0 else start)
                return b""
            end = part.rfind(b"\n", max(0, start), reach + 1)
            if end < 0:
                return _LONG_LINE
            start = end + 1


class _Parts:
    """Follows the multiparts of a text by their boundaries."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._open: list[bytes] = []
        self._in_header = True
        self._kept = b"\n"  # the beginning of what is not understood yet

    def too_deep(self, part: bytes) -> bool:
        data = self._kept + part
        at = 0
        while at >= 0:
            at = self._header(data, at) if self._in_header else self._body(data, at)
            if len(self._open) > self._depth:
                return True
        return False

    def _header(self, data: bytes, at: int) -> int:
        """The place behind the header that begins behind the line end at `at`; -1 when its end is not here."""
        end = data.find(b"\n\r\n", at)
        if end < 0 and len(data) - at < _KEPT_HEADER:
            self._kept = data[at:]
            return -1
        self._in_header = False
        header = data[at : end if end >= 0 else at + _KEPT_HEADER]
        found = _CONTENT_TYPE.search(header)
        value = found[1].strip() if found else b""
        if value[:10].lower() == b"multipart/" and (boundary := _BOUNDARY.search(value)):
            quoted = boundary[1]
            self._open.append(re.sub(rb"\\(.)", rb"\1", quoted) if quoted is not None else boundary[2])
        elif value[:14].lower() == b"message/rfc822" and end >= 0:
            self._in_header = True
            return end + 2
        return at + len(header)

    def _body(self, data: bytes, at: int) -> int:
        """The place behind the next boundary of an open multipart; -1 when there is none here."""
        while self._open:
            at = data.find(b"\n--", at)
            if at < 0:
                break
            end = data.find(b"\r\n", at)
            if end < 0 and len(data) - at < _KEPT_LINE:
                self._kept = data[at:]
                return -1
            line = data[at + 3 : end if end >= 0 else at + _KEPT_LINE].rstrip()
            for n in range(len(self._open) - 1, -1, -1):
                boundary = self._open[n]
                if line == boundary and end >= 0:
                    del self._open[n + 1 :]
                    self._in_header = True
                    return end + 1
                if line == boundary + b"--":
                    del self._open[n:]
                    break
            at += 3
        self._kept = data[-2:] if self._open else b""
        return -1
