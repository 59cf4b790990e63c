"""Dialogues of the client session as data: reads and plays tests/client_dialogs, whose README describes the format."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.dialog_files import fill

FOLDER = Path(__file__).resolve().parents[1] / "client_dialogs"


@dataclass
class Job:
    sender: bytes
    recipients: list[bytes]
    mail: bytes = b""
    rcpt: bytes = b""
    chunked: bool = False
    cut: int = 0  # the text is given in pieces of so many octets
    text: bytes = b""


@dataclass
class Turn:
    """What the server says, and what the client must say then."""

    heard: bytes = b""
    said: list[bytes] = field(default_factory=list)
    secured: bool = False  # the handshake is done before it
    lost: bool = False


@dataclass
class Dialog:
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=lambda: [Turn()])
    results: list[str] = field(default_factory=list)
    failure: str | None = None  # None: the session is open at the end

    def turn(self, *, new: bool) -> Turn:
        if new:
            self.turns.append(Turn())
        return self.turns[-1]


def _heard(dialog: Dialog, octets: bytes) -> None:
    last = dialog.turns[-1]
    dialog.turn(new=bool(last.said) or last.lost).heard += octets


def _job(dialog: Dialog, rest: bytes) -> None:
    words = rest.split(b" ")
    job = Job(words[0].strip(b"<>"), [w.strip(b"<>") for w in words[1:] if w.startswith(b"<")])
    for word in words[1:]:
        name, _, value = word.partition(b"=")
        if name in (b"mail", b"rcpt"):
            setattr(job, name.decode(), b" " + value.replace(b"+", b" "))
        elif name == b"cut":
            job.cut = int(value)
        elif name == b"chunked":
            job.chunked = True
    dialog.jobs.append(job)


def _config(dialog: Dialog, rest: bytes) -> None:
    name, _, value = rest.decode("ascii").partition(" = ")
    dialog.config[name] = ast.literal_eval(value)


def _failure(dialog: Dialog, rest: bytes) -> None:
    dialog.failure = rest.decode("utf-8", "backslashreplace")


def _text(dialog: Dialog, rest: bytes) -> None:
    dialog.jobs[-1].text += rest + b"\r\n"


_ROWS = {
    "config": _config,
    "job": _job,
    "text": _text,
    "S": lambda d, rest: _heard(d, rest + b"\r\n"),
    "R": _heard,
    "C": lambda d, rest: d.turns[-1].said.append(rest + b"\r\n"),
    "TLS": lambda d, rest: setattr(d.turn(new=True), "secured", True),
    "lost": lambda d, rest: setattr(d.turn(new=bool(d.turns[-1].said)), "lost", True),
    "result": lambda d, rest: d.results.append(rest.decode()),
    "failure": _failure,
}


def load(path: Path) -> Dialog:
    return fill(Dialog(path.stem), path, _ROWS)


def load_all() -> list[Dialog]:
    return [load(path) for path in sorted(FOLDER.glob("*.txt"))]


class Play:
    """One session of either implementation, driven the way a connection does; what it says gathers in `said`."""

    def __init__(self, module: Any, dialog: Dialog) -> None:
        self.module = module
        self.session = module.ClientSession(b"me.example", **dialog.config)
        self.said = b""
        self.results: list[str] = []
        self.shaking = False
        self.closed = False
        self._waiting = list(dialog.jobs)
        self._offered: list[Job] = []

    def hear(self, octets: bytes) -> None:
        self._act(self.session.receive(octets + b"beyond", len(octets)))

    def secured(self) -> None:
        assert self.shaking
        self.shaking = False
        self._act(self.session.secured())

    def lost(self) -> None:
        self._act(self.session.lost())
        self.closed = True

    def _act(self, flags: int) -> None:
        m, session = self.module, self.session
        self.said += session.take_output()
        if flags & m.DONE:
            for result in session.take_results():
                assert result.token is self._offered.pop(0)
                self.results.append(shown(result))
        if flags & m.CLOSE:
            self.closed = True
            return
        self.shaking |= bool(flags & m.STARTTLS)
        if flags & (m.READY | m.NEXT) and self._waiting:
            self._offer()
        if flags & m.SEND:
            for chunk, last in pieces(self._offered[0]):
                self._act(session.send_body(chunk, last))

    def _offer(self) -> None:
        job = self._waiting.pop(0)
        self._offered.append(job)
        rcpt = [job.rcpt] * len(job.recipients) if job.rcpt else []
        size = len(text_of(job))
        self._act(self.session.offer(job, job.sender, job.recipients, size, False, job.mail, rcpt, job.chunked))


def text_of(job: Job) -> bytes:
    return job.text or b"hi\r\n"


def pieces(job: Job) -> Iterator[tuple[bytes, bool]]:
    text = text_of(job)
    size = job.cut or len(text)
    for at in range(0, len(text), size):
        yield text[at : at + size], at + size >= len(text)


def shown(result: Any) -> str:
    """A result the way the files write it."""

    def codes(replies: list[tuple[int, str] | None]) -> str:
        return ",".join(str(r[0]) if r else "-" for r in replies) or "-"

    words = [
        f"mail={codes([result.mail])}",
        f"rcpt={codes(result.recipients)}",
        f"data={codes([result.data])}",
        f"final={codes(result.finals)}",
    ]
    return " ".join(words + ["dotted"] * result.dotted)
