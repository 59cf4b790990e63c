"""What the documents say of files is true, and the code keeps its sizes."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from mta.cli import main
from mta.queue.filter import parse_filter

ROOT = Path(__file__).parents[3]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
MODULES = sorted(ROOT.glob("mta/**/*.py"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_files_named_in_documents_exist(document: Path) -> None:
    named = re.findall(r"`((?:mta|tests|bench|docs|systemd|tools)/[\w./-]+)`", document.read_text())
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert not [link for link in links if not (document.parent / link).exists()]


def test_commands_shown_to_operators_are_understood() -> None:
    """Those with their output in docs/queue.md, and those in its table."""
    lines = (ROOT / "docs" / "queue.md").read_text().splitlines()
    shown = [line[6:].partition(" | ")[0] for line in lines if line.startswith("    $ mta ")]
    shown += [c for line in lines if line[:1] != " " for c in re.findall(r"`(mta [^`]*[^`=])`", line)]
    assert len(shown) > 20
    for command in shown:
        arguments, more = main._parser().parse_known_args(shlex.split(command)[1:])
        words = [*getattr(arguments, "words", []), *more]
        if "ID" not in words and (arguments.module, getattr(arguments, "action", "")) in _WITH_FILTERS:
            parse_filter(words or ["all"])


_ACTIONS = ("bounce", "count", "delete", "expire", "hold", "list", "release", "reroute", "retry")
_WITH_FILTERS = {("log", "find")} | {("queue", action) for action in _ACTIONS}


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_opens_with_what_it_is_for(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text()))


def test_no_module_and_no_function_outgrows_its_reader() -> None:
    long_modules = {m.name: n for m in MODULES if (n := len(m.read_text().splitlines())) > 700}
    long_functions = {
        f"{module.name}:{node.name}": size
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert not long_modules
    assert not long_functions
