"""Retries, routing, outcomes, reasons: functions of their arguments."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config.settings import Domain, NextHop, Retry, Route, Seconds
from mta.model import Hop, LookupFailure, Outcome, Reply, Status
from mta.queue.outcome import Group, judge
from mta.queue.reasons import Reasons
from mta.queue.retry import is_expired, wait_after
from mta.queue.routing import Lookup, Router

OK, LATER, NO = Reply(250, "2.0.0", "ok"), Reply(451, "4.3.0", "later"), Reply(550, "5.1.1", "no such user")


RETRY = Retry(first=Seconds(60.0), factor=2.0, cap=Seconds(600.0), jitter=0.1, expiry=Seconds(3600.0))


def test_waits_grow_to_the_cap() -> None:
    assert [wait_after(RETRY, n, 0.5) for n in range(1, 7)] == [60, 120, 240, 480, 600, 600]


@given(st.integers(1, 65535), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded(attempts: int, dice: float) -> None:
    assert 60 * 0.9 <= wait_after(RETRY, attempts, dice) <= 600 * 1.1


def test_expiry() -> None:
    assert not is_expired(RETRY, 1000.0, 1000.0 + 3599)
    assert is_expired(RETRY, 1000.0, 1000.0 + 3600)


ROUTER = Router(
    [Domain(name="own.example", deliver=NextHop(kind="maildir", path="/m/{local}"))],
    [
        Route(domain="own.example", next_hop=NextHop(kind="discard")),
        Route(domain="exact.example", next_hop=NextHop(kind="smtp", host="10.0.0.1", port=2525)),
        Route(domain="*.sub.example", next_hop=NextHop(kind="lmtp", path="/run/lmtp")),
        Route(domain="mx.example", next_hop=NextHop(kind="mx")),
        Route(domain="*.held.example", next_hop=NextHop(kind="hold")),
    ],
    hostname="mail.own.example",
    connections=7,
    port=25,
)


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        (b"own.example", "maildir:own.example"),
        (b"exact.example", "smtp:10.0.0.1:2525"),
        (b"a.sub.example", "lmtp:unix:/run/lmtp"),
        (b"b.a.sub.example", "lmtp:unix:/run/lmtp"),
        (b"x.held.example", "hold:"),
        (b"[192.0.2.1]", "smtp:192.0.2.1:25"),
        (b"[ipv6:2001:db8::1]", "smtp:2001:db8::1:25"),
    ],
)
def test_sites_that_need_no_dns(domain: bytes, name: str) -> None:
    site = ROUTER.decide(domain)
    assert not isinstance(site, Lookup)
    assert site.name == name


@pytest.mark.parametrize("domain", [b"sub.example", b"mx.example", b"notexact.example", b"sub.own.example"])
def test_everything_else_is_for_mx_records(domain: bytes) -> None:
    assert ROUTER.decide(domain) == Lookup(domain.decode())


def test_a_catch_all_route_leaves_own_domains_alone() -> None:
    router = Router(
        [Domain(name="own.example", deliver=NextHop(kind="discard"))],
        [Route(domain="*", next_hop=NextHop(kind="hold"))],
        hostname="h",
        connections=1,
        port=25,
    )
    assert router.decide(b"own.example").name == "discard:"  # type: ignore[union-attr]
    assert router.decide(b"other.example").name == "hold:"  # type: ignore[union-attr]


def test_domains_of_one_provider_share_a_site() -> None:
    a = ROUTER.by_mx("a.example", [Hop(20, "mx2.p.example."), Hop(10, "MX1.p.example")])
    b = ROUTER.by_mx("b.example", [Hop(10, "mx1.p.example"), Hop(20, "mx2.p.example")])
    assert a == b
    assert [h.host for h in a.hops] == ["mx1.p.example", "mx2.p.example"]
    assert a.name == "mx:mx1.p.example,mx2.p.example"


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ([(0, "a"), (5, "b")], "mx:a,b"),
        ([(5, "b."), (1, "A.")], "mx:a,b"),
        ([(10, "B"), (20, "a")], "mx:b,a"),
        ([(10, "b"), (10, "A"), (20, "c")], "mx:a=b,c"),
        ([(30, "c"), (20, "a"), (20, "b")], "mx:a=b,c"),
        ([(10, "a"), (20, "A."), (30, "b"), (5, "a")], "mx:a,b"),
        ([(65535, "a")], "mx:a"),
    ],
)
def test_the_same_hosts_in_the_same_order_are_the_same_site(records: list[tuple[int, str]], name: str) -> None:
    """Whatever the numbers are, and however the names are written; a host counts where it is tried first."""
    hops = [Hop(preference, f"{host[:1]}.example{host[1:]}") for preference, host in records]
    site = ROUTER.by_mx("x.example", hops)
    assert site.name == re.sub("([a-c])", r"\1.example", name)
    tried = [sorted(h.host for h in site.hops if h.preference == level) for level in range(3)]
    assert "mx:" + ",".join("=".join(level) for level in tried if level) == site.name


@pytest.mark.parametrize(
    "domain", [b"[192.0.2.1]", b"[IPv6:::ffff:192.0.2.1]", b"[IPv6:::FFFF:c000:201]", b"sub.smart.example"]
)
def test_an_address_is_the_same_site_however_it_is_written(domain: bytes) -> None:
    hop = NextHop(kind="smtp", host="192.0.2.1", port=25)
    router = Router([], [Route(domain="*.smart.example", next_hop=hop)], hostname="h", connections=1, port=25)
    site = router.decide(domain)
    assert not isinstance(site, Lookup)
    assert (site.name, site.hops) == ("smtp:192.0.2.1:25", (Hop(0, "192.0.2.1"),))


@pytest.mark.parametrize("domain", [b"[IPv6:2001:DB8::1]", b"[IPV6:2001:db8:0:0:0:0:0:1]", b"[ipv6:2001:0db8::0001]"])
def test_an_ipv6_literal_has_one_form(domain: bytes) -> None:
    assert ROUTER.decide(domain).name == "smtp:2001:db8::1:25"  # type: ignore[union-attr]


def test_hosts_no_better_than_ourselves_are_cut() -> None:
    hops = [Hop(5, "better.example"), Hop(10, "mail.own.example"), Hop(10, "equal.example"), Hop(20, "worse.example")]
    assert [h.host for h in ROUTER.by_mx("x.example", hops).hops] == ["better.example"]
    with pytest.raises(LookupFailure) as failure:
        ROUTER.by_mx("x.example", hops[1:])
    assert failure.value.permanent
    assert failure.value.reply.enhanced == "5.4.6"


def test_a_literal_that_is_no_address_can_have_no_site() -> None:
    with pytest.raises(LookupFailure) as failure:
        ROUTER.decide(b"[x400:tag]")
    assert failure.value.permanent


def test_mixed_outcomes_add_up() -> None:
    verdict = judge(
        [
            Outcome(Status.DELIVERED, OK, "mx", (0, 2)),
            Outcome(Status.DEFERRED, LATER, "mx", (1,)),
            Outcome(Status.FAILED, NO, "mx", (3,)),
        ]
    )
    assert (verdict.delivered, verdict.waiting, verdict.reply) == ((0, 2), (1,), LATER)
    assert verdict.failures == (Group((3,), NO, "mx"),)
    expired = verdict.expired()
    assert not expired.deferred
    assert expired.failures[1].recipients == (1,)
    assert expired.failures[1].reply.enhanced == "5.4.7"
    assert "451 4.3.0 later" in expired.failures[1].reply.text


def test_untried_is_no_attempt() -> None:
    assert judge([Outcome(Status.UNTRIED, Reply(0, "", ""))]).untried
    assert judge([Outcome(Status.UNTRIED, LATER, "", (0,)), Outcome(Status.DEFERRED, LATER, "", (1,))]).waiting == (
        0,
        1,
    )


def test_reasons_are_shared_bounded_and_swept() -> None:
    reasons = Reasons(most=10)
    numbers = [reasons.number(f"reason {n % 5}") for n in range(100)]
    assert len(set(numbers)) == 5
    assert reasons.text(reasons.number("x" * 1000)) == "x" * 300
    for n in range(10):
        reasons.number(f"more {n}")
    assert reasons.full
    reasons.sweep({numbers[0]})
    assert not reasons.full
    assert reasons.text(numbers[0]) == "reason 0"
    assert reasons.text(numbers[1]) == ""
    assert reasons.number("reason 1") not in numbers


def test_what_decides_is_named() -> None:
    hop = NextHop(kind="hold", text="hold:")
    router = Router(
        [Domain(name="own.example", deliver=NextHop(kind="discard", text="discard:"), where="a.toml:3")],
        [Route(domain="*.partner.example", next_hop=hop, where="a.toml:7")],
        hostname="me",
        connections=1,
        port=25,
    )
    assert router.rule(b"OWN.example") == "a.toml:3: [[domain]] own.example, deliver = discard:"
    assert router.rule(b"x.partner.example") == "a.toml:7: [[route]] *.partner.example, next_hop = hold:"
    assert router.rule(b"[192.0.2.1]") == "no [[route]] matches: it is an address itself"
    assert router.rule(b"example.net") == "no [[route]] matches: its MX records decide"
