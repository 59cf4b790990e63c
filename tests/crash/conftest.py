"""What the crash tests found, in one table at the end of a run; `--figures FILE` keeps it as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Figures = Callable[[str, str], None]
_FOUND = "found"  # the name of a property of a test's report: it comes back from whichever process ran the test


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="write what the crash tests found there, as a Markdown table")


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """Call it with the name of a test and what it found, before anything is asserted about it."""

    def tell(test: str, found: str) -> None:
        record_property(_FOUND, (test, found))

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == _FOUND
    ]
    if not rows:
        return
    lines = ["| test | what it found |", "|---|---|", *(f"| {test} | {found} |" for test, found in rows)]
    path: Path | None = config.getoption("--figures", default=None)  # the option is there when this folder was named
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    terminalreporter.section("crash tests")
    for test, found in rows:
        terminalreporter.write_line(f"{test}: {found}")
