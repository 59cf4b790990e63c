"""TLS of the whole server: OpenSSL's and Python's clients see the right certificate, and what is refused stays out."""

from __future__ import annotations

import base64
import re
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from bench import handshakes, load
from mta.net.certificates import read_file
from mta.protocol.sasl.client import ScramClient
from tests.kit.authority import Authority
from tests.kit.programs import need
from tests.kit.server import Server, free_port
from tests.kit.submission import ALICE, BOB, PASSWORD, add_user
from tests.kit.waiting import wait_for

TEXT = b"From: alice@home.test\r\nSubject: x\r\n\r\nhello\r\n"


@dataclass(frozen=True)
class Secure:
    """A server with several certificates: "mx.test" by RSA and by P-256, "*.wild.test", "smtp.test"."""

    server: Server
    starttls: int
    implicit: int
    submission: int
    authority: Authority
    folder: Path

    def client(self, name: str, port: int = 0, **context: ssl.TLSVersion) -> smtplib.SMTP:
        """A client under TLS from the start that asks for this name, and checks it."""
        made = smtplib.SMTP_SSL(timeout=20, context=self.context(**context))
        made._host = name  # what smtplib asks for by SNI
        made.connect("127.0.0.1", port or self.implicit)
        made.ehlo()
        return made

    def context(self, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        context.maximum_version = newest
        return context


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    first = authority.issue(folder, "rsa", ["mx.test"], key="rsa")
    more = [
        authority.issue(folder, "p256", ["mx.test"]),
        authority.issue(folder, "wild", ["*.wild.test"], key="p384"),
        authority.issue(folder, "smtp", ["smtp.test"], key="rsa"),
    ]
    starttls, implicit, submission = (free_port() for _ in range(3))
    server = Server(
        folder,
        listener=[
            {"address": f"127.0.0.1:{starttls}", "tls": "starttls"},
            {"address": f"127.0.0.1:{implicit}", "tls": "implicit"},
            {
                "address": f"127.0.0.1:{submission}",
                "role": "submission",
                "tls": "implicit",
                "client_certificates": "ask",
            },
        ],
        tls={"certificate": str(first.certificate), "key": str(first.key), "client_ca": str(authority.path)},
        auth=[{"type": "file", "path": str(folder / "users")}],
        login={"delay": "10ms"},
        limits={"handshake_timeout": "1s"},
        **{"tls.certificates": [{"certificate": str(p.certificate), "key": str(p.key)} for p in more]},
    )
    server.port = starttls
    server.configure()
    add_user(server, ALICE, PASSWORD)
    add_user(server, BOB, PASSWORD)
    with server:
        yield Secure(server, starttls, implicit, submission, authority, folder)


def openssl(port: int, *words: str, starttls: bool = False, commands: str = "QUIT\n") -> str:
    """What `openssl s_client` says of a connection."""
    mode = ["-starttls", "smtp"] if starttls else []
    done = subprocess.run(
        [need("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-crlf", *mode, *words],
        input=commands,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout + done.stderr


# ---- who is shown which certificate


@pytest.mark.parametrize(
    ("words", "subject", "key"),
    [
        (["-servername", "mx.test"], "p256", "prime256v1"),
        (["-noservername"], "p256", "prime256v1"),
        (["-servername", "elsewhere.test"], "p256", "prime256v1"),
        (["-servername", "mx.test", "-sigalgs", "rsa_pss_rsae_sha256"], "rsa", "2048 bit"),
        (["-servername", "MX.test", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "rsa", "2048 bit"),
        (["-servername", "smtp.test"], "smtp", "2048 bit"),
        (["-servername", "a.wild.test"], "wild", "384 bit"),
        (["-servername", "a.b.wild.test"], "p256", "prime256v1"),
    ],
)
@pytest.mark.parametrize("starttls", [True, False], ids=["starttls", "implicit"])
def test_certificates_by_name_and_key(secure: Secure, words: list[str], subject: str, key: str, starttls: bool) -> None:
    said = openssl(secure.starttls if starttls else secure.implicit, *words, starttls=starttls)
    assert re.search(rf"subject=CN ?= ?{subject}\n", said), said
    assert key in said or "ECDSA" in said or "Server public key" in said
    assert "Verify return code" in said


# ---- what is taken and what is not


@pytest.mark.parametrize(
    ("words", "agreed"),
    [
        (["-tls1_3"], "TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384"),
        (["-tls1_2"], "TLSv1.2, Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"),
        (["-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"], "Cipher is ECDHE-RSA-CHACHA20-POLY1305"),
        (["-tls1_2", "-cipher", "ECDHE+AESGCM", "-sigalgs", "RSA+SHA256"], "Cipher is ECDHE-RSA-AES128-GCM-SHA256"),
        (["-alpn", "smtp"], "ALPN protocol: smtp"),
        (["-alpn", "h2,smtp"], "ALPN protocol: smtp"),
        ([], "No ALPN negotiated"),
    ],
)
def test_what_is_agreed_on(secure: Secure, words: list[str], agreed: str) -> None:
    for starttls in (True, False):
        said = openssl(secure.starttls if starttls else secure.implicit, *words, starttls=starttls)
        assert agreed in said, said
        assert "Compression: NONE" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "protocol version"),
        (["-tls1", "-cipher", "ALL:@SECLEVEL=0"], "protocol version"),
        (["-tls1_2", "-cipher", "AES256-GCM-SHA384"], "handshake failure"),
        (["-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384"], "handshake failure"),
        (["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA"], "handshake failure"),
        (["-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"], "handshake failure"),
        (["-alpn", "http/1.1"], "no application protocol"),
        (["-alpn", "h2,http/1.1,imap"], "no application protocol"),
    ],
)
def test_what_is_refused(secure: Secure, words: list[str], told: str) -> None:
    for starttls in (True, False):
        said = openssl(secure.starttls if starttls else secure.implicit, *words, starttls=starttls)
        assert told in said.replace("_", " ").lower(), said


def test_there_is_no_renegotiation(secure: Secure) -> None:
    said = openssl(secure.starttls, "-tls1_2", starttls=True, commands="R\n")  # where nothing else is on its way
    assert "no renegotiation" in said, said


def test_new_keys_within_a_session(secure: Secure) -> None:
    """KeyUpdate, with a request for ours (RFC 8446 §4.6.3)."""
    words = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{secure.implicit}", "-crlf", "-tls1_3"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        said = b""
        for wanted, line in (
            (b"220 ", b"K\n"),
            (b"KEYUPDATE\n", b"NOOP\n"),
            (b"250 ", b"K\n"),
            (b"KEYUPDATE\n", b"HELP\n"),
        ):
            while wanted not in said and (came := client.stdout.readline()):
                said += came
            assert wanted in said
            said = b""
            client.stdin.write(line)
            client.stdin.flush()
        assert any(came.startswith(b"214 ") for came in client.stdout)
        client.kill()


def test_failures_are_logged_with_their_reason(secure: Secure) -> None:
    openssl(secure.implicit, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-servername", "mx.test")
    secure.server.wait_for_log(
        "tls-failed client=127.0.0.1 offered=TLSv1.1 sni=mx.test reason='unsupported protocol'\n"
    )
    openssl(secure.implicit, "-alpn", "h2", "-noservername")
    secure.server.wait_for_log("offered=TLSv1.3 sni=- reason='application protocols without smtp: h2'\n")
    counters = secure.server.status()["counters"]
    assert counters["tls_failures"] >= 2
    assert "tls_failures" in secure.server.ctl("status")


def test_a_handshake_has_its_time_whatever_drips_in(secure: Secure) -> None:
    with secure.server.talk() as talk:
        talk.hello()
        talk.expect("STARTTLS", "220 ")
        for octet in b"\x16\x03\x01\x02\x00\x01":
            talk.socket.sendall(bytes([octet]))
        assert talk.closed()  # after a second or two
    secure.server.wait_for_log("reason='not done in time'\n")


# ---- sessions


@pytest.mark.parametrize("port", ["implicit", "submission"])
def test_tickets_are_good_where_they_were_issued(secure: Secure, port: str, tmp_path: Path) -> None:
    ticket = str(tmp_path / "ticket")
    first = openssl(getattr(secure, port), "-tls1_2", "-sess_out", ticket)
    assert "New, TLSv1.2" in first
    assert "Reused, TLSv1.2" in openssl(getattr(secure, port), "-tls1_2", "-sess_in", ticket)
    other = secure.implicit if port == "submission" else secure.submission
    assert "New, TLSv1.2" in openssl(other, "-tls1_2", "-sess_in", ticket)


def test_tickets_of_tls_1_3(secure: Secure, tmp_path: Path) -> None:
    """They come behind the handshake, with the first reply."""
    port, ticket = secure.implicit, str(tmp_path / "ticket")
    openssl(port, "-tls1_3", "-sess_out", ticket, "-ign_eof", commands="EHLO c.test\nQUIT\n")
    assert "Reused, TLSv1.3" in openssl(port, "-tls1_3", "-sess_in", ticket, "-ign_eof")


def test_trace_header_and_log_say_how_it_came(secure: Secure) -> None:
    with secure.client("mx.test") as client:
        client.sendmail("a@x.test", ["trace@home.test"], TEXT)
    with secure.client("smtp.test", newest=ssl.TLSVersion.TLSv1_2) as client:
        client.sendmail("a@x.test", ["trace@home.test"], TEXT)
    letters = b"".join(secure.server.wait_letters("trace", 2)).replace(b"\r\n", b"\n")
    for name, version, cipher in (
        ("mx.test", "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ("smtp.test", "TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ):
        assert f"\n\tfor <trace@home.test>\n\ttls {cipher} ({version} sni={name});\n".encode() in letters
        secure.server.wait_for_log(f" tls={version} cipher={cipher} sni={name}\n")


# ---- logins


@pytest.mark.parametrize(("name", "stem"), [("mx.test", "p256"), ("smtp.test", "smtp"), ("x.wild.test", "wild")])
def test_a_login_is_bound_to_the_certificate_that_was_shown(secure: Secure, name: str, stem: str) -> None:
    other = "smtp" if stem != "smtp" else "p256"
    with secure.client(name, secure.submission) as client:
        assert "SCRAM-SHA-256-PLUS" in client.esmtp_features["auth"]
        assert "EXTERNAL" not in client.esmtp_features["auth"]
        for shown, code in ((other, 535), (stem, 235)):
            assert scram(client, read_file(secure.folder / f"{shown}.pem").binding or b"") == code


def scram(client: smtplib.SMTP, binding: bytes) -> int:
    exchange = ScramClient(ALICE, PASSWORD, nonce="abc", binding=("tls-server-end-point", binding))
    reply = client.docmd("AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(exchange.initial()).decode())
    while reply[0] == 334:
        reply = client.docmd(base64.b64encode(exchange.respond(base64.b64decode(reply[1]))).decode())
    return reply[0]


def with_certificate(secure: Secure, stem: str, mail: list[str], authority: Authority | None = None) -> smtplib.SMTP:
    pair = (authority or secure.authority).issue(secure.folder, stem, [], mail=mail)
    context = secure.context()
    context.load_cert_chain(pair.certificate, pair.key)
    made = smtplib.SMTP_SSL(timeout=20, context=context)
    made._host = "mx.test"
    made.connect("127.0.0.1", secure.submission)
    made.ehlo()
    return made


@pytest.mark.parametrize(
    ("asked", "code"), [("=", 235), (ALICE, 235), (ALICE.upper(), 235), (BOB, 535), ("nobody@home.test", 535)]
)
def test_a_certificate_logs_its_owner_in(secure: Secure, asked: str, code: int) -> None:
    with with_certificate(secure, "alice", [ALICE, "stranger@home.test"]) as client:
        assert client.esmtp_features["auth"].split()[0] == "EXTERNAL"
        word = asked if asked == "=" else base64.b64encode(asked.encode()).decode()
        assert client.docmd("AUTH EXTERNAL " + word)[0] == code
        assert client.docmd(f"MAIL FROM:<{ALICE}>")[0] == (250 if code == 235 else 530)


def test_a_certificate_by_its_fingerprint(secure: Secure) -> None:
    pair = secure.authority.issue(secure.folder, "device", [])
    secure.server.ctl("user", "certificate", BOB, "--add", str(pair.certificate))
    context = secure.context()
    context.load_cert_chain(pair.certificate, pair.key)
    with smtplib.SMTP_SSL(timeout=20, context=context) as client:
        client._host = "mx.test"
        client.connect("127.0.0.1", secure.submission)
        client.ehlo()
        assert client.docmd("AUTH EXTERNAL =")[0] == 235
        client.sendmail(BOB, ["device@home.test"], TEXT.replace(b"alice", b"bob"))
    assert b" with ESMTPSA id " in secure.server.wait_letters("device")[0]
    secure.server.wait_for_log(f"login client=127.0.0.1 user={BOB} mechanism=EXTERNAL tls=yes\n")
    digest = read_file(pair.certificate).digest.hex()
    secure.server.ctl("user", "certificate", BOB, "--remove", digest)


def test_a_foreign_certificate_ends_the_handshake(secure: Secure) -> None:
    with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPException)):
        with_certificate(secure, "mallory", [ALICE], Authority(name="other"))
    secure.server.wait_for_log("reason='client certificate: unable to get local issuer certificate'\n")


# ---- load


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_the_load_generator_speaks_tls(secure: Secure, tls: str) -> None:
    plan = load.Plan(getattr(secure, tls), 20, sessions=4, reuse=False, domain="home.test", tls=tls)
    tally = uvloop.run(load.drive(plan))
    assert (tally.accepted, tally.errors) == (20, [])


@pytest.mark.parametrize("resume", [False, True])
def test_the_generator_of_handshakes(secure: Secure, resume: bool) -> None:
    before = secure.server.status()["counters"]
    tally = handshakes.drive(secure.implicit, 40, 4, resume)
    assert (tally.accepted, tally.errors) == (40, [])
    after = secure.server.status()["counters"]
    assert after["tls_handshakes"] - before["tls_handshakes"] == 40
    assert after["tls_resumed"] - before["tls_resumed"] == (36 if resume else 0)


# ---- renewal


def test_renewed_certificates_come_into_use_and_sessions_go_on(secure: Secure) -> None:
    with secure.client("mx.test") as running:
        before = running.sock.getpeercert(binary_form=True)
        renewed = secure.authority.issue(secure.folder, "p256", ["mx.test"])

        def shown() -> bool:
            with secure.client("mx.test") as client:
                return client.sock.getpeercert(binary_form=True) != before

        wait_for(shown, what="the new certificate")
        secure.server.wait_for_log(f"certificate text='{renewed.certificate} is in use'\n")
        assert running.noop()[0] == 250
        renewed.certificate.write_text("nonsense\n")
        secure.server.wait_for_log("cannot be used")
        with secure.client("mx.test") as client:
            assert client.noop()[0] == 250
        assert secure.server.stderr().count("p256.pem is in use") == 1
        assert secure.server.stderr().count("the certificate in use stays") == 1
    secure.authority.issue(secure.folder, "p256", ["mx.test"])


def test_a_reload_takes_what_is_there(secure: Secure) -> None:
    pair = secure.authority.issue(secure.folder, "smtp", ["smtp.test"], key="rsa")
    secure.server.reload()
    with secure.client("smtp.test") as client:
        shown = client.sock.getpeercert(binary_form=True)
    assert ssl.DER_cert_to_PEM_cert(shown) == pair.certificate.read_text()
