"""The load generator of the project: N sessions on one event loop, in a process of its own.

    python -m bench.load --port P --messages N --sessions S [--size OCTETS] [--no-reuse] [--pipelined] [--users U]
                      [--tls starttls|implicit]

Lock-step sends each command after the reply to the one before. Pipelined (RFC 2920) sends an envelope in one write,
and the next one together with the final dot. The last line of the output is a JSON object; latency is counted from
handing the end of data to the kernel until the reply to it has arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop

_HELLO = b"EHLO source.test\r\n"
_STARTTLS = b"STARTTLS\r\n"
LINE = b"A line of seventy-eight octets, as a person who types a letter might make it.\r\n"


@dataclass
class Plan:
    """What one run sends. `users`: recipients taken in turn; 0 means a single one, `user`."""

    port: int
    messages: int
    sessions: int = 20
    size: int = 4096
    reuse: bool = True
    pipelined: bool = False
    users: int = 0
    domain: str = "dest.test"
    tls: str = "off"


@dataclass
class Tally:
    """What came of a run."""

    accepted: int = 0
    refused: int = 0
    lost: int = 0
    began: float = 0.0  # by time.perf_counter, a clock that all processes share
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    errors: list[str] = field(default_factory=list)


def text_of(size: int) -> bytes:
    """A message of about so many octets, end of data included."""
    head = b"From: <sender@source.test>\r\nSubject: benchmark\r\nMessage-ID: <1@source.test>\r\n\r\n"
    lines = max(0, size - len(head) - 3) // len(LINE)
    text = head + LINE * lines
    rest = size - len(text) - 5
    return text + (b"x" * rest + b"\r\n" if rest > 0 else b"") + b".\r\n"


class Run:
    """The whole of it: hands out messages to sessions and gathers what came of them."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.text = text_of(plan.size)
        self.given = 0
        self.tally = Tally()
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = loop.create_future()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts anybody: that is not what is measured
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self._open = 0
        self._users = [f"user{i:02d}" for i in range(plan.users)] or ["user"]

    def envelope(self) -> list[bytes] | None:
        """The commands of the next message; None when all are given out."""
        if self.given == self.plan.messages:
            return None
        user = self._users[self.given % len(self._users)]
        self.given += 1
        recipient = f"RCPT TO:<{user}@{self.plan.domain}>\r\n".encode()
        return [b"MAIL FROM:<sender@source.test>\r\n", recipient, b"DATA\r\n"]

    def start(self) -> None:
        for _ in range(min(self.plan.sessions, self.plan.messages)):
            self.connect()

    def connect(self) -> None:
        self._open += 1
        self.loop.create_task(self._dial())

    def closed(self) -> None:
        """A session ended; without reuse another one takes its place."""
        self._open -= 1
        if self.given < self.plan.messages and not self.tally.errors:
            self.connect()
        elif not self._open and not self.done.done():
            self.done.set_result(None)

    def failed(self, what: str) -> None:
        self.tally.refused += 1
        if len(self.tally.errors) < 5:
            self.tally.errors.append(what)

    def broken(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of the generator itself must end the run, not hang it."""
        self.failed(f"{context['message']}: {context.get('exception')!r}")
        if not self.done.done():
            self.done.set_result(None)

    async def _dial(self) -> None:
        try:
            context = self.context if self.plan.tls == "implicit" else None
            await self.loop.create_connection(lambda: Session(self), "127.0.0.1", self.plan.port, ssl=context)
        except OSError as error:
            self.failed(f"connect: {error}")
            self.closed()


class Session(asyncio.Protocol):
    """One connection. `_steps` are what is still to be sent, each when its turn has come."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pipelined = run.plan.pipelined
        self._expect: list[str] = ["220"]  # replies that are due, oldest first
        self._steps: list[bytes] = [_HELLO, _STARTTLS, _HELLO] if run.plan.tls == "starttls" else [_HELLO]
        self._secure = False  # the next reply is that to STARTTLS
        self._part = b""
        self._sent_at = 0.0
        self._in_hand = False
        self._ended = False  # by our QUIT, or because it has failed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own kind, which is no subclass
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        if self._pipelined:
            # A server that answers in two writes would wait for the delayed acknowledgement of the first: 40 ms.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        lines = (self._part + data).split(b"\r\n")
        self._part = lines.pop()
        for line in lines:
            if line[3:4] != b"-":
                self._reply(line)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self._run.tally.lost += self._in_hand
            self._run.failed(f"the server closed the connection: {exc or 'without a word'}")
        self._run.closed()

    def _reply(self, line: bytes) -> None:
        wanted = self._expect.pop(0) if self._expect else "nothing"
        if not line.startswith(wanted.rstrip(".").encode()):
            self._run.failed(f"{line.decode('latin-1')!r} where {wanted} was expected")
            self._ended = True
            self._transport.abort()
            return
        if self._secure:
            self._run.loop.create_task(self._upgrade())
        elif wanted == "250.":
            self._accepted()
        elif not self._expect:
            self._next()

    def _accepted(self) -> None:
        now = time.perf_counter()
        self._run.tally.accepted += 1
        self._run.latencies.append(now - self._sent_at)
        self._in_hand = bool(self._expect)
        if not self._expect:
            self._next()

    def _next(self) -> None:
        """All replies so far are here: send what comes next."""
        if not self._steps:
            self._load()
        step = self._steps.pop(0)
        if step is self._run.text:
            self._send_text()
        elif step == b"QUIT\r\n":
            self._expect.append("221")
            self._steps.append(b"")
            self._transport.write(step)
        elif step == b"":
            self._ended = True
            self._transport.close()
        elif self._pipelined and step.startswith(b"MAIL"):
            self._transport.write(self._envelope([step, self._steps.pop(0), self._steps.pop(0)]))
        else:
            self._secure = step == _STARTTLS
            self._expect.append("354" if step == b"DATA\r\n" else "220" if self._secure else "250")
            self._transport.write(step)

    async def _upgrade(self) -> None:
        self._secure = False
        try:
            secure = await self._run.loop.start_tls(self._transport, self, self._run.context)
        except OSError as error:  # ssl.SSLError is one
            self._run.failed(f"STARTTLS: {error}")
            self._ended = True
            self._transport.abort()
            return
        assert secure is not None
        self._transport = secure
        self._next()

    def _load(self) -> None:
        envelope = self._run.envelope() if self._run.plan.reuse or not self._sent_at else None
        self._in_hand = envelope is not None
        self._steps = [*envelope, self._run.text] if envelope else [b"QUIT\r\n"]

    def _envelope(self, commands: list[bytes]) -> bytes:
        self._expect += ["250", "250", "354"]
        return b"".join(commands)

    def _send_text(self) -> None:
        self._expect.append("250.")
        self._sent_at = time.perf_counter()
        following = self._run.envelope() if self._pipelined and self._run.plan.reuse else None
        if following is None:
            self._transport.write(self._run.text)
        else:
            self._transport.write(self._run.text + self._envelope(following))
            self._steps = [self._run.text]


async def drive(plan: Plan) -> Tally:
    run = Run(plan, asyncio.get_running_loop())
    run.loop.set_exception_handler(run.broken)
    begin = time.perf_counter()
    run.start()
    await run.done
    tally, times = run.tally, sorted(run.latencies)
    tally.began, tally.seconds = begin, time.perf_counter() - begin
    if times:
        tally.p50_ms = times[len(times) // 2] * 1e3
        tally.p99_ms = times[min(len(times) - 1, len(times) * 99 // 100)] * 1e3
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    for name, default in (("port", None), ("messages", 1000), ("sessions", 20), ("size", 4096), ("users", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, required=default is None)
    parser.add_argument("--domain", default="dest.test")
    parser.add_argument("--reuse", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--pipelined", action="store_true")
    parser.add_argument("--tls", choices=("off", "starttls", "implicit"), default="off")
    tally = uvloop.run(drive(Plan(**vars(parser.parse_args()))))
    print(json.dumps(asdict(tally)))
    return 1 if tally.errors else 0


if __name__ == "__main__":
    sys.exit(main())
