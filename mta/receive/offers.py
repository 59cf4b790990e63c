"""Which extensions a listener offers: the bits of its session configuration.

Everywhere: what any client may ask for. On listeners of role submission also what moves mail in time or before that
of others, since strangers must not do that (RFC 4865 §4, RFC 6710 §4.1); elsewhere to trusted networks, of these what
`trusted_extensions` names. REQUIRETLS where there is TLS; the session
offers it only once that has begun. `[[listener]] without` takes away, and what cannot be without what is taken away
goes with it.
"""

from __future__ import annotations

from typing import Final

from mta._fastparse import EXTENSIONS
from mta.config.settings import TIMELY_EXTENSIONS, Limits, Listener

_EVERYWHERE: Final = (
    *("PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "LIMITS"),
)
_NEEDS: Final = {"SMTPUTF8": "8BITMIME", "BINARYMIME": "CHUNKING"}


def offers(listener: Listener, limits: Limits, *, trusted: bool = False) -> int:
    """Bits of `EXTENSIONS`; `trusted`: what a client of the networks of [relay] sees."""
    offered = set(_EVERYWHERE)
    if listener.role == "submission":
        offered.update(TIMELY_EXTENSIONS)
    elif trusted:
        offered.update(listener.trusted_extensions)
    if listener.tls != "off":
        offered.add("REQUIRETLS")
    if limits.hold < 1:
        offered.discard("FUTURERELEASE")
    offered.difference_update(listener.without)
    offered -= {name for name, needed in _NEEDS.items() if needed not in offered}
    return sum(EXTENSIONS[name] for name in offered)
