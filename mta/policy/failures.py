"""Failed logins, counted per user and per address, in memory that all receivers of a server share.

The memory is that of `mta.policy.rows`, with one shard for all: two failures at the same instant may count as one,
which no guesser can make use of.

A count ends `lockout` after the last failure that was added to it. Attempts that are turned away unseen add nothing.

- INVARIANT: whether a user exists makes no difference here: names are counted, not accounts.
- An address from which a user has logged in is not shut out by what others do with that user's name: else anybody
  could keep anybody from his mail.
"""

from __future__ import annotations

import ipaddress
import os
from functools import lru_cache
from pathlib import Path
from typing import Final

from mta.config.settings import Login
from mta.policy.rows import LAST, SharedRows

_COUNT: Final = 2  # the word of a row
_SECRET: Final = 32
_KNOWN_FOR = 30 * 86400  # seconds that an address stays known as a user's own


class FailureTable:
    """The shared rows; two megabytes, of which only what is used is ever in memory."""

    def __init__(self) -> None:
        self._rows = SharedRows(4)

    def count(self, name: str, now: int, lifetime: int) -> int:
        row = self._rows.find(self._rows.tag(name))
        return self._counted(row, now, lifetime) if row >= 0 else 0

    def add(self, name: str, now: int, lifetime: int) -> None:
        row = self._rows.claim(self._rows.tag(name))
        cells = self._rows.cells
        cells[row + _COUNT] = self._counted(row, now, lifetime) + 1
        cells[row + LAST] = now

    def _counted(self, row: int, now: int, lifetime: int) -> int:
        cells = self._rows.cells
        return cells[row + _COUNT] if cells[row + LAST] + lifetime > now else 0


class Guard:
    """The rules of one server: who is turned away before his password is looked at. `now` counts seconds."""

    def __init__(self, table: FailureTable, login: Login) -> None:
        self._table = table
        self._login = login
        self._lockout = max(1, int(login.lockout))

    def shuts_out(self, user: str, client: str, now: int) -> str:
        """Why this attempt is not looked at; "" when it is. A user of "" asks about the address alone."""
        network = network_of(client)
        count = self._table.count
        if network and count(f"address {network}", now, self._lockout) >= self._login.address_failures:
            return f"too many failed logins from {network}"
        if not user or self._table.count(_pair(user, network), now, _KNOWN_FOR):
            return ""
        if count(f"user {user}", now, self._lockout) >= self._login.user_failures:
            return f"too many failed logins as {user}"
        return ""

    def failed(self, user: str, client: str, now: int) -> None:
        network = network_of(client)
        if network:
            self._table.add(f"address {network}", now, self._lockout)
        if user and not self._table.count(_pair(user, network), now, _KNOWN_FOR):
            self._table.add(f"user {user}", now, self._lockout)

    def succeeded(self, user: str, client: str, now: int) -> None:
        self._table.add(_pair(user, network_of(client)), now, _KNOWN_FOR)


def login_secret(path: Path) -> bytes:
    """Octets that stay the same over restarts, made when they are missing; another salt would give a user away."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        secret = os.pread(fd, _SECRET, 0)
        if len(secret) < _SECRET:
            secret = os.urandom(_SECRET)
            os.pwrite(fd, secret, 0)
        return secret
    finally:
        os.close(fd)


def _pair(user: str, network: str) -> str:
    return f"known {user} {network}"


@lru_cache(4096)
def network_of(client: str) -> str:
    """An IPv4 address as it is, an IPv6 one as its /64, which is what one customer has; "" for anything else."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
