"""The tape of a session: the last lines that were said, in little room. The readable reference of `mta._fastparse`.

What is on it may be shown to an operator, so it holds no secret and no text: of the responses of a login, of a line
that is no command (which may be the rest of a text that was not wanted) and of a text, there is only how long it was.

Theory of operation
- An entry takes its octets and 16 more. When there is no room for the next, the older half goes; the opening of the
  session, up to the first MAIL, stays, as long as it is no more than a quarter of all.
- A refusal, or an answer that took long, *marks* the tape. From then on nothing goes: what finds no room is only
  counted, until the caller has taken what is there.

The extension stamps each entry with the time. The reference has no clock; nothing depends on the stamps but the mark
of an answer that took long.
"""

from __future__ import annotations

from typing import Final

SAID: Final = 0  # by the client
REPLIED: Final = 1
TEXT_PASSED: Final = 2
TLS_BEGAN: Final = 3

LEAST: Final = 1024  # octets
LONGEST_ENTRY: Final = 400  # octets of a line that are kept
_HEAD: Final = 16

# What may stand behind AUTH: of any other word nobody knows whether it is a mechanism or a secret.
_MECHANISMS: Final = frozenset(
    b"PLAIN LOGIN CRAM-MD5 DIGEST-MD5 EXTERNAL GSSAPI NTLM OAUTHBEARER XOAUTH2 SCRAM-SHA-1 SCRAM-SHA-1-PLUS"
    b" SCRAM-SHA-256 SCRAM-SHA-256-PLUS".split(b" ")
)
_BARE: Final = frozenset(b"MAIL RCPT DATA RSET QUIT NOOP VRFY HELP EXPN ETRN TURN AUTH STARTTLS".split(b" "))
_HELLOS: Final = frozenset((b"EHLO", b"HELO", b"LHLO"))

Entry = tuple[int, int, int, bytes]  # milliseconds, kind, octets of the line or text, the first of them
Taken = tuple[int, int, int, list[Entry | None]]  # when it began, entries that went, were lost, and are there


class Tape:
    """One session's; `most` octets, 0 for none."""

    def __init__(self, most: int) -> None:
        self._most = room(most)
        self._entries: list[tuple[int, int, bytes]] = []
        self._head: int | None = None  # entries of the opening
        self._dropped = 0
        self._lost = 0
        self.marked = False

    def add(self, kind: int, kept: bytes, total: int) -> None:
        if not self._most:
            return
        kept = kept[:LONGEST_ENTRY]
        if self._size(self._entries) + _HEAD + len(kept) > self._most:
            if self.marked:
                self._lost += 1
                return
            self._make_room()
        if self._head is None and kind == SAID and kept[:4].upper() == b"MAIL" and self._entries:
            self._head = len(self._entries)
        self._entries.append((kind, total, kept))

    def said(self, line: bytes, *, more: bool = False) -> None:
        """A whole line of the client, without its CRLF; `more`: it may also say who it speaks for."""
        self.add(SAID, shown(line, more=more), len(line))

    def said_secretly(self, octets: int) -> None:
        self.add(SAID, b"", octets)

    def replied(self, reply: bytes) -> None:
        """A reply of ours, without its last CRLF."""
        self.add(REPLIED, b"334" if reply.startswith(b"334") else reply, len(reply))
        self.marked |= reply[:1] >= b"4" and self._most > 0

    def passed(self, octets: int) -> None:
        """A text."""
        self.add(TEXT_PASSED, b"", octets)

    def take(self) -> Taken:
        """What is on it, which stays there, without the mark; None stands where entries went."""
        entries: list[Entry | None] = [(0, *entry) for entry in self._entries]
        if self._dropped:
            entries.insert(self._head or 0, None)
        lost, self._lost, self.marked = self._lost, 0, False
        return 0, self._dropped, lost, entries

    def _make_room(self) -> None:
        limit = self._most // 4
        if self._head is None or self._size(self._entries[: self._head]) > limit:
            self._head = 0
            while self._size(self._entries[: self._head]) < limit:
                self._head += 1
        goal = (self._most - self._size(self._entries[: self._head])) // 2
        end = self._head
        while end < len(self._entries) and self._size(self._entries[self._head : end]) < goal:
            end += 1
        self._dropped += end - self._head
        del self._entries[self._head : end]

    @staticmethod
    def _size(entries: list[tuple[int, int, bytes]]) -> int:
        return sum(_HEAD + len(kept) for _, _, kept in entries)


def room(most: int) -> int:
    """The same, where it is enough. ValueError."""
    if 0 < most < LEAST:
        raise ValueError("a tape has no room for so little")
    return most


def shown(line: bytes, *, more: bool) -> bytes:
    """The beginning of a client's line, as far as it is a command and no secret."""
    verb, blank, argument = line.partition(b" ")
    verb = verb.upper()
    if verb == b"BDAT":
        return line
    if verb in _HELLOS:
        return line[: 4 + len(blank) + len(argument.split(b" ")[0])]
    if verb == b"AUTH" and argument.split(b" ")[0].upper() in _MECHANISMS:
        return line[: 5 + len(argument.split(b" ")[0])]
    if (verb == b"MAIL" and argument[:5].upper() == b"FROM:" and argument[5:]) or (
        verb == b"RCPT" and argument[:3].upper() == b"TO:" and argument[3:]
    ):
        return line
    if more and verb in (b"XCLIENT", b"XFORWARD") and len(line) > 9:
        return line
    return line[: len(verb)] if verb in _BARE else b""
