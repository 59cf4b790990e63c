"""Which of our sessions leave a transcript, and what is in it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import Seconds, Trace
from mta.model import id_text
from mta.observe.transcripts import Transcript
from tests.kit.courier import Rig, run, smtp_site, until
from tests.kit.peer import CLOSE, Answer, Peer
from tests.unit.deliver.test_pool import closed_port, rig

REFUSED = {"RCPT": b"550 5.1.1 no\r\n"}


def kept(tmp_path: Path, peer: Peer, count: int = 1, **settings: Any) -> tuple[list[Transcript], Rig]:
    """What is left of the deliveries of so many messages."""
    found: list[Any] = []

    async def main() -> None:
        async with rig(tmp_path, peer, **settings) as (r, pool):
            pool.add(r.mail(count))
            await r.settled(count)
            await asyncio.sleep(0)
            found.extend((r.transcripts(), r))

    run(main())
    return found[0], found[1]


def said(transcript: Transcript) -> list[bytes]:
    return [line[3] for line in transcript.lines if line is not None]


def test_a_delivery_that_succeeds_leaves_none(tmp_path: Path) -> None:
    transcripts, _ = kept(tmp_path, Peer(), 5)
    assert transcripts == []


def test_a_refusal_leaves_the_session(tmp_path: Path) -> None:
    peer = Peer(REFUSED)
    (transcript,), r = kept(tmp_path, peer)
    assert transcript.why == "failed"
    assert transcript.messages == [id_text(r.reader.id(0))]
    assert transcript.peer == smtp_site((0, "127.0.0.1"), port=peer.port).name
    assert transcript.host == f"127.0.0.1[127.0.0.1]:{peer.port}"
    assert b"550 5.1.1 no" in said(transcript)
    assert any(line.startswith(b"RCPT TO:<b@") for line in said(transcript))
    assert transcript.session.startswith("C")


def test_a_flood_of_failures_is_one_session_with_the_last_messages(tmp_path: Path) -> None:
    transcripts, r = kept(tmp_path, Peer(REFUSED), 300)
    assert len(r.results) == 300
    assert 1 <= len(transcripts) <= 20
    assert all(0 < len(transcript.messages) <= 16 for transcript in transcripts)


@pytest.mark.parametrize(
    ("script", "why", "word"),
    [
        ({"EHLO": CLOSE, "HELO": CLOSE}, "ended", "closed"),
        ({"greeting": b"554 go away\r\n"}, "ended", "554 go away"),
        ({"MAIL": CLOSE}, "failed", "closed"),
        ({".": b"rubbish\r\n"}, "failed", "protocol"),
    ],
    ids=["EHLO", "greeting", "MAIL", "text"],
)
def test_a_session_that_breaks_off(tmp_path: Path, script: dict[str, Answer], why: str, word: str) -> None:
    transcripts, _ = kept(tmp_path, Peer(script))
    assert transcripts[-1].why == why
    assert transcripts[-1].over
    assert word in transcripts[-1].ended


def test_a_host_that_cannot_be_reached(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, site=smtp_site((0, "127.0.0.1"), port=closed_port())) as (r, pool):
            pool.add(r.mail(1))
            await r.settled(1)
            (transcript,) = r.transcripts()
            assert transcript.why == "unreachable"
            assert transcript.lines == []
            assert "refused" in transcript.ended

    run(main())


def test_tls_that_is_required_and_not_to_be_had(tmp_path: Path) -> None:
    transcripts, _ = kept(tmp_path, Peer(), tls="require")
    assert transcripts[-1].why == "unfit"
    assert "TLS is required" in transcripts[-1].ended


def test_successes_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    transcripts, r = kept(tmp_path, Peer(), 4, trace=Trace(failures=False, successes=2))
    messages = [message for transcript in transcripts for message in transcript.messages]
    assert messages == [id_text(r.reader.id(1)), id_text(r.reader.id(3))]
    assert {transcript.why for transcript in transcripts} == {"fine"}


def test_nothing_is_kept_where_nothing_is_wanted(tmp_path: Path) -> None:
    transcripts, _ = kept(tmp_path, Peer(REFUSED), trace=Trace(failures=False))
    assert transcripts == []


def test_an_answer_that_takes_long(tmp_path: Path) -> None:
    def late(_: str) -> bytes:
        time.sleep(0.05)  # both ends are in this process: for ours the answer is late, and nothing else
        return b"250 2.0.0 at last\r\n"

    async def main() -> None:
        trace = Trace(slow=Seconds(0.02))
        async with rig(tmp_path, Peer({".": late}), trace=trace, idle_timeout=60.0) as (r, pool):
            pool.add(r.mail(1))
            await r.settled(1)
            await until(lambda: bool(r.transcripts()))
            (transcript,) = r.transcripts()
            assert transcript.why == "slow"
            assert not transcript.over

    run(main())
