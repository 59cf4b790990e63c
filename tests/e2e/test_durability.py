"""[spool] durability: said aloud where it is not "commit"."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.server import Server


@pytest.mark.parametrize("relaxed", [False, True])
def test_an_operator_is_told(tmp_path: Path, relaxed: bool) -> None:
    spool = {"durability": "interval", "interval": "50ms"} if relaxed else {}
    with Server(tmp_path, spool=spool) as server:
        server.send("ann@far.test", ["bob@home.test"], b"Subject: 1\r\n\r\n")
        server.wait_letters("bob")
        status = server.status()
        assert (status["durability"], status.get("interval")) == (("interval", 0.05) if relaxed else ("commit", None))
        assert status["spool"]["free_octets"] > 0
        told = 'durability is "interval"'
        assert (told in server.stderr()) is relaxed
        assert (" durability interval=0.05 " in server.log.read_text()) is relaxed
        assert ("synced every 0.05 s" in server.ctl("status")) is relaxed
        assert (told in server.run("check").stdout) is relaxed
        server.kill()
        server.start()
        server.send("ann@far.test", ["bob@home.test"], b"Subject: 2\r\n\r\n")
        server.wait_letters("bob", 2)
