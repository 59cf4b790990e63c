"""Who a client is: the exchanges of AUTH (RFC 4954) over the configured back-ends, in their order.

    exchange = authenticator.begin("PLAIN", bindings, client)
    step = await exchange.step(response)      Challenge, Granted or Denied

- INVARIANT: unknown users, wrong passwords and disabled users get the same reply, after the same time: a hash is
  computed for a name that nobody has, and no refusal leaves before `[login] delay` has passed since the exchange's
  last message came.
- Hashing happens in threads, and only so many may wait for them; beyond that the answer is 454.
- The first back-end that keeps a user decides on him; judges, which do not tell unknown from wrong, are asked in turn.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mta.config.settings import Login
from mta.policy.failures import FailureTable, Guard
from mta.policy.passwords import HashingThreads, Overloaded, is_password_of, nobodys_credentials, scram_verifier
from mta.policy.users.accounts import (
    Account,
    AccountSource,
    BackEnd,
    CertificateSource,
    Closable,
    PasswordJudge,
    TokenJudge,
    Unavailable,
    User,
    folded,
)
from mta.protocol.sasl.oauth import OAuth
from mta.protocol.sasl.plain import External, Plain
from mta.protocol.sasl.plain import Login as LoginMechanism
from mta.protocol.sasl.scram import ChannelBindings, Scram
from mta.protocol.sasl.steps import (
    AskCertificate,
    AskPassword,
    AskToken,
    AskVerifier,
    Challenge,
    Proven,
    Refused,
    ServerMechanism,
    Step,
)
from mta.protocol.sasl.verifier import DIGESTS, ITERATIONS, SALT_LENGTH, Verifier
from mta.protocol.x509 import ClientCertificate

WRONG = b"535 5.7.8 user name or password is wrong, or this login is not permitted\r\n"
MALFORMED = b"501 5.5.2 this is no message of the chosen mechanism\r\n"
CANCELLED = b"501 5.7.0 authentication was cancelled\r\n"
UNAVAILABLE = b"454 4.7.0 logins cannot be checked now, try again later\r\n"
OVERLOADED = b"454 4.7.0 too many logins at once, try again later\r\n"
SHUT_OUT = b"454 4.7.0 too many failed logins, try again later\r\n"
UNKNOWN_MECHANISM = b"504 5.5.4 this mechanism is not offered here\r\n"
_NONCE_OCTETS = 18


@dataclass(frozen=True, slots=True)
class Granted:
    """The client is this user; `addresses` are the aliases that he may send as, besides his own name."""

    user: str
    addresses: tuple[str, ...]
    tenant: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Denied:
    """A whole reply for the client; `user` and `reason` are for the log."""

    reply: bytes
    user: str = ""
    reason: str = ""


Answer = Challenge | Granted | Denied


class Authenticator:
    """The back-ends of one receiver, and what guards them."""

    def __init__(
        self,
        back_ends: Sequence[BackEnd],
        login: Login,
        failures: FailureTable,
        secret: bytes,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`secret` makes the salts of users that do not exist: the same in every receiver, and after every restart."""
        self.sources = [b for b in back_ends if isinstance(b, AccountSource)]
        self.judges = [b for b in back_ends if isinstance(b, PasswordJudge)]
        self.tokens = [b for b in back_ends if isinstance(b, TokenJudge)]
        self.back_ends = tuple(back_ends)
        self.delay = login.delay
        self.guard = Guard(failures, login)
        self.threads = HashingThreads(login.threads, login.waiting)
        self.now = now
        self._secret = secret
        self._scram_sha_1 = login.scram_sha_1
        self._nobody: tuple[str, ...] = ()

    async def close(self) -> None:
        """End threads and connections."""
        self.threads.close()
        for back_end in self.back_ends:
            if isinstance(back_end, Closable):
                await back_end.close()

    def mechanisms(self, *, bindings: bool = False, certificate: bool = False) -> tuple[str, ...]:
        """The strongest first, as clients choose (RFC 4954 §4). `bindings`, `certificate`: what TLS here can give."""
        offered = []
        if certificate:
            offered.append("EXTERNAL")
        if self.sources:
            offered += ["SCRAM-SHA-256-PLUS"] if bindings else []
            offered += ["SCRAM-SHA-256"]
            offered += ["SCRAM-SHA-1"] if self._scram_sha_1 else []
        if self.tokens:
            offered += ["OAUTHBEARER", "XOAUTH2"]
        if self.sources or self.judges:
            offered += ["PLAIN", "LOGIN"]
        return tuple(offered)

    def begin(
        self,
        mechanism: str,
        tls: ChannelBindings | None,
        client: str,
        certificate: ClientCertificate | None = None,
    ) -> Exchange | None:
        """An exchange; None for a mechanism that is not offered."""
        if mechanism not in self.mechanisms(bindings=bool(tls), certificate=certificate is not None):
            return None
        return Exchange(self, self._make(mechanism, tls), client, certificate)

    def _make(self, mechanism: str, tls: ChannelBindings | None) -> ServerMechanism:
        match mechanism:
            case "PLAIN":
                return Plain()
            case "LOGIN":
                return LoginMechanism()
            case "EXTERNAL":
                return External()
            case "OAUTHBEARER" | "XOAUTH2":
                first = self.tokens[0]
                return OAuth(old=mechanism == "XOAUTH2", scope=first.scope, configuration=first.configuration)
        return Scram(
            "SHA-1" if mechanism == "SCRAM-SHA-1" else "SHA-256",
            nonce=base64.b64encode(secrets.token_bytes(_NONCE_OCTETS)).decode("ascii"),
            plus=mechanism.endswith("-PLUS"),
            offered_plus=bool(tls),
            bindings=tls,
        )

    async def find(self, name: str) -> Account | None:
        """The first source that keeps this user."""
        for source in self.sources:
            account = await source.find(name)
            if account is not None:
                return account
        return None

    async def check_password(self, name: str, password: str, client: str) -> User | None:
        for back_end in self.back_ends:
            if isinstance(back_end, AccountSource):
                account = await back_end.find(name)
                if account is not None:
                    return await self._check_account(account, password)
            elif isinstance(back_end, PasswordJudge):
                user = await back_end.judge(name, password, client)
                if user is not None:
                    return user
        if self.sources:
            await self._check_account(None, password)
        return None

    async def _check_account(self, account: Account | None, password: str) -> User | None:
        if not self._nobody:
            self._nobody = await self.threads.run(nobodys_credentials)
        credentials = account.credentials if account is not None else ()
        right = await self.threads.run(is_password_of, credentials or self._nobody, password)
        return account.user if right and account is not None and not account.disabled else None

    async def verifier(self, name: str, digest: str) -> Verifier:
        """The user's, or one that looks like any other and that nothing can prove."""
        account = await self.find(name)
        if account is not None and not account.disabled:
            found = scram_verifier(account.credentials, digest)
            if found is not None:
                return found
        size = hmac.digest(b"", b"", DIGESTS[digest])
        salt = hmac.digest(self._secret, name.encode("utf-8"), "sha256")[:SALT_LENGTH]
        return Verifier(digest, ITERATIONS, salt, os.urandom(len(size)), os.urandom(len(size)))

    async def owner(self, token: str, wanted: str) -> User | None:
        for judge in self.tokens:
            name = await judge.owner(token)
            if name is not None:
                name = folded(name)
                return await self.named(name) if wanted in ("", name) else None
        return None

    async def named(self, name: str) -> User | None:
        """A user who was shown to be who he is otherwise; a source may know his aliases, or that he is disabled."""
        account = await self.find(name)
        if account is None:
            return User(name)
        return None if account.disabled else account.user

    async def holder(self, fingerprint: str) -> Account | None:
        """The user whose certificate has this SHA-256."""
        for source in self.sources:
            if isinstance(source, CertificateSource):
                account = await source.holder(fingerprint)
                if account is not None:
                    return account
        return None

    async def certified(self, name: str) -> User | None:
        """Who issues certificates does not make users where users are kept."""
        return None if self.sources and await self.find(name) is None else await self.named(name)


