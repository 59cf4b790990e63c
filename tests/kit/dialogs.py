"""Dialogues as data: reads the files of tests/dialogs, whose format is described in tests/dialogs/README.md."""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.kit.conversation import HOSTNAME, Message
from tests.kit.dialog_files import fill

FOLDER = Path(__file__).resolve().parents[1] / "dialogs"

_PATH = re.compile(rb'<((?:"(?:[^"\\]|\\.)*"|[^>])*)>')


@dataclass
class Turn:
    """What the client sends before it waits, and what must come of it."""

    sent: bytes = b""
    replies: list[bytes] = field(default_factory=list)
    messages: list[tuple[Message, str]] = field(default_factory=list)  # with the sha256 of a body not written out
    secured: bool = False  # the handshake is done before it


@dataclass
class Dialog:
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=lambda: [Turn()])
    closes: bool = False

    def phases(self) -> list[bytes]:
        """All that the client sends, cut only where TLS begins."""
        phases = [b""]
        for turn in self.turns:
            if turn.secured:
                phases.append(b"")
            phases[-1] += turn.sent
        return phases


def load(path: Path) -> Dialog:
    return fill(Dialog(path.stem), path, _ROWS)


def load_all() -> list[Dialog]:
    return [load(path) for path in sorted(FOLDER.glob("*.txt"))]


def _turn(dialog: Dialog) -> Turn:
    """The turn that the client's next words belong to."""
    if dialog.turns[-1].replies or dialog.turns[-1].messages:
        dialog.turns.append(Turn())
    return dialog.turns[-1]


def _on_config(dialog: Dialog, rest: bytes) -> None:
    key, _, value = rest.decode().partition("=")
    dialog.config[key.strip()] = ast.literal_eval(value.strip())


def _on_client(dialog: Dialog, rest: bytes) -> None:
    _turn(dialog).sent += rest + b"\r\n"


def _on_raw(dialog: Dialog, rest: bytes) -> None:
    _turn(dialog).sent += rest


def _on_server(dialog: Dialog, rest: bytes) -> None:
    dialog.turns[-1].replies.append(rest)


def _on_ehlo_reply(dialog: Dialog, rest: bytes) -> None:
    size = dialog.config.get("message_size", 1_000_000)
    chunks = [b"CHUNKING", b"BINARYMIME"] if dialog.config.get("chunking") else []
    more = [*chunks, *rest.split()]
    lines = [HOSTNAME, b"PIPELINING", b"SIZE %d" % size, b"8BITMIME", *more, b"ENHANCEDSTATUSCODES"]
    dialog.turns[-1].replies += [b"250-" + line for line in lines[:-1]] + [b"250 " + lines[-1]]


def _on_message(dialog: Dialog, rest: bytes) -> None:
    sender, *recipients = _PATH.findall(rest)
    binary = rest.endswith(b" binary")
    message = Message(sender, tuple(recipients), binary or rest.endswith(b" 8bit"), b"", binary)
    dialog.turns[-1].messages.append((message, ""))


def _on_options(dialog: Dialog, rest: bytes) -> None:
    message, digest = dialog.turns[-1].messages.pop()
    dialog.turns[-1].messages.append((replace(message, options=rest.decode("utf-8")), digest))


def _on_body(dialog: Dialog, rest: bytes) -> None:
    _add_to_body(dialog, rest + b"\r\n")


def _on_octets(dialog: Dialog, rest: bytes) -> None:
    _add_to_body(dialog, rest)


def _add_to_body(dialog: Dialog, more: bytes) -> None:
    m, _ = dialog.turns[-1].messages.pop()
    dialog.turns[-1].messages.append((replace(m, body=m.body + more), ""))


def _on_hash(dialog: Dialog, rest: bytes) -> None:
    message, _ = dialog.turns[-1].messages.pop()
    dialog.turns[-1].messages.append((message, rest.decode()))


def _on_tls(dialog: Dialog, rest: bytes) -> None:
    dialog.turns.append(Turn(secured=True))


def _on_close(dialog: Dialog, rest: bytes) -> None:
    dialog.closes = True


_ROWS = {
    "config": _on_config,
    "C": _on_client,
    "R": _on_raw,
    "S": _on_server,
    "E": _on_ehlo_reply,
    "M": _on_message,
    "P": _on_options,
    "B": _on_body,
    "O": _on_octets,
    "H": _on_hash,
    "TLS": _on_tls,
    "close": _on_close,
}


def same_replies(output: bytes, expected: list[bytes]) -> bool:
    """Is the output just these lines? One that ends with " ..." stands for any end."""
    lines = output.split(b"\r\n")
    return (
        lines.pop() == b""
        and len(lines) == len(expected)
        and all(
            line.startswith(want[:-3]) if want.endswith(b" ...") else line == want
            for line, want in zip(lines, expected, strict=True)
        )
    )


def same_messages(found: list[Message], expected: list[tuple[Message, str]]) -> bool:
    return len(found) == len(expected) and all(
        hashlib.sha256(message.body).hexdigest() == digest and replace(message, body=b"") == replace(want, body=b"")
        if digest
        else message == want
        for message, (want, digest) in zip(found, expected, strict=True)
    )
