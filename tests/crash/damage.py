"""A spool at rest whose every record is known, to be damaged in copies and opened."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mta.model import Change, Position, StoreError
from mta.spool.format import FIRST_OFFSET, MESSAGE, RECORD, make_ref
from mta.spool.scan import Found, SegmentView
from mta.spool.segments import Folder
from mta.spool.store import LocalStore
from tests.kit.spool import SETTINGS, Log, Manager, finished

_DEAD = 3  # number of the message that is finished
_HELD = 1
_LARGE = 9
_MARGIN = 4096  # octets behind the last record of each segment


@dataclass
class Record:
    """One record of a segment, and what it is about: the messages' ids."""

    key: int
    offset: int
    length: int  # header and payload
    ids: tuple[int, ...] = ()


@dataclass
class Spool:
    """A spool at rest, what is in it, and how its damaged copies are opened."""

    folder: Path
    texts: dict[int, bytes] = field(default_factory=dict)  # by id: all messages
    dead: set[int] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)

    def is_last(self, record: Record) -> bool:
        """Whether nothing lies behind it in its segment."""
        return not any(r.key == record.key and r.offset > record.offset for r in self.records)

    def last(self, log: int) -> Record:
        return max((r for r in self.records if r.key >> 32 == log), key=lambda r: (r.key, r.offset))

    def copy(self, target: Path) -> Path:
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(self.folder, target))


@dataclass
class Opened:
    """What a start and the first words of the next receiver found. None: a text that cannot be read."""

    texts: dict[int, bytes | None]
    damaged: int
    torn: int
    notes: list[str]


async def make(folder: Path, *, ends_large: bool = False) -> Spool:
    """Two segments of a receiver's log and the state log, no longer in use."""
    spool = Spool(folder)
    manager = Manager(folder)
    arrivals = []
    for life in range(2):
        log = Log(folder)
        for number in range(life * 6, life * 6 + 6):
            body = b"%d\r\n.dots\r\n\xe4\0" % number + b"text of this one\r\n" * (-number % 11 * 3)
            recipients = [b"b@y.example", b"c@y.example", b"d@z.example"][: 3 if number % 4 == 2 else 1]
            if number == _LARGE or (ends_large and number == 11):
                draft = log.draft(body, recipients)
                file = log.writer.body(draft.id)
                file.write(body)
                log.writer.put(type(draft)(draft.id, draft.envelope, draft.head, file), draft.id)
            else:
                draft = log.put(body, recipients)
            spool.texts[draft.id] = draft.head + body
        arrivals += await log.settled()
        manager.claim(await log.news())
        await log.writer.close()
    queue = sorted(manager.queue.values(), key=lambda q: q.id)
    waiting = [
        Change(ref=q.ref, id=q.id, part=0, kind="waiting", attempts=2, due=9, why="421 later") for q in queue[4:6]
    ]
    held = Change(ref=queue[_HELD].ref, id=queue[_HELD].id, part=0, kind="held")
    for changes in (waiting, [held], [finished(queue[_DEAD].ref, queue[_DEAD].id)], [waiting[0]]):
        await manager.store.record(changes)
    spool.dead.add(queue[_DEAD].id)
    manager.store.snapshot = None
    await manager.store.close()
    shutil.rmtree(Folder(folder).free)  # many copies are made: they should be small
    by_ref = {arrival.ref: arrival.id for arrival in arrivals}
    spool.records = [Record(key, f[2], RECORD.size + f[3], _about(key, f, by_ref)) for key, f in records(folder)]
    for record in filter(spool.is_last, spool.records):
        os.truncate(Folder(folder).path(record.key), record.offset + record.length + _MARGIN)
    return spool


def records(folder: Path) -> Iterator[tuple[int, Found]]:
    for key in Folder(folder).in_use():
        view = SegmentView(Folder(folder), key)
        for found in view.walk(final=True).found:
            yield key, found
        view.close()


def _about(key: int, found: Found, by_ref: dict[int, int]) -> tuple[int, ...]:
    return (by_ref[make_ref(key >> 32, key & 0xFFFFFFFF, found[2])],) if found[0] == MESSAGE else ()


async def opened(spool: Spool, folder: Path) -> Opened:
    """Recover as a start does, then let the next life of the receiver say where it is."""
    store = LocalStore(SETTINGS, folder, asyncio.get_running_loop(), lambda tokens, arrivals, error: None)
    queued = list(store.recover())
    newest = spool.last(1).key & 0xFFFFFFFF
    queued += store.claim(Position(1, make_ref(1, newest + 1, FIRST_OFFSET)))
    texts: dict[int, bytes | None] = {}
    for one in queued:
        assert one.id not in texts, "given twice"
        try:
            stored = store.read(one.ref)
            store.verify(stored)
        except StoreError:
            texts[one.id] = None
        else:
            texts[one.id] = stored.content + (Path(stored.path).read_bytes()[stored.offset :] if stored.path else b"")
    damaged = int(store.statistics["damaged_segments"])
    await store.close()
    return Opened(texts, damaged, store.report.torn, store.report.notes)
