"""Turns at a next hop that has one connection: urgent mail passes a backlog, tenants share by their weights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.kit.server import Server, free_port
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"


class Gate(Sink):
    """Answers no text before it is opened."""

    asked = 0

    async def opened(self) -> None:
        self._open = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await super().opened()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.asked += 1
        await self._open.wait()
        return await super().handle_DATA(server, session, envelope)


@pytest.fixture(name="sink")
def fixture_sink() -> Iterator[Gate]:
    with Gate() as sink:
        yield sink
        sink.open()


@pytest.fixture(name="server")
def fixture_server(tmp_path: Path, sink: Gate) -> Iterator[Server]:
    port = free_port()
    server = Server(
        tmp_path,
        routes={"a.test": sink.next_hop},
        listener=[{"address": f"127.0.0.1:{port}", "role": "submission"}],
        delivery={"connections": 1},
        retry={"first": "0.2s", "ambiguous_wait": "0.2s"},
        tenant=[
            {"name": "heavy", "weight": 3, "senders": ["heavy.test"]},
            {"name": "light", "senders": ["light.test"]},
        ],
    )
    server.port = port
    with server:
        yield server


def fill(server: Server, count: int, *senders: str, parameters: str = "") -> None:
    with server.talk() as talk:
        talk.hello()
        for _ in range(count):
            for sender in senders:
                server.sent(talk.mail(sender, ["b@a.test"], TEXT, parameters))


def test_an_urgent_mail_passes_a_backlog(server: Server, sink: Gate) -> None:
    fill(server, 200, "bulk@x.test", parameters=" MT-PRIORITY=-3")
    wait_for(lambda: sink.asked, 20, "the first text")
    for number in (1, 2):
        server.send("urgent@x.test", ["b@a.test"], TEXT, " MT-PRIORITY=4")
        wait_for(lambda n=number: server.count("sender=urgent@x.test", "state=active") == n, 20, "it with its courier")
    assert server.count("state=ready") > 100, "they went before these"
    # The second is given out when the first is on its way to the courier.
    sink.open()
    senders = [got.sender for got in sink.wait(202)]
    assert senders.index("urgent@x.test") <= 3, "one was under way, the next may have been on its heels"
    times = server.status()["queue_time"]
    assert (times["urgent"]["begun"], times["bulk"]["begun"]) == (2, 200)
    assert times["urgent"]["p99"] < 10
    assert "queue time  bulk: 200 first attempts in " in server.ctl("status")
    server.wait_empty()


def test_tenants_share_by_weight_also_after_a_crash(server: Server, sink: Gate) -> None:
    fill(server, 150, "a@light.test", "a@heavy.test")
    server.kill()
    server.start()
    wait_for(lambda: server.count("state=ready") >= 150, 20, "the queue anew")
    sink.open()
    senders = [got.sender for got in sink.wait(300)]
    heavy = senders[:160].count("a@heavy.test")
    assert 112 <= heavy <= 128, "three of four"
    server.wait_empty()
