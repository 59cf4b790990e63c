"""The books of the kill storm: what clients were promised, and what arrived.

Each message has a token of its own in its first header. Clients enter a text before they send it, and its id when the
250 has come; a text without a 250 is never sent again under the same token, so whether it arrives is open. The sink
enters each copy before it answers: an answer that a dead courier never read still counts as an arrival.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

TOKEN = b"X-Token: "


@dataclass(slots=True)
class Account:
    """What the books say once the queue is empty. A copy is one message at one domain."""

    acknowledged: int = 0
    open: int = 0  # sent, or begun, without a 250
    arrived_open: int = 0  # of these, how many arrived
    lost: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    doubled: int = 0  # copies beyond the first

    @property
    def sound(self) -> bool:
        return not self.lost and not self.altered


class Ledger:
    """Kept in memory by the one process that sends and receives, which is never killed."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []  # by token
        self._domains: list[tuple[bytes, ...]] = []  # by token
        self._acknowledged: dict[int, str] = {}
        self._copies: Counter[tuple[int, bytes]] = Counter()
        self._altered: list[str] = []

    @property
    def acknowledged(self) -> int:
        return len(self._acknowledged)

    def enter(self, body: bytes, domains: tuple[bytes, ...]) -> tuple[int, bytes]:
        """A new message: its token and its text."""
        token = len(self._digests)
        text = b"%s%d\r\n%s" % (TOKEN, token, body)
        self._digests.append(hashlib.sha256(text).digest())
        self._domains.append(domains)
        return token, text

    def promised(self, token: int, message_id: str) -> None:
        """The 250 for a message has come."""
        self._acknowledged[token] = message_id

    def arrived(self, content: bytes, domain: bytes) -> None:
        """A copy has come, with headers of the server before those of the client."""
        start = content.find(TOKEN)
        text = content[start:] if start >= 0 else b""
        number = text[len(TOKEN) : text.find(b"\r\n")]
        token = int(number) if number.isdigit() else -1
        if not 0 <= token < len(self._digests):
            self._altered.append(f"a text without a known token: {content[:200]!r}")
            return
        if hashlib.sha256(text).digest() != self._digests[token] or domain not in self._domains[token]:
            self._altered.append(f"token {token} at {domain!r} (id {self._acknowledged.get(token, 'none')})")
        self._copies[token, domain] += 1

    def missing(self) -> int:
        """Copies of acknowledged messages that have not come yet."""
        return sum(1 for _ in self._lost())

    def account(self) -> Account:
        return Account(
            acknowledged=len(self._acknowledged),
            open=len(self._digests) - len(self._acknowledged),
            arrived_open=len({token for token, _ in self._copies if token not in self._acknowledged}),
            lost=list(self._lost()),
            altered=list(self._altered),
            doubled=self._copies.total() - len(self._copies),
        )

    def _lost(self) -> Iterator[str]:
        for token, message_id in self._acknowledged.items():
            for domain in self._domains[token]:
                if (token, domain) not in self._copies:
                    yield f"token {token} at {domain.decode()} (id {message_id})"
