"""What the disk refuses: never a success that is none, and it goes on when the disk does."""

import asyncio
import contextlib
import errno
import os
import resource
import threading
import time
from collections import namedtuple
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from mta.config.settings import Octets, Spool
from mta.model import Change, Draft, Ref, StoreError
from mta.spool import bodies, watermark, writer
from mta.spool.format import ref_segment
from mta.spool.reader import SpoolReader
from mta.spool.segments import Folder, Supply
from tests.kit.spool import Log, Manager, finished

Disk = namedtuple("Disk", "f_bavail f_frsize f_files f_favail")


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(asyncio.wait_for(scenario(), 60))


@contextlib.contextmanager
def broken(fd: int, device: str) -> Iterator[None]:
    """Whatever is written to a descriptor goes to a device that fails."""
    kept = os.dup(fd)
    with open(device, "r+b", buffering=0) as file:
        os.dup2(file.fileno(), fd)
    try:
        yield
    finally:
        os.dup2(kept, fd)
        os.close(kept)


def refused_after(log: Log, body: bytes) -> StoreError:
    """Put messages until one is refused."""
    for _ in range(10):
        try:
            log.put(body)
        except StoreError as error:
            return error
    raise AssertionError("none was refused")


def current(log: writer.LogWriter) -> tuple[int, int]:
    """Descriptor and key of the segment that is being written."""
    assert log._segment is not None
    return log._segment.fd, log._segment.key


@pytest.mark.parametrize(("device", "full"), [("/dev/full", True), ("/dev/null", False)], ids=["write", "sync"])
def test_a_failed_batch_is_refused_whole_and_the_log_goes_on(tmp_path: Path, device: str, full: bool) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        log.put(b"good")
        await log.settled()
        fd, key = current(log.writer)
        with broken(fd, device):
            for n in range(3):
                log.put(b"bad %d" % n)
            await log.settled()
        tokens, arrivals, error = log.reports[-1]
        assert (len(tokens), arrivals) == (3, [])
        assert error is not None
        assert error.full is full
        for n in range(2):
            log.put(b"good again %d" % n)
        arrivals = (await log.settled())[1:]
        assert {ref_segment(a.ref) for a in arrivals} == {key + 1}, "the segment is left behind"
        await log.writer.close()
        manager = Manager(tmp_path)
        texts = [c.split(b"\r\n")[1] for c in manager.contents()]
        assert texts == [b"good", b"good again 0", b"good again 1"]
        assert manager.store.report.damaged == 0
        await manager.store.close()

    play(scenario)


@contextlib.contextmanager
def no_file_beyond(octets: int) -> Iterator[None]:
    """No file may be written beyond this place; what crosses it is written in part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_of_a_failed_batch_that_reached_the_file_are_not_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put(b"good")
        await log.settled()
        with no_file_beyond(250_000):  # two of the three reach the file whole
            for _ in range(3):
                log.put(bytes(100_000) + b"told 451")
            await log.settled()
        assert log.reports[-1][2] is not None
        assert log.writer.statistics["retired_segments"] == 1
        assert log.writer.statistics["uncut_batches"] == 0
        log.put(b"good")
        await log.settled()
        texts = [manager.read(q.ref).content[-4:] for q in manager.claim(await log.news())]
        assert texts == [b"good", b"good"]
        await manager.store.close()
        await log.writer.close()
        again = Manager(tmp_path)
        assert [c[-4:] for c in again.contents()] == [b"good", b"good"]
        assert again.store.report.damaged == 0
        await again.store.close()

    play(scenario)


def test_low_space_refuses_mail_and_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [50]
    monkeypatch.setattr(writer, "_LOOK_EVERY", 0.0)

    async def scenario() -> None:
        settings = Spool(segment_size=Octets(1 << 20), min_free=Octets(100))
        log = Log(tmp_path, settings=settings)
        monkeypatch.setattr(watermark.os, "statvfs", lambda path: Disk(free[0], 1, 0, 0))
        errors = []
        for _ in range(2):
            assert log.writer.refusing is not None
            with pytest.raises(StoreError) as caught:
                log.put()
            errors.append(caught.value)
            with pytest.raises(StoreError):
                log.writer.body(log.ids.next(1))
        assert all(error.full for error in errors)
        assert errors[0] is not errors[1]
        free[0] = 200
        assert log.writer.refusing is None
        log.put()
        assert len(await log.settled()) == 1
        free[0] = 50
        log.put()  # within one look at the disk
        await log.settled()
        with pytest.raises(StoreError):
            log.put()
        await log.writer.close()

    play(scenario)


@pytest.mark.parametrize(("total", "free", "full"), [(0, 0, False), (5000, 9, True), (5000, 10, False)])
def test_few_inodes_refuse_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, free: int, full: bool
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(watermark.os, "statvfs", lambda path: Disk(1 << 40, 1, total, free))
        log = Log(tmp_path, settings=Spool(segment_size=Octets(1 << 20), min_free_inodes=10))
        refusing = log.writer.refusing
        assert (refusing is not None) is full
        if refusing is not None:
            assert refusing.full
            assert "inodes" in str(refusing)
            assert log.writer.watermark.since > 0
        await log.writer.close()

    play(scenario)


def test_mail_takes_no_segment_out_of_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between min_free and min_free and a segment, what is there is used up, and the state log still gets its own."""

    async def scenario() -> None:
        settings = Spool(segment_size=Octets(1 << 20), min_free=Octets(10 << 20), min_free_inodes=0)
        monkeypatch.setattr(watermark.os, "statvfs", lambda path: Disk((11 << 20) - 1, 1, 0, 0))
        log = Log(tmp_path, settings=settings)
        refusing = log.writer.refusing
        assert refusing is not None
        assert refusing.full
        assert "reserve" in str(refusing)
        state = writer.LogWriter(settings, tmp_path, 0, asyncio.get_running_loop(), log.committed, reserve=True)
        assert state._segment is not None
        await state.close()
        await log.writer.close()

    play(scenario)


