"""Letters on disk: whole, named as the convention says, synced before they are reported."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from mta.deliver import maildir
from mta.deliver.maildir import Letter, MaildirWriter, make_maildir, system_syncfs
from mta.model import Envelope, MessageId, Reply, Stored

NAME = re.compile(r"\d+\.M\d{1,6}P\d+Q\d+\.me\\057x\.example,S=(\d+)")


def stored(content: bytes, *, path: str = "", offset: int = 0, size: int = 0) -> Stored:
    envelope = Envelope(sender=b"", recipients=())
    return Stored(MessageId(1), envelope, content, path, offset, size or len(content))


def letter(base: Path, content: bytes = b"Subject: x\r\n\r\nhi\r\n", **more: Any) -> Letter:
    return Letter(str(base), b"a@x", b"b@y", stored(content, **more))


def texts(base: Path) -> list[bytes]:
    return [p.read_bytes() for p in sorted((base / "new").iterdir())]


@pytest.fixture(params=[True, False], ids=["syncfs", "fsync"])
def writer(request: pytest.FixtureRequest) -> MaildirWriter:
    return MaildirWriter("me/x.example", system_syncfs() if request.param else None)


def test_delivers_into_fresh_maildirs(writer: MaildirWriter, tmp_path: Path) -> None:
    bases = [tmp_path / "mail" / "y" / f"u{i % 4}" for i in range(10)]
    letters = [letter(base) for base in bases]
    writer.deliver(letters)
    assert [x.fault for x in letters] == [None] * 10
    text = b"Return-Path: <a@x>\nDelivered-To: b@y\nSubject: x\n\nhi\n"
    for base in set(bases):
        assert texts(base) == [text] * bases.count(base)
        assert sorted(p.name for p in base.iterdir()) == ["cur", "new", "tmp"]
        assert not list((base / "tmp").iterdir())
        for directory in (base, base / "new", base.parent, base.parent.parent):
            assert directory.stat().st_mode & 0o777 == 0o700
        for file in (base / "new").iterdir():
            match = NAME.fullmatch(file.name)
            assert match
            assert int(match[1]) == file.stat().st_size == len(text)
            assert file.stat().st_mode & 0o777 == 0o600


def test_null_sender(writer: MaildirWriter, tmp_path: Path) -> None:
    writer.deliver([Letter(str(tmp_path / "u"), b"", b"b@y", stored(b"\r\n"))])
    assert texts(tmp_path / "u") == [b"Return-Path: <>\nDelivered-To: b@y\n\n"]


@pytest.mark.parametrize("size", [262143, 262144, 262145, 600_000])
def test_large_text_keeps_every_octet_but_the_cr_of_line_ends(tmp_path: Path, size: int) -> None:
    text = (b"\r\r\n\n\rx" * 200_000)[: size - 4] + b"\r\n\r\n"
    file = tmp_path / "body"
    file.write_bytes(b"skip" + text)
    one = letter(tmp_path / "u", b"Head: x\r", path=str(file), offset=4, size=8 + len(text))
    MaildirWriter("h").deliver([one])
    assert one.fault is None
    wanted = b"Return-Path: <a@x>\nDelivered-To: b@y\n" + (b"Head: x\r" + text).replace(b"\r\n", b"\n")
    assert texts(tmp_path / "u") == [wanted]


def test_text_ending_in_cr_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"x\r")
    MaildirWriter("h").deliver([letter(tmp_path / "u", b"", path=str(file), size=2)])
    assert texts(tmp_path / "u")[0].endswith(b"x\r")


def test_short_file_is_not_delivered(writer: MaildirWriter, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"short")
    broken, good = letter(tmp_path / "u", b"", path=str(file), size=100), letter(tmp_path / "u")
    writer.deliver([broken, good])
    assert broken.fault is not None
    assert broken.fault.enhanced == "4.3.0"
    assert good.fault is None
    assert len(texts(tmp_path / "u")) == 1
    assert not list((tmp_path / "u" / "tmp").iterdir())


def test_maildir_removed_meanwhile_is_made_again(writer: MaildirWriter, tmp_path: Path) -> None:
    base = tmp_path / "u"
    writer.deliver([letter(base)])
    for path in sorted(base.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    base.rmdir()
    again = letter(base)
    writer.deliver([again])
    assert again.fault is None
    assert len(texts(base)) == 1


def test_one_bad_maildir_does_not_harm_the_others(writer: MaildirWriter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    bad = letter(tmp_path / "file" / "u")
    letters = [letter(tmp_path / "u1"), bad, letter(tmp_path / "u2"), letter(tmp_path / "u3")]
    writer.deliver(letters)
    assert bad.fault == Reply(0, "4.3.0", f"maildir {tmp_path}/file/u: Not a directory (errno 20)")
    assert [x.fault is None for x in letters] == [True, False, True, True]


@pytest.mark.parametrize(("code", "enhanced"), [(errno.ENOSPC, "4.3.1"), (errno.EDQUOT, "4.2.2"), (errno.EIO, "4.3.0")])
@pytest.mark.parametrize("call", ["write", "rename"])
def test_failing_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, code: int, enhanced: str) -> None:
    def fails(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    make_maildir(str(tmp_path / "u"))
    monkeypatch.setattr(os, call, fails)
    one = letter(tmp_path / "u")
    MaildirWriter("h").deliver([one])
    monkeypatch.undo()
    assert one.fault is not None
    assert one.fault.enhanced == enhanced
    assert str(tmp_path / "u") in one.fault.text
    assert not texts(tmp_path / "u")
    assert not list((tmp_path / "u" / "tmp").iterdir())


def test_failed_syncfs_delivers_nothing(tmp_path: Path) -> None:
    calls = []

    def syncfs(fd: int) -> None:
        calls.append(fd)
        if len(calls) == fail_at:
            raise OSError(errno.EIO, "Input/output error")

    for fail_at in (1, 2):
        calls.clear()
        letters = [letter(tmp_path / f"u{i}") for i in range(5)]
        MaildirWriter("h", syncfs).deliver(letters)
        assert [x.fault and x.fault.enhanced for x in letters] == ["4.3.0"] * 5
        assert len(calls) == fail_at
        assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_failed_fsync_delivers_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fail_at: int) -> None:
    calls = []

    def fsync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == fail_at:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(maildir.os, "fsync", fsync)
    one = letter(tmp_path / "u")
    MaildirWriter("h").deliver([one])
    assert one.fault is not None
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_everything_is_synced_before_it_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """INVARIANT of the module: text before the rename; `new` and what was made for it before the end."""
    order: list[str] = []
    rename, fsync = os.rename, os.fsync

    def noted_fsync(fd: int) -> None:
        order.append("sync " + os.readlink(f"/proc/self/fd/{fd}").removeprefix(f"{tmp_path}/"))
        fsync(fd)

    def noted_rename(old: str, new: str) -> None:
        order.append("rename")
        rename(old, new)

    monkeypatch.setattr(maildir.os, "fsync", noted_fsync)
    monkeypatch.setattr(maildir.os, "rename", noted_rename)
    writer = MaildirWriter("h")
    (tmp_path / "mail").mkdir()
    writer.deliver([letter(tmp_path / "mail" / "y" / "u")])
    assert order[0].startswith("sync mail/y/u/tmp/")
    assert order[1] == "rename"
    assert set(order[2:]) == {"sync mail/y/u/new", "sync mail/y/u", "sync mail/y", "sync mail"}
    order.clear()
    writer.deliver([letter(tmp_path / "mail" / "y" / "u")])
    assert order[1:] == ["rename", "sync mail/y/u/new"]


def test_slow_syncfs_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [100.0]
    calls = []

    def syncfs(fd: int) -> None:
        calls.append(fd)
        clock[0] += 3.0

    monkeypatch.setattr(maildir.time, "monotonic", lambda: clock[0])
    writer = MaildirWriter("h", syncfs)
    for _ in range(3):
        writer.deliver([letter(tmp_path / "u") for _ in range(5)])
    assert len(calls) == 1
    clock[0] += 100.0
    writer.deliver([letter(tmp_path / "u") for _ in range(5)])
    assert len(calls) == 2
    assert len(texts(tmp_path / "u")) == 20


def test_many_threads_into_the_same_maildirs(tmp_path: Path) -> None:
    writer = MaildirWriter("h", system_syncfs())
    batches = [[letter(tmp_path / f"u{i % 3}") for i in range(30)] for _ in range(4)]
    threads = [threading.Thread(target=writer.deliver, args=(b,)) for b in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(x.fault is None for b in batches for x in b)
    assert sum(len(texts(tmp_path / f"u{i}")) for i in range(3)) == 120
