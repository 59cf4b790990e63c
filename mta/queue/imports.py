"""Mail that another queue has exported, taken in: by the same way to the disk as any mail (`model.Intake`).

A message comes in the rows of `mta.queue.exports`, in order. It is queued, under an id of this server, when it is on
stable storage and its checksum was right; its age begins anew. One that was held is held here before it can be sent.

Bounded: `_MOST` texts may be under way; one that nobody goes on with for `_PATIENCE` seconds makes room for others.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from mta.model import Body, Draft, Envelope, MessageId, StoreError, id_text
from mta.observe.maillog import printable
from mta.queue import _arena
from mta.queue.audit import Doer
from mta.queue.exports import FORMAT
from mta.queue.manager import QueueManager

_MOST: Final = 32
_PATIENCE: Final = 600.0
_LARGE: Final = 256 << 10  # octets from which on a text has a file of its own
_LARGEST: Final = 1 << 30

_decode = msgspec.msgpack.Decoder(Envelope).decode


class Imported:
    """A message on its way to the disk; the token of its commit."""

    def __init__(self, message_id: MessageId, held: str) -> None:
        self.id = message_id
        self._held = held
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def told(self, error: StoreError | None) -> None:
        """It is on disk, or is not."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def arrived(self, manager: QueueManager) -> None:
        """It is queued, and nothing of it was given to a courier yet."""
        if not self._held:
            return
        for slot in manager.arena.find(self.id):
            if manager.arena.state(slot) in (_arena.READY, _arena.DEFERRED, _arena.RESOLVING):
                manager.arena.set_why(slot, manager.reasons.number(self._held))
                manager.settling.record(manager.by_hand.hold_idle(slot))


class _Upload:
    """A message that is not whole yet."""

    def __init__(self, manager: QueueManager, message_id: MessageId, head: Mapping[str, object]) -> None:
        if head.get("format") != FORMAT:
            raise ValueError(f"this server takes format {FORMAT} of exported mail, not {head.get('format')!r}")
        try:
            self.envelope = _decode(base64.b64decode(str(head.get("envelope", "")), validate=True))
        except (binascii.Error, msgspec.DecodeError) as error:
            raise ValueError(f"the envelope of {head.get('id')!r} cannot be read: {error}") from None
        if not self.envelope.recipients:
            raise ValueError(f"{head.get('id')!r} has no recipients")
        self.id = message_id
        self.original = printable(str(head.get("id", "?")))[:64]
        self.held = printable(str(head.get("held", "")))
        self.used = time.monotonic()
        self._manager = manager
        self._parts: list[bytes] = []
        self.size = 0
        self._digest = hashlib.sha256()
        self._body: Body | None = None

    def write(self, text: str) -> None:
        try:
            piece = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"a part of the text of {self.original} is no base64: {error}") from None
        self.used = time.monotonic()
        self._digest.update(piece)
        self.size += len(piece)
        if self.size > _LARGEST:
            raise ValueError(f"the text of {self.original} is larger than {_LARGEST} octets")
        if self._body is None and self.size > _LARGE:
            self._body = self._manager.store.body(self.id)
            for part in self._parts:
                self._body.write(part)
            self._parts.clear()
        if self._body is not None:
            self._body.write(piece)
        else:
            self._parts.append(piece)

    def finish(self, tail: Mapping[str, object]) -> Imported:
        """Begin to commit it. ValueError where it is not what was exported."""
        if tail.get("size") != self.size or tail.get("sha256") != self._digest.hexdigest():
            self.discard()
            raise ValueError(f"the text of {self.original} is not what was exported: its size or checksum is another")
        imported = Imported(self.id, self.held)
        body = self._body if self._body is not None else b"".join(self._parts)
        self._body = None
        self._manager.store.put(Draft(self.id, self.envelope, b"", body), imported)
        return imported

    def discard(self) -> None:
        if self._body is not None:
            self._body.discard()
            self._body = None


class Importer:
    """All uploads of one server."""

    def __init__(self, manager: QueueManager, new_id: Callable[[], MessageId]) -> None:
        self._manager = manager
        self.new_id = new_id
        self._uploads: dict[int, _Upload] = {}
        self._number = 0

    async def whole(self, messages: list[Mapping[str, object]], doer: Doer) -> list[str]:
        """Messages that came in one piece each: {"head", "text", "tail"}; their ids here, once they are on disk."""
        begun = []
        for message in messages:
            upload = _Upload(self._manager, self.new_id(), _table(message, "head"))
            upload.write(str(message.get("text", "")))
            begun.append((upload, upload.finish(_table(message, "tail"))))
        return [await self._settled(upload, imported, doer) for upload, imported in begun]

    def begin(self, head: Mapping[str, object]) -> int:
        """The number of an upload."""
        now = time.monotonic()
        for number in [n for n, upload in self._uploads.items() if now - upload.used > _PATIENCE]:
            self._uploads.pop(number).discard()
        if len(self._uploads) >= _MOST:
            raise ValueError(f"{_MOST} messages are being imported already; try again later")
        self._number += 1
        self._uploads[self._number] = _Upload(self._manager, self.new_id(), head)
        return self._number

    def write(self, number: int, text: str) -> None:
        try:
            self._upload(number).write(text)
        except (ValueError, StoreError):
            self._uploads.pop(number).discard()
            raise

    async def finish(self, number: int, tail: Mapping[str, object], doer: Doer) -> list[str]:
        """The id here, once it is on disk."""
        upload = self._upload(number)
        del self._uploads[number]
        return [await self._settled(upload, upload.finish(tail), doer)]

    async def _settled(self, upload: _Upload, imported: Imported, doer: Doer) -> str:
        await imported.done
        envelope = upload.envelope
        self._manager.maillog(
            id_text(upload.id),
            "received",
            f"client=import helo=- from=<{printable(envelope.sender)}> to=<{printable(envelope.recipients[0].address)}>"
            f" recipients={len(envelope.recipients)} size={upload.size} by={printable(doer.name)}"
            f" was={upload.original}",
        )
        return id_text(upload.id)

    def _upload(self, number: int) -> _Upload:
        upload = self._uploads.get(number)
        if upload is None:
            raise ValueError(f"there is no upload {number}; it may have waited too long")
        return upload


def _table(message: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = message.get(name)
    if not isinstance(found, dict):
        raise ValueError(f"{name} must be an object")
    return found
