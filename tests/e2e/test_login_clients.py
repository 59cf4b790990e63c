"""Programs that others wrote log in and send, by every mechanism they have."""

from __future__ import annotations

import asyncio
import email.policy
import http.server
import json
import os
import smtplib
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import parse_qs

import aiosmtplib
import pytest

from tests.kit.dovecot import dovecot
from tests.kit.programs import need
from tests.kit.submission import BOB, PLAIN_PASSWORD, Users, users_server
from tests.kit.waiting import wait_for

TOKEN = "ya29.good-token"


class TokenService(http.server.BaseHTTPRequestHandler):
    """RFC 7662: TOKEN is Bob's."""

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        good = form["token"] == [TOKEN]
        answer = json.dumps({"active": True, "email": BOB} if good else {"active": False}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass  # nobody reads it


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    folder = tmp_path_factory.mktemp("clients")
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TokenService)
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    auth = [
        {"type": "file", "path": str(folder / "users")},
        {"type": "oauth", "introspection": f"http://127.0.0.1:{service.server_port}/introspect"},
    ]
    try:
        with users_server(folder, auth=auth, add=True) as made:
            yield made
    finally:
        service.shutdown()
        thread.join()
        service.server_close()


def run(command: Sequence[str], text: str = "", *, good: bool = True, **environment: str) -> str:
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert (done.returncode == 0) == good, done.stdout + done.stderr
    return done.stdout + done.stderr


