"""The pages that say which test shows what name tests that are there, in every row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = ("docs/interop.md", "docs/bad-input.md")
_TEST = re.compile(r"`(tests/[\w./-]+)(?:::(\w+))?`")


def rows(page: str) -> list[str]:
    """All rows of all tables, their heads left out."""
    lines = (ROOT / page).read_text().split("\n")
    heads = {number for number, line in enumerate(lines) if line.startswith("|---")}
    return [line for n, line in enumerate(lines) if line.startswith("|") and not {n, n + 1} & heads]


@pytest.mark.parametrize("page", PAGES)
def test_each_row_names_tests_that_are_there(page: str) -> None:
    found = rows(page)
    assert len(found) > 15
    for row in found:
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        named = _TEST.findall(cells[-1])
        assert len(cells) == 3, row
        assert named, row
        for path, name in named:
            assert (ROOT / path).exists(), row
            assert not name or name in functions(ROOT / path), row


def functions(module: Path) -> set[str]:
    tree = ast.parse(module.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
