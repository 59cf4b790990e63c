"""The unit files: systemd itself must find nothing wrong with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "systemd"


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is missing: apt-get install systemd")
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    for unit in ("mta.service", "mta.socket"):
        # the program need not be installed where the test runs
        text = (UNITS / unit).read_text().replace("/opt/mta/bin/mta", "/bin/true")
        (tmp_path / unit).write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "mta." in line]
    assert complaints == []
    assert done.returncode == 0, done.stderr


def test_every_port_is_open_for_both_families() -> None:
    lines = (UNITS / "mta.socket").read_text().splitlines()
    streams = {line.partition("=")[2] for line in lines if line.startswith("ListenStream=")}
    assert streams == {f"{host}:{port}" for host in ("0.0.0.0", "[::]") for port in (25, 587, 465, 2525)}
