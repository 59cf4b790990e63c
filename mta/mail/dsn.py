"""Notices to the sender: what became of a message (RFC 3464, in the report of RFC 6522).

Pure: time, ids and the original's text are given. The notice names each recipient with the words of the host that
decided about it. It carries the headers of the original; the whole text only where the caller says so (`whole`, for
RET=FULL of RFC 3461 §4.3) and where a report can hold it, for a forged sender should not be sent the contents.

What people read is in the words of one language (`mta.config.wording`); where these are no ASCII, their part is
quoted-printable and the subject encoded (RFC 2047), so that a notice needs no 8BITMIME. Programs read the same in any
language.

An original with UTF-8 in its addresses or headers (RFC 6531) gets the forms of RFC 6533: message/global-delivery-status
and message/global-headers. All others get ASCII, where what is no ASCII is a question mark.

Invariants: CRLF, no line over 998 octets, nothing from outside can end a header or a part; 7-bit unless the original is
returned whole or has UTF-8 in it: the caller declares what is not 7-bit as 8BITMIME.
"""

from __future__ import annotations

import quopri
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.header import Header
from typing import Final, Literal, get_args

from mta.config.wording import ENGLISH, Kind, Wording
from mta.mail.trace import date_text
from mta.mail.xtext import decode_embedded, decode_xtext, encode_embedded, split_typed
from mta.model import MessageId, Reply, id_text, id_time_ms

Action = Literal["failed", "delayed", "delivered", "relayed"]
Plain = Callable[[str | bytes], str]

_MOST_HEADERS = 64 << 10
_WRAP = 900
_LONGEST_LINE = 998
# With many recipients a notice stays far below what a sender's server takes (1,000 long addresses: under 400 KiB).
_MANY = 100  # so many are named to people; a program gets all of them
_MANY_HEADERS = 16 << 10
_MANY_REASON = 200  # characters of a reason, for people
_MANY_SAID = 60  # characters of a host's words, for programs
_MANY_BLOCKS = 320 << 10  # octets of the part for programs above which hosts and their words are left out
# (addresses, and what the sender himself had called them in ORCPT, stay)
_HEADER = re.compile(rb"[!-9;-~]+[ \t]*:")
_STATUS = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}")
_CLASS: Final[dict[Action, str]] = {"failed": "5", "delayed": "4", "delivered": "2", "relayed": "2"}


