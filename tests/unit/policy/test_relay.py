"""Relay control: own domains for everybody, other domains for the relay networks only."""

import ipaddress

import pytest

from mta.config.settings import Domain, NextHop
from mta.policy.relay import RelayControl, expand_postmaster

OWN = Domain(name="own.example", deliver=NextHop(kind="maildir", path="/m/{domain}/{local}"))
NETWORKS = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")]
RELAY = RelayControl(NETWORKS, [OWN])


@pytest.mark.parametrize(
    "address",
    [
        b"user@other.example",
        b"user%other.example@third.example",
        b"own.example!user@other.example",
        b'"user@own.example"@other.example',
        b"user@sub.own.example",
        b"user@own.example.evil.example",
        b"user@[127.0.0.1]",
    ],
)
def test_a_stranger_cannot_relay(address: bytes) -> None:
    judge = RELAY.judge_for("198.51.100.7", "mx")
    assert judge(address).startswith(b"550 5.7.1 ")
    assert RELAY.judge_for("192.0.2.7", "mx")(address) == b""


@pytest.mark.parametrize("local", [b"user%far.example", b"far.example!user", b'"user@far.example"', b'"a\\%b"'])
def test_a_stranger_cannot_make_a_host_behind_relay(local: bytes) -> None:
    """The host that an own domain is handed to may trust this one."""
    behind = Domain(name="behind.example", deliver=NextHop(kind="smtp", host="10.0.0.1", port=25))
    relay = RelayControl(NETWORKS, [behind])
    assert relay.judge_for("198.51.100.7", "mx")(local + b"@behind.example").startswith(b"550 5.7.1 ")
    assert relay.judge_for("192.0.2.7", "mx")(local + b"@behind.example") == b""
    assert relay.judge_for("198.51.100.7", "mx")(b"user+tag=x@behind.example") == b""


def test_mail_for_own_domains_is_taken_from_everybody() -> None:
    assert RELAY.judge_for("198.51.100.7", "mx")(b"User@OWN.example") == b""


def test_a_stranger_may_not_submit() -> None:
    assert RELAY.judge_for("198.51.100.7", "submission")(b"user@own.example").startswith(b"550 5.7.1 ")
    assert RELAY.judge_for("192.0.2.1", "submission")(b"user@own.example") == b""


@pytest.mark.parametrize("client", ["192.0.2.255", "2001:db8:1::1", "::ffff:192.0.2.3"])
def test_relay_networks(client: str) -> None:
    assert RELAY.trusts(client)


@pytest.mark.parametrize("client", ["192.0.3.0", "2001:db9::1", "", "unix", "::ffff:198.51.100.1"])
def test_everything_else_is_a_stranger(client: str) -> None:
    assert not RELAY.trusts(client)


@pytest.mark.parametrize("address", [b'"../x"@own.example', b'".."@own.example', b'"a/b"@own.example'])
def test_what_can_be_no_mailbox_is_refused_at_once(address: bytes) -> None:
    assert RELAY.judge_for("192.0.2.7", "mx")(address).startswith(b"550 5.1.1 ")


def test_postmaster_needs_no_domain_but_a_mailbox() -> None:
    assert RELAY.judge_for("198.51.100.7", "mx")(b"postmaster") == b""
    assert expand_postmaster(b"postmaster", [OWN]) == b"postmaster@own.example"
    assert RelayControl([], []).judge_for("198.51.100.7", "mx")(b"postmaster").startswith(b"550 5.1.1 ")


def test_lmtp_takes_what_mx_takes() -> None:
    for client in ("198.51.100.7", "unix"):
        judge = RELAY.judge_for(client, "lmtp")
        assert judge(b"user@own.example") == b""
        assert judge(b"user@other.example").startswith(b"550 5.7.1 ")
    assert RELAY.judge_for("192.0.2.7", "lmtp")(b"user@other.example") == b""