def test_the_spare_of_the_state_log_is_made_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_LOOK_EVERY", 0.0)

    async def scenario() -> None:
        log = Log(tmp_path, 0)
        supply = log.writer._supply
        spare = Folder(tmp_path).free / "spare-00"
        assert supply._thread is not None
        supply._thread.join()
        spare.unlink()
        log.put()
        await log.settled()
        supply._thread.join()
        assert spare.stat().st_size == 1 << 20
        await log.writer.close()

    play(scenario)


def test_no_thread_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuses)
            log = Log(tmp_path)
            log.put()
            assert len(await log.settled()) == 1
            draft = log.draft()
            body = log.writer.body(draft.id)
            body.write(b"x" * 300_000)
            with pytest.raises(StoreError):
                log.writer.put(Draft(draft.id, draft.envelope, draft.head, body), draft.id)
            body.discard()
        log.put()
        assert len(await log.settled()) == 2
        await log.writer.close()

    play(scenario)


def test_no_room_for_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True]
    take = Supply.take

    def sometimes(self: Supply, *args: int) -> object:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return take(self, *args)

    monkeypatch.setattr(Supply, "take", sometimes)
    monkeypatch.setattr(writer, "_LOOK_EVERY", 0.0)

    async def scenario() -> None:
        log = Log(tmp_path)
        with pytest.raises(StoreError) as caught:
            log.put()
        assert caught.value.full
        full[0] = False
        log.put()
        assert len(await log.settled()) == 1
        full[0] = True
        body = bytes(200_000)
        refused_after(log, body)
        written = len(await log.settled())
        assert written > 3, "those before are durable"
        full[0] = False
        log.put(body)
        assert len(await log.settled()) == written + 1
        await log.writer.close()

    play(scenario)


def test_too_much_waiting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MOST_WAITING", 100_000)

    async def scenario() -> None:
        log = Log(tmp_path)
        assert not refused_after(log, bytes(50_000)).full
        await log.settled()
        log.put()
        await log.writer.close()

    play(scenario)


def test_a_message_larger_than_a_segment_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        with pytest.raises(StoreError, match="does not fit"):
            log.put(bytes(1 << 20))
        log.put(b"fits")
        assert len(await log.settled()) == 1
        await log.writer.close()

    play(scenario)


