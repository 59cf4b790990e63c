"""`mta spool check`: reads a whole spool, says what is wrong with it, and can put it in order.

Every record of every segment is verified by its checksum and decoded; large texts are looked for; the checkpoint is
read to its end. A running server is not disturbed: what it is writing, and what it gives up meanwhile, is no damage.

Invariants
- Without `repair` nothing is changed, not even opened for writing.
- `repair` needs a spool that no server holds. It deletes nothing: what cannot be used is moved or copied to lost+found.
- A damaged stretch of a segment, once saved, is overwritten by one empty record, so that a later check finds the
  segment in order; the records around it stay where they are.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from mta.model import Change, Queued, StoreError, id_text
from mta.spool._commit import crc32c
from mta.spool.bodies import verify
from mta.spool.checkpoint import Checkpoint, Damaged
from mta.spool.format import COPY, MESSAGE, RECORD, RECORD_MAGIC, STATE, parse_segment_name, ref_offset, segment_name
from mta.spool.scan import Found, SegmentView, Walk, is_finished, message_in, text_of, with_changes
from mta.spool.segments import Folder, sync_directory
from mta.spool.state import Replay, unpack_changes

STATE_LOG: Final = 0
_EMPTY: Final = 0  # kind of the record that covers a damaged stretch; nobody reads it
_YOUNG: Final = 3600.0  # seconds: a large text that was written to since may still get its record


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. `damage` makes the check fail, `note` is worth a look, `fixed` was put in order."""

    verdict: Literal["ok", "note", "damage", "fixed"]
    text: str


@dataclass(slots=True)
class _Message:
    queued: Queued
    room: int  # octets of its record
    text: tuple[int, int]  # octets of its text in a file of its own, and their checksum
    large: bool
    copy: bool


