"""`mta send` against an independent server."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from mta.cli.main import main


class Handler:
    """Keeps what arrives; `mail`, `rcpt` and `data` are the replies, "" is the usual one."""

    def __init__(self) -> None:
        self.mail = self.rcpt = ""
        self.data = "250 2.0.0 kept"
        self.kept: list[Envelope] = []

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.mail or "250 2.1.0 fine"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.rcpt and address.startswith("bad"):
            return self.rcpt
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.kept.append(envelope)
        return self.data


class Server(Controller):
    """On a port of its own."""

    def __init__(self, handler: Handler) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        super().__init__(handler, hostname="127.0.0.1", port=port)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def server(handler: Handler) -> Iterator[Server]:
    found = Server(handler)
    found.start()
    yield found
    found.stop()


def send(
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    text: bytes = b"Subject: x\n\nbody\n",
    *more: str,
    sender: str = "a@b.c",
) -> int | str | None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    try:
        return main(["send", "-f", sender, "-t", "u@example.org", *more, "--server", address])
    except SystemExit as end:
        return end.code


def test_sent(
    server: Server, handler: Handler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send(monkeypatch, server.address, b"Subject: x\n\nbody\n", "-t", "v@example.org") == 0
    assert capsys.readouterr().out == "250 2.0.0 kept\n"
    (envelope,) = handler.kept
    assert envelope.mail_from == "a@b.c"
    assert envelope.rcpt_tos == ["u@example.org", "v@example.org"]
    assert envelope.original_content == b"Subject: x\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        (b"a\nb\r\nc\n", b"a\r\nb\r\nc\r\n"),
        (b"no end", b"no end\r\n"),
        (b".\n..\n.x\n", b".\r\n..\r\n.x\r\n"),
        (b"\xff\xfe\n", b"\xff\xfe\r\n"),
        (b"\n\n", b"\r\n\r\n"),
    ],
)
def test_texts(server: Server, handler: Handler, monkeypatch: pytest.MonkeyPatch, text: bytes, sent: bytes) -> None:
    assert send(monkeypatch, server.address, text) == 0
    assert handler.kept[0].original_content == sent


def test_the_null_sender(server: Server, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(monkeypatch, server.address, sender="") == 0
    assert handler.kept[0].mail_from in ("", "<>")  # aiosmtpd keeps the brackets of the null one


@pytest.mark.parametrize("command", ["mail", "rcpt", "data"])
@pytest.mark.parametrize(("reply", "code"), [("451 4.3.0 later", 75), ("550 5.1.1 never", 69)])
def test_refused(
    server: Server,
    handler: Handler,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    reply: str,
    code: int,
) -> None:
    setattr(handler, command, reply)
    assert send(monkeypatch, server.address, b"x\n", "-t", "bad@example.org") == code
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"{reply}\n")
    assert len(handler.kept) == (command == "data")


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        assert send(monkeypatch, address) == 69
    assert f"mta: no answer from {address}" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["", "host", ":25", "host:", "host:x", "host:99999", "host:-1"])
def test_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert send(monkeypatch, address) == 2


@pytest.mark.parametrize("recipient", ["a@b\r\nRCPT TO:<x@y>", "a\n@b"])
def test_nothing_breaks_out_of_a_command(
    server: Server, handler: Handler, monkeypatch: pytest.MonkeyPatch, recipient: str
) -> None:
    assert send(monkeypatch, server.address, b"x\n", "-t", recipient) != 0
    assert not handler.kept
