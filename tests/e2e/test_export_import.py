"""Mail carried from one queue to another: nothing is lost, and nothing goes out on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mta.control.client import Client, Refused
from tests.kit.server import Server
from tests.kit.sink import Sink
from tests.kit.waiting import wait_for

SMALL = b"Subject: x\r\n\r\nhello \xff\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 40_000 + b"\r\n"


def _bodies(sink: Sink) -> list[bytes]:
    return sorted(got.content.partition(b"Subject:")[2] for got in sink.got)


def test_a_queue_moves_to_another_server(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    file = tmp_path / "mail.jsonl"
    with Server(tmp_path / "old", routes={"*": "hold:"}) as old:
        old.send("ann@x.test", ["a@one.test", "b@one.test", "c@two.test"], SMALL, " RET=HDRS ENVID=e1")
        old.send("bob@x.test", ["d@one.test"], LARGE)
        old.send("", ["e@two.test"], SMALL)
        wait_for(lambda: old.count("state=held") == 3)
        with Client(old.runtime) as mta:
            mta.delete("recipient=b@one.test")
        done = old.run("queue", "export", "all", "-o", str(file))
        assert (done.returncode, done.stderr) == (0, "3 messages\n")
        assert file.stat().st_mode & 0o777 == 0o600
        assert old.count() == 3, "they stay"
        text = old.ctl("queue", "export", "sender=")
        assert [next(iter(json.loads(line))) for line in text.splitlines()] == ["head", "text", "tail"]
    with Sink() as sink, Server(tmp_path / "new", routes={"*": sink.next_hop}) as new:
        assert new.ctl("queue", "import", str(file)) == "3 messages\n"
        rows = new.rows("all")
        assert {row["state"] for row in rows} == {"held"}, "what was held is held"
        assert sorted(r for row in rows for r in row["recipients"]) == sorted(
            ["a@one.test", "c@two.test", "d@one.test", "e@two.test"]
        )
        shown = next(new.show(row["id"]) for row in rows if row["sender"] == "ann@x.test")
        assert shown is not None
        assert shown["wishes"]["ret"] == "hdrs"
        new.kill()
        new.start()
        wait_for(lambda: new.count("state=held") == 3)
        assert sink.got == []
        new.ctl("queue", "release", "all")
        got = sink.wait(4)
        assert sorted({g.sender for g in got}) == ["<>", "ann@x.test", "bob@x.test"]
        assert b" large\r\n\r\n0123" in max(_bodies(sink), key=len)
        assert len(max(_bodies(sink), key=len)) == len(LARGE) - len(b"Subject:")
        with Client(new.runtime) as mta:
            assert [(o.verb, o.messages) for o in mta.log()] == [("release", 3), ("import", 2), ("import", 1)]


def test_what_is_no_export_is_not_taken(tmp_path: Path) -> None:
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        server.send("ann@x.test", ["a@one.test"], SMALL)
        wait_for(lambda: server.count("state=held") == 1)
        with Client(server.runtime) as mta:
            head, text, tail = mta.export("all")
            damaged = {"tail": {**tail["tail"], "size": 1}}  # type: ignore[dict-item]
            with pytest.raises(Refused, match="its size or checksum is another"):
                list(mta.import_rows([head, text, damaged]))
            with pytest.raises(Refused, match="takes format 1"):
                list(mta.import_rows([{"head": {**head["head"], "format": 9}}, text, tail]))  # type: ignore[dict-item]
            for rows in ([text], [head, head], [head, text]):
                with pytest.raises(ValueError, match="export"):
                    list(mta.import_rows(rows))
            assert mta.count("all") == 1
            (new,) = mta.import_rows([head, text, tail])
            assert mta.count("all") == 2
            assert mta.show(new) is not None
        wrong = tmp_path / "wrong"
        wrong.write_text("{}\n")
        assert server.run("queue", "import", str(wrong)).returncode == 65
