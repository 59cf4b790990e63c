"""After each scenario no process that it started may live."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.waiting import wait_for


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    wait_for(lambda: not _processes(tmp_path), 10, f"the end of processes ({_processes(tmp_path)})")


def _processes(folder: Path) -> list[str]:
    """Those that have the folder of this test on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(str(folder).encode() in word for word in words):
                found.append(f"{entry.name}: {b' '.join(words).decode(errors='replace')}")
    return found
