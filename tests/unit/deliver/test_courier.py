"""The courier on its link: a whole life, from Hello to Bye."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mta.config.settings import Delivery, Log, Server, Settings
from mta.deliver.courier import Courier, CourierStart, clock_step
from mta.model import (
    LINK_VERSION,
    Bye,
    Hello,
    Jobs,
    LinkRecord,
    Result,
    Results,
    Site,
    SiteNews,
    Status,
)
from mta.net.link import Link, socket_pair
from mta.net.seats import SeatTable
from mta.observe.counters import Table
from tests.kit.courier import FakeReader, FakeResolver, Rig, run, smtp_site, until
from tests.kit.peer import HANG, Peer


class Manager:
    """The queue manager's end."""

    def __init__(self, tmp_path: Path, **delivery: float) -> None:
        ours, theirs = socket_pair()
        loop = asyncio.get_running_loop()
        self.heard: list[LinkRecord] = []
        self.link = Link(ours, loop, self.heard.append)
        self.reader = FakeReader()
        settings = Settings(
            server=Server(hostname="me.example", state_dir=tmp_path),
            listener=(),
            delivery=Delivery(**delivery),  # type: ignore[arg-type]
            log=Log(path=tmp_path / "log"),
        )
        start = CourierStart(
            settings=settings,
            worker=3,
            life=7,
            counters=Table(1).row(0),
            link=theirs,
            seats=SeatTable(None, 1, "").rows[0],
            up=lambda: None,
        )
        self.courier = Courier(start, loop, self.reader, FakeResolver())
        self.sockets = (ours, theirs)

    @property
    def results(self) -> list[Result]:
        return [r for p in self.heard if isinstance(p, Results) for r in p.results]

    job = Rig.job
    mail = Rig.mail


@asynccontextmanager
async def manager(tmp_path: Path, **delivery: float) -> AsyncIterator[Manager]:
    made = Manager(tmp_path, **delivery)
    yield made
    made.courier._maillog.close()
    made.link.close()
    for sock in made.sockets:
        sock.close()


def test_life(tmp_path: Path) -> None:
    async def main() -> None:
        peer = await Peer().start()
        async with manager(tmp_path) as m:
            m.courier.hello()
            await until(lambda: bool(m.heard))
            assert m.heard == [Hello(LINK_VERSION, "courier", 3, 7, ())]
            m.link.send(SiteNews(1, smtp_site((0, "127.0.0.1"), port=peer.port)))
            m.link.send(SiteNews(2, Site(name="d", kind="discard")))
            m.link.send(SiteNews(3, Site(name="m", kind="maildir", path=f"{tmp_path}/{{local}}")))
            jobs = m.mail(9)
            for site in (1, 2, 3):
                m.link.send(Jobs(site, tuple(jobs[site * 3 - 3 : site * 3])))
            await until(lambda: len(m.results) == 9)
            assert all(r.outcomes == () for r in m.results)
            assert len(peer.messages) == 3
            await m.courier.drain(5)
            await until(lambda: isinstance(m.heard[-1], Bye))
            assert (tmp_path / "log").read_text().count(" delivered ") == 9
        await peer.stop()

    run(main())


def test_restarted_manager_hears_what_is_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta.deliver.pool._PATIENCE", 60.0)  # the machine may be busy

    async def main() -> None:
        peer = await Peer({".": HANG}).start()
        async with manager(tmp_path) as m:
            m.link.send(SiteNews(1, smtp_site((0, "127.0.0.1"), port=peer.port)))
            jobs = m.mail(4)
            m.link.send(Jobs(1, tuple(jobs)))
            await until(lambda: bool(peer.messages))
            m.link.send(Hello(LINK_VERSION, "queue", 0, 99))
            await until(lambda: bool(m.heard))
            (hello,) = m.heard
            assert isinstance(hello, Hello)
            assert sorted(hello.busy) == sorted((j.id, j.part) for j in jobs)
            await m.courier.drain(0.05)
            await until(lambda: isinstance(m.heard[-1], Bye))
            statuses = sorted(r.outcomes[0].status for r in m.results)
            assert statuses == [Status.UNTRIED] * 3 + [Status.UNKNOWN]
        await peer.stop()

    run(main())


def test_many_jobs_in_hand_are_told_in_several_hellos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta.deliver.pool._PATIENCE", 60.0)  # the machine may be busy

    async def main() -> None:
        peer = await Peer({"greeting": HANG}).start()
        async with manager(tmp_path) as m:
            m.link.send(SiteNews(1, smtp_site((0, "127.0.0.1"), port=peer.port)))
            jobs = m.mail(17_000)
            for i in range(0, len(jobs), 250):
                m.link.send(Jobs(1, tuple(jobs[i : i + 250])))
            m.link.send(Hello(LINK_VERSION, "queue", 0, 99))
            await until(lambda: len(m.heard) == 3)
            told = [b for h in m.heard if isinstance(h, Hello) for b in h.busy]
            assert sorted(told) == sorted((j.id, j.part) for j in jobs)
            await m.courier.drain(0)
            await until(lambda: isinstance(m.heard[-1], Bye))
            assert len(m.results) == 17_000
        await peer.stop()

    run(main())


@pytest.mark.parametrize("site", [None, Site(name="h", kind="hold")])
def test_jobs_for_no_usable_site_come_back(tmp_path: Path, site: Site | None) -> None:
    async def main() -> None:
        async with manager(tmp_path) as m:
            if site is not None:
                m.link.send(SiteNews(5, site))
            m.link.send(Jobs(5, tuple(m.mail(2))))
            await until(lambda: len(m.results) == 2)
            assert {r.outcomes[0].status for r in m.results} == {Status.UNTRIED}
            await m.courier.drain(0)

    run(main())


def test_sinks_without_use_are_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        peer = await Peer().start()
        async with manager(tmp_path, idle_timeout=0.1) as m:
            m.link.send(SiteNews(1, smtp_site((0, "127.0.0.1"), port=peer.port)))
            for count in (1, 2):
                m.link.send(Jobs(1, tuple(m.mail(1))))
                await until(lambda count=count: len(m.results) == count)  # type: ignore[misc]
                await until(lambda: not m.courier._sinks)
            assert peer.connections == 2
            await m.courier.drain(0)
        await peer.stop()

    run(main())


def test_clock_is_fine_enough_for_the_shortest_timeout() -> None:
    assert clock_step(Delivery()) == 1.0
    assert clock_step(Delivery(idle_timeout=0.0)) == 1.0  # type: ignore[arg-type]
    assert clock_step(Delivery(command_timeout=0.2)) == 0.05  # type: ignore[arg-type]
