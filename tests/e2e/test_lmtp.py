"""LMTP (RFC 2033) and unix sockets against the whole server: clients that others wrote, who may relay, what is left."""

from __future__ import annotations

import os
import re
import smtplib
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.authority import Authority
from tests.kit.programs import need
from tests.kit.server import Server, free_port
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

TEXT = "Subject: by LMTP\r\n\r\n.dot\r\nbye\r\n"


class Listening(Server):
    """A server with LMTP on a port and at a path, and SMTP at paths of strangers, of the trusted, and under TLS."""

    def __init__(self, folder: Path, **more: object) -> None:
        self.lmtp_port = free_port()
        authority = Authority(folder)
        pair = authority.issue(folder, "mx", ["mx.test"])
        super().__init__(
            folder,
            routes={"*": "hold:"},
            relay={"networks": []},
            tls={"certificate": str(pair.certificate), "key": str(pair.key)},
            **more,
        )
        paths = {name: f"unix:{self.runtime}/{name}" for name in ("lmtp", "smtp", "trusted", "tls")}
        self.lmtp, self.smtp, self.trusted, self.under_tls = (str(self.runtime / name) for name in paths)
        self.configure_listeners(
            {"address": [f"127.0.0.1:{self.lmtp_port}", paths["lmtp"]], "role": "lmtp"},
            {"address": paths["smtp"], "socket_mode": "0600"},
            {"address": paths["trusted"], "trusted": True, "socket_mode": "0666"},
            {"address": paths["tls"], "tls": "starttls"},
        )

    def configure_listeners(self, *listeners: dict[str, object]) -> None:
        self._sections["listener"] = listeners


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with Listening(tmp_path_factory.mktemp("server"), receivers=2) as running:
        yield running


