"""The limits of a listener over real sockets: who is turned away, held back or shown out, and what the log says."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kit.authority import Authority
from tests.kit.server import Server
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

STRANGERS: dict[str, Any] = {"relay": {"networks": []}}
_ID = re.compile(r"\[(S[0-9A-Z]{12})\]\r\n$")


def limited(folder: Path, receivers: int = 1, **limits: object) -> Server:
    """A server that holds this machine to its limits."""
    return Server(folder, receivers=receivers, listening={"limits": limits}, **STRANGERS)


def until_refused(server: Server, count: int) -> list[Talk]:
    talks = [server.talk() for _ in range(count)]
    for talk in talks:
        assert talk.reply().startswith("220")
    return talks


def test_connections_count_over_receivers_and_survive_the_death_of_one(tmp_path: Path) -> None:
    with limited(tmp_path, receivers=2, connections_per_address=6) as server:
        talks = until_refused(server, 6)
        for _ in range(4):  # whichever receiver it comes to
            with server.talk() as more:
                assert more.reply().startswith("421 4.7.0 Too many connections from your address at once")
                assert more.closed()
        with Talk(server.port, source="127.0.0.2") as other:
            other.hello()
        talks[0].expect("QUIT", "221")
        talks[0].socket.close()

        def free() -> bool:
            with server.talk() as talk:
                return talk.reply().startswith("220")

        wait_for(free, what="a place that was given back")
        for pid in server.children()["receiver"]:
            server.kill_child(pid)

        def all_free() -> bool:
            fresh = [server.talk() for _ in range(6)]
            greeted = [talk.reply().startswith("220") for talk in fresh]
            for talk in fresh:
                talk.socket.close()
            return all(greeted)

        wait_for(all_free, what="the places that the dead had counted")
        for talk in talks:
            talk.socket.close()


def test_a_full_listener_says_so_to_everybody(tmp_path: Path) -> None:
    with limited(tmp_path, connections=2) as server:
        talks = until_refused(server, 2)
        with Talk(server.port, source="127.0.0.2") as more:
            assert more.reply().startswith("421 4.3.2 ")
            assert more.closed()
        server.wait_for_log("refused client=127.0.0.2")
        for talk in talks:
            talk.socket.close()


def test_rates(tmp_path: Path) -> None:
    with limited(tmp_path, message_rate="2/d", recipient_rate="4/d", connection_rate="3/d") as server:
        with server.talk() as talk:
            talk.hello()
            for _ in range(2):
                talk.mail("a@x.test", ["b@home.test"], b"x\r\n")
            reply = talk.expect("MAIL FROM:<a@x.test>", "450 4.7.1 Too much mail")
            assert _ID.search(reply)
        with Talk(server.port, source="127.0.0.2") as other:
            other.hello()
            other.expect("MAIL FROM:<a@x.test>", "250")
            for _ in range(4):
                other.expect("RCPT TO:<b@home.test>", "250")
            other.expect("RCPT TO:<b@home.test>", "450 4.7.1 Too many recipients from your address")
        for _ in range(2):
            with server.talk() as talk:
                talk.hello()
        with server.talk() as talk:
            assert talk.reply().startswith("421 4.7.0 Too many connections from your address in a short time")
        server.wait_letters("b", 2)


def test_who_may_relay_is_not_limited(tmp_path: Path) -> None:
    limits = {"connections_per_address": 1, "message_rate": "1/d"}
    with Server(tmp_path, listening={"limits": limits}, routes={"*": "discard:"}) as server:
        with server.talk() as first, server.talk() as second:
            for talk in (first, second, first):
                if talk is not first or not talk.ids:
                    talk.hello()
                talk.mail("a@x.test", ["b@y.test"], b"x\r\n")


def test_errors_are_held_back_then_end_the_session_then_shut_out(tmp_path: Path) -> None:
    with limited(tmp_path, errors=5, slow_errors=3, error_delay="0.1s", error_rate="4/d") as server:
        with server.talk() as talk:
            talk.hello()
            began = time.monotonic()
            talk.socket.sendall(b"FROB\r\n" * 2 + b"NOOP\r\n")
            assert [talk.reply()[:3] for _ in range(3)] == ["500", "500", "250"]
            talk.socket.sendall(b"FROB\r\nNOOP\r\nFROB\r\nNOOP\r\n")
            assert [talk.reply()[:3] for _ in range(4)] == ["500", "250", "500", "250"]
            assert time.monotonic() - began >= 0.3  # 0.1 and 0.2 seconds; a slow machine can only make it more
            talk.expect("FROB", "500")
            assert talk.reply().startswith("421 4.7.0 Too many errors, closing")
            assert talk.closed()
        with server.talk() as talk:
            assert talk.reply().startswith("421 4.7.0 Too many errors from your address")


def test_a_refusal_is_found_in_the_log_by_its_id(tmp_path: Path) -> None:
    with limited(tmp_path) as server, server.talk() as talk:
        talk.hello("who.test")
        talk.expect("MAIL FROM:<a@x.test>", "250")
        first = _ID.search(talk.expect("RCPT TO:<b@far.test>", "550 5.7.1 "))
        second = _ID.search(talk.expect("FROB", "500 "))
        assert first is not None
        assert second is not None
        assert first[1] == second[1]
        server.wait_for_log("verb=FROB")
        lines = [line for line in server.log.read_text().splitlines() if first[1] in line]
        assert len(lines) == 2
        assert f" {first[1]} refused client=127.0.0.1 helo=who.test verb=RCPT from=<a@x.test> " in lines[0]
        assert 'path="TO:<b@far.test>" reply="550 5.7.1 ' in lines[0]


def test_a_text_of_the_wrong_shape(tmp_path: Path) -> None:
    limits = {"header_size": 2000, "line_length": 998, "mime_depth": 1, "hops": 20}
    hop = b"Received: from a.test (192.0.2.1)\r\n\tby b.test; Fri, 27 Nov 2026 13:57:55 +0000\r\n"
    deep = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    with limited(tmp_path, **limits) as server, server.talk() as talk:
        talk.hello()
        for text, reply in (
            (b"Subject: " + b"x \r\n\t" * 500 + b"\r\n\r\n", "552 5.3.4 The header"),
            (b"Subject: x\r\n\r\n" + b"y" * 999 + b"\r\n", "552 5.6.0 A line"),
            (b"Subject: x\r\n\r\n" + b"y\r\n" * 200_000 + b"y" * 999 + b"\r\n", "552 5.6.0 A line"),
            (deep, "554 5.6.0 The parts"),
            (hop * 20 + b"\r\nhi\r\n", "554 5.4.6 This message has passed"),
            (hop * 19 + b"\r\n" + b"y\r\n" * 200_000, "250"),
            (b"Subject: x\r\n\r\n" + b"y" * 998 + b"\r\n", "250"),
        ):
            talk.expect("MAIL FROM:<a@x.test>", "250")
            talk.expect("RCPT TO:<b@home.test>", "250")
            talk.expect("DATA", "354")
            talk.socket.sendall(text + b".\r\n")
            answer = talk.reply()
            assert answer.startswith(reply)
            assert bool(_ID.search(answer)) != (reply == "250")
        server.wait_letters("b")


def test_a_text_that_trickles_in_is_given_up(tmp_path: Path) -> None:
    with limited(tmp_path, data_rate=1000, data_window="1s") as server, server.talk() as talk:
        talk.hello()
        talk.expect("MAIL FROM:<a@x.test>", "250")
        talk.expect("RCPT TO:<b@home.test>", "250")
        talk.expect("DATA", "354")
        talk.socket.setblocking(False)
        said = b""
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            talk.socket.sendall(b"x\r\n")
            time.sleep(0.1)  # this client's way of sending
            try:
                said = talk.socket.recv(1000)
            except BlockingIOError:
                continue
        assert said.startswith(b"421 4.4.2 the text comes too slowly")


def test_a_client_that_reads_nothing_costs_no_memory_and_not_for_ever(tmp_path: Path) -> None:
    with limited(tmp_path, data_timeout="0.5s", errors=1_000_000, slow_errors=1_000_000) as server:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.settimeout(30)
        with pytest.raises(ConnectionError):
            deaf.sendall(b"RCPT\r\n" * 50_000_000)
        deaf.close()
        with server.talk() as talk:
            talk.hello()


def test_nor_does_one_under_tls(tmp_path: Path) -> None:
    pair = Authority().issue(tmp_path, "mx", ["mx.test"])
    limits = {"data_timeout": "0.5s", "errors": 1_000_000, "slow_errors": 1_000_000}
    listening = {"tls": "implicit", "limits": limits}
    with Server(
        tmp_path, listening=listening, tls={"certificate": str(pair.certificate), "key": str(pair.key)}
    ) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", server.port))
        plain.settimeout(30)
        with context.wrap_socket(plain) as deaf:
            with pytest.raises((ConnectionError, ssl.SSLEOFError)):
                talk_on(deaf)
        (receiver,) = server.children()["receiver"]
        pages = int(Path(f"/proc/{receiver}/statm").read_text().split()[1])
        assert pages * os.sysconf("SC_PAGE_SIZE") < 200 << 20
        with server.talk() as talk:
            talk.socket = context.wrap_socket(talk.socket)
            talk.hello()


def talk_on(deaf: ssl.SSLSocket) -> None:
    many = b"RCPT\r\n" * 10_000
    for _ in range(5_000):
        deaf.sendall(many)


def test_waits_are_short_while_there_is_little_room(tmp_path: Path) -> None:
    with limited(tmp_path, connections=5, stress_timeout="0.5s") as server, contextlib.ExitStack() as stack:
        few = [stack.enter_context(server.talk()) for _ in range(4)]  # four of five are in use now
        for talk in few:
            assert talk.reply().startswith("220")
        for talk in few:  # all are silent, and none is waited for
            assert talk.reply().startswith("421 4.4.2 nothing heard from you for too long")
            assert talk.closed()


@pytest.mark.slow
def test_a_session_has_its_time_and_a_transaction_twice_that(tmp_path: Path) -> None:
    with limited(tmp_path, session_timeout="1s", idle_commands=10**9) as server:
        with server.talk() as idle, server.talk() as busy:
            idle.hello()
            busy.hello()
            busy.expect("MAIL FROM:<a@x.test>", "250")
            busy.expect("RCPT TO:<b@home.test>", "250")
            assert last_words(idle, b"NOOP\r\n").startswith("421 4.4.2 this session has lasted too long")
            busy.expect("NOOP", "250")
            assert last_words(busy, b"BDAT 1\r\nx").startswith("421 4.4.2 this session has lasted too long")


def last_words(talk: Talk, command: bytes) -> str:
    """What it is told at last that says this again and again."""
    while True:
        talk.socket.sendall(command)
        reply = talk.reply()
        if not reply.startswith("250"):
            return reply


@pytest.mark.parametrize("request_line", ["GET / HTTP/1.1", "POST /mail HTTP/1.0"])
def test_a_browser_is_shown_out(tmp_path: Path, request_line: str) -> None:
    with limited(tmp_path) as server, server.talk() as talk:
        assert talk.reply().startswith("220")
        assert _ID.search(talk.expect(request_line, "421 4.7.0 This server takes mail"))
        assert talk.closed()
        server.wait_for_log(f"verb={request_line.split()[0]}")


def test_messages_of_a_session_and_what_trusted_networks_may_ask_for(tmp_path: Path) -> None:
    listening = {"trusted_extensions": ["DELIVERBY", "MT-PRIORITY", "FUTURERELEASE"], "limits": {"session_messages": 2}}
    listening |= {"xclient": ["127.0.0.3/32"]}
    relay = {"networks": ["127.0.0.1/32", "127.0.0.3/32"]}
    with Server(tmp_path, listening=listening, relay=relay) as server:
        with Talk(server.port, source="127.0.0.2") as stranger:
            assert not {"DELIVERBY", "MT-PRIORITY", "FUTURERELEASE"} & set(re.findall("[A-Z-]+", stranger.hello()))
            stranger.expect("MAIL FROM:<a@x.test> MT-PRIORITY=3", "555 5.5.4")
        with Talk(server.port, source="127.0.0.3") as proxy:  # its clients may be strangers
            offered = proxy.hello()
            assert "XCLIENT" in offered
            assert "MT-PRIORITY" not in offered
        with server.talk() as talk:
            assert "\n250-LIMITS MAILMAX=2 RCPTMAX=1000\r\n250" in talk.hello()
            talk.mail("a@x.test", ["b@home.test"], b"Subject: x\r\n\r\n", " MT-PRIORITY=3 BY=600;R")
            talk.mail("a@x.test", ["b@home.test"], b"Subject: y\r\n\r\n")
            talk.expect("MAIL FROM:<a@x.test>", "421 4.7.0 Too many messages in one session")
            assert talk.closed()
        (urgent,) = [letter for letter in server.wait_letters("b", 2) if b"Subject: x" in letter]
        assert b"\r\n\tPRIORITY 3;\r\n" in urgent or b"\n\tPRIORITY 3;\n" in urgent
        assert " priority=3\n" in server.log.read_text()
