"""Whose a mail is, how urgent it is here, and by which pool of sources it leaves: decided once, when it is taken in.

Order, the first that says something counts:

    tenant    a header field, of who is trusted with that; the user who is logged in, by what let him in or by
              [[tenant]] users; the domain of the sender, of who may relay or is logged in; the listener
    priority  what the client asked for (MT-PRIORITY); what let the user in; the tenant's; the listener's

PURE. `Tenancy.of` gives None where nothing is configured that could matter, so that others pay one test for it.

Invariant: a stranger cannot choose: neither a header nor a sender's domain counts without trust.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from mta.config.settings import Listener, Settings
from mta.config.tenants import NAME
from mta.mail.submission import fields, header_end
from mta.model import Options, domain_of
from mta.policy.users.accounts import folded

_NOTHING: Final = Options()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a mail when its text is whole. `named` is what its header says, where that counts."""

    sender: bytes
    user: str = ""
    user_tenant: str = ""  # by the word of what let him in
    user_priority: int = 0
    trusted: bool = False
    named: str = ""


class Tenancy:
    """The rules of one listener."""

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self._tenants = {t.name: t for t in settings.tenant}
        self._names = {folded(t.name): t.name for t in settings.tenant}
        self._users = {folded(user): t.name for t in settings.tenant for user in t.users}
        self._senders = {domain.encode("ascii"): t.name for t in settings.tenant for domain in t.senders}
        self._undeclared = settings.tenants.undeclared
        self._listener = listener
        self._field = _field(settings.tenants.header)
        self._egress = settings.egress

    @classmethod
    def of(cls, settings: Settings, listener: Listener) -> Tenancy | None:
        """None: no mail of this listener is anybody's, or has another priority than it came with."""
        made = cls(settings, listener)
        hooks = listener.role == "submission" and any(auth.type == "hook" for auth in settings.auth)
        matters = hooks or listener.priority or settings.tenant or settings.egress or made._field is not None
        return made if matters else None

    def read_header(self, text: bytes) -> tuple[str, bytes]:
        """What the header says, "" for nothing, and the text without it: of somebody who is trusted.

        `text` is all of it, or its beginning with the header in it.
        """
        if self._field is None:
            return "", text
        end = header_end(text)
        header = text if end < 0 else text[:end]
        if self._field.search(header) is None:
            return "", text
        mine = [f for f in fields(text, len(header)) if self._field.match(text, f.start, f.end)]
        value = b"".join(text[f.value : f.end] for f in mine[:1]).strip(b" \t\r\n").decode("latin-1")
        for field in reversed(mine):
            text = text[: field.start] + text[field.end :]
        return self._known(value), text

    def place(self, options: Options | None, facts: Facts) -> Options | None:
        """The options with what is decided here."""
        name = self._tenant_of(facts)
        tenant = self._tenants.get(name)
        rank = facts.user_priority or (tenant.priority if tenant is not None else 0) or self._listener.priority
        if options is not None and options.priority:
            rank = 0
        pool = self._pool(name, domain_of(facts.sender), rank or (options.priority if options is not None else 0))
        if not (name or rank or pool):
            return options
        return msgspec.structs.replace(options or _NOTHING, tenant=name, rank=rank, pool=pool)

    # ---- inside

    def _tenant_of(self, facts: Facts) -> str:
        return (
            facts.named
            or (facts.user and (self._known(facts.user_tenant) or _by_user(self._users, facts.user)))
            or ((facts.trusted or facts.user) and _by_domain(self._senders, domain_of(facts.sender)))
            or self._listener.tenant
        )

    def _pool(self, tenant: str, domain: bytes, priority: int) -> str:
        """By which mail leaves; "" where no rule says it."""
        rank = "urgent" if priority > 0 else "bulk" if priority < 0 else "normal"
        sender = domain.decode("ascii", "replace")
        for rule in self._egress:
            if (
                rule.tenant in ("", tenant)
                and rule.priority in ("any", rank)
                and (rule.sender == "*" or _matches(rule.sender, sender))
            ):
                return rule.pool
        return ""

    def _known(self, name: str) -> str:
        """The tenant of this name, as it is declared; "" where there is none, and there must be."""
        declared = self._names.get(folded(name), "")
        return declared or (name if self._undeclared and NAME.fullmatch(name) else "")


def _field(name: str) -> re.Pattern[bytes] | None:
    return (
        re.compile(rb"^" + re.escape(name.encode("ascii")) + rb"[ \t]*:", re.IGNORECASE | re.MULTILINE)
        if name
        else None
    )


def _matches(pattern: str, domain: str) -> bool:
    return domain.endswith(pattern[1:]) if pattern.startswith("*.") else domain == pattern


def _by_user(users: dict[str, str], user: str) -> str:
    name = folded(user)
    _, at, domain = name.rpartition("@")
    return users.get(name) or (users.get(at + domain, "") if at else "")


def _by_domain(domains: dict[bytes, str], domain: bytes) -> str:
    """The domain itself, or "*.parent" of the nearest parent that is named; "*" for all."""
    found = domains.get(domain)
    while found is None and domain:
        domain = domain.partition(b".")[2]
        found = domains.get(b"*." + domain) if domain else None
    return found or domains.get(b"*", "")