class UnixSMTP(smtplib.SMTP):
    """SMTP at a path."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(host)
        return sock


def smtp(path: str) -> UnixSMTP:
    return UnixSMTP(path, 1, local_hostname="client.test", timeout=20)


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_smtplib_speaks_lmtp(server: Listening, way: str) -> None:
    host, port = ("127.0.0.1", server.lmtp_port) if way == "tcp" else (server.lmtp, 0)
    with smtplib.LMTP(host, port, local_hostname="client.test") as client:
        for name in ("ann", "bob"):  # one at a time: smtplib reads one reply only
            refused = client.sendmail("eve@far.test", ["stranger@far.test", f"{way}-{name}@home.test"], TEXT)
            assert refused["stranger@far.test"][0] == 550
            assert len(refused) == 1
        assert client.docmd("EHLO", "client.test")[0] == 500
    for name in ("ann", "bob"):
        [letter] = server.wait_letters(f"{way}-{name}")
        assert letter.endswith(b"Subject: by LMTP\n\n.dot\nbye\n")
        came = rb"\[127\.0\.0\.1\]" if way == "tcp" else rb"unix socket"
        assert re.search(
            rb"\nReceived: from client.test \(" + came + rb"\)\n\tby mx.test with LMTP id \w+\n\tfor <", letter
        )
    server.wait_for_log(f"client={'127.0.0.1' if way == 'tcp' else 'unix'} helo=client.test")


@pytest.mark.parametrize("way", ["data", "bdat"])
def test_a_reply_for_each_recipient(server: Listening, way: str) -> None:
    with socket.create_connection(("127.0.0.1", server.lmtp_port), 20) as sock, sock.makefile("rb") as replies:
        names = [f"one-{way}", f"two-{way}", f"one-{way}"]
        recipients = "".join(f"RCPT TO:<{name}@home.test>\r\n" for name in names)
        text = f"BDAT {len(TEXT)} LAST\r\n{TEXT}" if way == "bdat" else "DATA\r\n"
        sock.sendall(f"LHLO client.test\r\nMAIL FROM:<eve@far.test>\r\n{recipients}{text}".encode())
        assert next(replies) == b"220 mx.test LMTP\r\n"
        hello = [line := next(replies)]
        while line[3:4] == b"-":
            hello.append(line := next(replies))
        assert {b"PIPELINING\r\n", b"ENHANCEDSTATUSCODES\r\n", b"CHUNKING\r\n"} <= {line[4:] for line in hello}
        assert [next(replies)[:9] for _ in range(4)] == [b"250 2.1.0", *[b"250 2.1.5"] * 3]
        if way == "data":
            assert next(replies)[:4] == b"354 "
            sock.sendall(TEXT.replace("\r\n.", "\r\n..").encode() + b".\r\n")
        sock.sendall(b"QUIT\r\n")
        final = [next(replies) for _ in range(3)]
        assert final[0].startswith(b"250 2.0.0 queued as ")
        assert final == [final[0]] * 3
        assert next(replies).startswith(b"221 ")
    for name in names:
        server.wait_letters(name)


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_addresses_in_utf8(server: Listening, way: str) -> None:
    talk = Talk(server.lmtp_port) if way == "tcp" else Talk(path=server.lmtp)
    with talk:
        talk.reply()
        assert "\n250-SMTPUTF8\r\n" in talk.expect("LHLO client.test", "250")
        talk.expect("MAIL FROM:<zoë@far.test> SMTPUTF8".encode(), "250")
        talk.expect(f"RCPT TO:<ünal-{way}@home.test>".encode(), "250")
        talk.expect("DATA", "354")
        talk.expect("Subject: grüße\r\n\r\n.".encode(), "250 2.0.0 queued")
    [letter] = server.wait_letters(f"ünal-{way}")
    assert b"\tby mx.test with UTF8LMTP id " in letter


def test_swaks_speaks_lmtp_to_both(server: Listening) -> None:
    swaks = need("swaks")
    for way in (["--server", f"127.0.0.1:{server.lmtp_port}"], ["--socket", server.lmtp]):
        words = ["--protocol", "LMTP", "--helo", "client.test", "--from", "eve@far.test", "--to", "swaks@home.test"]
        done = subprocess.run([swaks, *way, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    server.wait_letters("swaks", 2)


def test_a_unix_socket_is_trusted_only_if_it_says_so(server: Listening) -> None:
    with smtp(server.smtp) as client:
        client.sendmail("eve@far.test", ["carol@home.test"], TEXT)
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("eve@far.test", ["stranger@far.test"], TEXT)
    with smtp(server.trusted) as client:
        assert client.sendmail("ann@home.test", ["stranger@far.test"], TEXT) == {}
    server.wait_letters("carol")
    [row] = wait_for(lambda: server.rows("recipient=stranger@far.test"), 20, "mail for far.test in the queue")
    assert row["state"] == "held"


def test_the_mode_of_a_socket(server: Listening) -> None:
    paths = (server.lmtp, server.smtp, server.trusted)
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in paths] == [0o660, 0o600, 0o666]


def test_starttls_at_a_path(server: Listening) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtp(server.under_tls) as client:
        client._host = "mx.test"  # what the certificate would be looked at for
        assert client.starttls(context=context)[0] == 220
        client.sendmail("eve@far.test", ["tls@home.test"], TEXT)
    [letter] = server.wait_letters("tls")
    assert b"(unix socket)\n\tby mx.test with ESMTPS id" in letter


def test_a_receiver_that_dies_and_one_that_is_replaced(server: Listening) -> None:
    for pid in server.children()["receiver"]:
        os.kill(pid, 9)
    with smtp(server.smtp) as client:  # waits for the next life
        client.sendmail("eve@far.test", ["again@home.test"], TEXT)
    server.wait_letters("again", 1)
    server.reload()
    with smtp(server.smtp) as client:
        client.sendmail("eve@far.test", ["again@home.test"], TEXT)
    server.wait_letters("again", 2)


def test_the_files_at_start_and_stop(tmp_path: Path) -> None:
    server = Listening(tmp_path)
    try:
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(server.lmtp)
            killed.listen()
        assert Path(server.lmtp).is_socket()  # left behind, as by a server that was killed
        server.start()
        with smtplib.LMTP(server.lmtp, local_hostname="client.test") as client:
            client.sendmail("eve@far.test", ["dave@home.test"], TEXT)
        server.wait_letters("dave")
        server.stop()
        assert not [path for path in (server.lmtp, server.smtp, server.trusted) if os.path.lexists(path)]
    finally:
        server.discard()


@pytest.mark.slow
def test_a_path_that_is_in_use_ends_the_start(tmp_path: Path) -> None:
    server = Listening(tmp_path)
    try:
        server.configure()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(server.trusted)
            other.listen()
            process = server.spawn()
            assert process.wait(20) == os.EX_TEMPFAIL
            assert process.stdout is not None
            process.stdout.close()
        assert "another program listens there" in server.stderr()
        assert Path(server.trusted).is_socket()
        assert not os.path.lexists(server.lmtp)
    finally:
        server.discard()
