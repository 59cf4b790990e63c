"""What is wrong with [[source]]s and [[egress]]es taken together."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterator, Sequence

from mta.config.settings import Egress, Source
from mta.config.tenants import NAME, Where


def ip_address(value: object, version: int) -> str:
    """An address of this version in its shortest form; "" for none. ValueError."""
    if value == "":
        return ""
    try:
        address = ipaddress.ip_address(str(value))
    except ValueError:
        address = None
    if not isinstance(value, str) or address is None or address.version != version or address.is_unspecified:
        example = "192.0.2.1" if version == 4 else "2001:db8::1"
        raise ValueError(f"{value!r} is no IPv{version} address of a machine; write it as {example}")
    return str(address)


def problems(
    sources: Sequence[Source | None], rules: Sequence[Egress | None], tenants: Sequence[str] | None
) -> Iterator[tuple[Where, str]]:
    """(key, what is wrong); None is a table that is wrong in itself, or tenants that may be any."""
    yield from _source_problems(sources)
    known = sorted({name for s in sources if s is not None for name in (s.name, *s.pools)})
    for n, rule in enumerate(rules):
        if rule is None:
            continue
        if rule.pool not in known and None not in sources:
            yield ("egress", n, "pool"), _unknown(rule.pool, known)
        if rule.tenant and tenants is not None and rule.tenant not in tenants:
            yield ("egress", n, "tenant"), f"no [[tenant]] is called {rule.tenant!r}"


def _source_problems(sources: Sequence[Source | None]) -> Iterator[tuple[Where, str]]:
    names: set[str] = set()
    for n, source in enumerate(sources):
        if source is None:
            continue
        for key, values in (("name", (source.name,)), ("pools", source.pools)):
            for value in values:
                if not NAME.fullmatch(value):
                    text = f"{value!r} is no name: up to 64 letters, digits and . _ @ -, the first a letter or a digit"
                    yield ("source", n, key), text
        if source.name in names:
            yield ("source", n, "name"), f"{source.name} is there twice"
        names.add(source.name)
        if not (source.ipv4 or source.ipv6 or source.ehlo):
            yield ("source", n, "name"), f"{source.name} says nothing: give it ipv4, ipv6 or ehlo"


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f'; did you mean "{near[0]}"?' if near else "; declare a [[source]]"
    return f"no [[source]] is called {name!r} or in a pool of this name" + hint