class SpoolCheck:
    """One pass over the spool in a state directory; iterate `findings` to its end."""

    def __init__(self, state_dir: Path, *, repair: bool = False) -> None:
        self._folder = Folder(state_dir)
        self._repair = repair
        self._keys: list[int] = []
        self._messages: dict[int, _Message] = {}
        self._changes = 0
        self._octets = 0

    def findings(self) -> Iterator[Finding]:
        """What is wrong first, what was read last."""
        if not self._folder.segments.is_dir():
            yield Finding("note", f"{self._folder.root} holds no spool yet")
            return
        yield from self._strangers()
        self._keys = self._folder.in_use()
        newest = {key >> 32: key for key in self._keys}
        for key in self._keys:
            yield from self._segment(key, final=key != newest[key >> 32])
        checkpoint = None
        path = self._folder.root / "checkpoint"
        if path.exists():
            try:
                checkpoint = Checkpoint(path)
            except Damaged as error:
                yield self._set_aside(path, f"{error}: some mail may be sent twice", "damage")
        live = self._unfinished(checkpoint)
        yield from self._bodies(live)
        yield from self._lost_and_found()
        yield from self._summary(live, checkpoint)

    # ---- files

    def _strangers(self) -> Iterator[Finding]:
        for name in sorted(os.listdir(self._folder.segments)):
            key = parse_segment_name(name)
            path = self._folder.segments / name
            if key is not None:
                try:
                    view = SegmentView(self._folder, key)
                except StoreError as error:
                    if path.exists():  # else it was given up a moment ago
                        yield Finding("damage", str(error))
                    continue
                view.close()
                if view.header is not None:
                    continue
            if path.exists():
                yield self._set_aside(path, f"{path} is no segment of this spool", "damage")

    def _set_aside(self, path: Path, what: str, verdict: Literal["note", "damage"]) -> Finding:
        if not self._repair:
            return Finding(verdict, what)
        self._folder.set_aside(path)
        return Finding("fixed", f"{what}; moved to {self._folder.lost}")

    def _lost_and_found(self) -> Iterator[Finding]:
        kept = sorted(os.listdir(self._folder.lost)) if self._folder.lost.is_dir() else []
        if kept:
            yield Finding("note", f"{self._folder.lost} keeps {', '.join(kept)}")

    # ---- segments

    def _segment(self, key: int, *, final: bool) -> Iterator[Finding]:
        try:
            view = SegmentView(self._folder, key)
        except StoreError:
            return  # told by _strangers, or given up since
        try:
            if view.header is None:
                return
            walk = view.walk(final=final)
        except StoreError as error:
            yield Finding("damage", str(error))
            return
        finally:
            view.close()
        self._octets += sum(_room(found) for found in walk.found)
        for found in walk.found:
            yield from self._record(view, found)
        for start, end in _stretches(walk):
            yield self._stretch(view, start, end)
        if final and view.torn(walk.end):
            text = f"{segment_name(key)} ends at {walk.end} with a record that is not whole: a crash cut it off"
            yield Finding("note", text)

    def _record(self, view: SegmentView, found: Found) -> Iterator[Finding]:
        """Decode what passed its checksum: what another version wrote may be whole and yet of no use."""
        kind, _, offset, _, message_id = found
        try:
            if kind == MESSAGE:
                queued, large = message_in(view, found)
                self._messages[queued.ref] = _Message(
                    queued, _room(found), text_of(view, found), large, bool(found[1] & COPY)
                )
            elif kind == STATE:
                self._changes += sum(1 for _ in unpack_changes(bytes(view.payload(found))))
        except (StoreError, struct.error, msgspec.DecodeError, IndexError) as error:
            name = f"message {id_text(message_id)}" if kind == MESSAGE else "a record of changes"
            yield Finding("damage", f"{segment_name(view.key)} at {offset}: {name} cannot be decoded: {error}")

    def _stretch(self, view: SegmentView, start: int, end: int) -> Finding:
        """A part of a segment that holds no valid record, with valid ones behind it."""
        assert view.header is not None
        name = segment_name(view.key)
        path = self._folder.path(view.key)
        fd = os.open(path, os.O_RDWR if self._repair else os.O_RDONLY)
        try:
            octets = os.pread(fd, end - start, start)
            what = f"{name} is damaged from {start} to {end}{_whose(octets, view.header.generation)}"
            if not self._repair or end - start < RECORD.size:
                return Finding("damage", what)
            saved = self._folder.lost / f"{name}.{start}"
            saved.write_bytes(octets)
            with saved.open("rb") as file:
                os.fsync(file.fileno())
            sync_directory(self._folder.lost)
            os.pwrite(fd, _empty_record(view.header.generation, end - start), start)
            os.fsync(fd)
            return Finding("fixed", f"{what}; saved as {saved}")
        finally:
            os.close(fd)

    # ---- what is unfinished

    def _unfinished(self, checkpoint: Checkpoint | None) -> dict[int, _Message]:
        """The messages that a recovery would give, by the same rules."""
        replay = Replay(frozenset(self._keys))
        first = checkpoint.head.log_from if checkpoint is not None else 0
        for key in self._folder.in_use(STATE_LOG):
            if key < first:
                continue
            try:
                view = SegmentView(self._folder, key)
                with_header = view.header is not None
                walk = view.walk(final=False) if with_header else Walk([], 0, ())
                view.close()
            except StoreError:
                continue  # told already
            for found in walk.found:
                if found[0] == STATE:
                    replay.feed(bytes(view.payload(found)))
        known = {q.id: q for q in checkpoint.messages()} if checkpoint is not None else {}
        horizon = {key: end for key, _, end in checkpoint.head.segments} if checkpoint is not None else {}
        live: dict[int, _Message] = {}
        originals = {m.queued.id for m in self._messages.values() if not m.copy}
        for ref, message in self._messages.items():
            old = known.get(message.queued.id)
            place = replay.moves.get(message.queued.id, old.ref if old is not None else None)
            if place is None and message.copy and message.queued.id in originals:
                continue  # a copy that was never taken over
            if place is not None and place != ref:
                continue  # it was moved, and counts there
            if old is None and place is None and ref_offset(ref) < horizon.get(ref >> 24, 0):
                continue  # it was finished when the checkpoint was made
            newest = {c.part: c for c in old.changes} if old is not None else {}
            for part in range(len(message.queued.domains)):
                change = replay.take(ref, message.queued.id, part)
                if change is not None and not _is_end(newest.get(part)):
                    newest[part] = change
            if not is_finished(with_changes(message.queued, tuple(newest.values()))):
                live[ref] = message
        return live

    def _bodies(self, live: dict[int, _Message]) -> Iterator[Finding]:
        large = {self._folder.body(m.queued.id).name: m for m in self._messages.values() if m.large}
        needed = {self._folder.body(m.queued.id).name for m in live.values() if m.large}
        present = set(os.listdir(self._folder.bodies)) if self._folder.bodies.is_dir() else set()
        for name in sorted(needed):
            message = large[name]
            path = self._folder.bodies / name
            try:
                size = path.stat().st_size
                verify(str(path), 0, *message.text)
            except FileNotFoundError:
                text = f"message {id_text(message.queued.id)} has lost its text {path}; `mta queue delete` ends it"
                yield Finding("damage", text)
                continue
            except StoreError as error:
                yield Finding("damage", f"the text of message {id_text(message.queued.id)}: {error}")
                continue
            if size > message.queued.size:
                yield Finding("note", f"{path} is longer than message {id_text(message.queued.id)} needs")
        before = time.time() - _YOUNG
        for name in sorted(present - large.keys()):
            path = self._folder.bodies / name
            try:
                young = path.stat().st_mtime > before
            except FileNotFoundError:
                continue  # given up since
            if not young:
                yield self._set_aside(path, f"{path} belongs to no message", "note")

    def _summary(self, live: dict[int, _Message], checkpoint: Checkpoint | None) -> Iterator[Finding]:
        room = sum(m.room for m in live.values())
        yield Finding(
            "ok",
            f"{len(self._keys)} segments, {len(self._messages)} messages and {self._changes} changes in"
            f" {self._octets} octets of records were read and verified",
        )
        yield Finding("ok", f"{len(live)} messages are unfinished, {room} octets of records")
        if checkpoint is not None:
            yield Finding("ok", "the checkpoint is whole")


def _room(found: Found) -> int:
    return (RECORD.size + found[3] + 7) & ~7


def _stretches(walk: Walk) -> Iterator[tuple[int, int]]:
    """Beginning and end of each damaged place: the next valid record begins where it ends."""
    starts = sorted(found[2] for found in walk.found)
    for place in walk.damaged:
        yield place, min(start for start in starts if start > place)


def _whose(octets: bytes, generation: int) -> str:
    """Whose record it was, where its header can still be read; it may itself be what is damaged."""
    if len(octets) < RECORD.size:
        return ""
    magic, kind, _, _, found, _, _, message_id, _ = RECORD.unpack_from(octets)
    if magic != RECORD_MAGIC or found != generation:
        return ""
    return f" (message {id_text(message_id)})" if kind == MESSAGE else " (changes of state)" if kind == STATE else ""


def _empty_record(generation: int, room: int) -> bytes:
    payload = bytes(room - RECORD.size)
    head = (RECORD_MAGIC, _EMPTY, 0, 0, generation, len(payload))
    crc = crc32c(payload, crc32c(RECORD.pack(*head, 0, 0, 0)))
    return RECORD.pack(*head, crc, 0, 0) + payload


def _is_end(change: Change | None) -> bool:
    return change is not None and change.kind == "finished"
