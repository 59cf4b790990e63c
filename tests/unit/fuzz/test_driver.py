"""The fuzz driver: it finds what there is to find, and says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import driver

TARGET = """
import mta.protocol.paths as paths

WATCHED = ("mta.protocol",)
LONGEST = 40
TOKENS = [b"@", b"<", b">", b"[IPv6:"]
LEAKED = []


def seeds():
    yield b"<a@b.test>"


def check(data):
    found = paths.parse_path(data)
    {fault}
"""


def run(folder: Path, fault: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("atheris")
    name = f"target_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(TARGET.format(fault=fault))
    command = [sys.executable, "-m", "tests.fuzz.driver", name, "--inputs", "3000"]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command,
        cwd=driver.ROOT,
        env={**os.environ, "PYTHONPATH": path, "MTA_FUZZ_FOUND": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
def test_a_sound_target(tmp_path: Path) -> None:
    done = run(tmp_path, "pass")
    assert done.returncode == 0, done.stdout
    assert ": 3000 inputs in " in done.stdout
    assert done.stdout.endswith("no fault\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ('assert not found or b"IPv6" not in data, "literals"', "literals"),
        ("assert not found or found[0], 'null path'", "null path"),
        ("import os; found and os.abort()", "deadly signal"),
        ("LEAKED.append(bytearray(10_000)) if found else None", "grow"),
    ],
    ids=["assertion", "another", "abort", "leak"],
)
def test_a_fault_is_found(tmp_path: Path, fault: str, words: str) -> None:
    done = run(tmp_path, fault)
    assert done.returncode == 1
    assert words in done.stdout
