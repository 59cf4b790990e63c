"""What operators see of sites, and do with them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mta.config.settings import Shape
from mta.model import Outcome, Reply, Status
from mta.queue import _arena
from mta.queue.audit import Audit, Doer
from mta.queue.site_desk import SiteDesk
from tests.kit import queue as kit
from tests.kit.queue import NOW, World

T = TypeVar("T")
ANN = Doer(1000, "ann")
LATER = Reply(450, "4.2.0", "greylisted")
SITE = "smtp:hop.example:25"


@pytest.fixture(autouse=True)
def _time() -> Iterator[None]:
    kit.TIME[0] = NOW
    yield
    kit.TIME[0] = NOW


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    audit = Audit(tmp_path / "audit.db")
    yield audit
    audit.close()


def run(what: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(what)


async def rows(desk: SiteDesk, pattern: str = "*") -> list[dict[str, object]]:
    return [row async for row in desk.rows(pattern)]


def test_sites_are_listed_and_shown(audit: Audit) -> None:
    world = World(shapes=(Shape(connections=3, where="a.toml:7", reason="they asked for it"),), routes={"y.x": "other"})
    desk = SiteDesk(world.manager, audit)
    world.arrive(1, b"a@y.x")
    for number in range(2, 5):
        world.arrive(number, b"a@x.example")
    world.result(world.couriers.given[-1], Outcome(Status.DEFERRED, LATER))
    listed = run(rows(desk))
    assert [(row["site"], row["ready"], row["in_hand"]) for row in listed] == [(SITE, 0, 2), ("smtp:other:25", 0, 1)]
    assert run(rows(desk, "oth*")) == [listed[1]]
    (shown,) = run(desk.show("hop.example"))
    assert shown["deferred"] == 1
    limits = shown["limits"]
    assert isinstance(limits, dict)
    assert limits["connections"] == 3
    assert limits["places"]["connections"] == "a.toml:7: they asked for it"
    with pytest.raises(ValueError, match=r"there is no site 'nowhere\.example'"):
        run(desk.show("nowhere.example"))


def test_a_pause_and_its_end_are_on_record(audit: Audit) -> None:
    world = World()
    desk = SiteDesk(world.manager, audit)
    world.arrive(1, b"a@x.example")
    assert run(desk.pause("hop.example", 0, "maintenance", ANN)) == 1
    world.arrive(2, b"a@x.example")
    assert len(world.couriers.given) == 1
    (row,) = run(rows(desk))
    assert row["state"] == "paused"
    assert row["why"] == (
        f"the site is paused by ann: maintenance; it waits until somebody resumes it: `mta site resume {SITE}`"
    )
    assert run(desk.resume("*", ANN)) == 1
    assert len(world.couriers.given) == 2
    log = run(audit.log(0))
    assert [(entry["verb"], entry["user"], entry["filter"]) for entry in log] == [
        ("site resume", "ann", "*"),
        ("site pause", "ann", "hop.example"),
    ]
    with pytest.raises(ValueError, match="a reason is a line"):
        run(desk.pause("*", 0, "a\nb", ANN))


def test_flush_tries_all_that_is_deferred(audit: Audit) -> None:
    world = World()
    desk = SiteDesk(world.manager, audit)
    for number in range(1, 4):
        world.arrive(number, b"a@x.example")
        world.result(world.couriers.given[-1], Outcome(Status.DEFERRED, LATER))
    assert world.manager.arena.count(_arena.DEFERRED) == 3
    assert run(desk.flush("hop.example", ANN)) == 1
    assert world.manager.arena.count(_arena.DEFERRED) == 0
    assert len(world.couriers.given) == 6
    assert world.store.changes[-1].kind == "waiting"


def test_limits_by_hand(audit: Audit) -> None:
    world = World()
    desk = SiteDesk(world.manager, audit)
    world.arrive(1, b"a@x.example")
    assert run(desk.limit("*", 2, "10/s", ANN)) == 1
    (row,) = run(rows(desk))
    assert (row["connections"], row["rate"]) == (2, "10 a second")
    assert run(desk.limit("*", 0, "", ANN)) == 1
    (row,) = run(rows(desk))
    assert row["rate"] == ""
    with pytest.raises(ValueError, match="is no rate"):
        run(desk.limit("*", 2, "many", ANN))
    with pytest.raises(ValueError, match="connections are"):
        run(desk.limit("*", -1, "", ANN))
    assert run(desk.forget("*", ANN)) == 1
