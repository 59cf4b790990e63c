"""Two of our servers, the mail between them under TLS."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.certificates import authority_file, issued
from tests.kit.server import LOCAL, Server, free_port
from tests.kit.waiting import wait_for


@contextmanager
def pair(tmp_path: Path, *, tls: str = "starttls", **delivery: object) -> Iterator[tuple[Server, Server]]:
    """One that relays to the other, which delivers for LOCAL and has a certificate for 127.0.0.1."""
    certificate = issued("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    files = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    ports = [free_port(), free_port()]
    listeners = [
        [{"address": f"127.0.0.1:{port}", "tls": way}] for port, way in zip(ports, ["starttls", tls], strict=True)
    ]
    target = Server(folders[1], listener=listeners[1], tls=files)
    target.port = ports[1]
    relay = Server(
        folders[0],
        domains={},
        routes={LOCAL: f"smtp:127.0.0.1:{ports[1]}", "*": "hold:"},
        listener=listeners[0],
        tls=files,
        delivery={"tls_authorities": str(authority_file(tmp_path)), **delivery},
    )
    relay.port = ports[0]
    with target, relay:
        yield relay, target


def logged(server: Server, event: str) -> str:
    def found() -> str | None:
        lines = server.log.read_text().splitlines() if server.log.exists() else []
        return next((line for line in lines if f" {event} " in line), None)

    return wait_for(found, 20.0, f"{event} in the log")


@pytest.mark.parametrize("chunking", [False, True], ids=["DATA", "BDAT"])
def test_mail_is_relayed_under_tls(tmp_path: Path, chunking: bool) -> None:
    with pair(tmp_path, tls="starttls", chunking=chunking) as (relay, target):
        small, large = b".\r\n..\r\n", b".\r\n" + b"x" * 70 + b"\r\n" * 9000
        relay.send("a@x.test", [f"bob@{LOCAL}"], b"Subject: x\r\n\r\n" + small)
        relay.send("a@x.test", [f"eve@{LOCAL}"], b"Subject: x\r\n\r\n" + large * 30)
        (letter,) = target.wait_letters("bob")
        assert b"with ESMTPS" in letter
        assert letter.replace(b"\r\n", b"\n").endswith(small.replace(b"\r\n", b"\n"))
        (letter,) = target.wait_letters("eve")
        assert letter.replace(b"\r\n", b"\n").endswith((large * 30).replace(b"\r\n", b"\n"))
        line = logged(relay, "delivered")
        assert " tls=TLSv1.3 cipher=TLS_" in line
        assert "250 2.0.0" in line


def submit_safely(server: Server, recipient: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", server.port, timeout=20) as client:
        client.starttls(context=context)
        client.sendmail("a@home.test", [recipient], b"Subject: x\r\n\r\nhello\r\n", mail_options=["REQUIRETLS"])


@pytest.mark.parametrize("safe", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_sender_may_require_it(tmp_path: Path, safe: bool) -> None:
    with pair(tmp_path, tls="starttls" if safe else "off") as (relay, target):
        submit_safely(relay, f"bob@{LOCAL}")
        if safe:
            (letter,) = target.wait_letters("bob")
            assert b"with ESMTPS" in letter
        else:
            line = logged(relay, "failed")
            assert "5.7.10" in line
            assert target.letters("bob") == []
