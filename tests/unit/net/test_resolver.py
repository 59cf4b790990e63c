"""Look-ups through a real name server on loopback: what is told, for how long it is kept, and how often it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import dns.message
import dns.nameserver
import dns.rrset
import pytest

from mta.config.settings import Address, Dns, Seconds
from mta.model import Hop, LookupFailure
from mta.net.resolver import NULL_MX, DnsResolver
from tests.kit.dns import Fault, Zone

T = TypeVar("T")

RECORDS = {
    "a.test": ["MX 20 mx2.a.test.", "MX 10 mx1.a.test.", "MX 10 mx3.a.test."],
    "mx1.a.test": ["A 127.0.0.1", "A 127.0.0.2", "AAAA ::1"],
    "only4.test": ["A 127.0.0.4"],
    "alias.test": ["CNAME a.test."],
    "null.test": ["MX 0 ."],
    "nulls.test": ["MX 0 .", "MX 5 ."],
    "mixed.test": ["MX 0 .", "MX 5 mx1.a.test."],
    "empty.test": ["TXT nothing"],
}


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SoaZone(Zone):
    """A zone that answers with TTLs of our choice, and with a SOA record where there is nothing."""

    def __init__(self, records: Mapping[str, Sequence[str]], soa: int | None, ttl: int = 60) -> None:
        super().__init__(records)
        self._soa, self._ttl = soa, ttl

    def _response(self, query: dns.message.Message, fault: Fault | None, way: str) -> dns.message.Message:
        response = super()._response(query, fault, way)
        for rrset in response.answer:
            rrset.ttl = self._ttl
        if not response.answer and self._soa is not None:
            text = f"ns.test. root.test. 1 2 3 4 {self._soa}"
            response.authority.append(dns.rrset.from_text("test.", 86400, "IN", "SOA", text))
        return response


def resolver(zone: Zone, timeout: float = 5.0, now: Callable[[], float] = time.monotonic) -> DnsResolver:
    return DnsResolver(Dns(nameservers=(Address("127.0.0.1", zone.port),), timeout=Seconds(timeout)), now)


def ask(question: Awaitable[T]) -> T:
    async def run() -> T:
        return await question

    return asyncio.run(run())


def failure(question: Awaitable[object]) -> LookupFailure:
    with pytest.raises(LookupFailure) as caught:
        ask(question)
    return caught.value


def test_mx_with_preferences() -> None:
    with Zone(RECORDS) as zone:
        hops = ask(resolver(zone).mx("a.test"))
    assert sorted(hops, key=lambda h: (h.preference, h.host)) == [
        Hop(10, "mx1.a.test"),
        Hop(10, "mx3.a.test"),
        Hop(20, "mx2.a.test"),
    ]


def test_mx_through_an_alias() -> None:
    with Zone(RECORDS) as zone:
        assert len(ask(resolver(zone).mx("alias.test"))) == 3


@pytest.mark.parametrize("name", ["only4.test", "empty.test"])
def test_a_domain_without_mx_is_its_own(name: str) -> None:
    with Zone(RECORDS) as zone:
        assert ask(resolver(zone).mx(name)) == (Hop(0, name),)


@pytest.mark.parametrize("name", ["null.test", "nulls.test"])
def test_null_mx(name: str) -> None:
    with Zone(RECORDS) as zone:
        told = failure(resolver(zone).mx(name))
    assert told.permanent
    assert told.reply == NULL_MX


def test_a_null_mx_among_others_does_not_count() -> None:
    with Zone(RECORDS) as zone:
        assert ask(resolver(zone).mx("mixed.test")) == (Hop(5, "mx1.a.test"),)


def test_a_domain_that_does_not_exist() -> None:
    with Zone(RECORDS) as zone:
        told = failure(resolver(zone).mx("none.test"))
    assert told.permanent
    assert str(told.reply) == "550 5.1.2 the domain none.test does not exist"


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED"])
def test_a_server_that_fails_is_a_temporary_fault(fault: Fault) -> None:
    with Zone({}, {"a.test": fault}) as zone:
        for question in (resolver(zone).mx("a.test"), resolver(zone).addresses("a.test")):
            told = failure(question)
            assert not told.permanent
            assert (told.reply.code, told.reply.enhanced) == (451, "4.4.3")


def test_silence_is_a_temporary_fault_within_the_timeout() -> None:
    with Zone({}, {"a.test": "silent"}) as zone:
        begin = time.monotonic()
        for question in (resolver(zone, 0.4).mx("a.test"), resolver(zone, 0.4).addresses("a.test")):
            told = failure(question)
            assert not told.permanent
            assert "no answer in time" in told.reply.text
        assert time.monotonic() - begin < 2.0


def test_nobody_at_the_address_is_a_temporary_fault() -> None:
    with Zone({}) as zone:
        gone = resolver(zone, 0.4)
    assert not failure(gone.mx("a.test")).permanent


def test_addresses_of_both_families() -> None:
    with Zone(RECORDS) as zone:
        assert set(ask(resolver(zone).addresses("mx1.a.test"))) == {"::1", "127.0.0.1", "127.0.0.2"}
        assert ask(resolver(zone).addresses("only4.test")) == ("127.0.0.4",)


@pytest.mark.parametrize("name", ["empty.test", "none.test"])
def test_a_host_without_an_address(name: str) -> None:
    with Zone(RECORDS) as zone:
        told = failure(resolver(zone).addresses(name))
    assert told.permanent
    assert str(told.reply) == f"550 5.4.4 the host {name} has no address"


@pytest.mark.parametrize(("host", "address"), [("192.0.2.1", "192.0.2.1"), ("[::1]", "::1"), ("::1", "::1")])
def test_literals_are_not_asked_for(host: str, address: str) -> None:
    with Zone({}) as zone:
        assert ask(resolver(zone).addresses(host)) == (address,)
        assert not zone.asked


@pytest.mark.parametrize(
    "name", ["a..test", ".test", "", ".", "@", "a." * 150 + "test", "l" * 64 + ".test", "bücher.test", "\\300"]
)
def test_what_is_no_name_is_a_permanent_fault_and_not_asked_for(name: str) -> None:
    with Zone({}) as zone:
        for question in (resolver(zone).mx(name), resolver(zone).addresses(name)):
            told = failure(question)
            assert told.permanent
            assert told.reply.enhanced == "5.1.2"
            assert str(told.reply).isascii()
        assert not zone.asked


def kept(zone: Zone, name: str) -> int:
    """For how many seconds (of our clock) an answer is given without asking again."""

    async def run() -> int:
        clock = Clock()
        asked = resolver(zone, now=clock)
        for second in range(4000):
            before = len(zone.asked)
            try:
                await asked.mx(name)
            except LookupFailure:
                pass
            if second and len(zone.asked) > before:
                return second
            clock.now += 1
        return -1

    return asyncio.run(run())


@pytest.mark.parametrize(("ttl", "seconds"), [(0, 5), (60, 60), (90_000, 3600)])
def test_answers_are_kept_by_their_ttl(ttl: int, seconds: int) -> None:
    with SoaZone(RECORDS, None, ttl) as zone:
        assert kept(zone, "a.test") == seconds


@pytest.mark.parametrize(("soa", "seconds"), [(None, 60), (1, 5), (120, 120), (86400, 300)])
@pytest.mark.parametrize("name", ["none.test", "empty.test"])
def test_absence_is_kept_by_the_soa_record(name: str, soa: int | None, seconds: int) -> None:
    with SoaZone(RECORDS, soa) as zone:
        assert kept(zone, name) == seconds


def test_a_temporary_fault_is_kept_a_moment() -> None:
    with Zone({}, {"a.test": "SERVFAIL"}) as zone:
        assert kept(zone, "a.test") == 5


def test_look_ups_at_the_same_time_are_one() -> None:
    async def run(zone: Zone) -> None:
        asked = resolver(zone)
        answers = await asyncio.gather(*(asked.mx("a.test") for _ in range(50)))
        assert len(set(answers)) == 1
        assert len(zone.asked) == 1

    with Zone(RECORDS) as zone:
        asyncio.run(run(zone))


def test_one_that_gives_up_does_not_take_the_answer_from_the_others() -> None:
    async def run(zone: Zone) -> None:
        asked = resolver(zone)
        first, second = (asyncio.ensure_future(asked.mx("a.test")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert len(await second) == 3

    with Zone(RECORDS) as zone:
        asyncio.run(run(zone))


def test_a_truncated_answer_is_asked_for_by_tcp() -> None:
    with Zone(RECORDS, {"a.test": "truncated"}) as zone:
        assert len(ask(resolver(zone).mx("a.test"))) == 3
        assert [way for *_, way in zone.asked] == ["udp", "tcp"]


def servers(asked: DnsResolver) -> list[dns.nameserver.Do53Nameserver]:
    found = asked._resolver._enrich_nameservers(asked._resolver.nameservers, {}, 53)
    return [n for n in found if isinstance(n, dns.nameserver.Do53Nameserver)]


def test_without_resolv_conf_the_machine_itself_is_asked(tmp_path: Path) -> None:
    asked = DnsResolver(Dns(), resolv_conf=str(tmp_path / "none"))
    assert [(n.address, n.port) for n in servers(asked)] == [("127.0.0.1", 53)]


def test_resolv_conf_is_followed(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    asked = DnsResolver(Dns(), resolv_conf=str(tmp_path / "resolv.conf"))
    assert [(n.address, n.port) for n in servers(asked)] == [("192.0.2.53", 53)]
