"""Notices to the sender that a message could not be delivered (RFC 3464, in the report of RFC 6522).

Pure: time, ids and the original's text are given. The notice has a null reverse-path, names each recipient with the
words of the host that refused it, and carries the headers of the original, never its body: a forged sender must not
be sent the contents.

Invariants: 7-bit, CRLF, no line over 998 octets, nothing from outside can end a header or a part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mta.mail.trace import date_text
from mta.model import MessageId, Reply, id_text, id_time_ms

_MOST_HEADERS = 64 << 10
_WRAP = 900
# With many recipients a notice stays far below what a sender's server takes (1,000 long addresses: under 400 KiB).
_MANY = 100  # so many are named to people; a program gets all of them
_MANY_HEADERS = 16 << 10
_MANY_REASON = 200  # characters of a reason, for people
_MANY_SAID = 60  # characters of a host's words, for programs
_MANY_BLOCKS = 320 << 10  # octets of the part for programs above which hosts and their words are left out
_HEADER = re.compile(rb"[!-9;-~]+[ \t]*:")
_STATUS = re.compile(r"5\.[0-9]{1,3}\.[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Failure:
    """One recipient that will not get the message; `hop` is the host that said so, "" where none did."""

    address: bytes
    reply: Reply
    hop: str = ""

    @property
    def is_spoken(self) -> bool:
        """The reply is a host's own words, not a finding of this server (an expiry, a look-up)."""
        return bool(self.hop and self.reply.code)


def compose(
    *,
    hostname: str,
    notice_id: MessageId,
    original_id: MessageId,
    sender: bytes,
    failures: Sequence[Failure],
    original: bytes,
    now: int,
) -> bytes:
    """The whole text of a notice. `original` begins with the headers of the message; `now` is in seconds."""
    boundary = f"notice-{id_text(notice_id)}"
    head = (
        f"From: Mail Delivery <MAILER-DAEMON@{hostname}>\r\n"
        f"{_fields(f'To: <{_plain(sender)}>')}"
        "Subject: Your message could not be delivered\r\n"
        f"Date: {date_text(now)}\r\n"
        f"Message-ID: <{id_text(notice_id)}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n'
        "\r\n"
        "This is a notice from a mail server, in a form that mail programs understand.\r\n"
    )
    parts = (
        _part(boundary, "text/plain; charset=us-ascii", _for_people(hostname, failures)),
        _part(boundary, "message/delivery-status", _for_programs(hostname, original_id, failures)),
        _part(
            boundary,
            "text/rfc822-headers",
            _headers(original, _MOST_HEADERS if len(failures) <= _MANY else _MANY_HEADERS),
        ),
    )
    return "".join((head, *parts, f"\r\n--{boundary}--\r\n")).encode("ascii")


def _part(boundary: str, kind: str, text: str) -> str:
    return f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n{text}"


def _for_people(hostname: str, failures: Sequence[Failure]) -> str:
    lines = [
        f"This is the mail server {hostname}.",
        "",
        "Your message could not be delivered to:" if failures else "",
    ]
    longest = _MANY_REASON if len(failures) > _MANY else None
    for failure in failures[:_MANY]:
        spoke = f"{_plain(failure.hop)} said" if failure.is_spoken else "the reason"
        said = f"    {spoke}: {_plain(str(failure.reply))}"[:longest]
        lines += ["", *_wrapped(f"  <{_plain(failure.address)}>"), *_wrapped(said)]
    if len(failures) > _MANY:
        lines += ["", f"  and {len(failures) - _MANY} more recipients, who are in the attached report."]
    lines += ["", "It will not be tried again. The headers of your message are attached.", ""]
    return "\r\n".join(lines)


def _for_programs(hostname: str, original_id: MessageId, failures: Sequence[Failure]) -> str:
    blocks = [
        f"Reporting-MTA: dns; {hostname}\r\n"
        f"X-Original-ID: {id_text(original_id)}\r\n"
        f"Arrival-Date: {date_text(id_time_ms(original_id) // 1000)}\r\n"
    ]
    longest = _MANY_SAID if len(failures) > _MANY else None
    verdicts = [_verdict(failure) for failure in failures]
    room = _MANY_BLOCKS - sum(map(len, verdicts))
    for failure, verdict in zip(failures, verdicts, strict=True):
        details = _details(failure, longest)
        if longest is not None:
            details = details if len(details) <= room else ""
            room -= len(details)
        blocks.append(verdict + details)
    return "\r\n".join(blocks)


def _verdict(failure: Failure) -> str:
    """The fields that every recipient must have."""
    status = failure.reply.enhanced
    return _fields(
        f"Final-Recipient: rfc822; {_plain(failure.address)}",
        "Action: failed",
        f"Status: {status if _STATUS.fullmatch(status) else '5.0.0'}",
    )


def _details(failure: Failure, longest: int | None) -> str:
    """Which host it was, and `longest` characters of its words."""
    host = failure.hop.partition("[")[0] or failure.hop
    fields = [f"Remote-MTA: dns; {_plain(host)}"] if host else []
    if failure.is_spoken:
        fields.append(f"Diagnostic-Code: smtp; {_plain(str(failure.reply))[:longest]}")
    return _fields(*fields)


def _fields(*fields: str) -> str:
    """Header fields, those that are too long on several lines."""
    return "".join(f"{line}\r\n" for field in fields for line in _wrapped(field))


def _headers(original: bytes, most: int) -> str:
    """The header section, in ASCII, cut at a line end where it is longer than `most`.

    It ends at the first line that is no header, which need not be an empty one: what follows is the body.
    """
    start = original[:most]
    if len(original) > most:
        start = start[: max(0, start.rfind(b"\r\n"))]
    lines: list[str] = []
    for line in start.split(b"\r\n"):
        if not (_HEADER.match(line) or (lines and line[:1] in (b" ", b"\t"))):
            break
        lines += _wrapped(_plain(line.replace(b"\t", b" ")))
    return "".join(f"{line}\r\n" for line in lines)


def _wrapped(line: str) -> list[str]:
    """A line in pieces; those after the first begin with a space, as continued headers do and boundaries do not."""
    if len(line) <= _WRAP:
        return [line]
    return [line[:_WRAP], *(f" {line[i : i + _WRAP]}" for i in range(_WRAP, len(line), _WRAP))]


def _plain(text: str | bytes) -> str:
    """Text from outside as printable ASCII on one line."""
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    return "".join(c if " " <= c <= "~" else "?" for c in text)
