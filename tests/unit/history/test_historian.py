"""From the log to the databases and to an answer: nothing is lost or doubled, whatever happens to either."""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mta.config.settings import History, Octets, Seconds
from mta.history import archive as archive_module
from mta.history.archive import files
from mta.history.find import Finder, Row
from mta.history.historian import Historian
from mta.history.partition import Partition
from tests.kit.maillog import Log

DAY = 86400.0


class Office:
    """A log, its historian, and who asks; one clock for all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Log(folder / "mail.log")
        self.settings = History(keep=Seconds(7 * DAY), size=Octets(1 << 30))
        self.said: list[str] = []
        self.roomy = True
        self._historian: Historian | None = None

    @property
    def historian(self) -> Historian:
        if self._historian is None:
            self._historian = Historian(
                self.log.path,
                self.folder / "history",
                self.settings,
                say=self.said.append,
                room=lambda: self.roomy,
                clock=lambda: self.log.now,
            )
        return self._historian

    def turn(self) -> int:
        self._date()
        return self.historian.turn()

    def _date(self) -> None:
        """Files that were written now are of now."""
        for path in self.folder.iterdir():
            if path.is_file() and path.stat().st_mtime < self.log.now - 30 * DAY:
                os.utime(path, (self.log.now, self.log.now))

    def die(self) -> None:
        """Its successor begins with what is on disk."""
        if self._historian is not None:
            self._historian.close()
        self._historian = None

    def ask(self, look: Callable[[Finder], Iterator[Row]], *, rest: bool = True) -> list[Row]:
        self._date()
        log = self.log.path if rest else None
        with Finder(self.folder / "history", log, self.settings.keep, self.log.now, self.said.append) as finder:
            return list(look(finder))

    def find(self, *words: str, limit: int = 0, rest: bool = True) -> list[Row]:
        return self.ask(lambda finder: finder.endings(words or ("all",), limit), rest=rest)

    def recipients(self, *words: str, rest: bool = True) -> list[object]:
        """Of what is found, oldest first."""
        return [row["recipient"] for row in reversed(self.find(*words, rest=rest))]

    @property
    def files(self) -> list[Path]:
        return files(self.folder / "history")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    yield office
    office.die()


def test_what_is_logged_is_found_before_and_after_it_is_filed(office: Office) -> None:
    name = office.log.mail("a@x.test", "b@y.test")
    before = office.find()
    assert office.turn() == 1
    assert office.find(rest=False) == before
    (row,) = office.find()
    assert row == {
        "id": name,
        "state": "delivered",
        "at": 1_800_000_000.25,
        "arrived": 1_800_000_000.0,
        "sender": "a@x.test",
        "recipient": "b@y.test",
        "client": "192.0.2.1",
        "size": 1000,
        "site": "mx.test[192.0.2.9]:25",
        "attempts": 1,
        "class": "",
        "reply": "250 2.0.0 ok",
        "notes": "",
    }
    assert office.turn() == 0


def test_mail_that_ends_later_knows_where_it_came_from(office: Office) -> None:
    name = office.log.received("a@x.test", "b@y.test")
    office.turn()
    office.log.now += 600
    office.log.deferred(name, "b@y.test", "451 4.7.1 greylisted")
    office.turn()
    office.log.now += 2 * DAY
    office.turn()
    office.log.bounced(name, "b@y.test", "550 5.1.1 no such user")
    for filed in (False, True):
        (row,) = office.find("attempts=2 class=unknown-user")
        assert (row["sender"], row["attempts"], row["state"]) == ("a@x.test", 2, "bounced"), filed
        office.turn()
    assert len(office.files) > 1, "it went over two files"


def test_half_a_line_waits_for_its_other_half(office: Office) -> None:
    office.log.mail("a@x.test", "b@y.test")
    whole = office.log.path.read_text()
    for cut in (len(whole) - 1, len(whole) - 30, 10):
        office.log.path.write_text(whole[:cut])
        office.turn()
        assert office.recipients() == []
    office.log.path.write_text(whole)
    office.turn()
    assert office.recipients() == ["b@y.test"]


def moved(path: Path) -> None:
    path.rename(path.with_name("mail.log.1"))


def packed(path: Path) -> None:
    with gzip.open(path.with_name("mail.log.1.gz"), "wb") as file:
        file.write(path.read_bytes())
    path.unlink()


def copied_and_emptied(path: Path) -> None:
    shutil.copy2(path, path.with_name("mail.log.1"))
    os.truncate(path, 0)


def moved_elsewhere(path: Path) -> None:
    path.rename(path.parent / "old.txt")


@pytest.mark.parametrize("rotate", [moved, packed, copied_and_emptied, moved_elsewhere])
@pytest.mark.parametrize("filed", [True, False])
def test_rotation(office: Office, rotate: Callable[[Path], None], filed: bool) -> None:
    """In the middle of a file, with lines that nobody has read: each is read once."""
    office.log.mail("a@x.test", "one@y.test")
    office.turn()
    office.log.mail("a@x.test", "two@y.test")
    rotate(office.log.path)
    office.log.now += 60
    office.log.mail("a@x.test", "three@y.test")
    if filed:
        office.turn()
        office.turn()
    elif rotate is moved_elsewhere:
        return  # who asks has not kept it open: that is what the historian is for
    assert office.recipients() == ["one@y.test", "two@y.test", "three@y.test"]


def test_the_rest_of_a_file_that_was_moved_away(office: Office) -> None:
    """Writers go on with the old file until they are told."""
    office.log.mail("a@x.test", "one@y.test")
    office.turn()
    office.log.path.rename(office.folder / "mail.log.1")
    office.turn()
    old = Log(office.folder / "mail.log.1", office.log.now)
    old.mail("a@x.test", "two@y.test")
    office.turn()
    assert office.recipients(rest=False) == ["one@y.test", "two@y.test"]


def test_a_successor_goes_on_where_the_one_before_was_killed(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.log.mail("a@x.test", "one@y.test")
    office.turn()
    office.log.mail("a@x.test", "two@y.test")
    office.log.mail("a@x.test", "three@y.test")

    def killed(self: Partition, positions: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Partition, "_note", killed)
        with pytest.raises(KeyboardInterrupt):
            office.turn()
    office.die()
    assert office.recipients() == ["one@y.test", "two@y.test", "three@y.test"]
    office.turn()
    assert office.recipients(rest=False) == ["one@y.test", "two@y.test", "three@y.test"]


def test_what_is_too_old_goes(office: Office) -> None:
    for day in range(12):
        office.log.mail("a@x.test", f"{day}@y.test")
        office.turn()
        office.log.now += DAY
    office.turn()
    assert office.recipients() == [f"{day}@y.test" for day in range(6, 12)], "the filter knows the time exactly"
    assert len(office.files) <= 10, "and files go as a whole"


def test_the_history_has_a_size(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_LARGEST", 100 << 10)  # octets
    monkeypatch.setattr(office, "settings", History(keep=Seconds(7 * DAY), size=Octets(400 << 10)))
    for number in range(20):
        for _ in range(10):
            office.log.mail("a@x.test", f"{number}-{'x' * 5000}@y.test")
        office.turn()
    assert sum(path.stat().st_size for path in office.files) <= 500 << 10
    assert len(office.files) > 2
    kept = office.recipients(rest=False)
    assert kept[-1] == f"19-{'x' * 5000}@y.test"
    assert len(kept) < 200


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 200] = b"\xff" * 200
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [damage, lambda path: os.truncate(path, 5000), lambda path: path.write_bytes(b"no")])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_file_is_made_anew(office: Office, harm: Callable[[Path], None], which: int) -> None:
    for day in range(3):
        for number in range(20):
            office.log.mail("a@x.test", f"{day}-{number}@y.test")
        office.turn()
        office.log.now += DAY
    every = office.recipients()
    assert len(every) == 60
    assert len(office.files) == 3
    office.die()
    harm(office.files[which])
    office.find()
    for _ in range(4):
        office.turn()
    assert office.recipients() == every
    assert [said for said in office.said if said.startswith("history") and "is damaged" in said]
    assert len(list((office.folder / "history").glob("*.damaged"))) == 1


def test_who_asks_is_told_of_a_damaged_file_and_gets_the_rest(office: Office) -> None:
    office.log.mail("a@x.test", "one@y.test")
    office.turn()
    office.log.now += DAY
    office.turn()
    office.log.mail("a@x.test", "two@y.test")
    office.turn()
    office.die()
    office.files[0].write_bytes(b"no database" * 1000)
    assert office.recipients() == ["two@y.test"]
    assert any("cannot be read" in said for said in office.said)


def test_a_full_disk_is_told_once_and_gone_through_later(office: Office) -> None:
    office.log.mail("a@x.test", "one@y.test")
    office.roomy = False
    assert [office.turn(), office.turn()] == [0, 0]
    assert len(office.said) == 1
    assert office.recipients() == ["one@y.test"]
    office.roomy = True
    assert office.turn() == 1


def test_a_write_that_fails_takes_nothing_in(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.log.mail("a@x.test", "one@y.test")
    office.turn()
    office.log.mail("a@x.test", "two@y.test")

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Partition, "_note", full)
        assert office.turn() == 0
        assert office.turn() == 0
    assert office.said == ["history: database or disk is full"]
    assert office.recipients(rest=False) == ["one@y.test"]
    office.turn()
    assert office.recipients(rest=False) == ["one@y.test", "two@y.test"]


def test_a_log_that_cannot_be_read_is_told_of(office: Office) -> None:
    office.log.path.write_text("x")
    shutil.rmtree(office.folder / "gone", ignore_errors=True)
    office.log.path = office.folder / "gone" / "mail.log"
    assert office.historian.turn() == 0
    assert office.said == [f"history: {office.folder / 'gone'}: No such file or directory"]


def test_filters(office: Office) -> None:
    log = office.log
    first = log.mail("News@X.test", "b@y.test")
    log.now += 3600
    second = log.received("", "c@Z.test", size=2 << 20)
    log.deferred(second, "c@Z.test", "451 4.7.1 greylisted, come back")
    log.bounced(second, "c@Z.test", "552 5.2.2 mailbox is full", hop="mx9[192.0.2.4]:25")
    office.turn()

    def found(words: str) -> list[object]:
        return [row["id"] for row in office.find(words)]

    for words in (
        f"id={first}",
        "sender=news@x.test",
        "sender=news@*",
        "recipient=B@y.test",
        "domain=y.*",
        "state=delivered",
        "size<2000",
        "age>30m",
        "attempts=1",
        "not state=bounced",
        "reply~ok$",
        "site=mx.test*",
        "client=192.0.2.1 (recipient=b@* or recipient=x)",
        "age>=3600",
    ):
        assert found(words) == [first], words
    for words in (
        f"id={second}",
        "sender=",
        "domain=z.test",
        "class=mailbox-full",
        "state=bounced attempts>1",
        "size>=2M",
        "age<1m",
        "site=mx9*",
        "reply!~ok",
        "sender!=news@x.test",
        "time>2027-01-15T08:30:00Z",
    ):
        assert found(words) == [second], words
    assert found("all") == [second, first]
    assert [row["id"] for row in office.find("all", limit=1)] == [second]
    for wrong in ("state=held", "next<1m", "time>yesterday", "x=y"):
        with pytest.raises(ValueError):
            office.find(wrong)


def test_refusals(office: Office) -> None:
    office.log.line(
        "S1APN00000000",
        "refused",
        'client=192.0.2.7 helo=h verb=RCPT from=<a@x> path="TO:<v@y.test>" reply="550 5.7.1 relaying is not permitted"',
    )
    for filed in (False, True):
        for words in ("client=192.0.2.7", "recipient=V@y.test", "domain=y.test verb=rcpt", "reply~relaying", "class=*"):
            (row,) = office.ask(lambda finder, words=words: finder.refusals([words]))  # type: ignore[misc]
            assert (row["session"], row["verb"], row["sender"]) == ("S1APN00000000", "RCPT", "a@x"), filed
        assert not office.ask(lambda finder: finder.refusals(["client=192.0.2.8"]))
        office.turn()


def test_the_story_of_a_message(office: Office) -> None:
    name = office.log.received("a@x.test", "b@y.test")
    office.turn()
    for reply in ("421 busy", "451 busy"):
        office.log.now += 60
        office.log.deferred(name, "b@y.test", reply)
        office.turn()
        office.log.now += DAY
        office.turn()
    office.log.deferred(name, "b@y.test", "450 busy")
    steps = office.ask(lambda finder: iter(finder.steps(name)))
    assert [step["text"] for step in steps] == ["421 busy", "451 busy", "450 busy"]


def test_an_old_file_that_cannot_be_read_keeps_nothing_back(office: Office) -> None:
    (office.folder / "mail.log.2.gz").write_bytes(b"no gzip at all, but long enough to be looked at")
    office.log.mail("a@x.test", "one@y.test")
    assert [office.turn(), office.turn()] == [1, 0]
    assert office.recipients(rest=False) == ["one@y.test"]
    assert [said for said in office.said if "mail.log.2.gz" in said] == office.said
    assert len(office.said) == 1
    assert office.recipients() == ["one@y.test"]
