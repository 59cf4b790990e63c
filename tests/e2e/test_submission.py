"""Users log in and send: what they may, what they may not, and what is done to their texts."""

from __future__ import annotations

import base64
import hashlib
import re
import smtplib
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509

from mta.protocol.sasl.client import ScramClient
from tests.kit.server import Server
from tests.kit.submission import ALICE, BOB, PASSWORD, PLAIN_PASSWORD, Users, users_server
from tests.kit.talk import Talk
from tests.kit.waiting import wait_for

TEXT = b"From: Alice <alice@home.test>\r\nSubject: x\r\n\r\nhello\r\n"


def plain(user: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    with users_server(tmp_path_factory.mktemp("submission"), networks=["127.0.0.0/8"]) as made:
        yield made


@pytest.fixture
def talk(users: Users) -> Talk:
    with Talk(users.plain) as talk:
        talk.hello()
        yield talk


def test_what_is_offered(users: Users) -> None:
    offered = "AUTH SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN\r\n"
    with Talk(users.plain) as talk:
        assert offered in talk.hello()
    with Talk(users.starttls) as talk:
        assert "AUTH" not in talk.hello()
        talk.expect(plain(ALICE, PASSWORD), "538 5.7.11 ")
        talk.expect(f"MAIL FROM:<{ALICE}>", "530 5.7.0 ")
    context = ssl.create_default_context(cafile=str(users.authority))
    with smtplib.SMTP("localhost", users.starttls, timeout=20) as client:
        client.starttls(context=context)
        client.ehlo()
        assert client.esmtp_features["auth"].split() == [
            *("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN")
        ]


def test_what_users_may_ask_for(talk: Talk, users: Users) -> None:
    """Mail that is held, that must not be late, that is urgent; all of it is in the queue."""
    with Talk(users.plain) as other:
        offered = other.hello()
    for keyword in ("FUTURERELEASE 1209600 2", "DELIVERBY 60\r\n", "MT-PRIORITY MIXER\r\n", "LIMITS RCPTMAX=1000\r\n"):
        assert f"250-{keyword}" in offered
    talk.expect(plain(ALICE, PASSWORD), "235 2.7.0 ")
    talk.expect(f"MAIL FROM:<{ALICE}> HOLDFOR=1209601", "501 5.5.4 ")
    wishes = f" HOLDFOR=3600 BY=7200;R MT-PRIORITY=3 AUTH={ALICE}"
    message_id = talk.mail(ALICE, ["far@away.test"], TEXT, wishes)
    part = users.server.wait_part(message_id, "deferred", "away.test")
    assert 3500 < part["next"] - time.time() <= 3601  # in whole seconds


def test_who_is_not_logged_in_does_not_send(talk: Talk) -> None:
    """Not even from a network that may relay."""
    for sender in (ALICE, ""):
        talk.expect(f"MAIL FROM:<{sender}>", "530 5.7.0 ")
    talk.expect("RCPT TO:<bob@home.test>", "503 ")


def test_who_is_logged_in_sends_anywhere(talk: Talk, users: Users) -> None:
    talk.expect(plain(ALICE, PASSWORD), "235 2.7.0 ")
    message_id = talk.mail(ALICE, [BOB, "far@away.test"], TEXT)
    letter = next(text for text in users.server.wait_letters("bob") if message_id.encode() in text)
    assert b" with ESMTPA id " in letter
    assert re.search(rb"\r?\nDate: \w{3}, ", letter)
    assert f"Message-ID: <{message_id}@mx.test>".encode() in letter
    assert letter.endswith((b"hello\n", b"hello\r\n"))
    assert users.server.wait_part(message_id, "held", "away.test")
    log = users.server.log.read_text()
    assert f"{message_id} received client=127.0.0.1" in log
    assert re.search(rf"{message_id} received .* user={ALICE}\n", log)
    assert f"login client=127.0.0.1 user={ALICE} mechanism=PLAIN tls=no\n" in log
    assert PASSWORD not in log


def test_nobody_sends_as_somebody_else(talk: Talk) -> None:
    talk.expect(plain(ALICE, PASSWORD), "235 ")
    for sender in ("bob@home.test", "alice@away.test", "alice@home.test.evil.test"):
        talk.expect(f"MAIL FROM:<{sender}>", "553 5.7.1 ")
    for sender in ("sales@home.test", "x@shop.test", "ALICE@home.test", ""):
        talk.expect(f"MAIL FROM:<{sender}>", "250 ")
        talk.expect("RSET", "250 ")
    for author in (b"bob@home.test", b"Alice <alice@home.test>, bob@home.test", b"<"):
        talk.expect(f"MAIL FROM:<{ALICE}>", "250 ")
        talk.expect("RCPT TO:<far@away.test>", "250 ")
        talk.expect("DATA", "354 ")
        assert talk.ask(b"From: " + author + b"\r\n\r\nhello\r\n.").startswith("550 5.")


def test_bcc_is_not_told(talk: Talk, users: Users) -> None:
    talk.expect(plain(BOB, PLAIN_PASSWORD), "235 ")
    talk.mail(BOB, ["eve@home.test"], b"Bcc: secret@away.test,\r\n eve@home.test\r\nTo: x\r\n\r\nBcc: stays\r\n")
    (letter,) = users.server.wait_letters("eve")
    assert b"secret" not in letter
    assert b"\nTo: x" in letter
    assert b"Bcc: stays" in letter


def test_large_texts_too(talk: Talk, users: Users) -> None:
    talk.expect(plain(BOB, PLAIN_PASSWORD), "235 ")
    body = b"x" * 70 + b"\r\n"
    message_id = talk.mail(BOB, ["large@home.test"], b"Bcc: secret@away.test\r\n\r\n" + body * 20_000)
    (letter,) = users.server.wait_letters("large")
    assert b"secret" not in letter
    assert letter.count(b"x" * 70) == 20_000
    assert f"Message-ID: <{message_id}@mx.test>".encode() in letter
    for text in (b"From: alice@home.test\r\n\r\n" + body * 20_000, b"X: yyyyyyyyyyyyyyy\r\n" * 50_000):
        talk.expect(f"MAIL FROM:<{BOB}>", "250 ")
        talk.expect("RCPT TO:<large@home.test>", "250 ")
        talk.expect("DATA", "354 ")
        assert talk.ask(text + b".").startswith("55")
    talk.mail(BOB, ["large@home.test"], b"\r\nstill alive\r\n")


def test_wrong_logins(talk: Talk) -> None:
    talk.expect(plain(ALICE, "wrong"), "535 5.7.8 ")
    talk.expect(plain("nobody", "wrong"), "535 5.7.8 ")
    talk.expect("AUTH CRAM-MD5", "504 5.5.4 ")
    talk.expect("AUTH SCRAM-SHA-256-PLUS cD1hLCxuPWEscj1hYmM=", "504 5.5.4 ")
    talk.expect("AUTH PLAIN ####", "501 5.5.2 ")
    talk.expect("AUTH PLAIN YQ==", "501 5.5.2 ")
    talk.expect("AUTH LOGIN", "334 VXNlcm5hbWU6")
    talk.expect("*", "501 5.7.0 ")
    talk.expect("AUTH PLAIN", "334")
    talk.expect("x" * 13_000, "500 5.5.6 ")
    talk.expect(plain(ALICE, PASSWORD), "235 ")
    talk.expect(plain(ALICE, PASSWORD), "503 ")
    talk.expect(f"MAIL FROM:<{ALICE}>", "250 ")
    talk.expect(plain(ALICE, PASSWORD), "503 ")


@pytest.mark.parametrize("implicit", [True, False])
def test_a_login_bound_to_the_channel(users: Users, implicit: bool) -> None:
    """SCRAM-SHA-256-PLUS over real TLS; the client works its binding out of the certificate that it sees."""
    context = ssl.create_default_context(cafile=str(users.authority))
    if implicit:
        made = smtplib.SMTP_SSL("localhost", users.implicit, context=context, timeout=20)
    else:
        made = smtplib.SMTP("localhost", users.starttls, timeout=20)
        made.starttls(context=context)
    with made as client:
        client.ehlo()
        der = client.sock.getpeercert(binary_form=True)
        algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
        assert algorithm is not None
        binding = hashlib.new(algorithm.name, der).digest()
        for data, code in ((b"x" * len(binding), 535), (binding, 235)):
            scram = ScramClient(ALICE, PASSWORD, nonce="abc", binding=("tls-server-end-point", data))
            reply = client.docmd("AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(scram.initial()).decode())
            while reply[0] == 334:
                reply = client.docmd(base64.b64encode(scram.respond(base64.b64decode(reply[1]))).decode())
            assert reply[0] == code
            assert scram.finished == (code == 235)


def test_a_pipelined_login(talk: Talk) -> None:
    talk.socket.sendall(f"{plain(ALICE, PASSWORD)}\r\nMAIL FROM:<{ALICE}>\r\nNOOP\r\n".encode())
    assert [talk.reply()[:3] for _ in range(3)] == ["235", "250", "250"]


def test_a_client_that_goes_away_during_a_login(users: Users) -> None:
    for _ in range(20):
        with Talk(users.plain) as talk:
            talk.hello()
            talk.socket.sendall(plain(ALICE, PASSWORD).encode() + b"\r\n")
    with Talk(users.plain) as talk:
        talk.hello()
        talk.expect(plain(ALICE, PASSWORD), "235 ")


def test_logins_are_counted(users: Users) -> None:
    with Talk(users.plain) as talk:
        talk.hello()
        talk.expect(plain("eve", "wrong"), "535 ")
    wait_for(lambda: users.server.status()["counters"]["logins_refused"] > 0, what="a counted login")


def test_users_change_while_the_server_runs_and_guessers_are_shut_out(tmp_path: Path) -> None:
    with users_server(tmp_path, login={"delay": "10ms", "user_failures": 3}) as users:
        server = users.server
        with Talk(users.plain) as talk:
            talk.hello()
            talk.expect(plain(BOB, PLAIN_PASSWORD), "235 ")
        password = tmp_path / "password"
        password.write_text("something new")
        server.ctl("user", "passwd", BOB, "--password-file", str(password))
        with Talk(users.plain) as talk:
            talk.hello()
            talk.expect(plain(BOB, PLAIN_PASSWORD), "535 ")
            talk.expect(plain(BOB, "something new"), "235 ")
        server.ctl("user", "delete", BOB)
        with Talk(users.plain) as talk:
            talk.hello()
            for _ in range(3):
                talk.expect(plain(ALICE, "guess"), "535 ")
            talk.expect(plain(ALICE, PASSWORD), "454 4.7.0 ")
            talk.expect(plain(BOB, "something new"), "535 ")
        server.reload()
        with Talk(users.plain) as talk:
            talk.hello()
            talk.expect(plain(ALICE, PASSWORD), "454 4.7.0 ")  # it outlives the processes


def test_a_listener_of_role_mx_knows_no_logins(tmp_path: Path) -> None:
    with Server(tmp_path, auth=[{"type": "file", "path": str(tmp_path / "users")}]) as server, server.talk() as talk:
        assert "AUTH" not in talk.hello()
        talk.expect(plain(ALICE, PASSWORD), "502 ")