@dataclass(frozen=True, slots=True)
class Fate:
    """One recipient, and what became of it; `hop` is the host that decided, "" where none did."""

    address: bytes
    reply: Reply
    hop: str = ""
    action: Action = "failed"
    orcpt: bytes = b""  # as it came, "type;xtext"
    until: int = 0  # delayed: when it is given up, in seconds

    @property
    def is_spoken(self) -> bool:
        """The reply is a host's own words, not a finding of this server (an expiry, a look-up, a Maildir)."""
        return bool(self.reply.code) and ("[" in self.hop or self.hop.startswith("unix:"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The message that the notice is about. `text` begins with its headers."""

    id: MessageId
    sender: bytes
    text: bytes
    whole: bool = False  # `text` is all of it, and its sender wants it back
    utf8: bool = False  # it came with SMTPUTF8
    envid: bytes = b""  # as it came, xtext
    deliver_by: int = 0  # seconds (RFC 2852); 0: whenever
    hold: str = ""  # "for;SECONDS" or "until;TIME", as it was asked for (RFC 4865)


_ACTIONS: Final[tuple[Action, ...]] = get_args(Action)  # in the order in which people read them


def compose(
    *,
    hostname: str,
    notice_id: MessageId,
    original: Original,
    fates: Sequence[Fate],
    now: int,
    wording: Wording = ENGLISH,
    language: str = "en",
    postmaster: str = "",
) -> bytes:
    """The whole text of a notice; `now` is in seconds. With `postmaster` it goes there, in place of a sender."""
    international = original.utf8 and not _is_ascii(original, fates)
    plain: Plain = _printable if international else _plain
    kind = "global-delivery-status" if international else "delivery-status"
    # All are in the order in which people read them, so that the worst news comes first.
    fates = [fate for action in _ACTIONS for fate in fates if fate.action == action]
    whole = original.whole and _can_be_returned(original.text)
    said = _Said(wording, hostname, double=bool(postmaster))
    parts = [
        _people_part(_for_people(plain, hostname, fates, whole, said), language, international),
        _part(f"message/{kind}", _for_programs(plain, hostname, original, fates, international)),
        _returned(plain, original, len(fates), whole, international),
    ]
    boundary = f"notice-{id_text(notice_id)}"
    while whole and boundary.encode() in original.text:
        boundary += "-"
    head = (
        f"From: Mail Delivery <MAILER-DAEMON@{hostname}>\r\n"
        f"{_fields(f'To: <{plain(postmaster or original.sender)}>')}"
        f"Subject: {said.subject(fates[0].action)}\r\n"
        f"Date: {date_text(now)}\r\n"
        f"Message-ID: <{id_text(notice_id)}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        f"{'' if all(map(bytes.isascii, parts)) else _EIGHT_BIT}"
        f'Content-Type: multipart/report; report-type={kind};\r\n\tboundary="{boundary}"\r\n'
        "\r\n"
        "This is a notice from a mail server, in a form that mail programs understand.\r\n"
    )
    delimiter = f"\r\n--{boundary}".encode("ascii")
    return b"".join([head.encode(), *(delimiter + b"\r\n" + part for part in parts), delimiter, b"--\r\n"])


_EIGHT_BIT = "Content-Transfer-Encoding: 8bit\r\n"


def _part(kind: str, text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return f"Content-Type: {kind}\r\n{'' if data.isascii() else _EIGHT_BIT}\r\n".encode("ascii") + data


def _is_ascii(original: Original, fates: Sequence[Fate]) -> bool:
    """Whether the older forms can say all there is to say."""
    headers = original.text[:_MOST_HEADERS].partition(b"\r\n\r\n")[0]
    return headers.isascii() and original.sender.isascii() and all(f.address.isascii() for f in fates)


# ---- for people


class _Said:
    """A wording with what is known when a notice begins."""

    def __init__(self, wording: Wording, hostname: str, *, double: bool) -> None:
        self.wording = wording
        self._hostname = hostname
        self._double = double

    def kind(self, action: Action) -> Kind:
        kind: Kind = self.wording.double if self._double else getattr(self.wording, action)
        return kind

    def subject(self, action: Action) -> str:
        """As a header has it (RFC 2047)."""
        text = self.kind(action).subject.format(hostname=self._hostname)
        return text if text.isascii() else Header(text, "utf-8", header_name="Subject").encode(linesep="\r\n")

    def lines(self, text: str, **known: object) -> list[str]:
        """A text with what is known put in, in lines that mail may have; none for no text."""
        filled = text.format(hostname=self._hostname, **known)
        return [piece for line in filled.split("\n") for piece in _wrapped(line)] if filled else []


def _for_people(plain: Plain, hostname: str, fates: Sequence[Fate], whole: bool, said: _Said) -> str:
    words = said.wording
    lines = said.lines(words.server)
    longest = _MANY_REASON if len(fates) > _MANY else None
    for action in _ACTIONS:
        named = [fate for fate in fates if fate.action == action]
        if not named:
            continue
        kind = said.kind(action)
        lines += ["", *said.lines(kind.text)]
        for fate in named[:_MANY]:
            spoke = words.said.format(host=plain(fate.hop)) if fate.is_spoken else words.reason
            lines += ["", *_wrapped(f"  <{plain(fate.address)}>")]
            if fate.is_spoken or action in ("failed", "delayed"):
                lines += _wrapped(f"    {spoke}: {plain(str(fate.reply))}"[:longest])
        if len(named) > _MANY:
            lines += ["", *said.lines(f"  {words.more}", count=len(named) - _MANY)]
        lines += ["", *said.lines(kind.then, until=date_text(named[0].until))] if kind.then else []
    lines += ["", *said.lines(words.whole if whole else words.headers), ""]
    return "\r\n".join(lines)


def _people_part(text: str, language: str, international: bool) -> bytes:
    """Their part in 7 bits, unless the notice is one for people with UTF-8 anyway."""
    spoken = f"\r\nContent-Language: {language}" if language != "en" else ""
    if text.isascii() and not international:
        return _part(f"text/plain; charset=us-ascii{spoken}", text)
    if international:
        return _part(f"text/plain; charset=utf-8{spoken}", text)
    coded = quopri.encodestring(text.replace("\r\n", "\n").encode()).replace(b"\n", b"\r\n")
    head = f"Content-Type: text/plain; charset=utf-8{spoken}\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head.encode("ascii") + coded


# ---- for programs


def _for_programs(plain: Plain, hostname: str, original: Original, fates: Sequence[Fate], international: bool) -> str:
    about = [f"Original-Envelope-Id: {plain(decode_xtext(original.envid))}"] if original.envid else []
    about += [
        f"Reporting-MTA: dns; {hostname}",
        f"X-Original-ID: {id_text(original.id)}",
        f"Arrival-Date: {date_text(id_time_ms(original.id) // 1000)}",
    ]
    if original.deliver_by:
        about.append(f"Deliver-By-Date: {date_text(original.deliver_by)}")  # RFC 2852 §5
    if original.hold:
        about.append(f"Future-Release-Request: {plain(original.hold)}")  # RFC 4865 §5.1.2
    blocks = [_fields(*about)]
    longest = _MANY_SAID if len(fates) > _MANY else None
    verdicts = [_verdict(plain, fate, international) for fate in fates]
    room = _MANY_BLOCKS - sum(map(len, verdicts))
    for fate, verdict in zip(fates, verdicts, strict=True):
        details = _details(plain, fate, longest)
        if longest is not None:
            details = details if len(details) <= room else ""
            room -= len(details)
        blocks.append(verdict + details)
    return "\r\n".join(blocks)


def _verdict(plain: Plain, fate: Fate, international: bool) -> str:
    """The fields that every recipient must have, and whom the sender had written to."""
    known = _STATUS.fullmatch(fate.reply.enhanced)
    group = _CLASS[fate.action]
    meant = [f"Original-Recipient: {_original(plain, fate.orcpt, international)}"] if fate.orcpt else []
    return _fields(
        *meant,
        f"Final-Recipient: {_typed(plain, fate.address, international)}",
        f"Action: {fate.action}",
        f"Status: {known[0] if known is not None and known[1] == group else f'{group}.0.0'}",
    )


def _details(plain: Plain, fate: Fate, longest: int | None) -> str:
    """Which host it was, and `longest` characters of its words; when it is given up."""
    fields: list[str] = []
    if "[" in fate.hop:
        host = fate.hop.partition("[")[0] or fate.hop
        fields.append(f"Remote-MTA: dns; {plain(host)}")
    if fate.is_spoken:
        fields.append(f"Diagnostic-Code: smtp; {plain(str(fate.reply))[:longest]}")
    if fate.until:
        fields.append(f"Will-Retry-Until: {date_text(fate.until)}")
    return _fields(*fields)


def _typed(plain: Plain, address: bytes, international: bool) -> str:
    """An address with its type: rfc822, or utf-8 for one that has other characters (RFC 6533 §3)."""
    if address.isascii():
        return f"rfc822; {plain(address)}"
    try:
        text = address.decode()
    except UnicodeDecodeError:
        return f"rfc822; {plain(address)}"
    return f"utf-8; {plain(text) if international else encode_embedded(text)}"


def _original(plain: Plain, orcpt: bytes, international: bool) -> str:
    """The value of ORCPT as a report has it: decoded (RFC 3461 §4.2; RFC 6533 §3 for the type utf-8)."""
    kind, value = split_typed(orcpt)
    if kind.lower() != "utf-8":
        return f"{plain(kind or 'rfc822')}; {plain(decode_xtext(value))}"
    text = decode_xtext(value).decode("utf-8", "replace")
    if international:
        return f"utf-8; {plain(decode_embedded(text))}"
    return f"utf-8; {plain(text if text.isascii() else encode_embedded(decode_embedded(text)))}"


def _fields(*fields: str) -> str:
    """Header fields, those that are too long on several lines."""
    return "".join(f"{line}\r\n" for field in fields for line in _wrapped(field))


# ---- the original


def _returned(plain: Plain, original: Original, recipients: int, whole: bool, international: bool) -> bytes:
    if whole:
        text = original.text if original.text.endswith(b"\r\n") else original.text + b"\r\n"
        return _part("message/global" if international else "message/rfc822", text)
    kind = "message/global-headers" if international else "text/rfc822-headers"
    most = _MOST_HEADERS if recipients <= _MANY else _MANY_HEADERS
    return _part(kind, _headers(plain, original.text, most))


def _can_be_returned(text: bytes) -> bool:
    """Whether a text fits into a part as it is: not one of BINARYMIME, nor one with lines that no server takes."""
    lines = text.split(b"\r\n")
    return (
        max(map(len, lines)) <= _LONGEST_LINE
        and not any(b"\r" in line or b"\n" in line for line in lines)
        and (b"\0" not in text)
    )


def _headers(plain: Plain, original: bytes, most: int) -> str:
    """The header section, cut at a line end where it is longer than `most`.

    It ends at the first line that is no header, which need not be an empty one: what follows is the body.
    """
    start = original[:most]
    if len(original) > most:
        start = start[: max(0, start.rfind(b"\r\n"))]
    lines: list[str] = []
    for line in start.split(b"\r\n"):
        if not (_HEADER.match(line) or (lines and line[:1] in (b" ", b"\t"))):
            break
        lines += _wrapped(plain(line.replace(b"\t", b" ")))
    return "".join(f"{line}\r\n" for line in lines)


# ---- text


def _wrapped(line: str) -> list[str]:
    """A line in pieces; those after the first begin with a space, as continued headers do and boundaries do not."""
    most = _WRAP if line.isascii() else _WRAP // 4  # a character has four octets at most
    if len(line) <= most:
        return [line]
    return [line[:most], *(f" {line[i : i + most]}" for i in range(most, len(line), most))]


def _plain(text: str | bytes) -> str:
    """Text from outside as printable ASCII on one line."""
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _printable(text: str | bytes) -> str:
    """Text from outside as printable characters on one line; line and paragraph separators are none."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
