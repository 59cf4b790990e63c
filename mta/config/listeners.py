"""What is wrong with a [[listener]] as a whole: what its role, and the kind of its addresses, do not go with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mta.config.settings import Listener

_SMTP_PORT: Final = 25
_LMTP_NEEDS: Final = ("PIPELINING", "ENHANCEDSTATUSCODES")  # RFC 2033 §5
_DEFAULTS: Final = {name: Listener.__dataclass_fields__[name].default for name in ("socket_mode", "socket_group")}


def problems(listener: Listener) -> Iterator[tuple[str, str]]:
    """(key, what is wrong)."""
    if listener.role == "lmtp":
        yield from _lmtp_problems(listener)
    if listener.trusted and not all(address.path for address in listener.address):
        yield "trusted", "is for unix: addresses only; who may relay over the network is named in [relay] networks"
    if not any(address.path for address in listener.address):
        for name, default in _DEFAULTS.items():
            if getattr(listener, name) != default:
                yield name, "means nothing without a unix: address"


def _lmtp_problems(listener: Listener) -> Iterator[tuple[str, str]]:
    for address in listener.address:
        if address.port == _SMTP_PORT:
            yield "address", f"{address}: LMTP must not be spoken on port 25 (RFC 2033 5); take another, such as 24"
    for name in _LMTP_NEEDS:
        if name in listener.without:
            yield "without", f"LMTP cannot be without {name} (RFC 2033 5)"
