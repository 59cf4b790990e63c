"""docs/protocol.md is true: what it names is there, and what the code cites it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "docs/protocol.md"
ROOMS = ("protocol", "mail", "net", "policy", "receive", "queue", "deliver")
SOURCES = [ROOT / "mta/_fastparse.pyx", *sorted(path for room in ROOMS for path in ROOT.glob(f"mta/{room}/**/*.py"))]

_SECTION = r"(?:§|[Aa]ppendix )([0-9A-Z]+(?:\.[0-9]+)*)"
_CITED = re.compile(rf"RFC\s+(\d+)((?:\s*(?:,|and|to)?\s*{_SECTION})*)")
_TEST = re.compile(r"`(tests/[\w./-]+?\.py)::(\w+)`")

Citation = tuple[str, str]  # RFC and section; "" for all of it


def citations(text: str) -> set[Citation]:
    """Each RFC with each of its sections in a text; comments may break the line in between."""
    found: set[Citation] = set()
    for number, sections in re.findall(_CITED.pattern.replace(_SECTION, _SECTION.replace("([", "(?:[")), text):
        found |= {(number, section) for section in re.findall(_SECTION, sections) or [""]}
    return found


def rows() -> list[list[str]]:
    lines = [line for line in TABLE.read_text().split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def covered(citation: Citation, table: set[Citation]) -> bool:
    number, section = citation
    if not section:
        return any(rfc == number for rfc, _ in table)
    parts = section.split(".")
    return any((number, ".".join(parts[:depth])) in table for depth in range(len(parts) + 1))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_is_whole(row: list[str]) -> None:
    assert len(row) == 4, "RFC and section, what, where, test"
    assert citations(row[0]), f"{row[0]!r} names no RFC"
    assert re.findall(r"`mta/[\w./-]+`", row[2]), f"{row[0]} names no code"
    assert re.findall(r"`tests/[\w./-]+(?:::\w+)?`", row[3]), f"{row[0]} names no test"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_what_a_row_names_is_there(row: list[str]) -> None:
    names = re.findall(r"`((?:mta|tests)/[\w./-]+)(?:::\w+)?`", " ".join(row))
    assert not [name for name in names if not (ROOT / name).exists()]
    for path, name in _TEST.findall(row[3]):
        tree = ast.parse((ROOT / path).read_text())
        defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in defined, f"{path} has no {name}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_code_cites_has_a_row(source: Path) -> None:
    table = {citation for row in rows() for citation in citations(row[0])}
    cited = citations(re.sub(r"\n\s*(?:# ?|\* ?)?", " ", source.read_text()))
    assert not {f"RFC {rfc} §{section}" for rfc, section in cited if not covered((rfc, section), table)}


def test_citations_are_read_in_every_form() -> None:
    text = "RFC 5321 §4.1.1.3, Appendix C; RFC 4616, RFC 2920 §3.1 and §3.2 (RFC 1870)"
    assert citations(text) == {
        *(("5321", "4.1.1.3"), ("5321", "C"), ("4616", ""), ("2920", "3.1"), ("2920", "3.2"), ("1870", ""))
    }


def test_a_row_stands_for_what_is_below_it_alone() -> None:
    table = {("1", "4.1"), ("2", "")}
    assert covered(("1", "4.1.2"), table)
    assert covered(("1", ""), table)
    assert covered(("2", "9"), table)
    assert not covered(("1", "4"), table)
    assert not covered(("1", "4.10"), table)
    assert not covered(("3", ""), table)