class Exchange:
    """One AUTH command, from its first message to the verdict."""

    def __init__(
        self, owner: Authenticator, mechanism: ServerMechanism, client: str, certificate: ClientCertificate | None
    ) -> None:
        self._owner = owner
        self._mechanism = mechanism
        self._client = client
        self._certificate = certificate
        self._begun = False
        self._user = ""

    async def step(self, response: bytes | None) -> Answer:
        """The client's next message; None is none at the beginning, and `*`, its giving up, later."""
        if response is None and self._begun:
            return Denied(CANCELLED, self._user, "cancelled")
        self._begun = True
        started = self._owner.now()
        try:
            answer = await self._advance(self._mechanism.step(response))
        except Unavailable as error:
            return Denied(UNAVAILABLE, self._user, str(error))
        except Overloaded:
            return Denied(OVERLOADED, self._user, "too many passwords wait to be checked")
        if isinstance(answer, Denied) and answer.reply in (WRONG, SHUT_OUT):
            if answer.reply is WRONG:
                self._owner.guard.failed(answer.user, self._client, int(self._owner.now()))
            await asyncio.sleep(max(0.0, started + self._owner.delay - self._owner.now()))
        elif isinstance(answer, Granted):
            self._owner.guard.succeeded(answer.user, self._client, int(self._owner.now()))
        return answer

    async def _advance(self, step: Step) -> Answer:
        match step:
            case Challenge():
                return step
            case Refused():
                return Denied(MALFORMED if step.malformed else WRONG, folded(step.user) or self._user, step.reason)
            case AskPassword():
                self._user = folded(step.user)
                if reason := self._shut_out():
                    return Denied(SHUT_OUT, self._user, reason)
                return self._verdict(await self._owner.check_password(self._user, step.password, self._client))
            case AskVerifier():
                self._user = folded(step.user)
                return await self._scram(step.digest)
            case AskToken():
                return await self._token(step)
            case AskCertificate():
                return await self._external(folded(step.user))
            case Proven():
                return self._verdict(await self._owner.named(self._user))

    def _shut_out(self) -> str:
        return self._owner.guard.shuts_out(self._user, self._client, int(self._owner.now()))

    def _verdict(self, user: User | None) -> Granted | Denied:
        if user is None:
            return Denied(WRONG, self._user, "unknown user, wrong secret, or disabled")
        return Granted(user.name, user.addresses, user.tenant, user.priority)

    async def _scram(self, digest: str) -> Answer:
        if reason := self._shut_out():
            return Denied(SHUT_OUT, self._user, reason)
        assert isinstance(self._mechanism, Scram)
        verifier = await self._owner.verifier(self._user, digest)
        return await self._advance(self._mechanism.supply(verifier))

    async def _token(self, step: AskToken) -> Answer:
        self._user = folded(step.user)
        if reason := self._shut_out():
            return Denied(SHUT_OUT, self._user, reason)
        user = await self._owner.owner(step.token, self._user)
        if user is not None:
            return self._verdict(user)
        assert isinstance(self._mechanism, OAuth)
        return self._mechanism.reject()

    async def _external(self, wanted: str) -> Answer:
        """RFC 4422 appendix A: the certificate, which TLS has verified, says who the client may be.

        That is the user in whose line its fingerprint is, or whose name it holds. A refusal counts against the names in
        the certificate: nobody is to be shut out by what strangers want to be.
        """
        assert self._certificate is not None  # else EXTERNAL is not offered
        names = [folded(name) for name in self._certificate.names]
        self._user = names[0] if names else ""
        holder = await self._owner.holder(self._certificate.fingerprint)
        allowed = [holder.name, *names] if holder is not None else names
        if not allowed or wanted not in ("", *allowed):
            return Denied(WRONG, self._user, f"the certificate does not name the user {wanted!r}")
        self._user = wanted or allowed[0]
        return self._verdict(await self._owner.certified(self._user))
