"""`mta suppress`: words, exit codes, and what is on the list then."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.cli.main import main
from mta.config.settings import Suppression as Settings
from mta.control.client import Client, Refused
from mta.control.verbs import VERBS
from mta.queue.suppression import Suppression
from mta.queue.suppression_desk import SuppressionDesk
from tests.kit.operator import Control, FakeOperator

CONFIG = '[server]\nhostname = "mx.example.org"\n[[listener]]\naddress = "127.0.0.1:2525"\n'
NOW = 1_795_000_000
Output = pytest.CaptureFixture[str]


class WithList(FakeOperator):
    """An operator of nothing but a suppression list."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.list = Suppression(Settings(), path, lambda: NOW)
        self.lines: list[str] = []

    @property
    def suppression(self) -> SuppressionDesk:
        return SuppressionDesk(self.list, lambda *line: self.lines.append(" ".join(line)))  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mta.toml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def server(config: str, tmp_path: Path) -> Iterator[WithList]:
    found = WithList(tmp_path / "suppression.db")
    with Control(tmp_path / "run", found):
        yield found
    found.list.close()


def run(config: str, *words: str) -> int:
    return main(["suppress", *words, "-c", config])


def test_an_empty_list_makes_no_file(config: str, server: WithList, tmp_path: Path, capsys: Output) -> None:
    assert run(config, "list") == 1
    assert run(config, "check", "a@x.example") == 1
    assert capsys.readouterr().out == "a@x.example is not on the list\n"
    assert not (tmp_path / "suppression.db").exists()


def test_add_list_check_remove(config: str, server: WithList, capsys: Output) -> None:
    assert run(config, "add", "A@x.example", "@gone.example", "--tenant", "*", "--for", "30d", "--reason", "moved") == 0
    assert capsys.readouterr().out == "2 addresses\n"
    assert run(config, "list", "a*") == 0
    told = "a@x.example (tenant *)  moved, since 2026-11-18T11:06:40Z, until 2026-12-18T11:06:40Z\n"
    assert capsys.readouterr().out == told
    assert run(config, "check", "any@GONE.example", "--tenant", "shop", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "address": "@gone.example",
        "tenant": "*",
        "reason": "moved",
        "reply": "",
        "added": NOW,
        "expires": NOW + 30 * 86400,
    }
    assert run(config, "remove", "a@x.example") == 1  # that is nobody's list
    assert run(config, "remove", "a@X.example", "@gone.example", "--tenant", "*") == 0
    assert run(config, "list") == 1
    assert [line.split(" by=")[0] for line in server.lines] == [
        "- suppressed to=<a@x.example> tenant=*",
        "- suppressed to=<@gone.example> tenant=*",
        "- unsuppressed to=<a@x.example> tenant=*",
        "- unsuppressed to=<@gone.example> tenant=*",
    ]


def test_many_by_standard_input(config: str, server: WithList, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a@x.example\n\n  b@x.example\n"))
    assert run(config, "add", "-", "c@x.example") == 0
    assert capsys.readouterr().out == "3 addresses\n"
    assert run(config, "export") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["address"], row["reason"], row["expires"]) for row in rows] == [
        (f"{name}@x.example", "by the postmaster", "") for name in "abc"
    ]


@pytest.mark.parametrize("words", [("add", "nobody"), ("add", "a@"), ("add", "a b@x.example"), ("check", "x")])
def test_what_is_no_address(config: str, server: WithList, capsys: Output, words: tuple[str, ...]) -> None:
    assert run(config, *words) == 2
    assert 'is no address; write "user@example.net"' in capsys.readouterr().err


def test_what_is_no_duration(config: str, server: WithList) -> None:
    with pytest.raises(SystemExit) as ended:
        run(config, "add", "a@x.example", "--for", "soon")
    assert ended.value.code == 2


@pytest.mark.parametrize("arguments", [{"keep": -1}, {"keep": "x"}, {"keep": 1e18}, {"reason": "a\nb"}, {"tenant": 5}])
def test_wrong_arguments(server: WithList, tmp_path: Path, arguments: dict[str, object]) -> None:
    with Client(tmp_path / "run") as client, pytest.raises(Refused) as refused:
        client.call("suppress.add", **{"address": "a@x.example"} | arguments)
    assert refused.value.code == "usage"


def test_viewers_only_look() -> None:
    roles = {name: verb.role for name, verb in VERBS.items() if name.startswith("suppress.")}
    assert roles == {
        "suppress.list": "viewer",
        "suppress.check": "viewer",
        "suppress.add": "admin",
        "suppress.remove": "admin",
    }
