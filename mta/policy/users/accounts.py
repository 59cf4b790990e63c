"""Users as the policy knows them, and what a back-end is that knows some.

Three kinds of back-end, as their sources differ in what they tell:

- `AccountSource` (users file, SQL) hands out what it keeps of a user; passwords are checked here.
- `PasswordJudge` (Dovecot, a hook) is told the password and says yes or no.
- `TokenJudge` (OAuth) says whose a bearer token is.

Each may raise `Unavailable`: then nobody knows, and the client is told to try again (RFC 4954 §6: 454 4.7.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


class Unavailable(Exception):
    """A back-end could not be asked; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class User:
    """Who has logged in, and the addresses that are his: "name@domain", or "@domain" for all of a domain.

    `tenant` and `priority`: on whose account his mail goes, and how urgent it is, where a back-end says so.
    """

    name: str
    addresses: tuple[str, ...] = ()
    tenant: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user of an AccountSource."""

    name: str
    credentials: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()  # SHA-256 in hexadecimal
    disabled: bool = False

    @property
    def user(self) -> User:
        return User(self.name, self.aliases)


@runtime_checkable
class AccountSource(Protocol):
    async def find(self, name: str) -> Account | None:
        """The user of this (prepared, folded) name; None where there is none. Unavailable."""


@runtime_checkable
class CertificateSource(Protocol):
    """An AccountSource that knows whose a client certificate is."""

    async def holder(self, fingerprint: str) -> Account | None:
        """The user of the certificate with this SHA-256 in hexadecimal. Unavailable."""


@runtime_checkable
class PasswordJudge(Protocol):
    async def judge(self, name: str, password: str, client: str) -> User | None:
        """The user, if the password is his. Unavailable."""


@runtime_checkable
class TokenJudge(Protocol):
    scope: str
    configuration: str

    async def owner(self, token: str) -> str | None:
        """The name of the user whose token this is; None when it is not valid (any more). Unavailable."""


@runtime_checkable
class Closable(Protocol):
    """A back-end that holds connections or threads."""

    async def close(self) -> None:
        """End them; it is not asked any more."""


BackEnd = AccountSource | PasswordJudge | TokenJudge


def folded(name: str) -> str:
    """User names and addresses are compared without regard to case."""
    return name.casefold()
