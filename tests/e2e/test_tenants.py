"""On whose account mail goes: from a header to the queue, through a crash, and no further."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.kit.server import Server
from tests.kit.waiting import wait_for

LARGE = b"x" * 70 + b"\r\n"


def wishes(server: Server, name: str) -> dict[str, Any]:
    shown = wait_for(lambda: server.show(name), 20, f"{name} in the queue")
    found: dict[str, Any] = shown["wishes"]
    return found


def test_a_header_names_the_tenant_for_good(tmp_path: Path) -> None:
    tenants = [{"name": "acme"}, {"name": "news", "priority": -4}]
    with Server(
        tmp_path,
        routes={"a.test": "hold:"},
        listening={"tenant": "acme"},
        tenant=tenants,
        tenants={"header": "X-Tenant"},
        spool={"large_body": 4096},
    ) as server:
        text = b"X-Tenant: news\r\nSubject: x\r\n\r\n"
        small = server.send("s@x.test", ["a@a.test"], text)
        large = server.send("s@x.test", ["a@a.test"], text + LARGE * 1000)
        other = server.send("s@x.test", ["a@a.test"], b"Subject: x\r\n\r\n")
        server.send("s@x.test", ["b@home.test"], text + b"hello\r\n")
        expected = [{"tenant": "news", "rank": -4}, {"tenant": "news", "rank": -4}, {"tenant": "acme"}]
        assert [wishes(server, name) for name in (small, large, other)] == expected
        [letter] = server.wait_letters("b")
        assert b"X-Tenant" not in letter
        assert b"Subject: x\r\n\r\nhello" in letter.replace(b"\n", b"\r\n").replace(b"\r\r", b"\r")
        wait_for(lambda: f"{small} received" in server.log.read_text(), 10, "the line")
        assert " tenant=news " in next(x for x in server.log.read_text().splitlines() if f"{small} received" in x) + " "
        server.kill()
        server.start()
        assert [wishes(server, name) for name in (small, large, other)] == expected
