"""Who gets into a listener, and with what words others are turned away."""

from __future__ import annotations

from typing import Any

from mta.config.settings import Limits, Rate
from mta.policy.admission import FULL, Admission, Guest
from mta.policy.tally import TallyTable


class World:
    """One listener with limits, in two receivers."""

    def __init__(self, **limits: Any) -> None:
        self.now = 1_000_000
        table = TallyTable(2)
        self.receivers = [
            Admission(
                "127.0.0.1:25", Limits(**limits), table.born(n), trusts=lambda c: c == "10.0.0.1", now=lambda: self.now
            )
            for n in range(2)
        ]

    def come(self, client: str = "192.0.2.1", receiver: int = 0) -> Guest | str:
        answer = self.receivers[receiver].admit(client, 0)
        return answer.decode("ascii") if isinstance(answer, bytes) else answer

    def guest(self, client: str = "192.0.2.1", receiver: int = 0) -> Guest:
        answer = self.come(client, receiver)
        assert isinstance(answer, Guest), answer
        return answer


def test_connections_in_all_count_over_receivers_and_whoever_it_is() -> None:
    world = World(connections=3)
    guests = [world.guest(f"192.0.2.{n}", n % 2) for n in range(3)]
    assert str(world.come("10.0.0.1")).startswith("421 4.3.2 ")
    guests[1].leave()
    guests[1].leave()  # is heard once only
    world.guest("10.0.0.1")
    assert str(world.come("192.0.2.9", 1)).startswith("421 4.3.2 ")


def test_stress_begins_at_four_fifths() -> None:
    world = World(connections=10)
    for n in range(8):
        assert not world.receivers[1].stressed(0)
        world.guest(f"192.0.2.{n}")
    assert world.receivers[1].stressed(0)


def test_stress_begins_at_four_fifths_of_what_a_receiver_can_hold_too() -> None:
    """Its file descriptors may be fewer than the connections that the operator allows."""
    limits = Limits(connections=1000)
    admission = Admission("a", limits, TallyTable(1).born(0), trusts=lambda c: False, now=lambda: 1, most=10)
    assert [admission.stressed(here) for here in (0, 7, 8, 10)] == [False, False, True, True]
    assert admission.admit("192.0.2.1", 10) == FULL


def test_connections_of_one_address() -> None:
    world = World(connections_per_address=2)
    first = world.guest(receiver=0)
    world.guest(receiver=1)
    assert str(world.come()).startswith("421 4.7.0 Too many connections from your address at once")
    world.guest("192.0.2.2")
    first.leave()
    world.guest()


def test_a_customer_with_ipv6_is_one_address() -> None:
    world = World(connections_per_address=1)
    world.guest("2001:db8:1:2::1")
    assert "421" in str(world.come("2001:db8:1:2:ffff::9"))
    world.guest("2001:db8:1:3::1")
    world.guest("::ffff:192.0.2.1")
    assert "421" in str(world.come("192.0.2.1"))


def test_connections_in_a_minute() -> None:
    world = World(connection_rate=Rate(3, 60))
    for n in range(3):
        world.guest(receiver=n % 2).leave()
    assert "in a short time" in str(world.come())
    world.now += 120
    world.guest()


def test_mail_recipients_and_errors() -> None:
    world = World(message_rate=Rate(2, 60), recipient_rate=Rate(1, 60), error_rate=Rate(2, 60))
    guest, other = world.guest(receiver=0), world.guest(receiver=1)
    assert [guest.message(), other.message()] == [b"", b""]
    assert guest.message().startswith(b"450 4.7.1 Too much mail")
    assert guest.recipient() == b""
    assert other.recipient().startswith(b"450 4.7.1 Too many recipients")
    for _ in range(3):
        world.guest(receiver=1)
        guest.erred()
    assert "Too many errors" in str(world.come(receiver=1))
    world.guest("192.0.2.2")


def test_who_may_relay_is_counted_in_all_only() -> None:
    limits: dict[str, Any] = {"connections_per_address": 1, "message_rate": Rate(1, 60), "connection_rate": Rate(1, 60)}
    world = World(**limits)
    guests = [world.guest("10.0.0.1") for _ in range(5)]
    assert [guest.message() for guest in guests] == [b""] * 5
    strict = World(limit_trusted=True, **limits)
    strict.guest("10.0.0.1")
    assert "421" in str(strict.come("10.0.0.1"))


def test_a_client_without_an_address_is_counted_in_all_only() -> None:
    world = World(connections_per_address=1, connections=2)
    world.guest("")
    world.guest("")
    assert "4.3.2" in str(world.come(""))


def test_what_one_process_can_hold() -> None:
    world = World()
    admission = Admission(
        "x", Limits(), TallyTable(1).born(0), trusts=lambda client: False, now=lambda: world.now, most=5
    )
    assert isinstance(admission.admit("192.0.2.1", 4), Guest)
    assert (
        admission.admit("192.0.2.1", 5)
        == b"421 4.3.2 This server has as many connections as it can serve, try again later\r\n"
    )
