"""Days in random worlds: hundreds of sites with their moods, and what must hold whatever they do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest

from mta.config.settings import Delivery
from tests.sim.hosts import Crowded, Dead, Flapping, Greylisting, Host, Metered, Picky, Slowing
from tests.sim.world import HOUR, World

EXPIRY = 12 * HOUR
END = 12 * HOUR + EXPIRY + HOUR  # all mail came in the first half of the day; its time is over, and that of notices
KINDS: Mapping[str, Callable[[random.Random], Host]] = {
    "fine": lambda chance: Host(connecting=chance.uniform(0.01, 0.3), working=chance.uniform(0.02, 0.5)),
    "slow": lambda chance: Host(connecting=2.0, working=chance.uniform(5.0, 30.0)),
    "dead": lambda chance: Dead(),
    "sick": lambda chance: Dead(until=chance.uniform(HOUR, 10 * HOUR)),
    "grey": lambda chance: Greylisting(wait=chance.choice((60.0, 300.0, 900.0))),
    "full": lambda chance: Crowded(most=chance.randint(1, 8)),
    "paid": lambda chance: Metered(each_minute=chance.randint(1, 20)),
    "flap": lambda chance: Flapping(up=chance.uniform(60, 900), down=chance.uniform(60, 3600)),
    "pick": lambda chance: Picky(),
    "tire": lambda chance: Slowing(at=chance.uniform(0, 12 * HOUR), then=chance.uniform(1, 20)),
    "dark": lambda chance: Host(),
}
DNS_FAILS = "dark"


def peopled(seed: int, sites: int) -> World:
    """A world with so many sites, whose kinds are drawn; about half are fine."""
    chance = random.Random(seed)
    names = list(KINDS)
    weights = [len(names) if name == "fine" else 1 for name in names]
    kinds = chance.choices(names, weights, k=sites)
    hosts = {f"mx.{kind}{n}.example": KINDS[kind](chance) for n, kind in enumerate(kinds)}
    it = World(hosts, seed=seed, step=1.0, expiry=EXPIRY)
    for n, kind in enumerate(kinds):
        if kind == DNS_FAILS:
            begin = chance.uniform(0, 6 * HOUR)
            it.names.dark[f"{kind}{n}.example"] = begin, begin + chance.uniform(60, 4 * HOUR)
    return it


def post(it: World, messages: int, chance: random.Random) -> list[float]:
    """Mail through the first half of a day: some sites get much, some messages have many recipients. When it comes."""
    times = [chance.uniform(1, 12 * HOUR) for _ in range(messages)]
    domains = [host.removeprefix("mx.") for host in it.hosts]
    weights = [1.0 / (1 + n) ** 0.5 for n in range(len(domains))]
    for n, time in enumerate(times):
        several = chance.choices((1, 2, 5), (80, 15, 5))[0]
        to = chance.choices(domains, weights, k=several)
        who = "nobody" if chance.random() < 0.05 else "user"
        sender = "" if chance.random() < 0.02 else f"s{n % 50}@here.example"
        it.mail(*(f"{who}{n}.{i}@{d}" for i, d in enumerate(to)), at=time, sender=sender)
    return times


def live_a_day(seed: int, sites: int, messages: int) -> World:
    it = peopled(seed, sites)
    post(it, messages, random.Random(seed + 1))
    it.run(END)
    return it


def prompt(it: World) -> list[float]:
    """How long mail took whose only recipient is at a site that is fine, sorted."""
    fine = [i for i, e in it.sent.items() if len(e.recipients) == 1 and b"@fine" in e.recipients[0].address]
    assert fine
    assert len(it.delays(fine)) == len(fine)
    return it.delays(fine)


def check(it: World) -> None:
    it.settled()
    delays = prompt(it)
    assert delays[len(delays) // 100 * 99] <= 1.0 + it.step, "others' troubles are no reason to wait"
    for name, host in it.hosts.items():
        if name.startswith("mx.dead"):
            assert not host.accepted
            assert host.connects <= 20 + END / Delivery().probe_cap * 1.2, f"{name}: a probe now and then"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_day(seed: int) -> None:
    check(live_a_day(seed, sites=80, messages=800))


def test_a_day_on_which_processes_die() -> None:
    """What was on the wire then may come twice; nothing is lost, and nothing else comes twice."""
    it = peopled(3, sites=40)
    chance = random.Random(5)
    arrivals = post(it, 500, random.Random(4))
    for moment in sorted(time + chance.uniform(0, 0.3) for time in chance.sample(arrivals, 80)):
        it.run(moment)
        if chance.random() < 0.5:
            it.crash()
        else:
            it.kill(chance.choice((2, 3)))
    it.run(END)
    it.settled()
    assert 0 < len(it.doubtful) < 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10, 14))
def test_a_day_of_thousands_of_sites(seed: int) -> None:
    check(live_a_day(seed, sites=2000, messages=20_000))