def test_changes_that_could_not_be_written_are_written_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put()
        log.put()
        first, second = manager.claim(await log.news())
        fd, _ = current(manager.store._writer)
        with broken(fd, "/dev/full"):
            manager.store.record_soon([finished(second.ref, second.id)])
            with pytest.raises(StoreError):
                await manager.store.record([finished(first.ref, first.id)])
            assert manager.store.statistics["live_messages"] == 2, "not finished before it is durable"
        assert manager.store.statistics["unwritten_changes"] == 2
        assert manager.store._retrying is not None, "a timer would do this in a second"
        manager.store._retry()
        await manager.store._writer.drain()
        assert manager.store.statistics["live_messages"] == 0
        assert manager.store.failures == 2
        manager.queue.clear()
        await manager.store.close()
        await log.writer.close()
        again = Manager(tmp_path)
        assert again.queue == {}
        await again.store.close()

    play(scenario)


def test_a_change_that_is_told_twice_counts_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        log.put()
        log.put()
        first, second = manager.claim(await log.news())
        for _ in range(3):
            await manager.store.record([finished(first.ref, first.id)])
        assert manager.store.statistics["live_messages"] == 1
        await manager.store.close()
        await log.writer.close()
        again = Manager(tmp_path)
        assert list(again.queue) == [second.ref]
        await again.store.close()

    play(scenario)


def test_a_large_text_that_cannot_be_synced_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def scenario() -> None:
        log = Log(tmp_path)
        draft = log.draft()
        body = log.writer.body(draft.id)
        body.write(b"x" * 300_000)
        with monkeypatch.context() as patch:
            patch.setattr(bodies, "sync_directory", fails)
            log.writer.put(Draft(draft.id, draft.envelope, draft.head, body), draft.id)
            await log.settled()
        ((tokens, arrivals, error),) = log.reports
        assert (tokens, arrivals) == ([draft.id], [])
        assert error is not None
        assert not error.full
        assert list(Folder(tmp_path).bodies.iterdir()) == []
        await log.writer.close()

    play(scenario)


def test_a_reader_never_gives_what_a_file_holds_in_a_later_life(tmp_path: Path) -> None:
    async def scenario() -> None:
        log, manager = Log(tmp_path), Manager(tmp_path)
        for _ in range(25):
            log.put(bytes(90_000))
        claimed = manager.claim(await log.news())
        reader = SpoolReader(tmp_path)
        first = claimed[0]
        assert reader.read(Ref(first.ref)).id == first.id
        await manager.finish(claimed)
        with pytest.raises(StoreError):
            manager.read(first.ref)
        for path in Folder(tmp_path).free.glob("spare-*"):
            path.unlink()
        await log.writer.close()
        log = Log(tmp_path)  # into the file that the reader has open
        log.put(b"of somebody else")
        await log.settled()
        with pytest.raises(StoreError):
            reader.read(Ref(first.ref))
        reader.close()
        await log.writer.close()
        await manager.store.close()

    play(scenario)


def test_a_length_that_lies_is_not_believed(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log(tmp_path)
        log.put()
        (arrival,) = await log.settled()
        await log.writer.close()
        with Folder(tmp_path).path(ref_segment(arrival.ref)).open("r+b") as file:
            file.seek(64 + 16)
            file.write(b"\xff\xff\xff\xff")
        reader = SpoolReader(tmp_path)
        with pytest.raises(StoreError, match="behind its segment"):
            reader.read(Ref(arrival.ref))
        reader.close()

    play(scenario)


def test_generations_grow_even_when_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()

    async def scenario() -> None:
        generations, floors = [], []
        for n in range(4):
            monkeypatch.setattr(writer.time, "time_ns", lambda n=n: now - n * 10**12)
            log = Log(tmp_path)
            assert log.writer._segment is not None
            generations.append(log.writer._segment.generation)
            floors.append(log.writer.floor)
            await log.writer.close()
        assert generations == sorted(set(generations))
        assert floors[1:] == [floors[1]] * 3, "the time of the first life holds"
        assert floors[1] > 0

    play(scenario)


def test_nothing_stays_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        for _ in range(3):
            log, manager = Log(tmp_path), Manager(tmp_path)
            for _ in range(30):
                log.put(bytes(90_000))
            for queued in manager.claim(await log.news()):
                manager.read(queued.ref)
            await manager.store.record([Change(ref=1, id=1, part=0, kind="held")])
            await log.writer.close()
            await manager.store.close()
        descriptors = Path("/proc/self/fd")
        paths = [os.readlink(fd) for fd in descriptors.iterdir() if fd.is_symlink()]
        assert [path for path in paths if path.startswith(str(tmp_path))] == []

    play(scenario)
