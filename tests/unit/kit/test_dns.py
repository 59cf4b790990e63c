"""The name server of the tests answers as its zone says."""

from __future__ import annotations

from collections.abc import Iterator

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest

from tests.kit.dns import Zone

RECORDS = {
    "a.test": ["MX 20 second.a.test.", "MX 10 first.a.test."],
    "first.a.test": ["A 127.0.0.1", "A 127.0.0.2"],
    "alias.test": ["CNAME first.a.test."],
    "big.test": ["TXT x"],
}


@pytest.fixture(name="zone")
def fixture_zone() -> Iterator[Zone]:
    with Zone(RECORDS, {"broken.test": "SERVFAIL", "deaf.test": "silent", "big.test": "truncated"}) as zone:
        yield zone


def ask(zone: Zone, name: str, kind: str, *, tcp: bool = False) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    way = dns.query.tcp if tcp else dns.query.udp
    return way(query, "127.0.0.1", timeout=5, port=zone.port)


@pytest.mark.parametrize("tcp", [False, True])
def test_records(zone: Zone, tcp: bool) -> None:
    answer = ask(zone, "a.test", "MX", tcp=tcp).answer[0]
    assert sorted(str(rdata) for rdata in answer) == ["10 first.a.test.", "20 second.a.test."]
    assert len(ask(zone, "FIRST.a.test", "A", tcp=tcp).answer[0]) == 2


def test_an_alias_is_followed(zone: Zone) -> None:
    names = [rrset.name.to_text() for rrset in ask(zone, "alias.test", "A").answer]
    assert names == ["alias.test.", "first.a.test."]


def test_no_such_name_and_no_such_type(zone: Zone) -> None:
    assert ask(zone, "missing.test", "A").rcode() == dns.rcode.NXDOMAIN
    empty = ask(zone, "a.test", "A")
    assert empty.rcode() == dns.rcode.NOERROR
    assert not empty.answer


def test_faults(zone: Zone) -> None:
    assert ask(zone, "broken.test", "A").rcode() == dns.rcode.SERVFAIL
    reply, by_tcp = dns.query.udp_with_fallback(dns.message.make_query("big.test", "TXT"), "127.0.0.1", 5, zone.port)
    assert by_tcp
    assert len(reply.answer) == 1
    with pytest.raises(dns.exception.Timeout):
        dns.query.udp(dns.message.make_query("deaf.test", "A"), "127.0.0.1", 0.05, zone.port)


def test_a_change_counts_at_once(zone: Zone) -> None:
    zone.set("broken.test", ["A 127.0.0.9"])
    assert str(ask(zone, "broken.test", "A").answer[0][0]) == "127.0.0.9"
    assert ("broken.test", "A", "udp") in zone.asked
