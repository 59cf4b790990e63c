"""Makes a text fit for a host that takes less than it holds (RFC 6152 §3, RFC 3030 §3). PURE.

The leaves of the MIME tree that hold what may not go are encoded as quoted-printable or base64 (RFC 2045 §6), and
their Content-Transfer-Encoding says so. All else stays octet for octet: boundaries, header fields, nested messages, the
leaves that need nothing. A label "8bit" or "binary" on a multipart or a nested message becomes what is true below it.

    - A text without MIME fields gets them, with charset unknown-8bit (RFC 1428 §3).
    - A preamble or an epilogue, which readers ignore (RFC 2046 §5.1.1), loses the high bits' octets to question marks.
    - Signatures over what was encoded do not hold any more: of them that is the sender's choice who signs eight-bit
      texts (RFC 1847 §2.1 asks for seven).

What cannot be made to fit raises Unfit: header fields with eight-bit octets, message/partial and its kin, which no
encoding may touch (RFC 2046 §5.2), parts whose label is not true.

The text may be a mapped file: nothing here copies more than a chunk of it, except header fields, nor holds the
interpreter for longer than a chunk takes: other threads go on.
"""

from __future__ import annotations

import binascii
import enum
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Text = bytes | mmap.mmap
_DEEPEST = 30  # parts within parts
_CHUNK = 57 << 10  # octets encoded at once: whole lines of base64
_LONGEST_LINE = 998  # octets without CRLF (RFC 5322 §2.1.1)
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_HIGH = re.compile(rb"[\x80-\xff]")
_UNCLEAN = re.compile(rb"\x00|\r(?!\n)|(?<!\r)\n")
_TYPE = re.compile(rb"[ \t\r\n]*([!-'*+\-.0-9A-Z^-~]+)[ \t\r\n]*/[ \t\r\n]*([!-'*+\-.0-9A-Z^-~]+)", re.IGNORECASE)
_PARAMETER = re.compile(
    rb'[ \t\r\n]*;[ \t\r\n]*([^=;\s]+)[ \t\r\n]*=[ \t\r\n]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))', re.DOTALL
)
_LINE_OF_BASE64 = re.compile(rb"(.{76})(?=.)")
_NESTED = (b"rfc822", b"news", b"global")
_OPEN = (b"7bit", b"8bit", b"binary")  # labels of what is not encoded


class Need(enum.Flag):
    """What a text must become before a host may have it."""

    NOTHING = 0
    SEVEN_BIT = enum.auto()  # no octet above 127
    LINES = enum.auto()  # no NUL, no bare CR or LF, no line above 998 octets
    ASCII_HEADER = enum.auto()  # no octet above 127 in a header field, of any part


