"""Which Maildir an address names.

INVARIANT: no address can lead out of the directory that the template names: each of `{domain}` and `{local}`
becomes exactly one path component's worth of printable text that neither begins with a dot nor holds a slash.
An address that cannot be named so has no mailbox (None); it is refused at RCPT, before anything was accepted.

Domains compare without case (RFC 5321 §2.3.5). Local parts are folded too: a server may treat them so (RFC
5321 §2.4), and two mailboxes that differ only in case help nobody. A quoted local part names the same mailbox
as its content (RFC 5321 §4.1.2). Beyond ASCII what looks the same is the same (NFC, RFC 6532 §3.1).
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from pathlib import Path

_LONGEST = 200  # octets of a component; file systems allow 255, and a suffix in the template needs room
_PLACE = re.compile(r"\{(domain|local)\}")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


@functools.lru_cache(maxsize=4096)
def maildir_path(template: str, address: bytes) -> Path | None:
    """The Maildir of an address, or None when no mailbox can have that name."""
    local, at, domain = address.rpartition(b"@")
    if not at:
        return None
    names = {"domain": _component(_text(domain)), "local": _component(_unquoted(_text(local)))}
    if None in names.values():
        return None
    return Path(_PLACE.sub(lambda place: names[place[1]] or "", template))


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _unquoted(local: str) -> str:
    if not local.startswith('"'):
        return local
    return _QUOTED_PAIR.sub(r"\1", local[1:-1]) if _QUOTED.fullmatch(local) else ""


def _component(text: str) -> str | None:
    """The text as part of a file name; None if it would be unsafe as one."""
    name = text.lower() if text.isascii() else unicodedata.normalize("NFC", text.lower())
    if not name or name.startswith(".") or "/" in name or not name.isprintable():
        return None
    return name if len(name.encode("utf-8")) <= _LONGEST and _can_be_written(name) else None


def _can_be_written(name: str) -> bool:
    """Whether this process has a way to write it in a file name: in some locales it has not."""
    if name.isascii():
        return True
    try:
        return os.fsencode(name) == name.encode("utf-8")
    except UnicodeEncodeError:
        return False
