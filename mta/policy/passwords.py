"""Passwords and what is kept of them: Argon2id hashes (RFC 9106) and SCRAM verifiers (RFC 5802), side by side.

A credential is text that says itself what it is:

    $argon2id$v=19$m=19456,t=2,p=1$salt$hash
    SCRAM-SHA-256$15000:salt$stored key:server key

Checking one takes tens of milliseconds of a core on purpose, so it happens in `HashingThreads`, never in the event
loop. Argon2 goes first: the weaker of two kinds says nothing that the stronger one did not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from mta.protocol.sasl.prep import saslprep
from mta.protocol.sasl.verifier import SALT_LENGTH, Verifier, make_verifier, parse_verifier

T = TypeVar("T")

# 19 MiB and two passes: 25 ms of one core, and as much work for who steals the file as any cheaper choice allows
# (OWASP's password storage advice). One lane, as a server has other things to do with its cores.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=argon2.Type.ID)
_ARGON = "$argon2id$"


class Overloaded(Exception):
    """More passwords wait to be checked than may."""


def make_credentials(password: str, digests: Sequence[str]) -> tuple[str, ...]:
    """An Argon2id hash, and a SCRAM verifier for each digest. ValueError when the password cannot be one."""
    try:
        prepared = saslprep(password)
    except ValueError as error:
        raise ValueError(f"the password {error}") from None
    verifiers = [str(make_verifier(prepared, os.urandom(SALT_LENGTH), digest=digest)) for digest in digests]
    return _HASHER.hash(prepared), *verifiers


def check_credential(text: str) -> None:
    """ValueError for what is no credential; its text does not hold the secret."""
    if not text.startswith(_ARGON):
        parse_verifier(text)
        return
    try:
        argon2.extract_parameters(text)
    except InvalidHashError:
        raise ValueError("is no Argon2id hash") from None


def is_password_of(credentials: Sequence[str], password: str) -> bool:
    """Whether these belong to the password; takes its time."""
    try:
        prepared = saslprep(password)
    except ValueError:
        prepared = password  # no password that was ever set; but the answer comes no sooner
    for credential in credentials:
        if credential.startswith(_ARGON):
            with contextlib.suppress(VerificationError, InvalidHashError):
                return _HASHER.verify(credential, prepared)
            return False
    verifiers = [parse_verifier(credential) for credential in credentials]
    return bool(verifiers) and verifiers[0].holds(prepared)


def scram_verifier(credentials: Sequence[str], digest: str) -> Verifier | None:
    """The verifier for this digest, if there is one."""
    wanted = f"SCRAM-{digest}$"
    return next((parse_verifier(text) for text in credentials if text.startswith(wanted)), None)


def nobodys_credentials() -> tuple[str, ...]:
    """What is checked when nobody has the name: it takes as long, and is never right."""
    return make_credentials(os.urandom(16).hex(), ())


class HashingThreads:
    """A few threads, and so many that may wait for them. The threads are made when they are first needed."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._most = threads + waiting
        self._busy = 0

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """The result of a slow function. Overloaded."""
        if self._busy >= self._most:
            raise Overloaded
        self._busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        finally:
            self._busy -= 1

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
