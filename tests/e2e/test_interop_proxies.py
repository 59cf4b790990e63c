"""Proxies that others wrote: haproxy with PROXY headers of both versions, swaks with them and with XCLIENT."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.peers import greets
from tests.kit.programs import need
from tests.kit.server import Server, free_port
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

pytestmark = pytest.mark.slow

HERE = ["127.0.0.1/32"]
FRIEND, STRANGER = "127.0.0.5", "127.0.0.6"

_HAPROXY = """\
global
  stats socket {folder}/admin
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen mail
  bind 127.0.0.1:{port}
  server mta 127.0.0.1:{behind} {send} check inter 200ms
"""


@contextlib.contextmanager
def haproxy(folder: Path, behind: int, send: str) -> Iterator[int]:
    """Its port; it speaks to `behind`, health checks included."""
    program = need("haproxy")
    port = free_port()
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(folder=folder, port=port, behind=behind, send=send))
    process = subprocess.Popen([program, "-db", "-f", str(folder / "haproxy.cfg")], stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: greets(port), what="the greeting through haproxy")
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"])
def test_behind_haproxy_the_client_counts(tmp_path: Path, send: str) -> None:
    relay = {"networks": [f"{FRIEND}/32"]}
    with Server(tmp_path, listening={"proxy_protocol": HERE}, relay=relay, routes={"*": "hold:"}) as server:
        with haproxy(tmp_path, server.port, send) as port:
            for source, code in ((FRIEND, "250"), (STRANGER, "550 5.7.1")):
                with Talk(port, source=source) as talk:
                    talk.hello()
                    talk.expect("MAIL FROM:<ann@home.test>", "250")
                    talk.expect("RCPT TO:<bob@far.test>", code)
                    talk.expect("RCPT TO:<bob@home.test>", "250")
                    talk.expect("DATA", "354")
                    talk.expect("x\r\n.", "250")
            letters = server.wait_letters("bob", 2)
    assert {source for source in (FRIEND, STRANGER) for text in letters if f"([{source}])".encode() in text} == {
        FRIEND,
        STRANGER,
    }


def swaks(*words: str) -> str:
    command = [need("swaks"), "--from", "ann@home.test", "--to", "bob@far.test", "--helo", "client.test", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", ["1", "2"])
def test_swaks_as_a_proxy(tmp_path: Path, version: str) -> None:
    relay = {"networks": ["192.0.2.0/24"]}
    with Server(tmp_path, listening={"proxy_protocol": HERE}, relay=relay, routes={"*": "hold:"}) as server:
        proxy = ["--server", f"127.0.0.1:{server.port}", "--proxy-version", version, "--proxy-family", "TCP4"]
        if version == "2":
            proxy = [*proxy[:4], "--proxy-family", "AF_INET", "--proxy-protocol", "STREAM", "--proxy-command", "PROXY"]
        proxy += ["--proxy-dest", "203.0.113.9", "--proxy-dest-port", "25", "--proxy-source-port", "5000"]
        assert "queued as" in swaks(*proxy, "--proxy-source", "192.0.2.7")
        assert "550 5.7.1" in swaks(*proxy, "--proxy-source", "198.51.100.7")
        server.wait_for_log("client=192.0.2.7 ")


def test_swaks_with_xclient(tmp_path: Path) -> None:
    relay = {"networks": ["192.0.2.0/24"]}
    with Server(tmp_path, listening={"xclient": HERE}, relay=relay, routes={"*": "hold:"}) as server:
        where = ["--server", f"127.0.0.1:{server.port}"]
        assert "550 5.7.1" in swaks(*where)
        assert "queued as" in swaks(*where, "--xclient-addr", "192.0.2.7", "--xclient-name", "friend.example")
        server.wait_for_log("client=192.0.2.7 ")
