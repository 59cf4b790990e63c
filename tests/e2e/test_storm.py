"""Bytes that no client should send: each gets its reply or an end by rule, and the server lives.

`Server.stop` asserts that no traceback was written.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from tests.kit.server import Server
from tests.kit.talk import Talk

PIECES = [
    *(b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP", b"VRFY", b"HELP", b"QUIT", b"BDAT", b"STARTTLS"),
    *(
        b" FROM:",
        b" TO:",
        b"<",
        b">",
        b"@",
        b"a@b.test",
        b"x@home.test",
        b"[127.0.0.1]",
        b'"',
        b"\\",
        b" SIZE=",
        b"9" * 40,
    ),
    *(
        b"\r\n",
        b"\r\n",
        b"\r\n",
        b"\r\n.\r\n",
        b".",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b"\xff",
        b"\xe2\x80\xa8",
        b"\x1b[2J",
    ),
    *(b"A" * 600, b"B" * 5000, b"BODY=8BITMIME", b"SMTPUTF8", b"=", b":", b",", b"%00", b"..", b"GET / HTTP/1.1"),
]
STORMS = 60
OCTETS = 400


def test_random_octets(tmp_path: Path) -> None:
    with Server(tmp_path, limits={"message_size": "64K"}, routes={"*": "discard:"}) as server:
        chance = random.Random(20)
        for storm in range(STORMS):
            data = b"".join(chance.choices(PIECES, k=80)) if storm % 3 else chance.randbytes(OCTETS)
            said = _throw(server.port, data, chance)
            for line in said.split(b"\r\n")[:-1]:
                assert line[:3].isdigit(), (data, said)
                assert line[3:4] in (b" ", b"-"), (data, said)
                assert line.isascii(), (data, said)
                assert b"\x1b" not in line, (data, said)
        _still_works(server)
        assert server.status()["counters"]["internal_errors"] == 0


def test_connections_that_come_and_go(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        opened = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
        for number, connection in enumerate(opened):
            if number % 3 == 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends with a reset
            if number % 2:
                connection.sendall(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\n")
            connection.close()
        _still_works(server)


def test_a_client_that_does_not_read(tmp_path: Path) -> None:
    """Replies pile up at most as far as the socket buffers reach; others are served meanwhile."""
    with Server(tmp_path) as server, Talk(server.port) as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.socket.settimeout(2)
        try:
            for _ in range(2000):
                deaf.socket.sendall(b"HELP\r\n" * 500)
        except OSError:
            pass  # the server stopped reading, or ended the session: both are right
        _still_works(server)


def test_log_lines_cannot_be_forged(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        with server.talk() as talk:
            talk.reply()
            talk.ask(b"EHLO evil\x0b2026-01-01T00:00:00.000Z FORGED delivered")
            talk.ask(b"EHLO \xc2\x85forged")
            talk.expect("EHLO client.test", "250")
            talk.ask(b'MAIL FROM:<"x\xe2\x80\xa8y\x1b[31m"@a.test>')
            talk.ask("RSET")
            talk.mail("a@x.test", ["b@home.test"], b"x\r\n")
        server.wait_letters("b")
        server.wait_empty()
        for line in server.log.read_bytes().splitlines():
            assert line.isascii()
            assert line[:4].isdigit(), line
            assert b"\x1b" not in line


def _throw(port: int, data: bytes, chance: random.Random) -> bytes:
    said = b""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        try:
            while data:
                cut = chance.randrange(1, 200)
                connection.sendall(data[:cut])
                data = data[cut:]
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                said += more
        except ConnectionError:
            pass  # ended by rule, too many errors for instance
    return said


def _still_works(server: Server) -> None:
    server.send("a@x.test", ["last@home.test"], b"still here\r\n")
    server.wait_letters("last")
