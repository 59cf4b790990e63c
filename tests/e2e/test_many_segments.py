"""A queue over many segments, half of it gone already: whatever end the server had, each message arrives once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.kit.ledger import Ledger
from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

SMALL = {"segment_size": "1M", "large_body": "64K"}
LINES = (20, 300, 300, 2000)  # a line has 78 octets: the last ones get a file of their own
MESSAGES = 120


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_each_message_arrives_once(tmp_path: Path, end: str) -> None:
    chance, ledger = random.Random(7), Ledger()
    with Sink() as sink, Server(tmp_path, spool=SMALL, routes={"go.test": sink.next_hop, "*": "hold:"}) as server:
        held = set()
        with server.talk() as talk:
            talk.hello()
            for number in range(MESSAGES):
                body = b"".join(chance.randbytes(38).hex().encode() + b"\r\n" for _ in range(LINES[number % 4]))
                domain = "go.test" if number % 2 else "wait.test"
                key = str(number)
                text = ledger.enter(key, b"\r\n" + body)
                ledger.acknowledged[key] = talk.mail("ann@here.test", [f"bob@{domain}"], text)
                if number % 2 == 0:
                    held.add(ledger.acknowledged[key])
        sink.wait(MESSAGES // 2)
        wait_for(lambda: server.count("domain=go.test") == 0, what="the end of what has gone")
        # An end is on disk one commit after it can be seen. A delete is on disk when it returns, and so is all before.
        last = server.send("ann@here.test", ["bob@wait.test"], b"deleted\r\n")
        server.wait_part(last, "held")
        server.ctl("queue", "delete", f"id={last}", "--yes")
        for _ in range(2):
            getattr(server, end)()
            server.start()
            assert {row["id"] for row in server.rows()} == held
        server.configure(route=[{"domain": "*", "next_hop": sink.next_hop}])
        server.stop()
        server.start()
        server.ctl("queue", "release", "all")
        sink.wait(MESSAGES)
        server.wait_empty()
        account = ledger.audit(got.content for got in sink.got)
        assert account.sound, account
        assert account.doubled == 0
