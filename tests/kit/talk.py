"""An SMTP client that sends exactly the octets it is given."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

_ID = re.compile(r"queued as (\w+)")


class Talk:
    """One connection; replies are whole, all lines with their line ends."""

    def __init__(
        self, port: int = 0, host: str = "127.0.0.1", source: str = "", ids: list[str] | None = None, path: str = ""
    ) -> None:
        self.ids = [] if ids is None else ids  # of what was accepted
        self.socket = _at_path(path) if path else _at_port(host, port, source)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def reply(self) -> str:
        """The next reply; "" when the server has closed the connection."""
        lines: list[bytes] = []
        while not lines or lines[-1][3:4] == b"-":
            end = self._buffer.find(b"\n") + 1
            if end:
                lines.append(self._buffer[:end])
                self._buffer = self._buffer[end:]
            elif not self._fill():
                break
        return b"".join(lines).decode("latin-1")

    def ask(self, line: str | bytes) -> str:
        """Send a command line; its reply."""
        self.socket.sendall((line.encode("latin-1") if isinstance(line, str) else line) + b"\r\n")
        return self.reply()

    def expect(self, line: str | bytes, code: str) -> str:
        reply = self.ask(line)
        assert reply.startswith(code), f"{line!r} was answered {reply!r}, not {code}"
        return reply

    def hello(self, name: str = "client.test") -> str:
        """Greeting and EHLO."""
        greeting = self.reply()
        assert greeting.startswith("220"), greeting
        return self.expect(f"EHLO {name}", "250")

    def mail(self, sender: str, recipients: Sequence[str], text: bytes, parameters: str = "") -> str:
        """A whole transaction; the id that the 250 gives."""
        self.expect(f"MAIL FROM:<{sender}>{parameters}", "250")
        for recipient in recipients:
            self.expect(f"RCPT TO:<{recipient}>", "250")
        self.expect("DATA", "354")
        self.socket.sendall(stuffed(text) + b".\r\n")
        reply = self.reply()
        found = _ID.search(reply)
        assert reply.startswith("250"), f"the text was answered {reply!r}"
        assert found, f"no id in {reply!r}"
        self.ids.append(found[1])
        return found[1]

    def closed(self) -> bool:
        """Whether the server has ended the connection; waits for it."""
        return self._buffer == b"" and not self._fill()

    def _fill(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._buffer += data
        return bool(data)


def _at_port(host: str, port: int, source: str) -> socket.socket:
    sock = socket.create_connection((host, port), 20, (source, 0) if source else None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each send is a packet of its own, at once
    return sock


def _at_path(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(path)
    return sock


def stuffed(text: bytes) -> bytes:
    """Dot-stuffed (RFC 5321 §4.5.2); the text must be empty or end with CRLF."""
    assert not text or text.endswith(b"\r\n")
    doubled = text.replace(b"\r\n.", b"\r\n..")
    return b"." + doubled if doubled.startswith(b".") else doubled
