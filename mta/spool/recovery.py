"""From the files of the spool to what is queued.

Order: the checkpoint (if there is a good one), the state log from the place that it names, then the messages of each
log from where the checkpoint ends. Receivers may be appending meanwhile: `known` says how far each log was read, and
`mta.spool.store` goes on there.

How far a log may be called known, while its writer goes on: batches are written in order, so once some record of a
segment is seen, all earlier segments of that log are final. `_survey` therefore looks for the newest segment with a
record *before* the earlier ones are read, and `known` never goes beyond it: a batch that is on its way to the end of a
segment would be overlooked for good if its successor, still empty, already counted.

What a start may meet, and what it makes of it. Each is told once; nothing is deleted:

    a record cut off at the end of a log          a crash: it was not acknowledged; counted as torn
    damage with valid records behind it           these were acknowledged and are read; the segment is kept, and goes to
                                                  lost+found when the last message in it is finished
    records of an earlier life of a file          their generation is another: they end the segment
    a file that is no segment of its name         to lost+found
    a segment that cannot be read now             left alone, for another start
    a segment that is gone, messages of it in     what the state log has as finished is well; the others are lost,
    the checkpoint                                and told as a number
    no checkpoint, the state log uncut            all is read from the logs
    no checkpoint, or a damaged one (to           all is read from the logs; what the cut part said is lost, so mail
    lost+found), and a cut state log              that is finished, in a segment that is not, is sent again
    an old checkpoint, or a hole in the state     the same for what the missing part said
    log behind it
    changes for a message that is not there       dropped
    changes in an order that cannot be            finished is for ever, else the later one counts
    the checkpoint has a message unfinished, the  it is finished
    state log has it finished
    a message in two places                       it was copied: see mta.spool.compact
    a body file without a message, for an hour    to lost+found

Invariants
- A message is given once, with its newest state; a finished one is not given.
- What cannot be read is reported and kept: strange files go to lost+found, damaged segments are never used again.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mta.model import Change, Queued, StoreError
from mta.spool import checkpoint as checkpoints
from mta.spool.format import (
    COPY,
    FIRST_OFFSET,
    MESSAGE,
    STATE,
    make_ref,
    parse_segment_name,
    ref_offset,
    segment_name,
)
from mta.spool.ledger import Ledger
from mta.spool.scan import Found, SegmentView, Walk, is_finished, message_in, with_changes
from mta.spool.segments import Folder
from mta.spool.state import Move, Replay

_LARGEST = 1 << 27  # octets of a segment; memory is only taken for what is read
_YOUNG = 3600.0  # seconds: a body file that was written to since may still get its record


@dataclass(slots=True)
class Report:
    """What a recovery met."""

    segments: int = 0
    messages: int = 0
    finished: int = 0
    changes: int = 0
    torn: int = 0  # records that a crash cut off; none of them was acknowledged
    damaged: int = 0  # places inside a segment that could not be read, with readable records behind them
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Recovery:
    """One pass over the spool. Iterate `messages` to its end; then everything here is whole."""

    def __init__(self, folder: Folder, state_log: int) -> None:
        self._folder = folder
        self._state_log = state_log
        self._horizon: dict[int, tuple[int, int]] = {}  # segment -> generation, offset that a checkpoint reaches to
        self._given: set[int] = set()  # from the checkpoint, though the log is read there as well
        self.known: dict[int, int] = {}  # log -> reference up to which all its records were seen
        self.large: dict[int, int] = {}  # reference -> id of messages with a body file
        self.ledger = Ledger()
        self.damaged: set[int] = set()  # segments that must be kept for a person to look at
        self.unreadable: set[int] = set()  # segments to be left alone: another start may be able to read them
        self.report = Report()
        self.dead_copies: list[Move] = []  # copies that were never taken over, back to their originals
        self._copies: set[int] = set()  # ids of the copies that the state log holds
        self._originals: dict[int, int] = {}  # id -> reference, of those of them that were met as something else
        self._late: list[tuple[Queued, bool]] = []  # copies without a move: they count if nothing else has their id
        self._bodies: set[int] = set()
        self._keys: list[int] = []
        self._replay = Replay(())
        self._room: memoryview | None = None
        self._checkpoint = checkpoints.load(folder, self.report.notes)

    def messages(self, before: int) -> Iterator[Queued]:
        """Everything unfinished. The state log is read up to the segment `before`: the rest is this life's own."""
        began = time.monotonic()
        self._set_aside_strangers()
        self._keys = [k for k in self._folder.in_use() if k >> 32 != self._state_log or k < before]
        self._bodies = self._body_files()
        # Those that the checkpoint knows, too: its messages in a segment that was given up since are finished, which
        # only the state log says.
        covered = [key for key, _, _ in self._checkpoint.head.segments] if self._checkpoint is not None else []
        self._replay = Replay(frozenset((*self._keys, *covered)))
        self._room = memoryview(mmap.mmap(-1, _LARGEST))
        newest = self._survey()
        self._look_for_holes()
        self._replay_state()
        yield from self._from_checkpoint()
        for key in self._keys:
            if key <= newest[key >> 32]:
                yield from self._from_segment(key, newest=key == newest[key >> 32])
        yield from self._left_copies()
        self._check_bodies()
        self._given, self._bodies, self._replay, self._room = set(), set(), Replay(()), None
        self.report.seconds = time.monotonic() - began

    # ---- what is there

    def _set_aside_strangers(self) -> None:
        for name in sorted(os.listdir(self._folder.segments)):
            key = parse_segment_name(name)
            if key is None or not self._is_segment(key):
                self._lose(self._folder.segments / name, "is no segment of this spool")

    def _is_segment(self, key: int) -> bool:
        try:
            view = SegmentView(self._folder, key)
        except StoreError:
            return True  # it cannot be read now: not ours to judge
        view.close()
        return view.header is not None

    def _survey(self) -> dict[int, int]:
        """The newest segment of each log in which there is any record; the oldest where there is none."""
        newest: dict[int, int] = {}
        oldest = {key >> 32: key for key in reversed(self._keys)}
        for key in reversed(self._keys):
            if key >> 32 not in newest and (key == oldest[key >> 32] or self._walk(key, FIRST_OFFSET)[1].found):
                newest[key >> 32] = key
        return newest

    def _walk(self, key: int, start: int, *, final: bool = True, sync: bool = False) -> tuple[SegmentView | None, Walk]:
        """The records of a segment, and the view for their payloads; nothing where it cannot be read."""
        try:
            view = SegmentView(self._folder, key, self._room)
        except StoreError as error:
            self.unreadable.add(key)
            self._note(str(error))
            return None, Walk([], start, ())
        try:
            if view.header is None:
                return None, Walk([], start, ())  # set aside a moment ago, or damaged since
            if sync:
                view.sync()
            return view, view.walk(start, final=final)
        except StoreError as error:
            self.unreadable.add(key)
            self._note(str(error))
            return None, Walk([], start, ())
        finally:
            view.close()

    # ---- the state log

    def _look_for_holes(self) -> None:
        """The state log goes on without a gap from where the checkpoint says, or from its beginning."""
        keys = [key for key in self._keys if key >> 32 == self._state_log]
        if not keys:
            return
        if self._checkpoint is not None:
            first = self._checkpoint.head.log_from
        else:
            first = keys[0]
            if keys[0] & 0xFFFFFFFF > 1:
                self._note("the state log was cut, and its checkpoint is gone; some mail may be sent twice")
        missing = sorted(set(range(first, keys[-1])).difference(keys))
        if missing:
            names = segment_name(missing[0]) + (f" to {segment_name(missing[-1])}" if len(missing) > 1 else "")
            self._note(f"{names} of the state log are gone; some mail may be sent twice")

    def _replay_state(self) -> None:
        first = self._checkpoint.head.log_from if self._checkpoint is not None else 0
        for key in self._keys:
            if key >> 32 == self._state_log and key >= first:
                self._replay_segment(key)
        if self._checkpoint is not None:
            self._horizon = {key: (generation, end) for key, generation, end in self._checkpoint.head.segments}

    def _replay_segment(self, key: int) -> None:
        # INVARIANT: texts and segments are given up for what is read here, so it must outlive the machine.
        view, walk = self._walk(key, FIRST_OFFSET, sync=True)
        if view is None:
            return
        for found in walk.found:
            if found[0] == MESSAGE and found[1] & COPY:
                self._copies.add(found[4])
            elif found[0] == STATE:
                try:
                    self.report.changes += self._replay.feed(bytes(view.payload(found)))
                except ValueError as error:
                    self._damage(key, f"{segment_name(key)} at {found[2]}: no changes of this version: {error}")

    def _changes(self, queued: Queued, old: tuple[Change, ...] = ()) -> tuple[Change, ...]:
        """The newest change of each part, out of the checkpoint and the log behind it."""
        take = self._replay.take
        if len(queued.domains) == 1 and not old:
            change = take(queued.ref, queued.id, 0)
            return () if change is None else (change,)
        newest = {c.part: c for c in old}
        for part in range(len(queued.domains)):
            change = take(queued.ref, queued.id, part)
            if change is not None and (part not in newest or newest[part].kind != "finished"):
                newest[part] = change
        return tuple(newest.values())

    # ---- the messages

    def _from_checkpoint(self) -> Iterator[Queued]:
        if self._checkpoint is None:
            return
        there = frozenset(self._keys)
        ends = {key: end for key, (_, end) in self._horizon.items()}
        moves = self._replay.moves
        gone: dict[int, int] = {}
        for old in self._checkpoint.messages():
            if moves and (place := moves.get(old.id, old.ref)) != old.ref:
                old = _moved(old, place)
            elif self._copies and old.id in self._copies:
                self._originals[old.id] = old.ref
            key = old.ref >> 24
            if ref_offset(old.ref) >= ends.get(key, 0):
                self._given.add(old.ref)  # arrived while the checkpoint was written
            if key not in there:
                # Began while the checkpoint was written, and gone: only one that was emptied goes so soon.
                if key in ends and not is_finished(with_changes(old, self._changes(old, old.changes))):
                    gone[key] = gone.get(key, 0) + 1
            elif (queued := self._renewed(old)) is not None:
                yield queued
        for key, lost in gone.items():
            self._note(f"{segment_name(key)} is gone, and {lost} messages with it")

    def _renewed(self, old: Queued) -> Queued | None:
        """A message of the checkpoint in its newest state, unless that is its end."""
        if len(old.domains) > 1 or self._bodies:
            queued = with_changes(old, self._changes(old, old.changes))
            return queued if self._is_given(queued, large=old.id in self._bodies) else None
        change = self._replay.take(old.ref, old.id, 0)
        if change is None:
            return old if self._is_new(old.ref) else None
        if change.kind == "finished":
            self.report.finished += 1
            return None
        return with_changes(old, (change,)) if self._is_new(old.ref) else None

    def _from_segment(self, key: int, *, newest: bool) -> Iterator[Queued]:
        """The messages behind the checkpoint in a segment. `newest`: its log may still be writing to it."""
        self.report.segments += 1
        view, walk = self._walk(key, self._start(key), final=not newest or key >> 32 == self._state_log)
        if view is not None:
            if newest:
                self.report.torn += view.torn(walk.end)
            for place in walk.damaged:
                self._damage(key, f"{segment_name(key)} is damaged at {place}; the records behind were read")
            # In one go: the memory that was read into is the next segment's as soon as we yield.
            yield from self._met(view, walk.found)
        if newest:
            self.known[key >> 32] = make_ref(key >> 32, key & 0xFFFFFFFF, walk.end)

    def _met(self, view: SegmentView, found: list[Found]) -> list[Queued]:
        """The unfinished messages among some records. Nearly all have one recipient, and are not even decoded."""
        given, base, take = self._given, view.key << 24, self._replay.take
        moves, copies = self._replay.moves, self._copies
        messages: list[Queued] = []
        for record, head in zip(found, view.heads(found), strict=True):
            ref = base | record[2] >> 3
            if record[0] != MESSAGE or ref in given:
                continue
            if (copies or moves) and not self._counts(view, record, ref):
                continue
            if head is None or head[2] is None or record[1]:
                if (read := self._read(view, record)) is not None:
                    messages.append(read)
                continue
            change = take(ref, record[4], 0)
            if change is None:
                changes: tuple[Change, ...] = ()
            elif change.kind == "finished":
                self.report.finished += 1
                continue
            else:
                changes = (change,)
            if self._is_new(ref):
                messages.append(
                    Queued(
                        id=record[4],
                        ref=ref,
                        size=head[0],
                        domains=(head[2],),
                        changes=changes,
                        wants=head[3],
                        lane=head[4],
                    )
                )
        return messages

    def _counts(self, view: SegmentView, record: Found, ref: int) -> bool:
        """Of a message that was copied: whether this is the record that counts, as far as can be said by now."""
        message_id = record[4]
        place = self._replay.moves.get(message_id)
        if place is not None:
            return place == ref
        if message_id not in self._copies:
            return True
        if not record[1] & COPY:
            self._originals[message_id] = ref
            return True
        try:
            self._late.append(message_in(view, record))
        except StoreError as error:
            self._damage(view.key, str(error))
        return False

    def _left_copies(self) -> Iterator[Queued]:
        """Copies that no move names: a crash came before it, or the move and the original are both lost."""
        for copy, large in reversed(self._late):  # the newest first
            original = self._originals.get(copy.id)
            if original is not None:
                self.dead_copies.append(Move(copy.ref, copy.id, original))
                continue
            self._originals[copy.id] = copy.ref
            if changes := self._changes(copy):
                copy = with_changes(copy, changes)
            if self._is_given(copy, large=large):
                yield copy

    def covered(self) -> list[int]:
        """Segments whose messages the checkpoint knows to their end."""
        return [key for key, (_, end) in self._horizon.items() if end >= _LARGEST]

    def _is_new(self, ref: int) -> bool:
        """A message with one part and no body file is live from now on; False when it was already."""
        if not self.ledger.add(ref, 1):
            return False
        self.report.messages += 1
        return True

    def _start(self, key: int) -> int:
        generation, offset = self._horizon.get(key, (0, FIRST_OFFSET))
        if offset == FIRST_OFFSET:
            return FIRST_OFFSET
        try:
            view = SegmentView(self._folder, key)
        except StoreError:
            return FIRST_OFFSET
        view.close()
        return offset if view.header is not None and view.header.generation == generation else FIRST_OFFSET

    def _read(self, view: SegmentView, found: Found) -> Queued | None:
        """The message of a record, unless it is finished."""
        try:
            queued, large = message_in(view, found)
        except StoreError as error:
            self._damage(view.key, str(error))
            return None
        if changes := self._changes(queued):
            queued = with_changes(queued, changes)
        return queued if self._is_given(queued, large=large) else None

    def _is_given(self, queued: Queued, *, large: bool) -> bool:
        """Whether a message is unfinished, and new here; it is live from now on."""
        if is_finished(queued):
            self.report.finished += 1
            if large:  # the crash came between the end of the message and that of its text
                self._folder.body(queued.id).unlink(missing_ok=True)
            return False
        done = [c.part for c in queued.changes if c.kind == "finished"]
        if not self.ledger.add(queued.ref, len(queued.domains), done):
            return False
        if large:
            self.large[queued.ref] = queued.id
        self.report.messages += 1
        return True

    # ---- what belongs to nobody

    def _body_files(self) -> set[int]:
        found = set()
        for name in os.listdir(self._folder.bodies):
            try:
                found.add(int(name, 16))
            except ValueError:
                continue  # _check_bodies deals with it
        return found

    def _check_bodies(self) -> None:
        """Body files that no message names: left by a crash before their record, or after their end."""
        named = {self._folder.body(message_id).name for message_id in self.large.values()}
        before = time.time() - _YOUNG
        for name in sorted(set(os.listdir(self._folder.bodies)) - named):
            path = self._folder.bodies / name
            try:
                young = path.stat().st_mtime > before
            except FileNotFoundError:
                continue
            if not young:
                self._lose(path, "belongs to no message")

    def _damage(self, key: int, note: str) -> None:
        self.damaged.add(key)
        self.report.damaged += 1
        self._note(note)

    def _note(self, note: str) -> None:
        if note not in self.report.notes:  # a segment may be walked twice
            self.report.notes.append(note)

    def _lose(self, path: Path, why: str) -> None:
        self._folder.set_aside(path)
        self.report.notes.append(f"{path.name} {why}; moved to lost+found")


def _moved(queued: Queued, ref: int) -> Queued:
    return Queued(
        id=queued.id,
        ref=ref,
        size=queued.size,
        domains=queued.domains,
        changes=queued.changes,
        wants=queued.wants,
        lane=queued.lane,
    )
