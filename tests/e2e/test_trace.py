"""`mta trace`: what was said in sessions that went wrong is there without a second run, and no secret is in it."""

from __future__ import annotations

import base64
import json
import re
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mta.control.client import Client
from mta.observe.transcripts import NAME
from tests.e2e.test_starttls_out import pair
from tests.kit.server import COMMAND, LOCAL, ROOT, Server, free_port
from tests.kit.sink import Sink
from tests.kit.submission import ALICE, PASSWORD, users_server
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

SECRET_TEXT = "the combination of the safe is 7-21-14"
TEXT = f"Subject: secret\r\n\r\n{SECRET_TEXT}\r\n".encode()


@pytest.fixture(name="sink", scope="module")
def fixture_sink() -> Iterator[Sink]:
    refused = {"nobody@far.test": ["550 5.1.1 no such\x1b[2Juser"], "slow@far.test": ["451 4.7.1 later"] * 99}
    with Sink(refused) as sink:
        yield sink


@pytest.fixture(name="server", scope="module")
def fixture_server(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Server]:
    routes = {"far.test": sink.next_hop, "dead.test": f"smtp:127.0.0.1:{free_port()}", "*": "hold:"}
    with Server(tmp_path_factory.mktemp("trace"), routes=routes) as server:
        yield server


def traced(server: Server, *words: str) -> list[dict[str, Any]]:
    """The transcripts, as soon as there are any."""

    def found() -> list[dict[str, Any]]:
        with Client(server.runtime) as client:
            return [dict(row) for row in client.rows("trace", filter=words)]

    return wait_for(found, 20.0, f"a transcript of {' '.join(words)}")


def said(transcript: dict[str, Any]) -> list[str]:
    return [f"{line['who'][0]}: {line.get('text', line.get('event'))}" for line in transcript["lines"] if "who" in line]


def rings(server: Server) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(server.runtime.glob(NAME + "*")))


def test_a_failed_delivery(server: Server, sink: Sink) -> None:
    message_id = server.send("a@x.test", ["nobody@far.test"], TEXT)
    transcript = traced(server, f"id={message_id}", "side=out")[-1]
    assert message_id in transcript["messages"]
    assert transcript["why"] == "failed"
    assert transcript["host"] == f"127.0.0.1[127.0.0.1]:{sink.port}"
    lines = said(transcript)
    assert lines[0].startswith("s: 220 ")
    assert lines[1] == "c: EHLO mx.test"
    assert "c: RCPT TO:<nobody@far.test>" in lines
    assert "s: 550 5.1.1 no such\\x1b[2Juser" in lines  # what a peer says moves no cursor
    assert all(line["at"] >= 0 for line in transcript["lines"])
    assert traced(server, f"site={transcript['peer']}")[-1]["session"]
    shown = server.ctl("trace", "last", f"id={message_id}", "side=out")
    assert re.search(r"(?m)^ +0\.\d{3} C: RCPT TO:<nobody@far\.test>$", shown)
    assert "\x1b" not in shown


def test_a_dead_host(server: Server) -> None:
    message_id = server.send("a@x.test", ["b@dead.test"], TEXT)
    server.wait_part(message_id, "deferred")
    transcript = traced(server, "why=unreachable")[-1]
    assert transcript["lines"] == []
    assert "refused" in transcript["ended"]


def test_a_refused_client(server: Server) -> None:
    with server.talk() as talk:
        talk.hello("refused.test")
        talk.expect("MAIL FROM:<a@x.test>", "250")
        reply = talk.expect("RCPT TO:<not an address>", "501")
        session = reply.rpartition("[")[2].partition("]")[0]
        going_on = traced(server, f"id={session}")[0]  # before it has ended
        assert going_on["why"] == "refused"
        assert not going_on["over"]
        assert said(going_on)[-2] == "c: RCPT TO:<not an address>"
        assert said(going_on)[-1] == f"s: {reply.rstrip()}"
        talk.expect("QUIT", "221")
    over = wait_for(lambda: [t for t in traced(server, f"id={session}") if t["over"]], 20, "the end of the session")
    assert len(over) == 1
    assert said(over[0])[-2:] == ["c: QUIT", "s: 221 2.0.0 Bye"]
    assert over[0]["peer"] == "127.0.0.1"


def test_a_client_that_leaves_in_its_text(server: Server) -> None:
    with server.talk() as talk:
        talk.hello("leaves.test")
        talk.expect("MAIL FROM:<a@x.test>", "250")
        talk.expect("RCPT TO:<b@home.test>", "250")
        talk.expect("DATA", "354")
        talk.socket.sendall(b"half of it\r\n")
    transcript = traced(server, "why=cut-short", "client=127.0.0.*")[-1]
    assert "within a text, after 12 octets" in transcript["ended"]
    assert b"half of it" not in rings(server)


