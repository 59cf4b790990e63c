"""The commit thread by itself: order, batches, failures, wake-ups."""

import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.spool._commit import Committer, scan
from mta.spool.format import MESSAGE, padded

Reports = list[tuple[int, int, int, int, int]]


@pytest.fixture
def committer() -> Iterator[Committer]:
    committer = Committer()
    yield committer
    committer.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "segment", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def append(committer: Committer, fd: int, offset: int, text: bytes, segment: int = 1) -> int:
    """The offset behind the record."""
    return offset + committer.append(fd, segment, offset, MESSAGE, 0, 9, offset, 5, (text[:3], text[3:]))


def collect(committer: Committer, records: int) -> Reports:
    """Wait for reports of so many records."""
    reports: Reports = []
    while sum(r[3] for r in reports) < records:
        assert select.select([committer.event], [], [], 10)[0], "the thread did not wake up"
        os.read(committer.event, 8)
        reports += committer.collect()
    return reports


def test_nothing_is_written_before_the_kick(committer: Committer, fd: int) -> None:
    append(committer, fd, 0, b"text")
    assert not select.select([committer.event], [], [], 0.05)[0]
    committer.kick()
    assert collect(committer, 1) == [(1, 0, padded(4), 1, 0)]


def test_records_lie_in_the_order_of_their_appending(committer: Committer, fd: int) -> None:
    offset = 0
    for n in range(500):
        offset = append(committer, fd, offset, b"%d" % n)
        committer.kick()
    reports = collect(committer, 500)
    assert [r[4] for r in reports] == [0] * len(reports)
    assert [r[1] for r in reports] == [0, *(r[2] for r in reports[:-1])]
    assert reports[-1][2] == offset
    found, end = scan(os.pread(fd, offset, 0), 9, 0)
    assert end == offset
    assert [id for _, _, at, _, id in found if at == id] == [at for _, _, at, _, _ in found]
    assert len(found) == 500
    assert committer.waiting == 0
    assert committer.statistics[:3] == (len(reports), offset, 0)


def test_a_kick_while_a_batch_is_written_does_not_swallow_the_next(committer: Committer, fd: int) -> None:
    offset = append(committer, fd, 0, bytes(20 << 20))
    committer.kick()
    while committer.waiting:
        committer.kick()
    collect(committer, 1)
    append(committer, fd, offset, b"next")
    committer.kick()
    assert len(collect(committer, 1)) == 1


def test_another_segment_is_another_batch(committer: Committer, fd: int) -> None:
    end = append(committer, fd, 0, b"one", segment=1)
    append(committer, fd, end, b"two", segment=2)
    committer.kick()
    assert [(r[0], r[1]) for r in collect(committer, 2)] == [(1, 0), (2, end)]


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"], ids=["write fails", "sync fails"])
def test_after_a_failure_the_segment_is_never_written_again(
    committer: Committer, fd: int, tmp_path: Path, device: str
) -> None:
    with open(device, "wb") as broken:
        end = append(committer, broken.fileno(), 0, b"lost")
        committer.kick()
        ((_, _, _, _, error),) = collect(committer, 1)
        assert error
    append(committer, fd, end, b"refused", segment=1)
    append(committer, fd, 0, b"good", segment=2)
    committer.kick()
    reports = collect(committer, 2)
    assert [bool(r[4]) for r in reports] == [True, False]
    assert scan(os.pread(fd, 4096, 0), 9, 0)[0][0][3] == 4
    assert os.fstat(fd).st_size == padded(4), "the refused record was not written"
    assert committer.statistics[2] == 2


def test_an_interval_answers_before_it_syncs(fd: int) -> None:
    committer = Committer(3_600_000_000_000)
    end = append(committer, fd, 0, b"text")
    committer.kick()
    assert collect(committer, 1) == [(1, 0, end, 1, 0)]
    assert committer.statistics[5] == 0
    append(committer, fd, 0, b"of the next segment", segment=2)
    committer.kick()
    collect(committer, 1)
    assert committer.statistics[5] == 1, "a segment is synced before the next is written"
    committer.close()
    assert committer.statistics[5] == 2, "and the last one at the end"


def test_an_interval_syncs_by_itself(fd: int) -> None:
    committer = Committer(1_000_000)
    append(committer, fd, 0, b"text")
    committer.kick()
    collect(committer, 1)
    deadline = time.monotonic() + 10
    while not committer.statistics[5]:
        assert time.monotonic() < deadline
    committer.close()
    assert committer.statistics[2:6:3] == (0, 1)


def test_a_failed_sync_of_an_interval_is_told_and_the_segment_left(fd: int) -> None:
    committer = Committer(1_000_000)
    with open("/dev/null", "wb") as broken:
        append(committer, broken.fileno(), 0, b"answered")
        committer.kick()
        reports = collect(committer, 1)
        while len(reports) < 2:  # the sync may have failed before the answer was collected
            assert select.select([committer.event], [], [], 10)[0]
            os.read(committer.event, 8)
            reports += committer.collect()
        answered, (segment, _, _, records, error) = reports
        assert answered[3:] == (1, 0)
        assert (segment, records) == (1, 0)
        assert error
        append(committer, broken.fileno(), 40, b"behind", segment=1)
        append(committer, fd, 0, b"good", segment=2)
        committer.kick()
        assert [bool(r[4]) for r in collect(committer, 2)] == [True, False]
    committer.close()


def test_a_read_only_descriptor_fails(committer: Committer, tmp_path: Path) -> None:
    path = tmp_path / "read-only"
    path.touch()
    with path.open("rb") as file:
        append(committer, file.fileno(), 0, b"text")
        committer.kick()
        assert collect(committer, 1)[0][4]
    assert path.read_bytes() == b""


def test_close_writes_what_waits(fd: int) -> None:
    committer = Committer()
    end = append(committer, fd, 0, b"text")
    committer.close()
    assert committer.collect() == [(1, 0, end, 1, 0)]
    with pytest.raises(ValueError, match="closed"):
        append(committer, fd, end, b"more")
    committer.close()


def test_the_thread_ends_with_its_object(fd: int) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    threads, files = held()
    for _ in range(5):
        committer = Committer()
        append(committer, fd, 0, b"text")
        del committer
    # Threads of other tests may still be ending.
    assert held()[0] <= threads
    assert held()[1] <= files
