"""What the client said beside the addresses, and what was decided of it, as `mta queue show` tells it. Pure.

Only what there is is told; nearly all messages have none of it. All text is printable.
"""

from __future__ import annotations

from mta.mail.xtext import decode_xtext, split_typed
from mta.model import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS, Envelope, Recipient
from mta.observe.maillog import printable

_NOTIFY = (
    (NOTIFY_NEVER, "never"),
    (NOTIFY_SUCCESS, "success"),
    (NOTIFY_FAILURE, "failure"),
    (NOTIFY_DELAY, "delay"),
)


def wishes(envelope: Envelope) -> dict[str, object]:
    """Those for the whole message; times in seconds since the epoch."""
    options = envelope.options
    if options is None:
        return {}
    said: dict[str, object] = {
        "user": printable(options.user),
        "ret": options.ret.lower(),
        "envid": printable(decode_xtext(options.envid)),
        "utf8": options.utf8,
        "binary": options.binary,
        "require_tls": options.require_tls,
        "hold_until": options.hold_until / 1000,
        "deliver_by": options.deliver_by / 1000,
        "priority": options.priority,
        "tenant": options.tenant,
        "pool": options.pool,
        "rank": options.rank,
    }
    found = {name: value for name, value in said.items() if value}
    if options.deliver_by:
        found["by_mode"] = ("return" if options.by_return else "notify") + (", trace" if options.by_trace else "")
    if options.auth is not None:
        found["auth"] = printable(decode_xtext(options.auth))
    return found


def dsn(recipient: Recipient) -> dict[str, object]:
    """Those for one recipient."""
    found: dict[str, object] = {}
    if recipient.notify:
        found["notify"] = [name for bit, name in _NOTIFY if recipient.notify & bit]
    if recipient.orcpt:
        kind, value = split_typed(recipient.orcpt)
        found["orcpt"] = printable((kind.encode() + b";" if kind else b"") + decode_xtext(value))
    return found
