"""Next hops: one that takes mail and answers as told (aiosmtpd), and one that follows a script to the letter."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.kit.background import Background
from tests.kit.peer import Answer, Message, Peer
from tests.kit.waiting import wait_for

Replies = Sequence[str]  # given one after the other; the last one repeats; "" takes the mail


@dataclass(frozen=True)
class Got:
    """A message as it arrived."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class _Smtp(SMTP):
    line_length_limit = 1 << 20  # our peers may be strict; this one must show octet for octet what was sent


class Sink(Background):
    """Takes everything but what `senders`, `recipients` and `texts` (by first recipient) have replies for."""

    def __init__(
        self,
        recipients: Mapping[str, Replies] | None = None,
        *,
        senders: Mapping[str, Replies] | None = None,
        texts: Mapping[str, Replies] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.host = host
        self.port = port
        self.got: list[Got] = []
        self.connections = 0
        self._replies = {"RCPT": recipients or {}, "MAIL": senders or {}, "DATA": texts or {}}
        self._turns: dict[tuple[str, str], int] = {}

    @property
    def next_hop(self) -> str:
        return f"smtp:{self.host}:{self.port}"

    def wait(self, count: int, timeout: float = 20.0) -> list[Got]:
        """The messages, as soon as there are so many."""
        wait_for(lambda: len(self.got) >= count, timeout, f"message {count} at the next hop (it has {len(self.got)})")
        return self.got

    async def opened(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._session, self.host, self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def closing(self) -> None:
        self._server.close()

    def _session(self) -> SMTP:
        self.connections += 1
        return _Smtp(self, hostname="sink.test", data_size_limit=None, loop=asyncio.get_running_loop(), ident="sink")

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = self._reply("MAIL", address)
        if not reply:
            envelope.mail_from = address
        return reply or "250 2.1.0 ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = self._reply("RCPT", address)
        if not reply:
            envelope.rcpt_tos.append(address)
        return reply or "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        reply = self._reply("DATA", envelope.rcpt_tos[0])
        if not reply:
            assert isinstance(envelope.content, bytes)
            self.got.append(Got(envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.content))
        return reply or "250 2.0.0 taken"

    def _reply(self, verb: str, address: str) -> str:
        replies = self._replies[verb].get(address, [""])
        turn = self._turns.get((verb, address), 0)
        self._turns[verb, address] = turn + 1
        return replies[min(turn, len(replies) - 1)]


class ScriptedServer(Background):
    """A `Peer` in a thread: answers by verb, exactly the octets of its script."""

    def __init__(self, script: dict[str, Answer]) -> None:
        self._peer = Peer(script)

    @property
    def port(self) -> int:
        return self._peer.port

    @property
    def next_hop(self) -> str:
        return f"smtp:127.0.0.1:{self.port}"

    @property
    def messages(self) -> list[Message]:
        return self._peer.messages

    @property
    def heard(self) -> list[str]:
        return self._peer.heard

    @property
    def connections(self) -> int:
        return self._peer.connections

    async def opened(self) -> None:
        await self._peer.start()

    async def closing(self) -> None:
        await self._peer.stop()


def refused_port(host: str = "127.0.0.1") -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
