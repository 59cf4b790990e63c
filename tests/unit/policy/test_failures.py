"""Counting failed logins: who is shut out, for how long, and who is not."""

from __future__ import annotations

import os

import pytest

from mta.config.settings import Login, Seconds
from mta.policy.failures import FailureTable, Guard, network_of

LOGIN = Login(user_failures=3, address_failures=5, lockout=Seconds(60))


@pytest.fixture
def guard() -> Guard:
    return Guard(FailureTable(), LOGIN)


def fail(guard: Guard, times: int, user: str = "alice", client: str = "192.0.2.1", now: int = 1000) -> None:
    for _ in range(times):
        guard.failed(user, client, now)


def test_a_user_is_shut_out_from_anywhere(guard: Guard) -> None:
    for n in range(3):
        assert not guard.shuts_out("alice", "192.0.2.99", 1000)
        fail(guard, 1, client=f"192.0.2.{n}")
    assert "alice" in guard.shuts_out("alice", "192.0.2.99", 1000)
    assert not guard.shuts_out("bob", "192.0.2.99", 1000)


def test_an_address_is_shut_out_whatever_it_tries(guard: Guard) -> None:
    for n in range(5):
        assert not guard.shuts_out(f"user{n}", "192.0.2.1", 1000)
        fail(guard, 1, user=f"user{n}")
    assert "192.0.2.1" in guard.shuts_out("other", "192.0.2.1", 1000)
    assert not guard.shuts_out("other", "192.0.2.2", 1000)


def test_it_is_forgotten_after_a_time(guard: Guard) -> None:
    fail(guard, 5)
    assert guard.shuts_out("alice", "192.0.2.1", 1059)
    assert not guard.shuts_out("alice", "192.0.2.1", 1060)
    fail(guard, 1, now=1061)
    assert not guard.shuts_out("alice", "192.0.2.1", 1061)


def test_others_cannot_shut_out_a_user_from_where_he_was_before(guard: Guard) -> None:
    guard.succeeded("alice", "192.0.2.7", 900)
    fail(guard, 3, client="198.51.100.1")
    assert guard.shuts_out("alice", "198.51.100.2", 1000)
    assert not guard.shuts_out("alice", "192.0.2.7", 1000)
    fail(guard, 5, client="192.0.2.7")
    assert guard.shuts_out("alice", "192.0.2.7", 1000)  # by address


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("/run/socket", ""),
    ],
)
def test_networks(client: str, network: str) -> None:
    assert network_of(client) == network


def test_a_set_that_is_full_forgets_the_oldest() -> None:
    table = FailureTable()
    for n in range(200_000):
        table.add(f"name {n}", 1000 + n, 10**9)
    assert sum(bool(table.count(f"name {n}", 300_000, 10**9)) for n in range(199_000, 200_000)) > 990


def test_processes_share_the_table() -> None:
    table = FailureTable()
    child = os.fork()
    if child == 0:
        table.add("x", 5, 100)
        os._exit(0)
    os.waitpid(child, 0)
    assert table.count("x", 6, 100) == 1
