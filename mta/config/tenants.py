"""What is wrong with [[tenant]]s taken together, and with who names them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Final

from mta.config.settings import Listener, Tenant, Tenants

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_FIELD: Final = re.compile(r"[!-9;-~]{1,64}")  # RFC 5322 §3.6.8

Where = tuple[str | int, ...]


def problems(
    tenants: Sequence[Tenant | None], header: Tenants | None, listeners: Sequence[Listener | None]
) -> Iterator[tuple[Where, str]]:
    """(key, what is wrong); None is a table that is wrong in itself."""
    known = [tenant.name for tenant in tenants if tenant is not None]
    yield from _tenant_problems(tenants)
    if header is not None and header.header and not _FIELD.fullmatch(header.header):
        yield ("tenants", "header"), f"{header.header!r} is no name of a header field"
    for n, listener in enumerate(listeners):
        if listener is not None and listener.tenant and listener.tenant not in known and None not in tenants:
            yield ("listener", n, "tenant"), _unknown(listener.tenant, known)


def _tenant_problems(tenants: Sequence[Tenant | None]) -> Iterator[tuple[Where, str]]:
    seen: dict[tuple[str, str], str] = {}
    for n, tenant in enumerate(tenants):
        if tenant is None:
            continue
        if not NAME.fullmatch(tenant.name):
            text = f"{tenant.name!r} is no name: up to 64 letters, digits and . _ @ -, the first a letter or a digit"
            yield ("tenant", n, "name"), text
        for key, values in (("name", (tenant.name,)), ("users", tenant.users), ("senders", tenant.senders)):
            for value in values:
                other = seen.setdefault((key, value.casefold()), tenant.name)
                if other != tenant.name or (key == "name" and tenant is not _first(tenants, tenant.name)):
                    yield ("tenant", n, key), f"{value} is there twice"


def _first(tenants: Sequence[Tenant | None], name: str) -> Tenant:
    return next(t for t in tenants if t is not None and t.name.casefold() == name.casefold())


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"no [[tenant]] is called {name!r}" + (f'; did you mean "{near[0]}"?' if near else "; declare one")