def test_no_text_is_kept(server: Server) -> None:
    """Not of a refused mail, not of a text that is sent although nobody wants it, and not of one that is delivered."""
    message_id = server.send("a@x.test", ["slow@far.test", "nobody@far.test"], TEXT)
    server.send("a@x.test", ["someone@far.test"], TEXT)
    with server.talk() as talk:
        talk.hello("blind.test")
        talk.socket.sendall(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<<>>\r\nDATA\r\n" + TEXT + b".\r\nQUIT\r\n")
        while talk.reply():
            pass
    traced(server, f"id={message_id}", "side=out")
    blind = wait_for(
        lambda: [t for t in traced(server, "side=in") if "c: EHLO blind.test" in said(t) and t["over"]], 20, "the end"
    )
    assert any(line.get("hidden") == len(SECRET_TEXT) and not line["text"] for line in blind[0]["lines"])
    assert SECRET_TEXT.encode() not in rings(server)
    assert b"Subject: secret" not in rings(server)


def test_what_went_well_is_not_kept(server: Server, sink: Sink) -> None:
    before = len(sink.got)
    message_id = server.send("a@x.test", ["fine@far.test"], TEXT)
    sink.wait(before + 1)
    server.wait_for_log(f"{message_id} delivered")
    done = server.run("trace", f"id={message_id}")
    assert done.returncode == 1
    assert "no transcript" in done.stderr


def test_words_that_are_not_understood(server: Server) -> None:
    for words, hint in (["sender=x"], "site="), (["last=x"], "A number"):
        done = server.run("trace", *words)
        assert done.returncode == 2
        assert hint in done.stderr


def test_following(server: Server) -> None:
    command = [*COMMAND, "trace", "--follow", "--json", "site=*", "-c", str(server.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as follower:
        assert follower.stdout is not None
        try:
            ids: list[str] = []
            while not select.select([follower.stdout], [], [], 0.2)[0]:  # until it listens
                ids.append(server.send("a@x.test", ["nobody@far.test"], TEXT))
            row = json.loads(follower.stdout.readline())
            assert set(row["messages"]) & set(ids)
        finally:
            follower.kill()


def test_a_dead_worker_leaves_its_transcripts(server: Server) -> None:
    message_id = server.send("a@x.test", ["nobody@far.test"], TEXT)
    traced(server, f"id={message_id}", "side=out")
    for role in ("courier", "receiver"):
        server.kill_child(server.children()[role][0])
    assert message_id in traced(server, f"id={message_id}", "side=out")[0]["messages"]
    wait_for(lambda: {"courier", "receiver"} <= server.children().keys(), 20, "new workers")
    again = server.send("a@x.test", ["nobody@far.test"], TEXT)
    assert traced(server, f"id={again}", "side=out")
    assert traced(server, f"id={message_id}", "side=out")


def test_logins_leave_no_secret(tmp_path: Path) -> None:
    wrong = "not-the-password-8842"
    secrets = [
        base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()),
        base64.b64encode(f"\0{ALICE}\0{wrong}".encode()),
        base64.b64encode(PASSWORD.encode()),
    ]
    with users_server(tmp_path, networks=["127.0.0.0/8"]) as users:
        with Talk(users.plain) as talk:
            talk.hello("login.test")
            talk.expect(b"AUTH PLAIN " + secrets[1], "535")
            talk.expect("AUTH PLAIN", "334")
            talk.expect(secrets[0], "235")
            talk.expect(secrets[0], "500")
            talk.expect("AUTH LOGIN", "503")
            talk.expect(secrets[2], "500")
            talk.expect("QUIT", "221")
        transcript = wait_for(
            lambda: [t for t in traced(users.server, "why=refused") if t["over"]], 20, "a transcript of the login"
        )[0]
        assert "c: AUTH PLAIN" in said(transcript)
        with Talk(users.implicit) as talk:
            talk.socket.sendall(b"EHLO this is no TLS\r\n")
            assert talk.closed()
        assert "TLS handshake" in traced(users.server, "why=tls")[0]["ended"]
        kept = rings(users.server)
    for secret in (*secrets, PASSWORD.encode(), wrong.encode()):
        assert secret[:8] not in kept


def test_tls_is_told(tmp_path: Path) -> None:
    with pair(tmp_path) as (relay, target):
        target.configure(domain=[], relay={"networks": []})
        target.reload()
        message_id = relay.send("a@x.test", [f"bob@{LOCAL}"], TEXT)
        relay.wait_for_log(f"{message_id} failed")
        transcript = traced(relay, f"id={message_id}", "side=out")[-1]
    assert transcript["tls"].startswith("tls=TLSv1.3 cipher=")
    assert re.search(r"ECDSA P-256, until [23]\d{3}-.*, sha256 [0-9a-f]{64}$", transcript["certificate"])
    assert "b: tls" in said(transcript)
