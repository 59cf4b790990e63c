"""What the words of the command line come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import jobs, missed, parse, peer_job
from bench.measure import Job, Measure
from bench.postfix import Package
from bench.report import Outcome
from bench.server import BenchError

PACKAGE = Package(Path("/nowhere"))


def test_defaults() -> None:
    (job,) = jobs(parse(["accept"]), None)
    assert job == Job("accept", 5000, sessions=20, size=4096, reuse=True, pipelined=False, generator="own")


def test_every_word_reaches_the_job() -> None:
    words = "relay --messages 7 --sessions 3 --size 99 --no-reuse --pipelined --generator own"
    assert jobs(parse(words.split()), PACKAGE) == [Job("relay", 7, 3, 99, False, True, "own")]


def test_tls_is_for_the_own_server_and_generator() -> None:
    assert jobs(parse(["accept", "--tls", "starttls"]), PACKAGE) == [Job("accept", 5000, tls="starttls")]
    for words in (["--against", "postfix"], ["--server", "postfix"], ["--generator", "postfix"]):
        with pytest.raises(BenchError, match="without TLS"):
            jobs(parse(["accept", "--tls", "implicit", *words]), PACKAGE)


@pytest.mark.parametrize(("words", "resumed"), [([], False), (["--reuse"], True), (["--no-reuse"], False)])
def test_handshakes_are_full_ones(words: list[str], resumed: bool) -> None:
    assert jobs(parse(["handshakes", *words]), PACKAGE) == [
        Job("handshakes", 5000, sessions=8, reuse=resumed, tls="implicit")
    ]


@pytest.mark.parametrize("workload", ["accept", "relay"])
def test_the_neutral_generator_is_taken_where_there_is_one(workload: str) -> None:
    assert [job.generator for job in jobs(parse([workload]), PACKAGE)] == ["postfix"]


@pytest.mark.parametrize("words", [["maildir"], ["accept", "--pipelined"]])
def test_what_it_cannot_do_is_left_to_the_own_one(words: list[str]) -> None:
    assert [job.generator for job in jobs(parse(words), PACKAGE)] == ["own"]
    with pytest.raises(BenchError, match="--generator own"):
        jobs(parse([*words, "--generator", "postfix"]), PACKAGE)


def test_idle_means_a_thousand_sessions() -> None:
    (job,) = jobs(parse(["idle"]), None)
    assert job.sessions == 1000


def test_all_has_each_workload() -> None:
    assert {job.workload for job in jobs(parse(["all"]), None)} == {"accept", "relay", "maildir", "idle"}


def test_the_peer_gets_the_same_load_in_fewer_messages() -> None:
    job = Job("accept", 5000, sessions=7)
    assert peer_job(job, parse(["accept"])) == Job("accept", 3000, sessions=7)
    assert peer_job(job, parse(["accept", "--peer-messages", "10"])).messages == 10


def test_a_missed_bar_is_noticed() -> None:
    heavy = Outcome(Job("idle", 0, 1000), {"mta": [Measure("mta", megabytes=11)]})
    light = Outcome(Job("idle", 0, 1000), {"mta": [Measure("mta", megabytes=2)]})
    assert missed([light, heavy])
    assert not missed([light])


@pytest.mark.parametrize("words", [["dance"], [], ["accept", "--against", "exim"], ["accept", "--messages", "many"]])
def test_nonsense_is_refused_with_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(words)
    assert "usage: python -m bench" in capsys.readouterr().err
