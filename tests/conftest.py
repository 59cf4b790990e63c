"""What all tests get: the words of a failed server beside its failure."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

_LAST = 20_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        for name in ("stderr", "mail.log"):
            for path in sorted(Path(folder).glob(f"**/{name}")) if folder else ():
                report.sections.append((f"{path}", path.read_text(errors="replace")[-_LAST:]))
    return report
