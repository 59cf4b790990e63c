"""Who gets in, and how much he may ask: the limits of one listener, counted over all receivers.

At connect: too many connections in all, or too many, too often or with too many errors from this address. At MAIL and
RCPT: rates, where they are set. An address is an IPv4 address or an IPv6 /64 (`network_of`). Networks that may relay
are counted only in all, unless `limit_trusted` says otherwise.

What was turned away counts as well, so who hammers on stays out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from mta.config.settings import Limits, Rate
from mta.policy.failures import network_of
from mta.policy.tally import CONNECTIONS, ERRORS, MESSAGES, RECIPIENTS, Tally

FULL: Final = b"421 4.3.2 This server has as many connections as it can serve, try again later\r\n"
TOO_MANY: Final = b"421 4.7.0 Too many connections from your address at once, close some or try again later\r\n"
TOO_OFTEN: Final = b"421 4.7.0 Too many connections from your address in a short time, try again later\r\n"
TOO_WRONG: Final = b"421 4.7.0 Too many errors from your address in a short time, try again later\r\n"
TOO_MUCH_MAIL: Final = b"450 4.7.1 Too much mail from your address in a short time, try again later\r\n"
TOO_MANY_RECIPIENTS: Final = b"450 4.7.1 Too many recipients from your address in a short time, try again later\r\n"

_STRESS = 0.8  # of the connections in all, or of those that this receiver can hold
_TAGS_KEPT = 4096


class Guest:
    """A client that is in, as far as it is counted. `tag` is 0 where nothing is but the connection itself."""

    __slots__ = ("_admission", "_one", "_row", "tag")

    def __init__(self, admission: Admission, tag: int, row: int, one: int) -> None:
        self._admission = admission
        self.tag = tag
        self._row = row
        self._one = one

    def message(self) -> bytes:
        """MAIL: b"", or the refusal."""
        limits = self._admission.limits
        return TOO_MUCH_MAIL if self._exceeds(MESSAGES, limits.message_rate) else b""

    def recipient(self) -> bytes:
        """RCPT: b"", or the refusal."""
        limits = self._admission.limits
        return TOO_MANY_RECIPIENTS if self._exceeds(RECIPIENTS, limits.recipient_rate) else b""

    def erred(self) -> None:
        rate = self._admission.limits.error_rate
        if self.tag and rate.count:
            self._admission.tally.add(self.tag, ERRORS, rate, self._admission.now())

    def leave(self) -> None:
        tally = self._admission.tally
        tally.leave(self._row)
        tally.leave(self._one)
        self._row = self._one = -1

    def _exceeds(self, kind: int, rate: Rate) -> bool:
        if not self.tag or not rate.count:
            return False
        return self._admission.exceeds(self.tag, kind, rate)


class Nobody(Guest):
    """Who is not in, or not yet."""

    __slots__ = ()

    def __init__(self) -> None:
        self.tag = 0

    def message(self) -> bytes:
        return b""

    def recipient(self) -> bytes:
        return b""

    def erred(self) -> None:
        pass

    def leave(self) -> None:
        pass


NOBODY: Final = Nobody()


class Admission:
    """The limits of the listener `name`. `most`: what this receiver alone can hold; `now`: see `mta.policy.tally`."""

    def __init__(
        self,
        name: str,
        limits: Limits,
        tally: Tally,
        *,
        trusts: Callable[[str], bool],
        now: Callable[[], int],
        most: int = 1 << 30,
    ) -> None:
        self.limits = limits
        self.tally = tally
        self.now = now
        self._most = most
        self._trusts = trusts
        self._name = name
        self._all = tally.tag(f"{name} all")
        self._tag_of = lru_cache(_TAGS_KEPT)(self._find_tag)
        self._per_address = bool(
            limits.connections_per_address
            or any(r.count for r in (limits.connection_rate, limits.message_rate, limits.recipient_rate))
            or limits.error_rate.count
        )

    def admit(self, client: str, here: int) -> Guest | bytes:
        """The guest, or the reply he is turned away with. `here`: connections that this receiver has now."""
        if here >= self._most or self.tally.present(self._all) >= self.limits.connections:
            return FULL
        tag = self._tag_of(client) if self._per_address else 0
        if tag and (refusal := self._refused(tag)):
            return refusal
        now = self.now()
        one = self.tally.enter(tag, now) if tag else -1
        return Guest(self, tag, self.tally.enter(self._all, now), one)

    def exceeds(self, tag: int, kind: int, rate: Rate) -> bool:
        """Count one more, and tell whether it is too many."""
        now = self.now()
        self.tally.add(tag, kind, rate, now)
        return self.tally.recent(tag, kind, rate, now) > rate.count

    def stressed(self, here: int) -> bool:
        """Whether there is little room left; `here`: connections that this receiver has now."""
        return here >= _STRESS * self._most or self.tally.present(self._all) >= _STRESS * self.limits.connections

    def _refused(self, tag: int) -> bytes:
        limits = self.limits
        if limits.connection_rate.count and self.exceeds(tag, CONNECTIONS, limits.connection_rate):
            return TOO_OFTEN
        if limits.connections_per_address and self.tally.present(tag) >= limits.connections_per_address:
            return TOO_MANY
        rate = limits.error_rate
        if rate.count and self.tally.recent(tag, ERRORS, rate, self.now()) > rate.count:
            return TOO_WRONG
        return b""

    def _find_tag(self, client: str) -> int:
        """What the client is counted under; 0: he is not."""
        network = network_of(client)
        if not network or (self._trusts(client) and not self.limits.limit_trusted):
            return 0
        return self.tally.tag(f"{self._name} {network}")
