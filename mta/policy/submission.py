"""Role submission: who may send as whom, and what is done to a text (RFC 6409).

INVARIANT: a user sends only as himself: the reverse-path and every author in From are his own name or one of his
addresses. The null reverse-path is everybody's, for notifications that mail programs send (RFC 8098 §2.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from mta.config.settings import Domain
from mta.idn import with_a_labels
from mta.mail.submission import authors, completed, header_end
from mta.mail.trace import date_text
from mta.model import StoreError
from mta.policy.users.accounts import folded

LOGIN_FIRST = b"530 5.7.0 Log in before you send, this server takes mail of its own users here\r\n"
NOT_YOURS = b"553 5.7.1 You may not send as this address\r\n"
_NOT_YOUR_FROM = b"550 5.7.1 You may not send as the address in From\r\n"
_NO_FROM = b"550 5.6.0 From cannot be understood; it must be a list of addresses\r\n"
_NO_END = b"552 5.3.4 The header of this message is too long\r\n"


class LoggedIn(str):
    """A user's name, and what is his besides: addresses, and "@domain" for all of a domain; his tenant and priority."""

    __slots__ = ("addresses", "priority", "tenant")
    addresses: frozenset[str]
    tenant: str
    priority: int

    def __new__(cls, name: str, addresses: Sequence[str], tenant: str = "", priority: int = 0) -> LoggedIn:
        made = super().__new__(cls, name)
        made.addresses = frozenset(map(with_a_labels, addresses))
        made.tenant, made.priority = tenant, priority
        return made


class Unfit(StoreError):
    """A text that is not taken from this user; `reply` says why."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.decode("ascii").rstrip())
        self.reply = reply


class Submission:
    """The rules of one listener."""

    def __init__(self, hostname: str, domains: Sequence[Domain]) -> None:
        self._hostname = hostname
        self._domains = frozenset(domain.name for domain in domains)

    def judge_sender(self, sender: bytes, user: str) -> bytes:
        """b"", or the reply that MAIL gets."""
        if not user:
            return LOGIN_FIRST
        return b"" if not sender or self.is_his(user, sender.decode("utf-8", "replace")) else NOT_YOURS

    def is_his(self, user: str, address: str) -> bool:
        """A name without a domain stands for that mailbox in each domain of ours. Domains compare by their A-labels."""
        address = folded(with_a_labels(address))
        name = with_a_labels(user)
        local, _, domain = address.rpartition("@")
        if not local:
            return address == name
        if address == name or (local == name and domain in self._domains):
            return True
        return isinstance(user, LoggedIn) and not user.addresses.isdisjoint((address, f"@{domain}"))

    def prepared(self, text: bytes, user: str, message_id: str, second: int, *, whole: bool) -> bytes:
        """The text as it is stored; `whole` is false for the beginning of a long one. Unfit."""
        if not whole and header_end(text) < 0:
            raise Unfit(_NO_END)
        if user:
            named = authors(text)
            if named is None:
                raise Unfit(_NO_FROM)
            if not all(self.is_his(user, address) for address in named):
                raise Unfit(_NOT_YOUR_FROM)
        own_id = f"<{message_id}@{self._hostname}>".encode("ascii")
        return completed(text, date_text(second).encode("ascii"), own_id)
