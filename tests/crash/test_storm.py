"""kill -9 of random processes, over and over: nothing acknowledged is lost or altered."""

from pathlib import Path

import pytest

from tests.crash.conftest import Figures
from tests.crash.storm.ledger import Ledger
from tests.crash.storm.run import SERVICE, Plan, storm


def test_a_short_storm(tmp_path: Path, figures: Figures) -> None:
    plan = Plan(kills=12, messages=3000, queued=500, seed=7)
    result = storm(tmp_path, plan)
    figures("short kill storm", str(result).removeprefix("kill storm: "))
    assert result.kills.total() >= plan.kills
    assert result.account.acknowledged >= plan.messages + plan.queued
    # How many come twice is for the full storm.
    problems = [text for text in result.problems if "duplicates" not in text]
    assert not problems, f"{result}\n{problems[:20]}"
    assert result.account.doubled <= result.in_flight, result


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_storm(tmp_path: Path, figures: Figures) -> None:
    result = storm(tmp_path, Plan(kills=500, messages=200_000, queued=10_000, seed=500))
    figures("kill storm", f"{str(result).removeprefix('kill storm: ')} (bar on a quiet machine: {SERVICE:g} s)")
    assert not result.problems, f"{result}\n{result.problems[:20]}"


def test_the_books_find_what_is_wrong() -> None:
    ledger = Ledger()
    here = (b"a.test",)
    both = (b"a.test", b"b.test")
    whole, changed, doubled, half, silent, gone = [
        ledger.enter(b"\r\nbody %d\r\n" % n, both if n == 3 else here) for n in range(6)
    ]
    for message in (whole, changed, doubled, half, gone):
        ledger.promised(message[0], f"id{message[0]}")
    for text in (whole[1], doubled[1], doubled[1], half[1], silent[1], changed[1].replace(b"body", b"Body")):
        ledger.arrived(b"Received: from a test\r\n" + text, b"a.test")
    account = ledger.account()
    assert account.lost == ["token 3 at b.test (id id3)", "token 5 at a.test (id id5)"]
    assert [text.split(" at ")[0] for text in account.altered] == ["token 1"]
    assert account.doubled == 1
    assert (account.acknowledged, account.open, account.arrived_open) == (5, 1, 1)
