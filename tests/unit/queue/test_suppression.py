"""Addresses that are not written to."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mta.config.settings import Seconds
from mta.config.settings import Suppression as Settings
from mta.model import Options, Outcome, Recipient, Reply, Status, StoreError
from mta.observe import database
from mta.observe.counters import INDEX
from mta.queue import _arena
from mta.queue import suppression as suppressing
from mta.queue.suppression import EVERYBODY, Entry, Suppression
from tests.kit.queue import NOW, TIME, World
from tests.unit.queue.test_notices import Office

HARD = Settings(classes=("unknown-user", "disabled-user"), keep=Seconds(1000.0))
GONE = Outcome(Status.FAILED, Reply(550, "5.1.1", "user unknown"), "mx.example[192.0.2.1]:25")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "suppression.db"


@pytest.fixture
def made(path: Path) -> Iterator[list[Suppression]]:
    made: list[Suppression] = []
    yield made
    for suppression in made:
        suppression.close()


def office(suppression: Suppression) -> Office:
    """A queue manager with this list and the real notifier."""
    found = Office()
    found.manager.suppression = suppression
    suppression.attach(found.manager)
    return found


def listed(path: Path, made: list[Suppression], settings: Settings = HARD) -> Suppression:
    made.append(Suppression(settings, path, lambda: TIME[0]))
    return made[-1]


def everything(suppression: Suppression) -> list[Entry]:
    async def main() -> list[Entry]:
        return [entry async for entry in suppression.entries()]

    return asyncio.run(main())


def test_nothing_is_made_where_it_is_off(path: Path, made: list[Suppression]) -> None:
    world = office(listed(path, made, Settings()))
    world.arrive(1, b"a@x.example")
    world.result(world.couriers.given[0], GONE)
    assert not path.exists()
    assert world.manager.places.gate is None


def test_who_is_not_there_is_not_asked_for_again(path: Path, made: list[Suppression]) -> None:
    suppression = listed(path, made)
    world = office(suppression)
    world.arrive(1, b"A@x.example")
    world.result(world.couriers.given[0], GONE)
    world.durable()
    (entry,) = everything(suppression)
    assert entry == Entry("", b"a@x.example", "unknown-user", "550 5.1.1 user unknown", int(NOW), int(NOW) + 1000)
    assert "suppressed to=<a@x.example> tenant=- class=unknown-user until=" in world.lines[0]

    world.arrive(2, b"a@X.example")
    assert world.states(_arena.RESOLVING) == [1]
    world.manager.advance(NOW)
    assert len(world.couriers.given) == 1
    ((envelope, message),) = world.drafts()
    assert envelope.recipients[0].address == b"s@x"
    assert "suppressed: this address is not written to since" in str(message)
    assert "class=suppressed" in world.lines[-1]
    world.durable()
    assert [c.kind for c in world.store.changes] == ["finished", "finished"]
    assert world.manager.messages == 0


def test_the_others_of_a_mail_get_it_at_once(path: Path, made: list[Suppression]) -> None:
    suppression = listed(path, made)
    suppression.add("", b"b@x.example", "operator")
    world = office(suppression)
    world.arrive(1, b"a@x.example", b"b@x.example", b"c@x.example")
    world.manager.advance(NOW)
    assert world.couriers.given == []
    assert world.actions() == [[("rfc822; b@x.example", "failed")]]
    world.durable()
    world.manager.dispatch()
    ((_, job),) = world.couriers.given
    assert (job.pending, job.attempts) == ((0, 2), 0)
    assert [(c.kind, c.done) for c in world.store.changes] == [("waiting", (1,))]


@pytest.mark.parametrize(
    ("tenant", "address", "hit"),
    [
        ("shop", b"a@x.example", True),
        ("shop", b"a@X.EXAMPLE", True),
        ("news", b"a@x.example", False),
        ("", b"a@x.example", False),
        ("news", b"all@x.example", True),
        ("", b"all@x.example", True),
        ("shop", b"any@gone.example", True),
        ("news", b"any@gone.example", False),
        ("shop", b"gone.example", False),
        ("shop", b"a\0a@x.example", False),
    ],
)
def test_whose_list_it_is(path: Path, made: list[Suppression], tenant: str, address: bytes, hit: bool) -> None:
    suppression = listed(path, made)
    suppression.add("shop", b"A@x.example", "operator")
    suppression.add(EVERYBODY, b"all@x.example", "operator")
    suppression.add("shop", b"@gone.example", "operator")
    assert (suppression.find(tenant, address) is not None) == hit


def test_an_entry_is_of_its_tenant(path: Path, made: list[Suppression]) -> None:
    suppression = listed(path, made)
    world = office(suppression)
    world.arrive(1, b"a@x.example", options=Options(tenant="shop"))
    world.result(world.couriers.given[0], GONE)
    world.arrive(2, b"a@x.example", options=Options(tenant="news"))
    world.arrive(3, b"a@x.example", options=Options(tenant="shop"))
    assert len(world.couriers.given) == 2


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Status.FAILED, Reply(550, "5.7.1", "your IP is on a block list"), "mx.example[192.0.2.1]:25"),
        Outcome(Status.FAILED, Reply(0, "5.1.1", "no mailbox can have this name"), "maildir"),
        Outcome(Status.DEFERRED, Reply(450, "4.1.1", "user unknown, perhaps"), "mx.example[192.0.2.1]:25"),
    ],
)
def test_what_is_no_reason(path: Path, made: list[Suppression], outcome: Outcome) -> None:
    suppression = listed(path, made)
    world = office(suppression)
    world.arrive(1, b"a@x.example")
    world.result(world.couriers.given[0], outcome)
    assert not len(suppression)


def test_bounces_to_forged_senders_teach_nothing(path: Path, made: list[Suppression]) -> None:
    suppression = listed(path, made)
    world = office(suppression)
    world.arrive(1, b"a@x.example", sender=b"")
    world.result(world.couriers.given[0], GONE)
    assert not len(suppression)


def test_it_outlives_a_restart(path: Path, made: list[Suppression]) -> None:
    first = listed(path, made)
    first.add("shop", b"a@x.example", "operator")
    first.add("shop", b"\xff@x.example", "operator")
    first.add("shop", b"b@x.example", "operator")
    assert first.remove("shop", b"B@x.example")
    assert not first.remove("shop", b"b@x.example")
    first.close()
    made.clear()
    again = listed(path, made, Settings())  # what is there counts, whatever is added now
    assert len(again) == 2
    assert again.find("shop", b"\xff@x.example") is not None
    world = office(again)
    world.arrive(1, b"a@x.example", options=Options(tenant="shop"))
    assert world.states(_arena.RESOLVING) == [1]


def test_entries_expire(path: Path, made: list[Suppression], clock: list[float]) -> None:
    suppression = listed(path, made)
    suppression.add("", b"a@x.example", "operator", keep=100.0)
    world = office(suppression)
    clock[0] = NOW + 100
    assert suppression.find("", b"a@x.example") is None
    world.arrive(1, b"a@x.example")
    assert len(world.couriers.given) == 1
    world.manager.advance(clock[0])
    assert not len(suppression)
    assert world.manager.places.gate is None
    assert everything(suppression) == []


def test_what_is_taken_off_meanwhile_goes_its_way(path: Path, made: list[Suppression]) -> None:
    suppression = listed(path, made)
    suppression.add("", b"a@x.example", "operator")
    world = office(suppression)
    world.arrive(1, b"a@x.example")
    suppression.remove("", b"a@x.example")
    world.manager.advance(NOW)
    assert len(world.couriers.given) == 1


def test_nobody_is_told_of_a_bounce(path: Path, made: list[Suppression]) -> None:
    suppression = listed(path, made)
    suppression.add("", b"a@x.example", "operator")
    world = office(suppression)
    world.arrive(1, Recipient(b"a@x.example"), sender=b"")
    world.manager.advance(NOW)
    assert world.drafts() == []
    assert [c.kind for c in world.store.changes] == ["finished"]
    assert world.counters[INDEX["bounces_made"]] == 0


def test_a_mail_that_is_tried_again_is_looked_at_again(path: Path, made: list[Suppression], clock: list[float]) -> None:
    suppression = listed(path, made)
    world = office(suppression)
    world.arrive(1, b"a@x.example")
    world.result(world.couriers.given[0], Outcome(Status.DEFERRED, Reply(451, "", "later"), "mx[192.0.2.1]"))
    suppression.add("", b"a@x.example", "operator")
    clock[0] = NOW + 1000
    world.manager.advance(clock[0])
    assert len(world.couriers.given) == 1
    assert len(world.drafts()) == 1


def test_a_long_list_is_given_out_in_pages(path: Path, made: list[Suppression]) -> None:
    suppression = listed(path, made)
    for n in range(2500):
        suppression.add(str(n % 2), b"%d@x.example" % (n // 2), "operator")
    found = everything(suppression)
    assert len({(e.tenant, e.address) for e in found}) == len(found) == 2500
    assert found == sorted(found, key=lambda e: (e.address, e.tenant))


def test_without_its_file_mail_goes_on(path: Path, made: list[Suppression], capfd: pytest.CaptureFixture[str]) -> None:
    path.mkdir()
    suppression = listed(path, made)
    assert "nobody is suppressed" in capfd.readouterr().err
    world = office(suppression)
    world.arrive(1, b"a@x.example")
    world.result(world.couriers.given[0], GONE)
    assert len(world.drafts()) == 1
    assert 'class=unknown-user trouble="' in world.lines[0]
    with pytest.raises(StoreError, match="cannot be opened"):
        suppression.add("", b"a@x.example", "operator")


def test_an_operator_is_not_kept_waiting_by_a_full_disk(
    path: Path, made: list[Suppression], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressing, "_PATIENCE", 0.05)
    monkeypatch.setattr(database, "_BUSY", 0.01)
    suppression = listed(path, made)

    async def main() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            suppression.add("", b"a@x.example", "operator")
            with pytest.raises(StoreError, match="not in the file yet"):
                await suppression.flush()
            other.execute("COMMIT")

    asyncio.run(main())
    assert suppression.find("", b"a@x.example") is not None


def test_a_world_without_a_list() -> None:
    world = World()
    world.arrive(1, b"a@x.example")
    world.manager.advance(NOW)
    assert len(world.couriers.given) == 1
