"""`mta site`: what an operator sees of a site, and does with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mta.control.client import Client, Refused
from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"


def test_a_site_is_paused_shown_limited_and_resumed(tmp_path: Path) -> None:
    with Sink() as sink, Server(tmp_path, routes={"*": sink.next_hop}) as server:
        name = f"smtp:{sink.host}:{sink.port}"
        server.send("ann@x.test", ["a@one.test"], TEXT)
        sink.wait(1)
        assert server.ctl("site", "pause", name, "--for", "2h", "--reason", "they asked").strip() == "1 sites"
        message_id = server.send("ann@x.test", ["b@one.test"], TEXT)
        wait_for(lambda: server.count(f"id={message_id} state=ready") == 1)
        (row,) = [json.loads(line) for line in server.ctl("site", "list", "--json").splitlines()]
        assert (row["site"], row["ready"]) == (name, 1)
        assert "they asked" in row["why"]
        head, line = server.ctl("site", "list").splitlines()
        assert head.startswith("SITE ")
        assert line.startswith(name)
        assert server.ctl("site", "limits", name, "--connections", "3", "--json").strip() == '{"sites": 1}'
        shown = server.ctl("site", "show", name)
        assert "they asked" in shown
        with Client(server.runtime) as mta:
            (typed,) = mta.sites()
            assert (typed.site, typed.connections) == (name, 3)
            assert mta.flush_site(name) == 1
            assert len(sink.got) == 1, "a pause by hand stays"
            assert mta.resume_site(name) == 1
            assert sink.wait(2)[1].recipients == ("b@one.test",)
            assert [o.verb for o in mta.log()] == ["site resume", "site flush", "site limits", "site pause"]
            with pytest.raises(Refused, match="there is no site 'nowhere'"):
                mta.pause_site("nowhere")
        server.wait_empty()
        wrong = server.run("site", "pause", name, "--for", "long")
        assert wrong.returncode != 0
        assert "Traceback" not in wrong.stderr
