"""What a transaction asked for with its parameters, as the envelope keeps it. Plain transactions never come here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from mta._fastparse import MailOptions
from mta.model import Options, Recipient

_NOBODY: Final = b"<>"
_ENCODED: Final = re.compile(rb"\+([0-9A-F]{2})")


def options_of(asked: MailOptions | None, user: str, is_his: Callable[[str], bool] | None = None) -> Options:
    """`user` is who was logged in, "" for nobody; `is_his` tells whether an address is his."""
    if asked is None:
        return Options(user=user)
    return Options(
        user=user,
        utf8=asked.utf8,
        binary=asked.binary,
        require_tls=asked.require_tls,
        ret=asked.ret,
        envid=asked.envid,
        hold=asked.hold.decode("ascii"),
        hold_until=asked.hold_until,
        deliver_by=asked.deliver_by,
        by_return=asked.by_return,
        by_trace=asked.by_trace,
        priority=asked.priority,
        auth=_vouched(asked.auth, is_his if user else None),
    )


def _vouched(auth: bytes | None, is_his: Callable[[str], bool] | None) -> bytes | None:
    """Who is said to have submitted it, if that is known here to be so; else nobody (RFC 4954 §5)."""
    if auth is None or auth == _NOBODY:
        return auth
    address = _ENCODED.sub(lambda found: bytes([int(found[1], 16)]), auth).decode("utf-8")
    return auth if is_his is not None and is_his(address) else _NOBODY


def recipients_of(addresses: Sequence[bytes], asked: MailOptions | None) -> tuple[Recipient, ...]:
    """Each with what its sender wants to hear of it (RFC 3461)."""
    if asked is None or asked.notices is None:
        return tuple(map(Recipient, addresses))
    return tuple(
        Recipient(address, notify, orcpt) for address, (notify, orcpt) in zip(addresses, asked.notices, strict=True)
    )
