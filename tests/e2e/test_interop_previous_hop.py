"""Servers that others wrote relay to ours: Postfix and Exim."""

from __future__ import annotations

import random
import smtplib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.kit.exim import exim
from tests.kit.peers import Peer, issue
from tests.kit.postfix import postfix
from tests.kit.server import Server, free_port
from tests.kit.waiting import wait_for

pytestmark = pytest.mark.slow

EXIM_TLS = "hosts_require_tls = *\n  tls_verify_certificates = {folder}/ca.pem\n  tls_verify_hosts = *"
EXIM_PLAIN = "hosts_avoid_tls = *"
HEAD = (
    b"From: ann@far.test\r\nTo: bob\r\nDate: Fri, 1 Nov 2024 10:00:00 +0000\r\n"
    b"Message-ID: <%b@far.test>\r\nSubject: x\r\n\r\n"
)
BODIES = {
    "dots": b".\r\n..\r\n.x\r\nx.\r\n.\r\n",
    "8-bit": "☃\r\n".encode() + bytes(c for c in range(0x80, 256)) + b"\r\n",
    "long lines": b"x" * 990 + b"\r\n" + b"." * 990 + b"\r\n",
    "one line": b"x\r\n",
    "big": b"".join(b".%d " % n + random.Random(n).randbytes(450).hex().encode() + b"\r\n" for n in range(8000)),
}
MANY = [f"u{number}" for number in range(250)]


@dataclass(frozen=True)
class Pair:
    """`peer` relays all mail for home.test to `server`."""

    peer: Peer
    server: Server
    tls: bool

    def send(self, recipients: list[str], text: bytes, mail: list[str], rcpt: list[str]) -> None:
        with smtplib.SMTP("127.0.0.1", self.peer.port, timeout=30) as client:
            client.ehlo("client.test")
            assert not client.sendmail(f"ann@{self.peer.domain}", recipients, text, mail, rcpt)


@pytest.fixture(scope="module", params=["postfix plain", "postfix tls", "exim plain", "exim tls"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    name, _, way = request.param.partition(" ")
    folder = tmp_path_factory.mktemp("previous")
    certificate = issue(folder)
    port = free_port()
    with ExitStack() as stack:
        if name == "postfix":
            level = "verify" if way == "tls" else "none"
            more = {"smtp_tls_security_level": level, "smtp_tls_verify_cert_match": "hostname"}
            more |= {"smtp_send_xforward_command": "yes"}
            peer = stack.enter_context(postfix(certificate, ["ann"], port, **more, relayhost=f"[localhost]:{port}"))
        else:
            lines = EXIM_TLS if way == "tls" else EXIM_PLAIN
            peer = stack.enter_context(exim(certificate, ["ann"], port, lines))
        server = Server(
            folder,
            routes={peer.domain: peer.next_hop},
            listener=[{"address": f"127.0.0.1:{port}", "role": "mx", "tls": "starttls", "xforward": ["127.0.0.1/32"]}],
            tls={"certificate": str(certificate.chain), "key": str(certificate.key)},
        )
        server.port = port
        yield Pair(peer, stack.enter_context(server), way == "tls")


def body_of(letter: bytes) -> bytes:
    return letter.partition(b"\n\n")[2]


def test_texts_arrive_octet_for_octet(pair: Pair) -> None:
    for name, body in BODIES.items():
        text = HEAD % name.replace(" ", "-").encode() + body
        pair.send(["bob@home.test"], text, ["body=8bitmime"], [])
    letters = pair.server.wait_letters("bob", len(BODIES), timeout=40)
    assert sorted(map(body_of, letters)) == sorted(body.replace(b"\r\n", b"\n") for body in BODIES.values())
    protocol = b"ESMTPS" if pair.tls else b"ESMTP"
    assert all(b"by mx.test with %b id" % protocol in letter for letter in letters), letters[0][:500]


def test_many_recipients(pair: Pair) -> None:
    pair.send([f"{local}@home.test" for local in MANY], HEAD % b"many" + BODIES["dots"], [], [])
    for local in MANY:
        assert len(pair.server.wait_letters(local, timeout=40)) == 1


def test_exim_sends_in_chunks(pair: Pair) -> None:
    """RFC 3030: it does wherever CHUNKING is offered, and marks it in its log."""
    if pair.peer.domain != "exim.test":
        pytest.skip("Postfix takes chunks, but sends none")
    pair.send(["chunks@home.test"], HEAD % b"chunks" + BODIES["big"], [], [])
    (letter,) = pair.server.wait_letters("chunks", timeout=40)
    assert body_of(letter) == BODIES["big"].replace(b"\r\n", b"\n")
    wait_for(
        lambda: any("chunks@" in line and " K " in line for line in pair.peer.log.split("\n")), what="K in the log"
    )


def test_postfix_tells_whose_mail_it_is(pair: Pair) -> None:
    if pair.peer.domain != "postfix.test":
        pytest.skip("Exim does not speak XFORWARD")
    pair.send(["forwarded@home.test"], HEAD % b"forwarded" + BODIES["dots"], [], [])
    pair.server.wait_letters("forwarded", timeout=40)
    (line,) = [x for x in pair.server.log.read_text().split("\n") if " received " in x and "<forwarded@" in x]
    assert " forwarded-addr=127.0.0.1" in line
    assert " forwarded-helo=client.test" in line
    assert " forwarded-proto=ESMTP" in line


def test_addresses_in_utf8(pair: Pair) -> None:
    with smtplib.SMTP("127.0.0.1", pair.peer.port, timeout=30) as client:
        client.ehlo("client.test")
        text = "Subject: ü\r\n\r\nx\r\n".encode()
        client.sendmail("ann@far.test", ["grün@home.test"], text, ["SMTPUTF8", "BODY=8BITMIME"])
    (letter,) = pair.server.wait_letters("grün", timeout=40)
    assert "Subject: ü\n".encode() in letter
    assert b" with UTF8SMTP" in letter


def test_a_success_is_told_from_here(pair: Pair) -> None:
    before = len(pair.peer.letters("ann"))
    mail = ["RET=HDRS", "ENVID=QQ+2B1"]
    pair.send(["told@home.test"], HEAD % b"told" + BODIES["dots"], mail, ["NOTIFY=SUCCESS,DELAY"])
    notice = pair.peer.wait("ann", before + 1)[-1]
    assert b"Action: delivered" in notice
    assert b"QQ+1" in notice
    assert b"mx.test" in notice


def test_what_is_refused_here_comes_back_from_there(pair: Pair) -> None:
    before = len(pair.peer.letters("ann"))
    pair.send(['"../x"@home.test'], HEAD % b"refused" + BODIES["dots"], [], [])
    notice = pair.peer.wait("ann", before + 1)[-1]
    assert b"5.1.1" in notice
    assert b"no mailbox can have this name here" in b" ".join(notice.split())
