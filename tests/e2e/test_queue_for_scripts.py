"""What scripts build on: the JSON of `mta queue` and `mta status`, exit codes, where words may stand."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.kit.server import Server
from tests.kit.sink import refused_port

TEXT = b"Subject: x\r\n\r\nhello\r\n"


def test_show_says_why_a_message_waits(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": f"smtp:127.0.0.1:{refused_port()}"}) as server:
        message_id = server.send("ann@here.test", ["bob@a.test"], TEXT)
        server.wait_part(message_id, "deferred")
        shown = json.loads(server.ctl("queue", "show", message_id, "--json"))
        (part,) = shown["parts"]
        assert shown["id"] == message_id
        assert (part["domain"], part["state"], part["attempts"]) == ("a.test", "deferred", 1)
        assert "refused" in part["reason"].lower()
        assert part["next"] > shown["arrived"]
        assert part["recipients"] == [{"address": "bob@a.test", "state": "pending"}]


def test_words_and_options_in_any_order(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        ids = [server.send(sender, ["bob@a.test"], TEXT) for sender in ("ann@here.test", "", "carl@here.test")]
        for message_id in ids:
            server.wait_part(message_id, "held")
        for words in (
            ["state=held", "--json", "sender=ann@*"],
            ["--json", "sender=ANN@HERE.TEST"],
            ["id=" + ids[0], "--json"],
        ):
            assert [json.loads(line)["id"] for line in server.ctl("queue", "list", *words).splitlines()] == ids[:1]
        assert json.loads(server.ctl("queue", "list", "--json", "sender="))["id"] == ids[1], "the null reverse-path"
        assert len(server.ctl("queue", "list", "--json", "--limit", "2").splitlines()) == 2
        assert server.ctl("queue", "count") == "3 messages\n"
        shown = server.ctl("queue", "show", "--json", "sender=*@here.test").splitlines()
        assert {json.loads(line)["id"] for line in shown} == {ids[0], ids[2]}
        assert server.ctl("queue", "list", "sender=nobody@*") == ""


def test_exit_codes(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        message_id = server.send("ann@here.test", ["bob@a.test"], TEXT)
        server.wait_part(message_id, "held")
        server.ctl("queue", "delete", f"id={message_id}", "--yes")
        assert server.run("queue", "show", message_id).returncode == 1
        assert server.run("queue", "show", "sender=nobody@*").returncode == 1
        assert server.run("queue", "list", "state=asleep").returncode == 2
        assert server.run("queue", "delete").returncode == 2, "no filter must not mean all"
        server.stop()
        assert server.run("queue", "count").returncode == 69
        assert server.run("status", "--json").returncode == 69
        server.start()


def test_status_names_its_processes(tmp_path: Path) -> None:
    with Server(tmp_path, receivers=2) as server:
        status = json.loads(server.ctl("status", "--json"))
        by_role = {
            role: [row["pid"] for row in status["processes"] if row["role"] == role]
            for role in ("queue", "receiver", "courier")
        }
        assert [len(pids) for pids in by_role.values()] == [1, 2, 1]
        assert status["pid"] == by_role["queue"][0]
        for pids in by_role.values():
            for pid in pids:
                os.kill(pid, 0)
