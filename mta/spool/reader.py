"""Reads messages back by reference: model.Reader.

Invariant: what is returned has passed its checksum and has the id and generation of its segment; anything else is a
StoreError, never somebody else's mail. The text in a file of its own is read by others: they call `verify` first.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import msgspec
from msgspec import structs

from mta.model import Envelope, MessageId, Ref, Stored, StoreError, all_part_members
from mta.spool._commit import read_message
from mta.spool.bodies import verify
from mta.spool.format import (
    FIRST_OFFSET,
    LARGE,
    ref_offset,
    ref_segment,
    segment_name,
    unpack_segment,
)
from mta.spool.segments import Folder

_OPEN_FILES = 64
_MANY = 50  # recipients
_MOST_KEPT = 4  # messages with so many, of 8 MiB each at most


class SpoolReader:
    """One process's open segments. Descriptors are checked by generation, for files are used again under new names."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = Folder(state_dir)
        self._open: OrderedDict[int, tuple[int, int, int]] = OrderedDict()  # key -> fd, generation, size
        self._kept: dict[int, Stored] = {}
        self._decode = msgspec.msgpack.Decoder(Envelope).decode

    def read(self, ref: Ref) -> Stored:
        kept = self._kept.get(ref)
        if kept is not None:
            return kept
        flags, message_id, large, checksum, encoded, content = self._record(ref)
        try:
            envelope = self._decode(encoded)
        except msgspec.DecodeError as error:
            raise _damaged(ref_segment(ref), ref_offset(ref), f"is of another version: {error}") from error
        path = str(self._folder.body(message_id)) if flags & LARGE else ""
        stored = Stored(MessageId(message_id), envelope, content, path, 0, len(content) + large, checksum)
        return stored if len(envelope.recipients) < _MANY else self._keep(ref, stored)

    def envelope(self, ref: Ref) -> Envelope:
        return self.read(ref).envelope

    def verify(self, stored: Stored) -> None:
        if stored.path:
            verify(stored.path, stored.offset, stored.size - len(stored.content), stored.checksum)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1][0])

    def _keep(self, ref: int, stored: Stored) -> Stored:
        """Keep a message with many recipients: it is read again for each part, and long to decode."""
        stored = structs.replace(stored, parts=all_part_members(stored.envelope.recipients))
        if len(stored.parts) > 1:
            if len(self._kept) == _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[ref] = stored
        return stored

    def _record(self, ref: int) -> tuple[int, int, int, int, bytes, bytes]:
        """What `read_message` returns; opens the segment anew if the file at hand is from before."""
        key = ref_segment(ref)
        fresh = key not in self._open
        try:
            return self._read_record(key, ref_offset(ref))
        except StoreError:
            if fresh:
                raise
            os.close(self._open.pop(key)[0])
            return self._read_record(key, ref_offset(ref))

    def _read_record(self, key: int, offset: int) -> tuple[int, int, int, int, bytes, bytes]:
        fd, generation, room = self.segment(key)
        try:
            return read_message(fd, offset, generation, room)
        except OSError as error:
            raise _damaged(key, offset, f"cannot be read: {os.strerror(error.errno or 0)}") from error
        except ValueError as error:
            raise _damaged(key, offset, str(error)) from error

    def segment(self, key: int, *, afresh: bool = False) -> tuple[int, int, int]:
        """Descriptor, generation and size of an open segment. StoreError."""
        if afresh and key in self._open:
            os.close(self._open.pop(key)[0])
        known = self._open.get(key)
        if known is not None:
            return known
        path = self._folder.path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        try:
            header = unpack_segment(_read(key, fd, 0, FIRST_OFFSET))
            if header is None or (header.log << 32 | header.sequence) != key:
                raise StoreError(f"{path}: no valid segment header")
        except StoreError:
            os.close(fd)
            raise
        if len(self._open) >= _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[key] = fd, header.generation, os.fstat(fd).st_size
        return self._open[key]


def _read(key: int, fd: int, offset: int, length: int) -> bytes:
    try:
        return os.pread(fd, length, offset)
    except OSError as error:
        raise _damaged(key, offset, f"cannot be read: {error.strerror}") from error


def _damaged(key: int, offset: int, what: str) -> StoreError:
    return StoreError(f"{segment_name(key)} at {offset} {what}")
