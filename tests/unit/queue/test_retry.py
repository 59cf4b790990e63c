"""Retry rules, and what greylisting hosts ask for."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config.settings import Blame, Retry, RetryRule, Seconds
from mta.mail.replyclass import ReplyClass
from mta.model import Outcome, Reply, Status
from mta.queue import _arena
from mta.queue.retry import Schedule
from tests.kit.queue import NOW, World

GREY = ReplyClass.GREYLIST
ASKS = Reply(451, "4.7.1", "Greylisted, please try again after 200 seconds")
SILENT = Reply(451, "4.7.1", "Greylisted")
RETRY = Retry(
    first=Seconds(1800.0),
    jitter=0.1,
    rule=(
        RetryRule(domain=("*.Slow.example",), classes=("mailbox-full",), expiry=Seconds(86400.0), where="f:3"),
        RetryRule(domain=("*.slow.example", "slow.example"), first=Seconds(7200.0), where="f:7"),
        RetryRule(site=("smtp:relay.*",), factor=1.0, cap=Seconds(60.0), delay_warning=Seconds(0.0), where="f:11"),
        RetryRule(domain=("grey.example",), classes=("greylist",), first=Seconds(900.0), where="f:15"),
        RetryRule(tenant=("news",), first=Seconds(5.0), where="f:19"),
    ),
)
SCHEDULE = Schedule(RETRY)


def test_classes_have_the_same_names_in_the_configuration() -> None:
    assert list(get_args(Blame)) == [c.value for c in ReplyClass]


@pytest.mark.parametrize(
    ("domain", "site", "blame", "where", "first", "expiry"),
    [
        (b"a.slow.example", "mx:x", "mailbox-full", "f:3", 1800.0, 86400.0),
        (b"A.SLOW.example", "mx:x", "other", "f:7", 7200.0, 432000.0),
        (b"slow.example", "mx:x", "mailbox-full", "f:7", 7200.0, 432000.0),
        (b"x.example", "smtp:relay.example:25", "rate", "f:11", 1800.0, 432000.0),
        (b"x.example", "tenants/news", "rate", "f:19", 5.0, 432000.0),
        (b"x.example", "mx:x", "rate", "", 1800.0, 432000.0),
        (b"x.example", "mx:x", "greylist", "", 300.0, 432000.0),
        (b"grey.example", "mx:x", "greylist", "f:15", 900.0, 432000.0),
        (b"\xff.example", "mx:x", "other", "", 1800.0, 432000.0),
    ],
)
def test_the_first_rule_that_fits(
    domain: bytes, site: str, blame: str, where: str, first: float, expiry: float
) -> None:
    for _ in range(2):  # the second time it is remembered
        tenant = site.removeprefix("tenants/") if "/" in site else "shop"
        plan = SCHEDULE.plan(domain, site, tenant, ReplyClass(blame))
        assert (plan.where, plan.first, plan.expiry) == (where, first, expiry)


def test_zero_is_a_value() -> None:
    assert SCHEDULE.plan(b"x.example", "smtp:relay.example:25", "", ReplyClass.RATE).delay_warning == 0.0


def test_what_a_rule_says_alone() -> None:
    plan = SCHEDULE.plan(b"x.example", "smtp:relay.example:25", "", ReplyClass.RATE)
    assert [SCHEDULE.wait(plan, n, Reply(450, "", "no"), 0.5) for n in (1, 2, 9)] == [60.0, 60.0, 60.0]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 9))
def test_a_greylisting_host_is_never_asked_too_early(random: float, attempts: int) -> None:
    plan = SCHEDULE.plan(b"x.example", "mx:x", "", GREY)
    assert 200.0 < SCHEDULE.wait(plan, attempts, ASKS, random) < 250.0


def test_what_it_asks_for_is_bounded() -> None:
    plan = SCHEDULE.plan(b"x.example", "mx:x", "", GREY)
    assert SCHEDULE.wait(plan, 1, Reply(451, "", "greylisted, come back in 99 hours"), 0.0) < 1.1 * 3600
    assert SCHEDULE.wait(plan, 1, Reply(451, "", "greylisted, come back in 0 seconds"), 0.0) >= 1.0


def test_one_that_names_no_time() -> None:
    plan = SCHEDULE.plan(b"x.example", "mx:x", "", GREY)
    assert [SCHEDULE.wait(plan, n, SILENT, 0.5) for n in (1, 2, 3)] == [300.0, 600.0, 1200.0]


def test_others_are_not_taken_at_their_word() -> None:
    plan = SCHEDULE.plan(b"x.example", "mx:x", "", ReplyClass.RATE)
    assert SCHEDULE.wait(plan, 1, Reply(421, "4.7.0", "slow down, try again in 10 seconds"), 0.5) == 1800.0


def test_what_is_remembered_is_bounded() -> None:
    schedule = Schedule(Retry())
    for n in range(30_000):
        schedule.plan(b"%d.example" % n, "mx:x", "", GREY)
    assert len(schedule._known) <= 10_000


def test_the_queue_waits_as_it_was_asked_to() -> None:
    world = World(first=1800.0)
    world.arrive(1, b"a@x.example")
    world.result(world.couriers.given[0], Outcome(Status.DEFERRED, ASKS, "mx.example[192.0.2.1]"))
    assert world.states(_arena.DEFERRED) == [1]
    assert 200 < world.store.changes[-1].due - NOW < 230


def test_the_last_reply_says_when_it_is_over(clock: list[float]) -> None:
    rule = RetryRule(classes=("mailbox-full",), expiry=Seconds(100.0))
    world = World(rule=(rule,))
    world.arrive(1, b"a@x.example")
    clock[0] = NOW + 90
    full = Outcome(Status.DEFERRED, Reply(452, "4.2.2", "mailbox full"), "mx.example[192.0.2.1]")
    world.result(world.couriers.given[0], full)
    slot = world.manager.arena.scan(0, 10, 0xFF)[0][0]
    assert round(world.manager.wishes.ends(slot) - NOW) == 100
    clock[0] = NOW + 1000
    world.manager.advance(clock[0])
    world.result(world.couriers.given[1], full)
    ((_, verdict),) = world.failed
    assert verdict.failures[0].reply.enhanced == "5.4.7"