def letter(subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"Bob <{BOB}>"
    message["To"] = "eve@home.test"
    message["Bcc"] = "secret@home.test"
    message["Subject"] = subject
    message.set_content("hello\n")
    return message


def arrived(users: Users, subject: str, protocol: str = "ESMTPSA") -> None:
    """The letter is there, was sent by a login, and tells nothing of Bcc."""
    line = f"Subject: {subject}\n".encode()
    found = wait_for(
        lambda: [text for text in users.server.letters("eve") if line in text.replace(b"\r\n", b"\n")], what=subject
    )
    assert len(found) == 1
    assert f" with {protocol} id ".encode() in found[0]
    assert b"secret" not in found[0]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("tls", ["", "-tls", "-tlsc"])
def test_swaks(users: Users, mechanism: str, tls: str) -> None:
    port = {"": users.plain, "-tls": users.starttls, "-tlsc": users.implicit}[tls]
    subject = f"swaks {mechanism}{tls}"
    command = [need("swaks"), "--server", f"127.0.0.1:{port}", "--auth", mechanism, "--auth-user", BOB]
    command += ["--from", BOB, "--to", "eve@home.test", "--header", f"Subject: {subject}", "--pipeline"]
    command += [tls] if tls else []
    run([*command, "--auth-password", PLAIN_PASSWORD])
    arrived(users, subject, "ESMTPSA" if tls else "ESMTPA")
    assert "535 5.7.8" in run([*command, "--auth-password", "wrong"], good=False)


MSMTP = """\
account default
host localhost
port {port}
from {user}
user {user}
auth {mechanism}
tls on
tls_starttls {starttls}
tls_trust_file {authority}
passwordeval "printenv SECRET"
"""


@pytest.mark.parametrize("mechanism", ["plain", "login", "scram-sha-1", "scram-sha-256", "oauthbearer", "xoauth2"])
@pytest.mark.parametrize("starttls", ["on", "off"])
def test_msmtp(users: Users, tmp_path: Path, mechanism: str, starttls: str) -> None:
    program = need("msmtp")
    config = tmp_path / "msmtprc"
    port = users.starttls if starttls == "on" else users.implicit
    config.write_text(
        MSMTP.format(port=port, user=BOB, mechanism=mechanism, starttls=starttls, authority=users.authority)
    )
    config.chmod(0o600)
    subject = f"msmtp {mechanism} {starttls}"
    secret = TOKEN if "oauth" in mechanism else PLAIN_PASSWORD
    text = letter(subject).as_string()
    run([program, "-C", str(config), "eve@home.test"], text, SECRET=secret)
    arrived(users, subject)
    assert "535" in run([program, "-C", str(config), "eve@home.test"], text, good=False, SECRET="wrong")


@pytest.mark.parametrize("options", ["PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"])
def test_curl(users: Users, tmp_path: Path, options: str) -> None:
    program = need("curl")
    (tmp_path / "text").write_bytes(letter(f"curl {options}").as_bytes(policy=email.policy.SMTP))

    def words(secret: str) -> list[str]:
        command = [program, "-sS", "--url", f"smtps://localhost:{users.implicit}", "--cacert", str(users.authority)]
        command += ["--mail-from", BOB, "--mail-rcpt", "eve@home.test", "-T", str(tmp_path / "text")]
        command += ["--login-options", f"AUTH={options}"]
        if "AUTH" in options.replace("PLAIN", ""):
            return [*command, "--user", f"{BOB}:", "--oauth2-bearer", secret]
        return [*command, "--user", f"{BOB}:{secret}"]

    token = options in ("OAUTHBEARER", "XOAUTH2")
    run(words(TOKEN if token else PLAIN_PASSWORD))
    arrived(users, f"curl {options}")
    run(words("wrong"), good=False)


def test_smtplib(users: Users) -> None:
    context = ssl.create_default_context(cafile=str(users.authority))
    with smtplib.SMTP("localhost", users.starttls, timeout=20) as client:
        client.starttls(context=context)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(BOB, "wrong")
        client.login(BOB, PLAIN_PASSWORD)
        client.send_message(letter("smtplib"))
        with pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("alice@home.test", ["eve@home.test"], "Subject: x\n\nx\n")
    arrived(users, "smtplib")


@pytest.mark.parametrize("method", ["auth_plain", "auth_login"])
def test_aiosmtplib(users: Users, method: str) -> None:
    context = ssl.create_default_context(cafile=str(users.authority))

    async def go() -> None:
        client = aiosmtplib.SMTP(
            hostname="localhost", port=users.implicit, use_tls=True, tls_context=context, timeout=20
        )
        async with client:
            await client.ehlo()
            await getattr(client, method)(BOB.encode(), PLAIN_PASSWORD.encode())
            await client.send_message(letter(f"aiosmtplib {method}"))

    asyncio.run(go())
    arrived(users, f"aiosmtplib {method}")


def test_s_nail(users: Users) -> None:
    program = need("s-nail")
    words = ["-:/", "-Sv15-compat", "-Stls-ca-no-defaults", f"-Stls-ca-file={users.authority}"]
    words += [f"-Smta=smtps://{BOB.replace('@', '%40')}:{PLAIN_PASSWORD}@localhost:{users.implicit}"]
    words += ["-Ssmtp-auth=login", f"-Sfrom={BOB}", "-s", "s-nail", "eve@home.test"]
    run([program, *words], "hello\n")
    arrived(users, "s-nail")


NODE = """\
const nodemailer = require('nodemailer');
const [port, user, method, secret, subject] = process.argv.slice(2);
const auth = method === 'XOAUTH2'
  ? { type: 'OAuth2', user, accessToken: secret } : { user, pass: secret };
const transport = nodemailer.createTransport(
  { host: 'localhost', port, secure: false, requireTLS: true, auth, authMethod: method });
transport.sendMail({ from: user, to: 'eve@home.test', bcc: 'secret@home.test', subject, text: 'hello' })
  .catch(error => { console.log(error.message); process.exit(1); });
"""


@pytest.fixture(scope="module")
def nodemailer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with it; it comes from npm's registry."""
    need("node")
    folder = tmp_path_factory.mktemp("node")
    run([need("npm"), "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "nodemailer@7"])
    (folder / "send.js").write_text(NODE)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "XOAUTH2"])
def test_nodemailer(users: Users, nodemailer: Path, method: str) -> None:
    words = ["node", str(nodemailer / "send.js"), str(users.starttls), BOB, method]
    subject = f"nodemailer {method}"
    trust = {"NODE_EXTRA_CA_CERTS": str(users.authority)}
    run([*words, TOKEN if method == "XOAUTH2" else PLAIN_PASSWORD, subject], **trust)
    arrived(users, subject)
    assert "535" in run([*words, "wrong", subject], good=False, **trust)


def test_dovecot_knows_the_users(tmp_path: Path) -> None:
    with (
        dovecot({BOB: PLAIN_PASSWORD}) as socket,
        users_server(tmp_path, auth=[{"type": "dovecot", "path": str(socket)}]) as users,
    ):
        context = ssl.create_default_context(cafile=str(users.authority))
        with smtplib.SMTP_SSL("localhost", users.implicit, context=context, timeout=20) as client:
            client.ehlo()
            assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login(BOB, "wrong")
            client.login(BOB, PLAIN_PASSWORD)
            client.send_message(letter("by Dovecot"))
        arrived(users, "by Dovecot")
