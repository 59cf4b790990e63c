"""PROXY headers, XCLIENT and XFORWARD: who is believed, and what follows from it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.kit.server import Server, free_port
from tests.kit.talk import Talk

HERE = ["127.0.0.1/32"]
RELAY = {"networks": ["192.0.2.0/24"]}
V1 = b"PROXY TCP4 192.0.2.7 203.0.113.9 56324 25\r\n"
STRANGER = b"PROXY TCP4 198.51.100.7 203.0.113.9 56324 25\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 12 + 18)
    + socket.inet_aton("192.0.2.7")
    + socket.inet_aton("203.0.113.9")
    + struct.pack("!HH", 56324, 25)
    + b"\x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3"
)


def proxied(server: Server, header: bytes, source: str = "127.0.0.1") -> Talk:
    talk = Talk(server.port, source=source)
    talk.socket.sendall(header)
    return talk


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, listening={"proxy_protocol": HERE}, relay=RELAY, routes={"*": "hold:"}) as server:
        yield server


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_the_address_in_the_header_counts(server: Server, header: bytes) -> None:
    local = "v1" if header == V1 else "v2"
    with proxied(server, header) as talk:
        talk.hello()
        message = talk.mail("a@x.test", ["b@far.test"], b"x\r\n")
        talk.mail("a@x.test", [f"{local}@home.test"], b"x\r\n")
    assert b"Received: from client.test ([192.0.2.7])" in server.wait_letters(local)[0]
    line = next(line for line in server.log.read_text().splitlines() if f"{message} received" in line)
    assert "client=192.0.2.7 " in line
    assert "proxy=127.0.0.1" in line
    assert ("proxied-tls=TLSv1.3" in line) == (header == V2)
    with proxied(server, STRANGER) as talk:
        talk.hello()
        talk.expect("MAIL FROM:<a@x.test>", "250")
        talk.expect("RCPT TO:<b@far.test>", "550 5.7.1")


def test_a_header_in_single_octets_and_commands_right_behind_it(server: Server) -> None:
    with Talk(server.port) as talk:
        talk.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in V2:
            talk.socket.sendall(bytes([octet]))
        talk.hello()
        talk.expect("RSET", "250")
    with proxied(server, V1 + b"EHLO early.test\r\n") as talk:
        assert talk.reply().startswith("220")
        assert talk.reply().startswith("250")


def test_local_and_unknown_are_the_proxy_itself_and_a_unix_client_is_nobody(tmp_path: Path) -> None:
    unix = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + bytes(216)
    local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
    with Server(
        tmp_path, listening={"proxy_protocol": HERE}, relay={"networks": HERE}, routes={"*": "hold:"}
    ) as server:
        for header, reply in ((b"PROXY UNKNOWN\r\n", "250"), (local, "250"), (unix, "550 5.7.1")):
            with proxied(server, header) as talk:
                talk.hello()
                talk.expect("MAIL FROM:<a@x.test>", "250")
                talk.expect("RCPT TO:<b@far.test>", reply)


def test_without_a_good_header_there_is_no_session(server: Server) -> None:
    for octets in (b"EHLO x\r\n", V1[:-2] + b"\n" + b" " * 80, b"\x16\x03\x01\x02\0"):
        with proxied(server, octets) as talk:
            assert talk.closed()
    server.wait_for_log("proxy-refused client=127.0.0.1")


@pytest.mark.slow
def test_a_header_must_come_in_time(server: Server) -> None:
    with Talk(server.port) as silent:
        assert silent.closed()
        server.wait_for_log('reason="no header in time"')


def test_others_are_not_believed(server: Server) -> None:
    with proxied(server, V1, source="127.0.0.2") as talk:
        assert talk.reply().startswith("220")
        assert talk.reply().startswith("500 5.5.2")
        talk.expect("EHLO x", "250")
        talk.expect("MAIL FROM:<a@x.test>", "250")
        talk.expect("RCPT TO:<b@far.test>", "550 5.7.1")


def test_limits_count_the_client_and_not_the_proxy(tmp_path: Path) -> None:
    listening = {"proxy_protocol": HERE, "limits": {"connections_per_address": 1}}
    with Server(tmp_path, listening=listening) as server:
        with proxied(server, V1) as one, proxied(server, STRANGER) as other, proxied(server, V1) as more:
            one.hello()
            other.hello()
            assert more.reply().startswith("421 4.7.0")


def test_the_header_comes_before_the_handshake(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    with Server(tmp_path, listening={"proxy_protocol": HERE, "tls": "implicit"}, relay=RELAY, tls=tls) as server:
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        with proxied(server, V2) as talk:
            talk.socket = trust.wrap_socket(talk.socket, server_hostname="localhost")
            talk.hello()
            talk.mail("a@x.test", ["b@home.test"], b"x\r\n")
        letter = server.wait_letters("b")[0]
        assert b"([192.0.2.7])" in letter
        assert b"with ESMTPS" in letter


def test_xclient(tmp_path: Path) -> None:
    with Server(tmp_path, listening={"xclient": HERE}, relay=RELAY, routes={"*": "hold:"}) as server:
        with server.talk() as talk:
            assert "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n" in talk.hello()
            talk.expect("MAIL FROM:<a@x.test>", "250")
            talk.expect("RCPT TO:<b@far.test>", "550 5.7.1")
            talk.expect("XCLIENT ADDR=192.0.2.7", "503 5.5.1")
            talk.expect("RSET", "250")
            talk.expect("XCLIENT ADDR=192.0.2.300", "501 5.5.4 XCLIENT: ADDR is not right")
            talk.expect("XCLIENT ADDR=192.0.2.7 NAME=c.example HELO=told.example", "220 mx.test")
            talk.expect("MAIL FROM:<a@x.test>", "503 5.5.1")
            talk.expect("EHLO own.example", "250")
            message = talk.mail("a@x.test", ["b@far.test"], b"x\r\n")
            talk.mail("a@x.test", ["b@home.test"], b"x\r\n")
            talk.expect("XCLIENT ADDR=198.51.100.7", "220")
            talk.expect("EHLO own.example", "250")
            talk.expect("MAIL FROM:<a@x.test>", "250")
            talk.expect("RCPT TO:<b@far.test>", "550 5.7.1")
            talk.expect("RSET", "250")
            talk.expect("XCLIENT ADDR=198.51.100.7 LOGIN=alice", "220")
            talk.expect("EHLO own.example", "250")
            talk.expect("MAIL FROM:<a@x.test>", "250")
            talk.expect("RCPT TO:<b@far.test>", "250")
        assert b"from told.example ([192.0.2.7])" in server.wait_letters("b")[0]
        server.wait_for_log(f"{message} received client=192.0.2.7 helo=told.example")
        server.wait_for_log("client-name=c.example")
        with Talk(server.port, source="127.0.0.2") as talk:
            assert "XCLIENT" not in talk.hello()
            talk.expect("XCLIENT ADDR=192.0.2.7", "550 5.7.0")
            talk.expect("XFORWARD ADDR=192.0.2.7", "500 5.5.2")


def test_xforward(tmp_path: Path) -> None:
    with Server(tmp_path, listening={"xforward": HERE}, relay={"networks": []}) as server:
        with server.talk() as talk:
            assert "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n" in talk.hello()
            talk.expect("XFORWARD ADDR=192.0.2.7 NAME=c.example", "250")
            talk.expect("XFORWARD HELO=a+20b", "501 5.5.4")
            talk.expect("XFORWARD IDENT=1A2B", "250")
            first = talk.mail("a@x.test", ["b@home.test"], b"x\r\n")
            second = talk.mail("a@x.test", ["b@home.test"], b"x\r\n")
        server.wait_for_log(f"{second} received")
        lines = {line.split()[1]: line for line in server.log.read_text().splitlines() if " received " in line}
        assert lines[first].endswith(" forwarded-name=c.example forwarded-addr=192.0.2.7 forwarded-ident=1A2B")
        assert "client=127.0.0.1" in lines[first]
        assert "forwarded" not in lines[second]


def too_early(server: Server, way: str, replies: int) -> list[str]:
    """The codes that a client gets who speaks first."""
    (receiver,) = server.children()["receiver"]
    os.kill(receiver, signal.SIGSTOP)  # so that the client is the first to speak
    with server.talk() if way == "tcp" else Talk(path=str(server.runtime / "smtp")) as talk:
        talk.socket.sendall(b"EHLO early.test\r\nMAIL FROM:<a@x.test>\r\n")
        os.kill(receiver, signal.SIGCONT)
        return [talk.reply()[:3] for _ in range(replies)]


@pytest.mark.parametrize("early_talk", ["note", "refuse"])
@pytest.mark.parametrize("delay", [0, 0.3])
def test_early_talk(tmp_path: Path, early_talk: str, delay: float) -> None:
    server = Server(tmp_path)
    server.port = free_port()
    both = [f"127.0.0.1:{server.port}", f"unix:{server.runtime}/smtp"]
    server.configure(listener=[{"address": both, "early_talk": early_talk, "greeting_delay": delay}])
    with server:
        with server.talk() as patient:
            patient.hello()
        for way, client in (("tcp", "127.0.0.1"), ("unix", "unix")):
            replies = too_early(server, way, 3 if early_talk == "note" else 2)
            assert replies == (["220", "250", "250"] if early_talk == "note" else ["554", ""])
            said = f"early-talk client={client}" if early_talk == "note" else f"refused client={client}"
            server.wait_for_log(said)
        assert early_talk == "note" or "554 5.5.1 You spoke before" in server.log.read_text()


@pytest.mark.slow
def test_early_talk_that_is_delayed(tmp_path: Path) -> None:
    with Server(tmp_path, listening={"early_talk": "delay"}) as server:
        with server.talk() as patient:
            patient.hello()
        began = time.monotonic()
        assert too_early(server, "tcp", 3) == ["220", "250", "250"]
        assert time.monotonic() - began >= 10
        server.wait_for_log("early-talk client=127.0.0.1")
