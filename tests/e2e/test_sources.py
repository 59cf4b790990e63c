"""Mail leaves from the addresses that [[source]] names, under their names; an address that is not here holds it up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"


class Watching(Sink):
    """Notes who brought each mail: (sender, address, EHLO name)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.seen.append((str(envelope.mail_from), session.peer[0], str(session.host_name)))
        return await super().handle_DATA(server, session, envelope)


@pytest.fixture(name="sink")
def fixture_sink() -> Iterator[Watching]:
    with Watching() as sink:
        yield sink


def test_mail_leaves_from_its_source(tmp_path: Path, sink: Watching) -> None:
    with Server(
        tmp_path,
        routes={"a.test": sink.next_hop},
        source=[
            {"name": "two", "ipv4": "127.0.0.2", "ehlo": "two.test"},
            {"name": "three", "ipv4": "127.0.0.3", "pools": ["news"]},
            {"name": "gone", "ipv4": "192.0.2.77", "pools": ["nowhere"]},
        ],
        egress=[{"sender": "news.test", "pool": "news"}, {"sender": "lost.test", "pool": "nowhere"}],
    ) as server:
        for sender in ("s@news.test", "s@x.test", "s@lost.test"):
            server.send(sender, ["b@a.test"], TEXT)
        sink.wait(2)
        assert sorted(sink.seen) == [("s@news.test", "127.0.0.3", "mx.test"), ("s@x.test", "127.0.0.2", "two.test")]
        wait_for(lambda: server.count("state=deferred") == 1, 20, "the mail of the address that is not here")
        server.wait_for_log(" source=two delay=")
        [row] = server.rows("state=deferred")
        assert (server.show(row["id"]) or {})["parts"][0]["source"] == "gone"
        assert row["reason"] == "4.3.5 source gone cannot be used: this machine has no address 192.0.2.77"
        checked = server.run("check")
        assert "FAIL  source gone: this machine has no address 192.0.2.77; its mail would wait" in checked.stdout
        assert "ok    source two can send from 127.0.0.2" in checked.stdout
        # The rules change; what is queued follows the pool that it has, or the default when that is no more.
        server.kill()
        server.configure(source=[{"name": "two", "ipv4": "127.0.0.2"}], egress=[])
        server.start()
        assert server.ctl("queue", "retry", "all").startswith("1 ")
        sink.wait(3)
        assert sink.seen[2] == ("s@lost.test", "127.0.0.2", "mx.test")
        server.wait_empty()
        assert json.loads(server.ctl("status", "--json"))["messages"] == 0
