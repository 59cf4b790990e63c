"""`mta top`: the figures are those of what was sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.kit.server import Server, free_port
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"


def test_top_tells_what_is_so(tmp_path: Path) -> None:
    routes = {"far.test": "", "dead.test": f"smtp:127.0.0.1:{free_port()}", "*": "hold:"}
    with Sink({"nobody@far.test": ["550 5.1.1 no such user"]}) as sink:
        routes["far.test"] = sink.next_hop
        with Server(tmp_path, routes=routes) as server:
            for n in range(3):
                server.send("a@x.test", [f"b{n}@far.test"], TEXT)
                server.send("a@x.test", [f"b{n}@held.test"], TEXT)
            sink.wait(3)
            gone = server.send("a@x.test", ["nobody@far.test"], TEXT)
            server.wait_for_log(f"{gone} failed")
            waits = server.send("a@x.test", ["b@dead.test"], TEXT)
            server.wait_part(waits, "deferred")
            wait_for(lambda: server.count("state=held") == 4, 20, "three that are held, and the notice")
            courier = server.children()["courier"][0]
            server.kill_child(courier)
            wait_for(lambda: server.children().get("courier", [courier]) != [courier], 20, "another courier")

            frame = json.loads(server.ctl("top", "--once", "--json", "--interval", "0.2"))
            text = server.ctl("top", "--once", "--interval", "0.2")
            status = server.ctl("status")

    assert frame["hostname"] == "mx.test"
    assert frame["counters"]["messages_accepted"] == 8
    assert frame["counters"]["deliveries_done"] == 3
    assert frame["rates"]["received"] == 0.0
    held = [row for row in frame["busiest"] if row["held"]]
    assert [row["held"] for row in held] == [4]
    dead = [row for row in frame["busiest"] if "dead.test" in row["site"] or row["gate"] == "down" or row["deferred"]]
    assert [row["deferred"] for row in dead] == [1]
    roles = {row["role"]: row for row in frame["processes"]}
    assert roles["courier"]["deaths"] == 1
    assert roles["receiver"]["deaths"] == 0
    assert all(row["memory"] > 1 << 20 and row["cpu"] >= 0 for row in roles.values())
    assert re.search(r"(?m)^sites +\d+, 1 held back: ", status)
    assert re.search(r"courier \d+: pid \d+ \(died 1 times\)", status)
    said = [row["text"] for row in frame["failures"]]
    assert "550 5.1.1 no such user" in said
    assert re.search(r"(?m)^mx\.test  \d+ messages queued \(", text)
    assert "550 5.1.1 no such user" in text
    assert "\x1b" not in text
