"""Other addresses for queued mail: each delivery that changes is queued anew, under a new id and with a new age.

    1  the delivery is held, and its reason names the operation; on disk before
    2  its text is put again with the new envelope, by the way of any mail
    3  when that is on disk, the old delivery is finished; the new one waits as the old one did before step 1

Killed behind step 1 or 2, the old delivery is held and says why, so that nothing is lost and nothing is sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from mta.model import Body, Change, Draft, Envelope, MessageId, Recipient, Ref, Stored, StoreError, id_text
from mta.observe.maillog import printable
from mta.queue import _arena
from mta.queue.exports import pieces
from mta.queue.imports import Imported
from mta.queue.manager import QueueManager

_LONGEST: Final = 254 + 64


class Editing:
    """One order: what is done to each slot, and what follows when that is on disk."""

    def __init__(
        self, manager: QueueManager, new_id: Callable[[], MessageId], change: NewAddresses, by: str, number: int
    ) -> None:
        self._manager = manager
        self._new_id = new_id
        self._new = change
        self._by = by
        self._number = number
        self._begun: list[tuple[int, int, int, Envelope, str]] = []  # slot, id, part, new envelope, why it is held

    def __call__(self, slot: int) -> Change | None:
        """Step 1; None where nothing changes, or the record cannot be read."""
        arena, manager = self._manager.arena, self._manager
        try:
            envelope = manager.store.envelope(Ref(arena.ref(slot)))
            left = manager.left(slot)
        except StoreError:
            return None
        edited = self._new.envelope(envelope, left)
        if edited is None:
            return None
        held = manager.reasons.text(arena.why(slot)) if arena.state(slot) == _arena.HELD else ""
        self._begun.append((slot, arena.id(slot), arena.part(slot), edited, held))
        return manager.by_hand.hold_idle(
            slot, f"held while {self._by} changes its addresses (operation {self._number})"
        )

    async def finish(self) -> None:
        """Steps 2 and 3. StoreError: what is left stays held."""
        manager, arena = self._manager, self._manager.arena
        for slot, message_id, part, envelope, held in self._begun:
            if not arena.holds(slot, message_id, part) or arena.state(slot) != _arena.HELD:
                continue  # somebody was quicker
            new = await self._put(manager.store.read(Ref(arena.ref(slot))), envelope, held)
            if arena.holds(slot, message_id, part):
                manager.maillog(id_text(message_id), "edited", f"by={self._by} operation={self._number} now={new}")
                await manager.store.record([manager.finish(slot)])

    async def _put(self, stored: Stored, envelope: Envelope, held: str) -> str:
        manager, message_id = self._manager, self._new_id()
        imported = Imported(message_id, held)
        manager.store.put(Draft(message_id, envelope, b"", self._text(message_id, stored)), imported)
        await imported.done
        manager.maillog(
            id_text(message_id),
            "received",
            f"client=edit helo=- from=<{printable(envelope.sender)}> to=<{printable(envelope.recipients[0].address)}>"
            f" recipients={len(envelope.recipients)} size={stored.size} by={self._by} was={id_text(stored.id)}",
        )
        return id_text(message_id)

    def _text(self, message_id: MessageId, stored: Stored) -> bytes | Body:
        if not stored.path:
            return stored.content
        self._manager.store.verify(stored)
        body = self._manager.store.body(message_id)
        for piece in pieces(stored):
            body.write(piece)
        return body


class NewAddresses:
    """What an edit changes. ValueError: it is no address."""

    def __init__(self, sender: object, recipients: object) -> None:
        if sender is not None and not isinstance(sender, str):
            raise ValueError("sender must be an address, or empty for the null reverse-path")
        if not isinstance(recipients, Mapping | None):
            raise ValueError("recipients must be an object: old addresses, and the new one of each")
        self._sender = None if sender is None else _address(sender) if sender else b""
        self._recipients = {_address(str(old)).lower(): _address(str(new)) for old, new in (recipients or {}).items()}
        if self._sender is None and not self._recipients:
            raise ValueError("nothing is to be changed: say which sender, or which recipients")

    def envelope(self, old: Envelope, left: Sequence[int]) -> Envelope | None:
        """The new one, for some of its recipients; None where they and the sender stay."""
        recipients = tuple(self._recipient(old.recipients[index]) for index in left)
        sender = old.sender if self._sender is None else self._sender
        if not left or (sender == old.sender and recipients == tuple(old.recipients[index] for index in left)):
            return None
        addresses = (sender, *(recipient.address for recipient in recipients))
        if not all(map(bytes.isascii, addresses)) and not (old.options is not None and old.options.utf8):
            raise ValueError("an address beyond ASCII cannot be given to mail that came without SMTPUTF8")
        return msgspec.structs.replace(old, sender=sender, recipients=recipients)

    def _recipient(self, old: Recipient) -> Recipient:
        new = self._recipients.get(old.address.lower())
        return old if new is None else msgspec.structs.replace(old, address=new)


def _address(text: str) -> bytes:
    local, at, domain = text.rpartition("@")
    plain = text.isprintable() and not any(c in text for c in ' <>\\"')
    if not (at and local and domain and plain and len(text) <= _LONGEST) or domain.startswith((".", "-")):
        raise ValueError(f"{printable(text)!r} is no address")
    return text.encode()
