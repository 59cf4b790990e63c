"""Mail out of the queue in a form that another server takes back without loss: rows, which are lines of a file.

    {"head": {...}}    id, sender, recipients for people; `envelope` is all of it (msgpack of model.Envelope, in base64)
                       with the recipients that are not finished; `held` is why it is held, where it is
    {"text": "..."}    a part of the text, octet for octet, in base64; any number of them
    {"tail": {...}}    id, size in octets, and sha256 of the text

Nothing is taken out of the queue: hold before, delete behind. A message that cannot be read is told in a row of its
own, {"error": ...}, and left out.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mta.model import Ref, Stored, StoreError, id_text, id_time_ms
from mta.observe.maillog import printable
from mta.queue import _arena
from mta.queue.choice import Choice, Entry, left
from mta.queue.manager import QueueManager

FORMAT: Final = 1
PIECE: Final = 192 << 10  # octets of a text in one row
_BREATH = 16  # messages after which mail has its turn

Row = dict[str, object]
_encode = msgspec.msgpack.Encoder().encode


class Exporter:
    """One export."""

    def __init__(self, manager: QueueManager, chosen: Choice) -> None:
        self._manager = manager
        self._chosen = chosen
        self.messages = 0

    async def rows(self) -> AsyncGenerator[Row, None]:
        several: dict[int, list[Entry]] = {}
        async for batch in self._chosen.found():
            for entry, _ in batch:
                if entry[1] in self._manager.parts:
                    several.setdefault(entry[1], []).append(entry)
                else:
                    async for row in self._message([entry]):
                        yield row
        for entries in several.values():
            async for row in self._message(entries):
                yield row

    async def _message(self, entries: Sequence[Entry]) -> AsyncGenerator[Row, None]:
        arena, first = self._manager.arena, entries[0]
        entries = [entry for entry in entries if arena.holds(entry[0], entry[1], entry[4])]
        if not entries:
            return  # it ended meanwhile
        try:
            stored = self._manager.store.read(Ref(arena.ref(entries[0][0])))
            members = sorted(index for entry in entries for index in self._members(entry, stored))
            if stored.path:
                await asyncio.to_thread(self._manager.store.verify, stored)
        except StoreError as error:
            yield {"error": {"id": id_text(first[1]), "text": printable(str(error))}}
            return
        if not members:
            return
        self.messages += 1
        yield {"head": self._head(entries, stored, members)}
        digest, size = hashlib.sha256(), 0
        text = pieces(stored)
        while piece := await asyncio.to_thread(next, text, b"") if stored.path else next(text, b""):
            digest.update(piece)
            size += len(piece)
            yield {"text": base64.b64encode(piece).decode()}
        yield {"tail": {"id": id_text(first[1]), "size": size, "sha256": digest.hexdigest()}}
        if self.messages % _BREATH == 0:
            await asyncio.sleep(0)

    def _members(self, entry: Entry, stored: Stored) -> Sequence[int]:
        """The recipients that go along."""
        if self._chosen.by_recipient:
            return self._chosen.recipients(entry[0])
        return left(self._manager, entry, stored.envelope)

    def _head(self, entries: Sequence[Entry], stored: Stored, members: Sequence[int]) -> Row:
        arena, envelope = self._manager.arena, stored.envelope
        recipients = tuple(envelope.recipients[index] for index in members)
        rest = msgspec.structs.replace(envelope, recipients=recipients)
        held = [e for e in entries if arena.state(e[0]) == _arena.HELD]
        return {
            "format": FORMAT,
            "id": id_text(stored.id),
            "arrived": id_time_ms(stored.id) / 1000,
            "sender": printable(envelope.sender),
            "recipients": [printable(recipient.address) for recipient in recipients],
            "envelope": base64.b64encode(_encode(rest)).decode(),
            "held": self._manager.reasons.text(arena.why(held[0][0])) if len(held) == len(entries) else "",
        }


def pieces(stored: Stored) -> Iterator[bytes]:
    """The whole text; StoreError where its file cannot be read."""
    for first in range(0, len(stored.content), PIECE):
        yield stored.content[first : first + PIECE]
    if stored.path:
        try:
            with Path(stored.path).open("rb") as file:
                file.seek(stored.offset)
                while piece := file.read(PIECE):
                    yield piece
        except OSError as error:
            raise StoreError(f"{stored.path}: {error.strerror}") from error
