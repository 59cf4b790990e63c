"""A mail log as the processes of a server write it, for those who read it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mta.mail.replyclass import classify_text
from mta.model import IdSource, MessageId, id_text
from mta.observe.maillog import printable, quoted


def id_at(seconds: float, number: int = 0) -> str:
    """The id of a message that came at a time."""
    return id_text(MessageId(IdSource(1).next(int(seconds * 1000)) + number))


HOP = "mx.test[192.0.2.9]:25"


class Log:
    """Writes lines to a file; `now` is the time of the next one, in seconds."""

    def __init__(self, path: Path, now: float = 1_800_000_000.0) -> None:
        self.path = path
        self.now = now
        self._number = 0

    def line(self, name: str, event: str, fields: str) -> None:
        stamp = datetime.fromtimestamp(int(self.now), UTC).strftime("%Y-%m-%dT%H:%M:%S")
        text = f"{stamp}.{int(self.now * 1000) % 1000:03d}Z {name} {event} {fields}\n"
        with self.path.open("a") as file:
            file.write(text)

    def received(self, sender: str, *recipients: str, size: int = 1000, more: str = "") -> str:
        self._number += 1
        name = id_at(self.now, self._number)
        first = printable(recipients[0])
        self.line(
            name,
            "received",
            f"client=192.0.2.1 helo=c.test from=<{printable(sender)}> to=<{first}> recipients={len(recipients)}"
            f" size={size}{more}",
        )
        return name

    def delivered(self, name: str, recipient: str, reply: str = "250 2.0.0 ok", hop: str = HOP) -> None:
        self._attempt(name, "delivered", recipient, reply, hop)

    def deferred(self, name: str, recipient: str, reply: str, hop: str = HOP) -> None:
        self._attempt(name, "deferred", recipient, reply, hop)

    def bounced(self, name: str, recipient: str, reply: str, hop: str = HOP, notice: str = "") -> None:
        if hop:
            self._attempt(name, "failed", recipient, reply, hop)
        told = notice or "none (null reverse-path)"
        self.line(
            name,
            "bounced",
            f"to=<{printable(recipient)}> notice={told} class={classify_text(reply)} reason={quoted(reply)}",
        )

    def mail(self, sender: str, recipient: str, after: float = 0.25) -> str:
        """One message, delivered a moment later."""
        name = self.received(sender, recipient)
        self.now += after
        self.delivered(name, recipient)
        return name

    def _attempt(self, name: str, event: str, recipient: str, reply: str, hop: str) -> None:
        blame = "" if event == "delivered" else f" class={classify_text(reply)}"
        tail = f"relay={hop or 'none'} delay=0.1{blame} status={quoted(reply)}"
        self.line(name, event, f"to=<{printable(recipient)}> {tail}")
