"""Results, log lines, counters."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from mta.deliver.work import Work
from mta.model import NOTIFY_FAILURE, NOTIFY_SUCCESS, LinkRecord, Outcome, Reply, Results, Status, id_text
from mta.net.link import BATCH, MAX_PACKET
from mta.net.seats import DELIVERED
from tests.kit.courier import Rig, run


def test_results_gather_and_leave_together(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        jobs = rig.mail(3)
        for job in jobs:
            work = Work(job, 0.0)
            work.address(rig.reader)
            rig.desk.report.delivered(work, "hop", "250 ok")
        assert rig.packets == []
        await rig.settled(3)
        assert [len(p.results) for p in rig.packets] == [3]

    run(main())


def test_full_batch_leaves_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        for job in rig.mail(BATCH):
            rig.desk.report.untried(Work(job, 0.0))
        assert len(rig.results) == BATCH
        await asyncio.sleep(0)

    run(main())


def test_packets_fit_the_link_whatever_was_said(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        reply = Reply(550, "5.1.1", "\U0001f4a9" * 300)
        worst = [Outcome(Status.FAILED, reply, "h" * 300, (i,)) for i in range(32)]
        for _ in range(60):
            ref = rig.reader.put(b"", [b"r%d@y" % i for i in range(40)], b"")
            rig.desk.report.settled(Work(rig.job(ref), 0.0), worst)
        rig.desk.report.flush()
        assert len(rig.results) == 60
        encode = msgspec.msgpack.Encoder().encode
        decode = msgspec.msgpack.Decoder(LinkRecord).decode
        for packet in rig.packets:
            assert len(encode(packet)) < MAX_PACKET
            assert isinstance(decode(encode(packet)), Results)

    run(main())


def test_log_lines_hold_no_surprises(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        ref = rig.reader.put(b"", [b'"a\nb"@x', b"c@x"], b"")
        work = Work(rig.job(ref), 0.0)
        work.address(rig.reader)
        rig.desk.report.delivered(work, "h", '250 "quoted"\nforged line')
        rig.desk.report.settled(work, [Outcome(Status.DEFERRED, Reply(0, "4.4.1", "no"))])
        rig.desk.report.flush()
        lines = sorted(rig.lines(), key=lambda line: " deferred " in line)
        assert len(lines) == 4
        name = id_text(rig.reader.id(ref))
        assert lines[0].split(" ", 1)[1].startswith(f'{name} delivered to=<"a\\x0ab"@x> relay=h delay=')
        assert lines[0].endswith("status=\"250 'quoted'\\x0aforged line\"")
        assert lines[3].split(" ", 1)[1].startswith(f"{name} deferred to=<c@x> relay=none delay=")
        assert lines[3].endswith(' class=connection status="4.4.1 no"')
        assert " class=" not in lines[0]
        assert rig.counter("deliveries_done") == rig.counter("deliveries_deferred") == 2
        rig.desk.report.flush()
        await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize(
    ("notify", "traced", "handed_on", "told"),
    [
        (0, False, False, False),
        (NOTIFY_FAILURE, False, False, False),
        (NOTIFY_SUCCESS, False, True, False),
        (NOTIFY_SUCCESS, False, False, True),
        (0, True, True, True),
    ],
)
def test_success_is_written_out_only_where_somebody_is_to_hear_of_it(
    tmp_path: Path, notify: int, traced: bool, handed_on: bool, told: bool
) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        (job,) = rig.mail(1)
        work = Work(job, 0.0)
        work.address(rig.reader)
        work.notify, work.traced = notify, traced
        rig.desk.report.delivered(work, "hop", "250 2.0.0 ok", dsn_handed_on=handed_on)
        rig.desk.report.flush()
        outcome = Outcome(Status.DELIVERED, Reply(250, "2.0.0", "ok"), "hop", dsn_handed_on=handed_on)
        assert [r.outcomes for r in rig.results] == [(outcome,) if told else ()]
        assert rig.desk.report.states[job.seat] == DELIVERED
        await asyncio.sleep(0)

    run(main())
