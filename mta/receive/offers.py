"""Which extensions a listener offers: the bits of its session configuration.

Everywhere: what any client may ask for. On listeners of role submission also what moves mail in time or before that
of others, since strangers must not do that (RFC 4865 §4, RFC 6710 §7). REQUIRETLS where there is TLS; the session
offers it only once that has begun. `[[listener]] without` takes away, and what cannot be without what is taken away
goes with it.
"""

from __future__ import annotations

from typing import Final

from mta._fastparse import EXTENSIONS
from mta.config.settings import Limits, Listener

_EVERYWHERE: Final = (
    *("PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "LIMITS"),
)
_SUBMISSION: Final = ("FUTURERELEASE", "DELIVERBY", "MT-PRIORITY")
_NEEDS: Final = {"SMTPUTF8": "8BITMIME", "BINARYMIME": "CHUNKING"}


def offers(listener: Listener, limits: Limits) -> int:
    """Bits of `EXTENSIONS`."""
    offered = set(_EVERYWHERE)
    if listener.role == "submission":
        offered.update(_SUBMISSION)
    if listener.tls != "off":
        offered.add("REQUIRETLS")
    if limits.hold < 1:
        offered.discard("FUTURERELEASE")
    offered.difference_update(listener.without)
    offered -= {name for name, needed in _NEEDS.items() if needed not in offered}
    return sum(EXTENSIONS[name] for name in offered)
