"""Where mail for a domain goes. Pure: what needs DNS is said, not done.

Order: a [[domain]] of this server by its exact name; the first [[route]] that matches; an address literal; the MX
records (RFC 5321 §5.1). A route's pattern is a domain, "*.domain" for everything below it, or "*".

Invariant: sites have canonical names, so that two ways to the same hosts give the same site and share its limits. One
of MX hosts is called after these, in the order in which they are tried: "mx:a.example=b.example,c.example" has two of
the same preference and a third behind them, whatever numbers the records have.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mta.config.settings import Domain, NextHop, Route
from mta.config.values import next_hop
from mta.model import Hop, HopKind, LookupFailure, Reply, Site


@dataclass(frozen=True, slots=True)
class Lookup:
    """The MX records of this domain decide."""

    domain: str


LOOP = Reply(550, "5.4.6", "mail for this domain is routed back to this server")


class Router:
    """The rules of one configuration."""

    def __init__(
        self, domains: Sequence[Domain], routes: Sequence[Route], *, hostname: str, connections: int, port: int
    ) -> None:
        self._own = {d.name.lower(): d for d in domains}
        self._routes = [(r.domain.lower(), r) for r in routes]
        self._hostname = hostname.lower()
        self._connections = connections
        self._port = port

    def decide(self, domain: bytes) -> Site | Lookup:
        """The site for a domain; LookupFailure for one that can have none."""
        name = domain.decode("ascii", "backslashreplace").lower()
        own = self._own.get(name)
        route = self._route(name) if own is None else None
        hop = own.deliver if own is not None else route.next_hop if route is not None else None
        if hop is not None and hop.kind != "mx":
            return self._fixed(name, hop)
        if name.startswith("["):
            return self._literal(name)
        return Lookup(name)

    def rule(self, domain: bytes) -> str:
        """What decides where mail for a domain goes, with file and line where it is written."""
        name = domain.decode("ascii", "backslashreplace").lower()
        if own := self._own.get(name):
            return f"{own.where}: [[domain]] {own.name}, deliver = {own.deliver.text}"
        if route := self._route(name):
            return f"{route.where}: [[route]] {route.domain}, next_hop = {route.next_hop.text}"
        if name.startswith("["):
            return "no [[route]] matches: it is an address itself"
        return "no [[route]] matches: its MX records decide"

    def _route(self, name: str) -> Route | None:
        return next((route for pattern, route in self._routes if _matches(pattern, name)), None)

    def by_mx(self, domain: str, hops: Sequence[Hop]) -> Site:
        """The site of a set of MX hosts. Hosts no better than ourselves are left out (RFC 5321 §5.1)."""
        ours = [h.preference for h in hops if h.host.lower().rstrip(".") == self._hostname]
        if ours:
            hops = [h for h in hops if h.preference < min(ours)]
        if not hops:
            raise LookupFailure(LOOP, permanent=True)
        hosts = _canonical(hops)
        implicit = len(hosts) == 1 and hosts[0].host == domain
        levels = [[h.host for h in hosts if h.preference == level] for level in range(hosts[-1].preference + 1)]
        name = "mx:" + ",".join("=".join(level) for level in levels)
        return Site(
            name=name, kind="smtp", hops=hosts, port=self._port, connections=self._connections, implicit=implicit
        )

    def by_hand(self, hop: str) -> Site:
        """The site of a next hop that an operator wrote; see `operators_hop`."""
        return self._fixed("", operators_hop(hop))

    def _fixed(self, domain: str, hop: NextHop) -> Site:
        if hop.kind == "maildir":
            return Site(name=f"maildir:{domain}", kind="maildir", path=hop.path, connections=self._connections)
        if hop.kind == "discard":
            return Site(name="discard:", kind="discard", connections=self._connections)
        if hop.kind == "hold":
            return Site(name="hold:", kind="hold")
        kind: HopKind = "lmtp" if hop.kind == "lmtp" else "smtp"
        host = hop.path or hop.host
        return Site(
            name=f"{kind}:{host}:{hop.port}" if hop.host else f"{kind}:unix:{host}",
            kind=kind,
            hops=(Hop(0, host),),
            port=hop.port,
            connections=self._connections,
        )

    def _literal(self, name: str) -> Site:
        text = name.removeprefix("[").removesuffix("]").removeprefix("ipv6:")
        try:
            given = ipaddress.ip_address(text)
            address = str(getattr(given, "ipv4_mapped", None) or given)
        except ValueError:
            raise LookupFailure(
                Reply(550, "5.1.2", f"{name} is no address that mail can be sent to"), permanent=True
            ) from None
        return Site(
            name=f"smtp:{address}:{self._port}",
            kind="smtp",
            hops=(Hop(0, address),),
            port=self._port,
            connections=self._connections,
        )


def _canonical(hops: Sequence[Hop]) -> tuple[Hop, ...]:
    """Each host once, where it is first tried; preferences counted from 0."""
    best: dict[str, int] = {}
    for hop in hops:
        host = hop.host.lower().rstrip(".")
        best[host] = min(hop.preference, best.get(host, hop.preference))
    levels = {preference: level for level, preference in enumerate(sorted(set(best.values())))}
    return tuple(sorted((Hop(levels[p], host) for host, p in best.items()), key=_order))


@lru_cache(64)
def operators_hop(text: str) -> NextHop:
    """Where single messages may be sent by hand; ValueError for what is no such place."""
    hop = next_hop(text, Path("/"))
    if hop.kind in ("mx", "maildir"):
        raise ValueError(f"{text!r}: mail is rerouted to smtp:, lmtp:, hold: or discard:, or to `rules`")
    return hop


def _order(hop: Hop) -> tuple[int, str]:
    return hop.preference, hop.host


def _matches(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return name == pattern
