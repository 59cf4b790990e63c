"""The suppression list as operators see it: words in, rows out. ValueError: the words are wrong, and how."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import Final

from mta.observe.maillog import MailLog, printable
from mta.queue.suppression import Entry, Suppression

Row = dict[str, object]
_LONGEST: Final = 320  # octets of an address: 64, "@", 255
_LONGEST_REASON: Final = 200


class SuppressionDesk:
    """What the control socket offers. `by` is who asks, for the mail log."""

    def __init__(self, suppression: Suppression, maillog: MailLog) -> None:
        self._suppression = suppression
        self._maillog = maillog

    async def entries(self, pattern: str, tenant: str | None) -> AsyncIterator[Row]:
        """Those whose address fits a pattern ("" for all), of one tenant or of all (None)."""
        wanted = pattern.lower()
        async for entry in self._suppression.entries():
            if tenant in (None, entry.tenant) and (not wanted or fnmatchcase(_text(entry.address), wanted)):
                yield _row(entry)

    async def add(self, address: str, tenant: str, reason: str, keep: float, by: str) -> Row:
        """Put one on the list; `keep` seconds, 0: for ever. On return it is in the file."""
        if len(reason) > _LONGEST_REASON or not reason.isprintable():
            raise ValueError(f"a reason is at most {_LONGEST_REASON} printable characters")
        entry = self._suppression.add(tenant, _address(address), reason or "by the postmaster", keep=keep)
        await self._suppression.flush()
        self._note("suppressed", entry.address, tenant, by)
        return _row(entry)

    async def remove(self, address: str, tenant: str, by: str) -> int:
        """Take one off; how many were there, 0 or 1."""
        wanted = _address(address)
        found = self._suppression.remove(tenant, wanted)
        await self._suppression.flush()
        if found:
            self._note("unsuppressed", wanted, tenant, by)
        return int(found)

    async def check(self, address: str, tenant: str) -> Row | None:
        """The entry that keeps a tenant from writing to an address, with all that is known of it."""
        found = self._suppression.find(tenant, _address(address))
        if found is None:
            return None
        return _row(await self._suppression.whole(found))

    def _note(self, event: str, address: bytes, tenant: str, by: str) -> None:
        to = f"to=<{printable(address)}> tenant={printable(tenant) or '-'}"
        self._maillog("-", event, f"{to} by={printable(by)}")


def _address(text: str) -> bytes:
    """An address, or "@domain" for all of a domain."""
    address = text.strip().removeprefix("<").removesuffix(">").encode("utf-8", "surrogateescape").lower()
    _, at, domain = address.rpartition(b"@")
    if not at or not domain or len(address) > _LONGEST or any(octet <= 0x20 or octet == 0x7F for octet in address):
        raise ValueError(f'{text!r} is no address; write "user@example.net", or "@example.net" for all of a domain')
    return address


def _text(address: bytes) -> str:
    return address.decode("utf-8", "backslashreplace")


def _row(entry: Entry) -> Row:
    return {
        "address": printable(entry.address),
        "tenant": printable(entry.tenant),
        "reason": entry.reason,
        "reply": entry.reply,
        "added": entry.added,
        "expires": entry.expires or None,
    }
