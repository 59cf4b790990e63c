"""Against a server that we did not write: texts arrive octet for octet, refusals are understood."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from mta.deliver.pool import Pool
from mta.model import Status
from tests.kit.courier import Rig, run, smtp_site, verdicts

TEXTS = [
    b"Subject: plain\r\n\r\nhello\r\n",
    b".\r\n..\r\n...\r\n.x\r\nx.\r\n.\r\n",
    b"\r\n\r\n\r\n",
    "Subject: ünï\r\n\r\n☃\r\n".encode() + bytes(c for c in range(128, 256)) + b"\r\n",
    b"long " + b"x" * 900 + b"\r\n",
    (b"line of a larger text, with a dot\r\n.\r\n" * 20_000),
]


class Handler:
    def __init__(self) -> None:
        self.got: list[Envelope] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("no"):
            return "550 5.1.1 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.got.append(envelope)
        return "250 2.0.0 taken"


def test_texts_and_refusals(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        handler = Handler()
        server = await loop.create_server(lambda: SMTP(handler, loop=loop, hostname="them.example"), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        rig = Rig(tmp_path)
        pool = Pool(rig.desk, smtp_site((0, "127.0.0.1"), port=port))
        to = [b"yes@y", b"no@y", b"also@y"]
        refs = [rig.reader.put(b"a@x", to, text, eight_bit=not text.isascii()) for text in TEXTS]
        pool.add([rig.job(ref) for ref in refs])
        for result in await rig.settled(len(TEXTS)):
            assert [(v[0], v[3]) for v in verdicts(result)] == [
                (Status.DELIVERED, (0, 2)),
                (Status.FAILED, (1,)),
            ]
        assert sorted(e.content for e in handler.got) == sorted(TEXTS)  # type: ignore[type-var]
        assert {tuple(e.rcpt_tos) for e in handler.got} == {("yes@y", "also@y")}
        pool.stop()
        pool.abandon()
        server.close()
        await server.wait_closed()

    run(main())
