"""Clients that others wrote."""

from __future__ import annotations

import asyncio
import smtplib
import subprocess
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest

from tests.kit.programs import need, need_smtp_source
from tests.kit.server import COMMAND, ROOT, Server
from tests.kit.waiting import wait_for


def letter(subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "ann@far.test"
    message["To"] = "bob@home.test"
    message["Subject"] = subject
    message.set_content("Hello,\n.\n..dots and ünïcode\n")
    return message


def test_smtplib(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        with smtplib.SMTP("127.0.0.1", server.port, local_hostname="client.test", timeout=20) as client:
            assert client.noop()[0] == 250
            assert client.verify("bob@home.test")[0] == 252
            assert client.help()
            client.send_message(letter("one"))
            client.sendmail("ann@far.test", ["bob@home.test", "eve@home.test"], "Subject: two\n\n.\nbye\n")
        letters = server.wait_letters("bob", 2)
        assert any(b"\n..dots and" in text for text in letters)
        assert server.wait_letters("eve")[0].endswith(b"Subject: two\n\n.\nbye\n")


def test_aiosmtplib(tmp_path: Path) -> None:
    async def main(port: int) -> None:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="client.test") as client:
            for number in range(5):
                await client.send_message(letter(f"number {number}"))
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
                await client.sendmail("ann@far.test", ["no@bad..domain"], b"x\r\n")
            await client.send_message(letter("after the refusal"))

    with Server(tmp_path) as server:
        asyncio.run(main(server.port))
        server.wait_letters("bob", 6)


def test_swaks(tmp_path: Path) -> None:
    swaks = need("swaks")
    with Server(tmp_path) as server:
        for more in ([], ["--pipeline"], ["--protocol", "SMTP"]):
            words = ["--server", f"127.0.0.1:{server.port}", "--helo", "client.test", "--from", "ann@far.test"]
            command = [swaks, *words, "--to", "bob@home.test", "--body", "from swaks", *more]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        assert all(b"from swaks" in text for text in server.wait_letters("bob", 3))


@pytest.mark.parametrize("reuse", [True, False])
def test_smtp_source(tmp_path: Path, reuse: bool) -> None:
    source, environment = need_smtp_source()
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        command = [
            *source,
            "-s",
            "10",
            "-m",
            "200",
            "-l",
            "3000",
            "-f",
            "a@x.test",
            "-t",
            "b@y.test",
            "-M",
            "client.test",
        ]
        command += ["-d"] if reuse else []
        done = subprocess.run(
            [*command, f"127.0.0.1:{server.port}"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        wait_for(lambda: server.count() == 200, what="all messages in the queue")


def test_mta_send(tmp_path: Path) -> None:
    text = b"Subject: sent\n\nfrom the command line\n.\nend\n"
    with Server(tmp_path) as server:
        words = ["send", "-f", "ann@far.test", "-t", "bob@home.test", "-t", "eve@home.test"]
        words += ["--server", f"127.0.0.1:{server.port}"]
        done = subprocess.run([*COMMAND, *words], input=text, capture_output=True, cwd=ROOT, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        assert server.wait_letters("bob")[0].endswith(text)
        assert server.wait_letters("eve")[0].endswith(text)
        words[4] = "nobody@far..test"
        done = subprocess.run([*COMMAND, *words], input=text, capture_output=True, cwd=ROOT, timeout=30, check=False)
        assert done.returncode != 0
        assert b"Traceback" not in done.stderr
