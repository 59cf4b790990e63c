"""Medians, ratios and bars, and how they are told."""

from __future__ import annotations

import json

import pytest

from bench.bars import BARS, judge
from bench.measure import Job, Measure
from bench.report import Outcome, as_json, page, rows

JOB = Job("accept", 5000)


def measure(server: str, rate: float, cpu: float, p50: float | None = None) -> Measure:
    return Measure(server, seconds=1.0, rate=rate, cpu_per_1000=cpu, p50_ms=p50)


def compared(job: Job, rate: float, cpu: float) -> Outcome:
    """Ours so many times faster and cheaper than the other."""
    ours = [measure("mta", rate * factor, 1.0 / cpu) for factor in (90, 100, 300)]
    return Outcome(job, {"mta": ours, "postfix": [measure("postfix", 100, 1.0)]})


def test_the_median_of_the_rounds_counts() -> None:
    outcome = Outcome(JOB, {"mta": [measure("mta", 1, 3), measure("mta", 900, 2), measure("mta", 30, 1)]})
    assert outcome.median("mta", "rate") == 30
    assert outcome.median("mta", "cpu_per_1000") == 2
    assert outcome.median("mta", "p50_ms") is None


def test_a_round_without_latency_does_not_count_for_it() -> None:
    outcome = Outcome(JOB, {"mta": [measure("mta", 1, 1), measure("mta", 1, 1, p50=4.0)]})
    assert outcome.median("mta", "p50_ms") == 4.0


def test_ratios_are_of_the_medians() -> None:
    assert compared(JOB, 7, 14).ratios() == pytest.approx({"rate": 7, "cpu": 14})


def test_one_server_alone_has_no_ratio_and_no_verdict() -> None:
    outcome = Outcome(JOB, {"mta": [measure("mta", 10, 1)]})
    assert outcome.ratios() == {}
    assert outcome.verdicts() == []


@pytest.mark.parametrize("workload", BARS)
def test_a_bar_is_reached_from_its_own_value_on(workload: str) -> None:
    job, bar = Job(workload, 5000), BARS[workload]
    assert [verdict.reached for verdict in judge(job, {"rate": bar.rate, "cpu": bar.cpu})] == [True, True]
    assert [verdict.reached for verdict in judge(job, {"rate": bar.rate - 0.1, "cpu": bar.cpu})] == [False, True]
    assert [verdict.reached for verdict in judge(job, {"rate": bar.rate, "cpu": bar.cpu - 0.1})] == [True, False]


@pytest.mark.parametrize("job", [Job("accept", 1, sessions=1), Job("accept", 1, reuse=False), Job("relay", 1, size=9)])
def test_other_loads_have_no_bar(job: Job) -> None:
    assert judge(job, {"rate": 1.0, "cpu": 1.0}) == []


@pytest.mark.parametrize(("megabytes", "reached"), [(10.0, True), (10.1, False)])
def test_idle_sessions_are_judged_by_memory(megabytes: float, reached: bool) -> None:
    outcome = Outcome(Job("idle", 0, 1000), {"mta": [Measure("mta", megabytes=megabytes)]})
    assert [verdict.reached for verdict in outcome.verdicts()] == [reached]


def test_the_terminal_is_told_ratio_and_bars() -> None:
    text = "\n".join(rows(compared(JOB, 7, 11)))
    assert "rate x7.0, CPU /11.0" in text
    assert "bar reached (rate at least x6)" in text
    assert "bar missed (CPU at most 1/12)" in text


def test_the_page_has_machine_method_and_every_server() -> None:
    text = page([compared(JOB, 7, 14)], {"disk": "ext4"}, "python -m bench accept")
    assert "| disk | ext4 |" in text
    assert "- **accept**: " in text
    assert "- **relay**: " not in text
    assert "| mta | 700 | 0.071 |" in text
    assert "| postfix | 100 | 1.000 |" in text
    assert text.count("bar reached") == 2


def test_the_json_survives_a_round_trip() -> None:
    told = json.loads(json.dumps(as_json([compared(JOB, 7, 14)], {"disk": "ext4"})))
    (run,) = told["runs"]
    assert run["job"]["workload"] == "accept"
    assert run["servers"]["mta"]["rate"] == 700
    assert [bar["reached"] for bar in run["bars"]] == [True, True]