class Unfit(Exception):
    """The text cannot be made to fit; `enhanced` says in what respect."""

    def __init__(self, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.enhanced = enhanced


@dataclass(frozen=True, slots=True)
class _Field:
    name: bytes
    start: int
    value: bytes
    end: int


def fitted(text: Text, need: Need, give: Callable[[bytes], object], *, start: int = 0, utf8: bool = False) -> None:
    """Give the text from `start` on, piece by piece, as `need` asks for it.

    `utf8`: it is one of SMTPUTF8, as a refusal then says.
    """
    _Fitter(text, need, give, utf8=utf8).entity(start, len(text), b"text/plain", 0, top=True)


def is_ascii(text: Text, start: int = 0, end: int | None = None) -> bool:
    last = len(text) if end is None else end
    return all(text[at : min(at + _CHUNK, last)].isascii() for at in range(start, last, _CHUNK))


class _Fitter:
    def __init__(self, text: Text, need: Need, give: Callable[[bytes], object], *, utf8: bool) -> None:
        self._text = text
        self._need = need
        self._give = give
        self._utf8 = utf8

    def entity(self, start: int, end: int, default: bytes, depth: int, *, top: bool = False) -> None:
        """One message or part, header and body."""
        if depth > _DEEPEST:
            raise Unfit("5.6.3", f"parts lie more than {_DEEPEST} deep")
        body = self._header_end(start, end)
        fields = list(self._fields(start, body))
        self._check_header(start, body)
        kind, parameters = _content_type(_value(fields, b"content-type"), default)
        label = _value(fields, b"content-transfer-encoding").strip(b" \t\r\n").lower() or b"7bit"
        family, _, subtype = kind.partition(b"/")
        if family == b"multipart" and label in _OPEN and b"boundary" in parameters:
            self._relabel(start, body, fields, label)
            inner = b"message/rfc822" if subtype == b"digest" else b"text/plain"
            self._multipart(body, end, parameters[b"boundary"], inner, depth)
        elif family == b"message" and subtype in _NESTED and label in _OPEN:
            self._relabel(start, body, fields, label)
            self.entity(body, end, b"text/plain", depth + 1)
        elif not self._offends(body, end, label):
            self._relabel(start, body, fields, label, only=b"binary")
            self._copy(body, end)
        elif label not in _OPEN:
            raise Unfit("5.6.3", f"a part that says it is {_shown(label)} is not")
        elif family == b"multipart" or (family == b"message" and not subtype.startswith(b"global")):
            raise Unfit("5.6.3", f"a part of type {_shown(kind)} may not be encoded")
        else:
            self._leaf(start, body, end, fields, family, top=top)

    # ---- what is there

    def _header_end(self, start: int, end: int) -> int:
        """Where the body begins: behind the first empty line."""
        if self._text[start : min(start + 2, end)] == b"\r\n":
            return start + 2
        found = self._text.find(b"\r\n\r\n", start, end)
        return found + 4 if found >= 0 else end

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        at = start
        while at < end:
            behind = self._line_end(at, end)
            while self._text[behind : min(behind + 1, end)] in (b" ", b"\t"):
                behind = self._line_end(behind, end)
            line = self._text[at:behind]
            match = _FIELD.match(line)
            if match is not None:
                yield _Field(match[1].lower(), at, line[match.end() :], behind)
            at = behind

    def _line_end(self, at: int, end: int) -> int:
        found = self._text.find(b"\r\n", at, end)
        return found + 2 if found >= 0 else end

    def _check_header(self, start: int, end: int) -> None:
        if self._need & (Need.SEVEN_BIT | Need.ASCII_HEADER) and not is_ascii(self._text, start, end):
            if self._utf8:
                raise Unfit("5.6.7", "a header field with non-ASCII characters")
            raise Unfit("5.6.3", "a header field with eight-bit octets, which cannot be encoded")

    def _offends(self, start: int, end: int, label: bytes) -> bool:
        """Whether a leaf holds what may not go."""
        if self._need & Need.SEVEN_BIT and not is_ascii(self._text, start, end):
            return True
        return bool(self._need & Need.LINES) and not self._has_clean_lines(start, end)

    def _has_clean_lines(self, start: int, end: int) -> bool:
        at = start
        while at < end:
            behind = self._text.find(b"\n", at, min(at + _LONGEST_LINE + 2, end)) + 1
            if not behind and end - at > _LONGEST_LINE:
                return False
            behind = behind or end
            if _UNCLEAN.search(self._text[at:behind]) is not None:
                return False
            at = behind
        return True

    # ---- what is given

    def _copy(self, start: int, end: int) -> None:
        for at in range(start, end, _CHUNK):
            self._give(self._text[at : min(at + _CHUNK, end)])

    def _relabel(self, start: int, end: int, fields: list[_Field], label: bytes, *, only: bytes = b"") -> None:
        """The header, with a label that holds for what follows."""
        becomes = b"7bit" if self._need & Need.SEVEN_BIT else b"8bit"
        if self._need & Need.LINES or self._need & Need.SEVEN_BIT:
            true = label == b"7bit" or label == becomes or (only and label != only) or label not in _OPEN
            self._header(start, end, fields, None if true else becomes)
        else:
            self._copy(start, end)

    def _header(self, start: int, end: int, fields: list[_Field], encoding: bytes | None) -> None:
        """The header with another Content-Transfer-Encoding; None: as it is."""
        if encoding is None:
            self._copy(start, end)
            return
        at, said = start, False
        for field in fields:
            if field.name == b"content-transfer-encoding":
                self._copy(at, field.start)
                if not said:
                    self._give(b"Content-Transfer-Encoding: " + encoding + b"\r\n")
                at, said = field.end, True
        if said:
            self._copy(at, end)
        else:
            empty = end - 2 if self._text[max(start, end - 2) : end] == b"\r\n" else end
            self._copy(at, empty)
            self._give(b"Content-Transfer-Encoding: " + encoding + b"\r\n")
            self._copy(empty, end)

    def _multipart(self, start: int, end: int, boundary: bytes, default: bytes, depth: int) -> None:
        """Preamble, parts, epilogue; each delimiter with the CRLF before it is copied."""
        at, inside, closed = start, False, False
        for line, behind, last in self._delimiters(start, end, boundary):
            if inside:
                self.entity(at, line, default, depth + 1)
            else:
                self._ignored(at, line)
            self._copy(line, behind)
            at, inside, closed = behind, not last, last
            if last:
                break
        if inside and not closed:
            self.entity(at, end, default, depth + 1)
        else:
            self._ignored(at, end)

    def _delimiters(self, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
        """Where each begins (with its CRLF) and ends, and whether it is the last (RFC 2046 §5.1.1)."""
        mark = b"--" + boundary
        at = start
        while True:
            found = start if at == start and self._text[start : start + len(mark)] == mark else -1
            if found < 0:
                line = self._text.find(b"\r\n" + mark, max(start, at - 2), end)
                if line < 0:
                    return
                found = line + 2
            else:
                line = found
            behind = self._line_end(found, end)
            rest = self._text[found + len(mark) : behind]
            last = rest.startswith(b"--")
            at = behind
            if not rest.removeprefix(b"--").strip(b" \t\r\n"):
                yield max(line, start), behind, last

    def _ignored(self, start: int, end: int) -> None:
        for at in range(start, end, _CHUNK):
            chunk = self._text[at : min(at + _CHUNK, end)]
            self._give(_HIGH.sub(b"?", chunk) if self._need & Need.SEVEN_BIT else chunk)

    def _leaf(self, start: int, body: int, end: int, fields: list[_Field], family: bytes, *, top: bool) -> None:
        quoted = family == b"text" and self._reads_well_quoted(body, end)
        names = {field.name for field in fields}
        if body == start or (body == end and self._text[max(start, end - 4) : end] != b"\r\n\r\n"):
            raise Unfit("5.6.3", "a part without a header, or without an end of it, cannot be labelled")
        if top and b"mime-version" not in names:
            self._give(b"MIME-Version: 1.0\r\n")
        if b"content-type" not in names:
            self._give(b"Content-Type: text/plain; charset=unknown-8bit\r\n")
        self._header(start, body, fields, b"quoted-printable" if quoted else b"base64")
        (self._quoted if quoted else self._base64)(body, end)
        if top and (not quoted or self._text[end - 2 : end] != b"\r\n"):
            self._give(b"\r\n")

    def _reads_well_quoted(self, start: int, end: int) -> bool:
        """Whether quoted-printable is the smaller of the two, and can say what the lines are."""
        high = sum(len(_HIGH.findall(self._text[at : min(at + _CHUNK, end)])) for at in range(start, end, _CHUNK))
        return 6 * high <= end - start and self._has_clean_lines(start, end)

    def _quoted(self, start: int, end: int) -> None:
        at = start
        while at < end:
            behind = self._text.rfind(b"\r\n", at, min(at + _CHUNK, end)) + 2
            behind = min(at + _CHUNK, end) if behind < at + 2 or behind + _LONGEST_LINE > end else behind
            chunk = self._text[at:behind]
            # Ends of lines are CRLF throughout: a lone LF is a soft break that b2a_qp made in a chunk of one line.
            self._give(re.sub(rb"(?<!\r)\n", b"\r\n", binascii.b2a_qp(chunk)))
            at = behind

    def _base64(self, start: int, end: int) -> None:
        for at in range(start, end, _CHUNK):
            encoded = binascii.b2a_base64(self._text[at : min(at + _CHUNK, end)], newline=False)
            if at > start:
                self._give(b"\r\n")
            self._give(_LINE_OF_BASE64.sub(rb"\1\r\n", encoded))


def _value(fields: list[_Field], name: bytes) -> bytes:
    """Of the first field of that name; b"" where there is none."""
    return next((field.value for field in fields if field.name == name), b"")


def _content_type(value: bytes, default: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Type and parameters; the default where there is no type to be read (RFC 2045 §5.2)."""
    match = _TYPE.match(value)
    if match is None:
        return default, {}
    parameters: dict[bytes, bytes] = {}
    at = match.end()
    while (found := _PARAMETER.match(value, at)) is not None:
        quoted = found[2]
        said = re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL) if quoted is not None else found[3]
        parameters.setdefault(found[1].lower(), said)
        at = found.end()
    return b"%s/%s" % (match[1].lower(), match[2].lower()), parameters


def _shown(octets: bytes) -> str:
    return octets[:60].decode("ascii", "backslashreplace")
