"""What a transaction asked for with its parameters, as the envelope keeps it. Plain transactions never come here."""

from __future__ import annotations

from collections.abc import Sequence

from mta._fastparse import MailOptions
from mta.model import Options, Recipient


def options_of(asked: MailOptions | None, user: str) -> Options:
    """`user` is who was logged in, "" for nobody."""
    if asked is None:
        return Options(user=user)
    return Options(
        user=user,
        utf8=asked.utf8,
        binary=asked.binary,
        require_tls=asked.require_tls,
        ret=asked.ret,
        envid=asked.envid,
        hold_until=asked.hold_until,
        deliver_by=asked.deliver_by,
        by_return=asked.by_return,
        by_trace=asked.by_trace,
        priority=asked.priority,
        auth=asked.auth,
    )


def recipients_of(addresses: Sequence[bytes], asked: MailOptions | None) -> tuple[Recipient, ...]:
    """Each with what its sender wants to hear of it (RFC 3461)."""
    if asked is None or asked.notices is None:
        return tuple(map(Recipient, addresses))
    return tuple(
        Recipient(address, notify, orcpt) for address, (notify, orcpt) in zip(addresses, asked.notices, strict=True)
    )
