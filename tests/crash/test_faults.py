"""Every call of the spool fails once, and for good: no false 250, nothing lost, no exception, well again afterwards."""

import json
from pathlib import Path

import pytest

from tests.crash.conftest import Figures
from tests.crash.faults.sweep import ERRORS, preloaded
from tests.kit.programs import need
from tests.kit.server import ROOT

_LONG = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(
    ("errors", "step", "least"),
    [(["EIO", "ENOSPC", "EMFILE"], 7, 60), pytest.param(list(ERRORS), 1, 1000, marks=_LONG)],
)
def test_calls_fail(tmp_path: Path, figures: Figures, errors: list[str], step: int, least: int) -> None:
    words = ["--errors", *errors, "--step", str(step)]
    done = preloaded(tmp_path, need("gcc"), words, capture_output=True, cwd=ROOT)
    result = json.loads(done.stdout)
    figures(
        f"fault injection, {len(errors)} errors",
        f"{result['runs']} runs with one call that fails: {result['acknowledged']} messages acknowledged, all of them"
        f" there; {result['refused']} refused; {len(result['problems'])} problems",
    )
    assert result["problems"] == [], result["problems"][:5]
    assert done.returncode == 0, done.stderr
    assert result["runs"] >= least
    assert result["acknowledged"] > 0
    assert result["refused"] > 0
