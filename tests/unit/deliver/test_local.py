"""The local sinks: jobs in, results out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mta.deliver.local import DiscardSink, Maildirs, MaildirSink
from mta.deliver.maildir import Letter, MaildirWriter
from mta.model import Site, Status
from tests.kit.courier import Rig, run, until, verdicts


def maildir_rig(tmp_path: Path) -> tuple[Rig, MaildirSink, Maildirs]:
    rig = Rig(tmp_path)
    maildirs = Maildirs(rig.desk, MaildirWriter("me.example"))
    site = Site(name="m", kind="maildir", path=f"{tmp_path}/mail/{{domain}}/{{local}}")
    return rig, MaildirSink(rig.desk, maildirs, site), maildirs


def files(tmp_path: Path) -> int:
    return sum(1 for _ in tmp_path.rglob("new/*"))


def test_flood(tmp_path: Path) -> None:
    async def main() -> None:
        rig, sink, maildirs = maildir_rig(tmp_path)
        for i in range(200):
            sink.add(rig.mail(1, recipient=b"u%d@y" % (i % 7)))
        results = await rig.settled(200)
        assert all(r.outcomes == () for r in results)
        assert sink.unused
        assert files(tmp_path) == 200
        assert rig.counter("deliveries_done") == 200
        assert "@y> relay=maildir delay=" in rig.lines()[0]
        maildirs.close()

    run(main())


def test_recipients_fare_differently(tmp_path: Path) -> None:
    async def main() -> None:
        rig, sink, maildirs = maildir_rig(tmp_path)
        (tmp_path / "mail" / "y").mkdir(parents=True)
        (tmp_path / "mail" / "y" / "blocked").write_text("")
        ref = rig.reader.put(b"a@x", [b"good@y", b"blocked@y", b'"../../evil"@y', b"fine@y"], b"hi\r\n")
        sink.add([rig.job(ref)])
        (result,) = await rig.settled(1)
        assert verdicts(result) == [
            (Status.DELIVERED, 250, "2.0.0", (0, 3)),
            (Status.DEFERRED, 0, "4.3.0", (1,)),
            (Status.FAILED, 0, "5.1.1", (2,)),
        ]
        maildirs.close()

    run(main())


def test_unreadable_message(tmp_path: Path) -> None:
    async def main() -> None:
        rig, sink, maildirs = maildir_rig(tmp_path)
        jobs = rig.mail(3)
        rig.reader.damaged.add(1)
        sink.add(jobs)
        results = {r.slot: r for r in await rig.settled(3)}
        assert verdicts(results[101]) == [(Status.DEFERRED, 0, "4.3.0", ())]
        assert results[100].outcomes == results[102].outcomes == ()
        maildirs.close()

    run(main())


def test_stop_gives_back_what_no_thread_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        rig, sink, maildirs = maildir_rig(tmp_path)
        jobs = rig.mail(300)
        sink.add(jobs)
        sink.stop()
        await rig.settled(300)
        await until(lambda: sink.unused)
        untried = [r for r in rig.results if r.outcomes and r.outcomes[0].status == Status.UNTRIED]
        assert len(untried) == 300 - 2 * 64
        assert files(tmp_path) == 2 * 64
        maildirs.close()

    run(main())


def test_bug_in_the_thread_delivers_nothing_and_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MaildirWriter, letters: list[Letter], publishing: Callable[[], None]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MaildirWriter, "deliver", broken)

    async def main() -> None:
        rig, sink, maildirs = maildir_rig(tmp_path)
        sink.add(rig.mail(1))
        (result,) = await rig.settled(1)
        assert verdicts(result) == [(Status.DEFERRED, 0, "4.3.0", ())]
        maildirs.close()

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run(main())


def test_discard(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        sink = DiscardSink(rig.desk)
        jobs = rig.mail(2)
        rig.reader.damaged.add(1)
        sink.add(jobs)
        results = await rig.settled(2)
        assert results[0].outcomes == ()
        assert verdicts(results[1]) == [(Status.DEFERRED, 0, "4.3.0", ())]
        assert any(" delivered " in line and "relay=discard" in line for line in rig.lines())

    run(main())


@pytest.mark.parametrize("large", [False, True])
def test_what_was_delivered_here_before_goes_back(tmp_path: Path, large: bool) -> None:
    async def main() -> None:
        rig, sink, maildirs = maildir_rig(tmp_path)
        head, text = b"Received: x\r\n", b"Delivered-To: bob@y\r\nSubject: hi\r\n\r\nhi\r\n"
        if large:
            (tmp_path / "body").write_bytes(text)
        more: Any = {"file": tmp_path / "body", "size": len(head + text)} if large else {}
        ref = rig.reader.put(b"a@x", [b"BOB@y", b"eve@y"], head if large else head + text, **more)
        sink.add([rig.job(ref)])
        (result,) = await rig.settled(1)
        assert verdicts(result) == [(Status.FAILED, 0, "5.4.6", (0,)), (Status.DELIVERED, 250, "2.0.0", (1,))]
        assert files(tmp_path) == 1
        assert any(" class=loop " in line for line in rig.lines())
        maildirs.close()

    run(main())
