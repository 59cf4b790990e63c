"""What became of mail is known when it is gone: from a real server's log, beside it, and when it is stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mta.history.archive import files
from mta.history.partition import Partition
from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

TEXT = b"Subject: x\r\n\r\nhello\r\n"
SOON = {"first": "0.2s", "jitter": 0.0, "factor": 1.0, "expiry": "1h"}


def found(server: Server, *words: str, action: str = "find") -> list[dict[str, Any]]:
    code, out, errors = server.inside("log", action, "--json", *words)
    assert code in (0, 1), errors
    assert not errors, errors
    return [json.loads(line) for line in out.splitlines()]


def filed(folder: Path) -> int:
    """Endings that the historian has written down."""
    count = 0
    for path in files(folder):
        partition = Partition(path, readonly=True)
        count += partition.db.execute("SELECT count(*) FROM ending").fetchone()[0]
        partition.disconnect()
    return count


def test_what_became_of_mail(tmp_path: Path) -> None:
    answers = {"gone@a.test": ["550 5.1.1 no such user"], "busy@a.test": ["450 4.2.0 busy", "450 4.2.0 busy", ""]}
    routes = {"held.test": "hold:"}
    with Sink(answers) as sink, Server(tmp_path, routes={**routes, "*": sink.next_hop}, retry=SOON) as server:
        delivered = server.send("ann@home.test", ["bob@a.test", "busy@a.test"], TEXT)
        bounced = server.send("", ["gone@a.test"], TEXT)
        deleted = server.send("ann@home.test", ["eve@held.test"], TEXT)
        expired = server.send("", ["joe@held.test"], TEXT)
        server.wait_part(deleted, "held")
        server.wait_part(expired, "held")
        server.ctl("queue", "delete", f"id={deleted}", "--yes")
        server.ctl("queue", "expire", f"id={expired}", "--yes")
        with server.talk() as talk:
            talk.hello()
            talk.expect("MAIL FROM:<a@b.test>", "250")
            talk.expect("RCPT TO:<x y@b.test>", "501")
        sink.wait(2)
        server.wait_empty()
        server.wait_for_log("refused")

        rows = {(row["id"], row["recipient"]): row for row in found(server, "all")}
        states = {key: (row["state"], row["attempts"], row["class"]) for key, row in rows.items()}
        assert states == {
            (delivered, "bob@a.test"): ("delivered", 1, ""),
            (delivered, "busy@a.test"): ("delivered", 3, ""),
            (bounced, "gone@a.test"): ("bounced", 1, "unknown-user"),
            (deleted, "eve@held.test"): ("deleted", 0, "other"),
            (expired, "joe@held.test"): ("expired", 0, "expired"),
        }
        row = rows[delivered, "bob@a.test"]
        assert (row["sender"], row["client"], row["reply"][:3]) == ("ann@home.test", "127.0.0.1", "250")
        assert "127.0.0.1" in row["site"]
        text = server.ctl("log", "find", "class=unknown-user")
        assert f"{bounced}  bounced via" in text
        assert "550 5.1.1 no such user" in text
        (refused,) = found(server, "verb=RCPT", "client=127.0.0.1", action="refused")
        assert (refused["sender"], refused["reply"][:3]) == ("a@b.test", "501")
        assert server.inside("log", "find", "recipient=nobody@a.test")[0] == 1

        # The historian is killed, and another one files what there is.
        folder = tmp_path / "state" / "history"
        for _ in range(2):
            (pid,) = server.children()["historian"]
            server.kill_child(pid)
            wait_for(lambda pid=pid: server.children().get("historian", [pid]) != [pid], what="another historian")  # type: ignore[misc]
        wait_for(lambda: filed(folder) == 5, what="five endings on disk")
        os.rename(server.log, tmp_path / "mail.log.1")
        server.reload()
        server.send("ann@home.test", ["bob@a.test"], TEXT)
        sink.wait(3)
        server.wait_for_log("delivered")
        assert len(found(server, "all")) == 6

        server.stop()
        (tmp_path / "mail.log.1").unlink()
        assert len(found(server, "all")) == 6, "the file is gone, and was read before"
        server.start()


def test_there_need_not_be_a_history(tmp_path: Path) -> None:
    with Server(tmp_path, history={"keep": 0}) as server:
        assert "historian" not in server.children()
        done = server.run("log", "find")
        assert (done.returncode, done.stderr) == (78, "mta: there is no history: [history] keep is 0\n")
        assert not (tmp_path / "state" / "history").exists()
