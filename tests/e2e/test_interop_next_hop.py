"""Mail relayed to servers that others wrote: Postfix, Exim, and Dovecot's LMTP."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.kit.dovecot import dovecot_lmtp
from tests.kit.exim import exim
from tests.kit.peers import Certificate, Peer, issue
from tests.kit.postfix import postfix
from tests.kit.server import Server, free_port
from tests.kit.waiting import wait_for

pytestmark = pytest.mark.slow

HEAD = (
    b"From: ann@home.test\r\nTo: bob\r\nDate: Fri, 1 Nov 2024 10:00:00 +0000\r\n"
    b"Message-ID: <%b@home.test>\r\nSubject: x\r\n\r\n"
)
BODIES = {
    "dots": b".\r\n..\r\n.x\r\nx.\r\n.\r\n",
    "8-bit": bytes(c for c in range(1, 256) if c not in b"\r\n") + "☃\r\n".encode(),
    "long lines": b"x" * 990 + b"\r\n" + b"." * 990 + b"\r\n",
    "empty": b"",
    "big": b"".join(b".%d " % n + random.Random(n).randbytes(500).hex()[:970].encode() + b"\r\n" for n in range(8000)),
}
MAKERS: dict[str, Callable[..., AbstractContextManager[Peer]]] = {
    "postfix": postfix,
    "exim": exim,
}
TLS = ["off", "may", "require"]
MANY = [f"u{number}" for number in range(250)]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module", params=MAKERS)
def peer(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[Peer]:
    with MAKERS[request.param](certificate, ["bob", "bdat", "grün", *TLS, *MANY]) as made:
        yield made


def body_of(letter: bytes) -> bytes:
    return letter.partition(b"\n\n")[2]


def text(name: str) -> bytes:
    return HEAD % name.replace(" ", "-").encode() + BODIES[name]


@pytest.mark.parametrize("tls", TLS)
def test_texts_arrive_octet_for_octet(tmp_path: Path, peer: Peer, tls: str) -> None:
    with Server(tmp_path, routes={peer.domain: peer.next_hop}, delivery={"tls": tls}) as server:
        for name in BODIES:
            server.send("ann@home.test", [f"{tls}@{peer.domain}"], text(name), " BODY=8BITMIME")
        letters = peer.wait(tls, len(BODIES))
        server.wait_empty()
    assert sorted(map(body_of, letters)) == sorted(body.replace(b"\r\n", b"\n") for body in BODIES.values())
    heads = [letter.partition(b"Received: from client.test")[0].lower() for letter in letters]
    assert [b"with esmtps" in head for head in heads] == [tls != "off"] * len(BODIES)
    assert server.log.read_text().count(" tls=TLSv1.3 ") == (len(BODIES) if tls != "off" else 0)


def test_texts_go_in_chunks_where_that_is_wanted(tmp_path: Path, peer: Peer) -> None:
    """RFC 3030: what was dots and long lines for DATA is so many octets here; each of them says so in its log."""
    with Server(tmp_path, routes={peer.domain: peer.next_hop}, delivery={"chunking": True}) as server:
        for name in BODIES:
            server.send("ann@home.test", [f"bdat@{peer.domain}"], text(name), " BODY=8BITMIME")
        letters = peer.wait("bdat", len(BODIES))
        server.wait_empty()
    assert sorted(map(body_of, letters)) == sorted(body.replace(b"\r\n", b"\n") for body in BODIES.values())
    marks = {"postfix.test": r" bdat=[0-9]+", "exim.test": r" <= ann@home\.test .* K "}
    wait_for(lambda: re.search(marks[peer.domain], peer.log), what=f"chunks in the log of {peer.domain}")


def test_many_recipients(tmp_path: Path, peer: Peer) -> None:
    with Server(tmp_path, routes={peer.domain: peer.next_hop}) as server:
        server.send("ann@home.test", [f"{local}@{peer.domain}" for local in MANY], text("dots"))
        for local in MANY:
            assert body_of(peer.wait(local)[0]) == BODIES["dots"].replace(b"\r\n", b"\n")
        server.wait_empty()
        assert server.log.read_text().count(" delivered ") == len(MANY)


def test_each_recipient_has_its_own_fate(tmp_path: Path, peer: Peer) -> None:
    before = len(peer.letters("bob"))
    locals_ = ["bob", "later", "never"]
    with Server(tmp_path, routes={peer.domain: peer.next_hop}, retry={"first": "1h"}) as server:
        message_id = server.send("ann@home.test", [f"{local}@{peer.domain}" for local in locals_], text("dots"))
        peer.wait("bob", before + 1)
        (notice,) = server.wait_letters("ann")
        assert f"never@{peer.domain}".encode() in notice
        assert b"5.2.1" in notice
        assert f"later@{peer.domain}".encode() not in notice.partition(b"Received:")[2].partition(b"\n\n")[2]
        part = server.wait_part(message_id, "deferred")
        assert "4.2.1" in part["reason"]
        wait_for(lambda: server.count() == 1, what="the end of the notice")


def test_a_connection_serves_many_messages(tmp_path: Path, peer: Peer) -> None:
    before = len(peer.letters("u0"))
    sections = {"delivery": {"connections": 1}}
    with Server(tmp_path, routes={peer.domain: peer.next_hop}, **sections) as server:
        with server.talk() as talk:
            talk.hello()
            for _ in range(50):
                talk.mail("ann@home.test", [f"u0@{peer.domain}"], text("dots"))
        peer.wait("u0", before + 50)
        server.wait_empty()


def test_an_address_in_utf8_is_handed_on(tmp_path: Path, peer: Peer) -> None:
    before = len(peer.letters("grün"))
    with Server(tmp_path, routes={peer.domain: peer.next_hop}) as server, server.talk() as talk:
        talk.hello()
        talk.expect("MAIL FROM:<änn@home.test> SMTPUTF8 BODY=8BITMIME".encode(), "250")
        talk.expect(f"RCPT TO:<grün@{peer.domain}>".encode(), "250")
        talk.expect("DATA", "354")
        talk.expect(b"Subject: \xc3\xbc\r\n\r\nx\r\n.", "250")
        letter = peer.wait("grün", before + 1)[-1]
        assert "Subject: ü\n".encode() in letter
        server.wait_empty()


def test_a_binary_text_is_made_fit_for_who_cannot_take_it(tmp_path: Path, peer: Peer) -> None:
    before = len(peer.letters("bob"))
    with Server(tmp_path, routes={peer.domain: peer.next_hop}) as server, server.talk() as talk:
        talk.hello()
        talk.expect("MAIL FROM:<ann@home.test> BODY=BINARYMIME", "250")
        talk.expect(f"RCPT TO:<bob@{peer.domain}>", "250")
        text = b"Subject: x\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r\n.\r\n\xff\n\r"
        talk.socket.sendall(b"BDAT %d LAST\r\n" % len(text) + text)
        assert talk.reply().startswith("250")
        letter = peer.wait("bob", before + 1)[-1]
        server.wait_empty()
    assert b"Content-Transfer-Encoding: base64\n" in letter
    assert base64.b64decode(body_of(letter)) == text.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("name", MAKERS)
def test_who_can_tell_of_a_success_tells_it(tmp_path: Path, certificate: Certificate, name: str) -> None:
    """RFC 3461 §5.2.2: the next hop offers DSN, so what was asked for is handed on and answered there."""
    port = free_port()
    with MAKERS[name](certificate, ["bob"], port) as peer:
        server = Server(tmp_path, routes={peer.domain: peer.next_hop})
        server.port = port
        with server, server.talk() as talk:
            talk.hello()
            talk.expect("MAIL FROM:<ann@home.test> RET=HDRS ENVID=QQ+2B1", "250")
            talk.expect(f"RCPT TO:<bob@{peer.domain}> NOTIFY=SUCCESS ORCPT=rfc822;robert+40{peer.domain}", "250")
            talk.expect("DATA", "354")
            talk.expect(text("dots") + b".", "250")
            peer.wait("bob")
            (notice,) = server.wait_letters("ann", timeout=40)
            assert f"@{peer.domain}".encode() in notice.partition(b"From:")[2].partition(b"\n")[0]
            told = notice.replace(b"+2B", b"+").replace(b"+40", b"@").replace(b" ", b"")  # Exim leaves it as xtext
            assert b"QQ+1" in told
            assert f"rfc822;robert@{peer.domain}".encode() in told
            assert b"Action: delivered" in notice


# ---- LMTP


@pytest.fixture(scope="module")
def mailboxes() -> Iterator[Peer]:
    with dovecot_lmtp("dovecot.test", ["bob", "eve", *MANY]) as made:
        yield made


@pytest.mark.parametrize("way", ["port", "unix"])
def test_dovecot_takes_mail_by_lmtp(tmp_path: Path, mailboxes: Peer, way: str) -> None:
    hop = f"lmtp:127.0.0.1:{mailboxes.port}" if way == "port" else f"lmtp:unix:{mailboxes.folder}/lmtp"
    before = len(mailboxes.letters("bob"))
    domains = {"dovecot.test": hop, "home.test": f"maildir:{tmp_path}/mail/{{domain}}/{{local}}"}
    with Server(tmp_path, domains=domains) as server:
        for name in BODIES:
            server.send("ann@home.test", ["bob@dovecot.test"], text(name), " BODY=8BITMIME")
        letters = mailboxes.wait("bob", before + len(BODIES))
        wanted = {body.replace(b"\r\n", b"\n") for body in BODIES.values()}
        assert not {body_of(letter) for letter in letters} ^ wanted
        # One message, a verdict for each recipient (RFC 2033 §4.2).
        server.send("ann@home.test", [f"{local}@dovecot.test" for local in ["eve", "nobody", *MANY]], text("dots"))
        (notice,) = server.wait_letters("ann")
        assert b"nobody@dovecot.test" in notice
        assert b"eve@dovecot.test" not in notice.partition(b"\n\n")[2].partition(b"message/rfc822-headers")[0]
        mailboxes.wait("eve")
        for local in MANY:
            mailboxes.wait(local)
        server.wait_empty()
