"""What a reply blames, in one word: `classify`. Pure.

Whether it will do any good to try again is in the reply's own code (4yz or 5yz), never here. The class says what for:
who should slow down, which address is wrong, what an operator looks at first. Servers agree on little, so the words of
many (`mta.mail.replywords`) are asked first: codes are often wrong where words are right (`550 5.1.1 ... has sent to
too many recipients this hour`). Then the enhanced code decides (RFC 3463, and the registry of RFC 5248), at last the
basic one.

Findings of this server itself have no basic code (`Reply(0, ...)`); their enhanced code alone counts, as their text may
quote anybody.

Words are compared as words: case, punctuation and line ends do not count, and addresses are taken out before, so that
`<spam@example.com>: user unknown` is nobody's spam. Phrases are looked up by their first characters: 15 us for a
reply of 200 characters, and replies that come again are remembered.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from mta.mail.replywords import WORDS
from mta.model import Reply


class ReplyClass(StrEnum):
    """In the order in which a person would ask: who, what, why us, how."""

    UNKNOWN_USER = "unknown-user"  # there is no such mailbox
    DISABLED_USER = "disabled-user"  # there was one: closed, moved, not used for long
    MAILBOX_FULL = "mailbox-full"
    CONTENT = "content"  # the text: spam, a virus, a forbidden form
    REPUTATION = "reputation"  # our address: a block list, its name in DNS, what it sent before
    AUTHENTICATION = "authentication"  # SPF, DKIM, DMARC
    SENDER = "sender"  # the reverse-path, or its domain
    POLICY = "policy"  # not wanted there, for reasons that are their own
    RATE = "rate"  # too much, too fast, too many at once
    GREYLIST = "greylist"  # strangers must come again
    RELAY_DENIED = "relay-denied"  # not a server for that domain, or not for us: who may send has to log in
    SIZE = "size"  # the text is too large, or its recipients are too many
    DNS = "dns"  # the domain, or the way to it
    TLS = "tls"
    CONNECTION = "connection"  # no answer, or one cut short
    PROTOCOL = "protocol"  # a command was not understood, or an extension is missing
    SYSTEM = "system"  # trouble of their own: no room, a broken look-up, a restart
    LOOP = "loop"
    EXPIRED = "expired"  # its time ran out
    SUPPRESSED = "suppressed"  # on our own list of addresses that are not written to
    OTHER = "other"


_C = ReplyClass

HARD: Final = frozenset({_C.UNKNOWN_USER, _C.DISABLED_USER})
"""What stays true of an address, whoever writes to it and whatever."""

# By subject and detail of an enhanced code; "7" stands for all of its subject that are not named.
_ENHANCED: Final[dict[str, ReplyClass]] = {
    "1.0": _C.OTHER,
    "1": _C.UNKNOWN_USER,
    "1.2": _C.DNS,
    "1.6": _C.DISABLED_USER,
    "1.7": _C.SENDER,
    "1.8": _C.SENDER,
    "1.9": _C.OTHER,
    "1.10": _C.DNS,  # RFC 7505
    "1.90": _C.RATE,  # Exchange Online: so many recipients a day
    "2": _C.OTHER,
    "2.1": _C.DISABLED_USER,
    "2.2": _C.MAILBOX_FULL,
    "2.3": _C.SIZE,
    "2.121": _C.RATE,  # Exchange Online: a recipient's own limit
    "2.122": _C.RATE,
    "3": _C.SYSTEM,
    "3.3": _C.PROTOCOL,
    "3.4": _C.SIZE,
    "4": _C.CONNECTION,
    "4.3": _C.DNS,
    "4.4": _C.DNS,
    "4.5": _C.RATE,
    "4.6": _C.LOOP,
    "4.7": _C.EXPIRED,
    "4.14": _C.LOOP,  # Exchange
    "4.310": _C.DNS,
    "4.312": _C.DNS,
    "5": _C.PROTOCOL,
    "5.3": _C.SIZE,
    "6": _C.CONTENT,
    "6.7": _C.PROTOCOL,  # RFC 6531: no SMTPUTF8
    "6.8": _C.PROTOCOL,
    "6.9": _C.PROTOCOL,
    "6.10": _C.PROTOCOL,
    "7": _C.POLICY,
    "7.4": _C.PROTOCOL,
    "7.5": _C.TLS,
    "7.8": _C.RELAY_DENIED,
    "7.10": _C.TLS,
    "7.11": _C.TLS,
    "7.12": _C.RELAY_DENIED,
    "7.13": _C.DISABLED_USER,
    "7.14": _C.RELAY_DENIED,
    "7.16": _C.SIZE,
    "7.17": _C.DISABLED_USER,  # RFC 7293
    "7.18": _C.DISABLED_USER,
    "7.20": _C.AUTHENTICATION,  # RFC 7372, and what Google has added
    "7.21": _C.AUTHENTICATION,
    "7.22": _C.AUTHENTICATION,
    "7.23": _C.AUTHENTICATION,
    "7.24": _C.AUTHENTICATION,
    "7.25": _C.REPUTATION,
    "7.26": _C.AUTHENTICATION,
    "7.27": _C.SENDER,  # RFC 7505
    "7.28": _C.RATE,
    "7.29": _C.AUTHENTICATION,  # RFC 8617
    "7.30": _C.TLS,  # RFC 8689
    "7.31": _C.AUTHENTICATION,
    "7.32": _C.AUTHENTICATION,
    "7.40": _C.AUTHENTICATION,
    "7.54": _C.RELAY_DENIED,  # Exchange
    "7.57": _C.RELAY_DENIED,
    "7.64": _C.RELAY_DENIED,
    "7.124": _C.POLICY,  # Exchange Online, these and those below
    "7.133": _C.POLICY,
    "7.501": _C.REPUTATION,
    "7.502": _C.REPUTATION,
    "7.503": _C.REPUTATION,
    "7.508": _C.RATE,
    "7.509": _C.AUTHENTICATION,
    "7.511": _C.REPUTATION,
    "7.512": _C.CONTENT,
    "7.515": _C.AUTHENTICATION,
    "7.606": _C.REPUTATION,
    "7.708": _C.REPUTATION,
}

# These count before any words: who says them means it. So are those with three digits, which only Exchange Online has.
_SURE: Final = frozenset({"4.3", "4.4", "4.6", "4.7", "7.25", "7.28", *(c for c in _ENHANCED if len(c) == 5)})

# Where a basic code says more than "no".
_BASIC: Final[dict[int, ReplyClass]] = {
    421: _C.SYSTEM,
    452: _C.SYSTEM,
    500: _C.PROTOCOL,
    501: _C.PROTOCOL,
    502: _C.PROTOCOL,
    503: _C.PROTOCOL,
    504: _C.PROTOCOL,
    521: _C.DNS,  # RFC 7504: accepts no mail at all
    530: _C.RELAY_DENIED,
    535: _C.RELAY_DENIED,
    551: _C.UNKNOWN_USER,
    552: _C.MAILBOX_FULL,
    556: _C.DNS,  # RFC 7504
}

_ADDRESS = re.compile(r"<[^<>]*>")
_NO_DOMAIN = re.compile(
    r"\.[a-z]{2,}\.? (?:does not|doesn't) exist"
)  # a name with a dot, where a user is looked for, too
_FOUND_CODE = re.compile(r"(?:^|[ #(])([45])\.(\d{1,3})\.(\d{1,3})(?![.\d])")
_SPOKEN = re.compile(r"(?:([245]\d\d)(?: |$))?(?:([245]\.\d{1,3}\.\d{1,3})(?: |$))?(.*)", re.DOTALL)
_KEY = 3  # characters of its first word, or that and a blank, that a phrase is looked up by
_BLANKS = {n: " " for n in range(128) if not chr(n).isalnum()}
_MOST_READ = 600  # characters of a reply that are looked at
SUPPRESSED = "suppressed: "  # how the text of our own reply begins about an address that is not written to


class _Phrase(NamedTuple):
    """A phrase with its blanks, its place in the order of all, how the codes must begin, and the class."""

    place: int
    words: str
    codes: str
    found: ReplyClass | None


_NONE: Final = _Phrase(1_000_000, "", "", None)


def classify(reply: Reply) -> ReplyClass:
    """The class of a reply that did not deliver; OTHER where nothing is known of it."""
    return _classify(reply.code, reply.enhanced, reply.text[:_MOST_READ])


def classify_text(text: str) -> ReplyClass:
    """The class of a reply as `str` has written it: `550 5.1.1 no such user`, or a finding of this server."""
    return classify(reply_from(text))


def reply_from(text: str) -> Reply:
    """A reply from its text; words without a code are a finding of this server."""
    match = _SPOKEN.fullmatch(text)
    assert match is not None  # each part is optional
    return Reply(int(match[1] or 0), match[2] or "", match[3])


@lru_cache(maxsize=4096)
def _classify(code: int, enhanced: str, text: str) -> ReplyClass:
    if not code:
        return _C.SUPPRESSED if text.startswith(SUPPRESSED) else _by_enhanced(enhanced.partition(".")[2]) or _C.OTHER
    if not enhanced and (found := _FOUND_CODE.search(text)):
        detail = f"{found[2]}.{found[3]}"
    else:
        detail = enhanced.partition(".")[2]
    if detail in _SURE:
        return _ENHANCED[detail]
    return _by_words(f"{code}.{detail}", text) or _by_enhanced(detail) or _BASIC.get(code, _C.OTHER)


def _by_words(codes: str, text: str) -> ReplyClass | None:
    text = " ".join(word for word in _ADDRESS.sub(" ", text).lower().split() if "@" not in word)
    if _NO_DOMAIN.search(text):
        return _C.DNS
    said = text.translate(_BLANKS).split()
    words = f" {' '.join(said)} "
    best = _NONE
    for key in {f"{word} "[:_KEY] for word in said}:
        for phrase in _PHRASES.get(key, ()):
            if phrase.place >= best.place:
                break
            if phrase.words in words and codes.startswith(phrase.codes):
                best = phrase
                break
    return best.found


def _by_enhanced(detail: str) -> ReplyClass | None:
    """By the whole of it, then by its subject."""
    return _ENHANCED.get(detail) or _ENHANCED.get(detail.partition(".")[0])


def _phrases(table: str) -> dict[str, list[_Phrase]]:
    """The phrases of the table in their order, by the first characters of each."""
    phrases: dict[str, list[_Phrase]] = {}
    place = 0
    for paragraph in table.strip().split("\n\n"):
        head, _, body = paragraph.partition(":\n")
        name, _, codes = head.partition(" ")
        for words in " ".join(body.split()).split(", "):
            end = "" if words.endswith("*") else " "
            phrase = _Phrase(place, f" {words.removesuffix('*')}{end}", codes, ReplyClass(name))
            phrases.setdefault(f"{words.split()[0]} "[:_KEY], []).append(phrase)
            place += 1
    return phrases


_PHRASES: Final = _phrases(WORDS)
