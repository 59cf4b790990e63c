"""Name look-ups through dnspython, with a cache in front: model.Resolver.

A miss costs some hundred microseconds of Python, a hit a dictionary look-up, so answers are kept by their TTL, between
five seconds and an hour; negative ones for as long as the zone's SOA says (RFC 2308), five minutes at most. Look-ups of
the same name at the same time are one.

Failures are LookupFailure. Permanent: the name does not exist, has a null MX (RFC 7505), or has no address.
Temporary: time-out, SERVFAIL, or any answer that cannot be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from mta.config.settings import Dns
from mta.model import Hop, LookupFailure, Reply

T = TypeVar("T")
_Found = tuple[T | LookupFailure, float]  # what is so, or that it is not, and for how long that may be believed

_SHORTEST, _LONGEST = 5.0, 3600.0
_NEGATIVE_LONGEST = 300.0
_NEGATIVE_DEFAULT = 60.0
_TEMPORARY = 5.0  # a server that fails is not asked again for every message
_MOST = 100_000
_RESOLV_CONF = "/etc/resolv.conf"
_LOCAL = "127.0.0.1"  # where resolv.conf(5) says to ask when it names nobody

NULL_MX = Reply(556, "5.1.10", "the domain does not accept mail (null MX)")


class DnsResolver:
    """One process's resolver; belongs to its event loop."""

    def __init__(
        self, settings: Dns, now: Callable[[], float] = time.monotonic, resolv_conf: str = _RESOLV_CONF
    ) -> None:
        self._now = now
        self._resolver = _resolver(settings, resolv_conf)
        self._cache: OrderedDict[tuple[str, str], tuple[float, object]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Future[object]] = {}

    async def mx(self, domain: str) -> tuple[Hop, ...]:
        return await self._cached(("MX", domain), self._ask_mx)

    async def addresses(self, host: str) -> tuple[str, ...]:
        literal = _literal(host)
        if literal is not None:
            return (literal,)
        return await self._cached(("A", host), self._ask_addresses)

    # ---- the cache

    async def _cached(self, key: tuple[str, str], ask: Callable[[str], Awaitable[_Found[T]]]) -> T:
        known = self._cache.get(key)
        if known is not None and known[0] > self._now():
            return _given(known[1])
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.ensure_future(self._fetch(key, ask))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        # Shielded: one waiter that gives up must not take the answer away from the others.
        return _given(await asyncio.shield(asking))

    async def _fetch(self, key: tuple[str, str], ask: Callable[[str], Awaitable[_Found[T]]]) -> object:
        answer: object
        try:
            answer, ttl = await ask(key[1])
        except LookupFailure as failure:
            answer, ttl = failure, _LONGEST if failure.permanent else _TEMPORARY
        self._cache[key] = self._now() + ttl, answer
        self._cache.move_to_end(key)
        if len(self._cache) > _MOST:
            self._cache.popitem(last=False)
        return answer

    # ---- the questions

    async def _ask_mx(self, domain: str) -> _Found[tuple[Hop, ...]]:
        try:
            answer = await self._resolver.resolve(_name(domain), "MX", raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN as error:
            reply = Reply(550, "5.1.2", f"the domain {domain} does not exist")
            return LookupFailure(reply, permanent=True), _absent_for(error)
        except (dns.exception.DNSException, OSError) as error:
            raise _temporary(domain, "MX", error) from error
        ttl = _valid_for(answer)
        if answer.rrset is None:
            return (Hop(0, domain),), ttl  # implicit MX (RFC 5321 §5.1)
        hops = tuple(Hop(r.preference, r.exchange.to_text(omit_final_dot=True)) for r in answer.rrset)
        hops = tuple(hop for hop in hops if hop.host not in ("", "."))
        return hops or LookupFailure(NULL_MX, permanent=True), ttl

    async def _ask_addresses(self, host: str) -> _Found[tuple[str, ...]]:
        name = _name(host)
        results = await asyncio.gather(
            self._resolver.resolve(name, "AAAA", raise_on_no_answer=False),
            self._resolver.resolve(name, "A", raise_on_no_answer=False),
            return_exceptions=True,
        )
        found: list[str] = []
        ttl = _LONGEST
        trouble: BaseException | None = None
        for result in results:
            if isinstance(result, dns.resolver.NXDOMAIN):
                ttl = min(ttl, _absent_for(result))
            elif isinstance(result, dns.exception.DNSException | OSError):
                trouble = result
            elif isinstance(result, BaseException):
                raise result
            else:
                ttl = min(ttl, _valid_for(result))
                found.extend(r.address for r in result.rrset or ())
        if found:
            return tuple(found), ttl
        if trouble is not None:
            raise _temporary(host, "A and AAAA", trouble)
        return LookupFailure(Reply(550, "5.4.4", f"the host {host} has no address"), permanent=True), ttl


def _given(answer: object) -> T:  # type: ignore[type-var]
    if isinstance(answer, LookupFailure):
        raise LookupFailure(answer.reply, permanent=answer.permanent)
    return answer  # type: ignore[return-value]


def _resolver(settings: Dns, resolv_conf: str) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    if settings.nameservers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(a.host, a.port) for a in settings.nameservers]
    else:
        try:
            resolver.read_resolv_conf(resolv_conf)
        except dns.resolver.NoResolverConfiguration:
            resolver.nameservers = [_LOCAL]
    resolver.lifetime = settings.timeout
    resolver.timeout = max(0.1, min(settings.timeout / 3, 5.0))
    resolver.use_edns(0, 0, 1232)
    resolver.search = []
    return resolver


def _name(text: str) -> dns.name.Name:
    """An absolute name; text that can be none is a permanent failure, not an accident."""
    with contextlib.suppress(dns.exception.DNSException, UnicodeError):
        name = dns.name.from_text(text)
        if text.isascii() and name != dns.name.root:
            return name
    raise LookupFailure(Reply(550, "5.1.2", f"{text!a} is no domain name"), permanent=True)


def _temporary(name: str, what: str, error: BaseException) -> LookupFailure:
    if isinstance(error, dns.exception.Timeout):
        why = "no answer in time"
    elif isinstance(error, dns.resolver.NoNameservers):
        why = "the name servers fail (SERVFAIL or refused)"
    else:
        why = type(error).__name__
    return LookupFailure(Reply(451, "4.4.3", f"looking up {what} of {name}: {why}"), permanent=False)


def _valid_for(answer: dns.resolver.Answer) -> float:
    """The shortest TTL on the way to the answer; without records, how long there will be none."""
    if answer.rrset is None:
        return _negative([answer.response])
    return min(max(float(answer.chaining_result.minimum_ttl), _SHORTEST), _LONGEST)


def _absent_for(error: dns.resolver.NXDOMAIN) -> float:
    return _negative(error.kwargs["responses"].values())


def _negative(responses: Iterable[dns.message.Message]) -> float:
    """How long something will not be there: by the SOA record of the zone (RFC 2308), and any alias on the way."""
    ttls: list[int] = []
    for response in responses:
        ttls += (min(r.ttl, r[0].minimum) for r in response.authority if r.rdtype == dns.rdatatype.SOA)
        ttls += (alias.ttl for alias in response.answer)
    return min(max(float(min(ttls)), _SHORTEST), _NEGATIVE_LONGEST) if ttls else _NEGATIVE_DEFAULT


def _literal(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None
