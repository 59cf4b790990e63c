"""Who is not there is written to once: the next mail for him comes back at once, over a restart too."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.test_retry_and_bounce import SENDER, TEXT, notice
from tests.kit.server import Server
from tests.kit.sink import Sink

HARD = {"classes": ["unknown-user"], "keep": "30d"}


def test_the_second_mail_for_nobody_comes_back_at_once(tmp_path: Path) -> None:
    gone = {"bob@a.test": ["550 5.1.1 user unknown"] * 9}
    with Sink(gone) as sink, Server(tmp_path, routes={"*": sink.next_hop}, suppression=HARD) as server:
        server.send(SENDER, ["bob@a.test"], TEXT)
        server.wait_letters("ann")
        server.stop()
        server.start()
        sessions = sink.connections
        server.send(SENDER, ["BOB@a.test"], TEXT)
        server.send(SENDER, ["bob@a.test", "eve@a.test"], TEXT)
        server.wait_letters("ann", 3)
        server.wait_empty()
        assert [got.recipients for got in sink.got] == [("eve@a.test",)]
        assert sink.connections == sessions + 1
        for letter in server.letters("ann")[1:]:
            _, (block,) = notice(letter)
            assert block["Final-Recipient"].lower() == "rfc822; bob@a.test"
            assert (block["Action"], block["Status"]) == ("failed", "5.7.1")
        assert server.log.read_text().count(" class=suppressed ") == 2

        (row,) = map(json.loads, server.ctl("suppress", "list", "--json").splitlines())
        assert (row["address"], row["reason"], row["reply"]) == ("bob@a.test", "unknown-user", "550 5.1.1 user unknown")
