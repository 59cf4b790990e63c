"""`mta queue` and `mta status`: forms of arguments, exit codes, and what is printed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.cli.main import main
from tests.kit.operator import STATUS, Control, FakeOperator, row

CONFIG = '[server]\nhostname = "mx.example.org"\n[[listener]]\naddress = "127.0.0.1:2525"\n'


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "mta.toml"
    file.write_text(CONFIG)
    return str(file)


@pytest.fixture
def operator(config: str, tmp_path: Path) -> Iterator[FakeOperator]:
    """A server runs with the configuration."""
    found = FakeOperator([row(1), row(2, reason="", state="active", age=59.0)])
    with Control(tmp_path / "run", found):
        yield found


def run(*words: str) -> int | str | None:
    """The exit code, as the interpreter would see it."""
    try:
        return main(words)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "FILE", "queue", "count"],
        ["queue", "-c", "FILE", "count"],
        ["queue", "count", "-c", "FILE"],
        ["-cFILE", "queue", "count"],
        ["queue", "count", "all", "-c", "FILE"],
        ["queue", "count", "-c", "FILE", "all"],
    ],
)
def test_the_option_may_stand_anywhere(
    operator: FakeOperator, config: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(w.replace("FILE", config) for w in words)) == 0
    assert capsys.readouterr().out == "2 messages\n"
    assert operator.calls == [("count", ["all"])]


def test_the_nearest_option_counts(operator: FakeOperator, config: str) -> None:
    assert run("-c", "/none", "queue", "-c", "/none", "count", "-c", config) == 0


@pytest.mark.parametrize(
    "words", [["all", "--json", "-c", "FILE"], ["--json", "all", "-c", "FILE"], ["-c", "FILE", "--json", "all"]]
)
def test_count_as_json(
    operator: FakeOperator, config: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("queue", "count", *(w.replace("FILE", config) for w in words)) == 0
    assert json.loads(capsys.readouterr().out) == {"messages": 2}


def test_the_file_of_the_folder(operator: FakeOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("queue", "count") == 0


@pytest.mark.parametrize("verb", ["retry", "delete", "hold", "release"])
def test_acts(operator: FakeOperator, config: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("queue", verb, "-c", config, "domain=example.org", "state=deferred", "--yes") == 0
    assert operator.calls == [(verb, ["domain=example.org", "state=deferred"])]
    assert capsys.readouterr().out == "2 messages\n"


@pytest.mark.parametrize(
    "words",
    [[], ["queue"], ["burn"], ["queue", "burn"], ["queue", "count", "--yes"], ["queue", "list", "--limit", "x"], ["-c"]]
    + [["queue", verb] for verb in ("show", "retry", "delete", "hold", "release")]
    + [["send"], ["send", "-f", "a@b"], ["status", "x"], ["check", "--json"], ["-c", "x"]],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert "usage: mta" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert run("queue", "delete", "--help") == 0
    assert "without a notice" in capsys.readouterr().out


def test_a_wrong_filter_is_a_wrong_word(
    operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("queue", "list", "bad", "-c", config) == 2
    assert capsys.readouterr().err == "mta: bad is no filter\n"


@pytest.mark.parametrize("word", ["full", "bug"])
def test_a_server_that_cannot(operator: FakeOperator, config: str, word: str) -> None:
    assert run("queue", "retry", word, "-c", config) == 69


@pytest.mark.parametrize("words", [["status"], ["queue", "list"], ["queue", "delete", "all"], ["queue", "show", "x"]])
def test_no_server(config: str, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words, "-c", config) == 69
    assert f"mta: no server answers on {tmp_path}/run/control.sock" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["status"], ["queue", "list"], ["check"], ["serve"]])
def test_a_wrong_configuration(
    config: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(config).write_text(CONFIG + "[dns]\nx = 1\ny = 2\n")
    assert run(*words, "-c", config) == 78
    assert capsys.readouterr().err.splitlines() == [
        f"{config}:6: dns.x: unknown key; known are nameservers, timeout",
        f"{config}:7: dns.y: unknown key; known are nameservers, timeout",
    ]
    assert run(*words, "-c", f"{config}.none") == 78


@pytest.mark.skipif(Path("/etc/mta/mta.toml").exists(), reason="this machine has a server")
def test_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("status") == 78
    assert "give -c FILE" in capsys.readouterr().err


def test_list(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    operator.rows[0] |= {"next": time.time() + 1810, "recipients": [f"u{n}@example.org" for n in range(5)]}
    assert run("queue", "list", "-c", config) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ID            STATE         AGE      SIZE  ATTEMPTS    NEXT  SENDER -> RECIPIENTS",
        "000000000001  deferred       2h      1234         3     30m  <a@example.com> -> "
        "u0@example.org, u1@example.org, u2@example.org and 2 more",
        "              451 4.3.0 later",
        "000000000002  active        59s      1234         3       -  <a@example.com> -> u@example.org",
    ]


def test_an_empty_list_is_empty(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    operator.rows.clear()
    assert run("queue", "list", "-c", config) == 0
    assert capsys.readouterr().out == ""


def test_list_as_json(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("queue", "list", "--json", "--limit", "1", "-c", config) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == operator.rows[:1]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (59, "59s"),
        (59.7, "1m"),
        (60, "1m"),
        (3569, "59m"),
        (3599, "1h"),
        (7199, "2h"),
        (86399, "1d"),
        (5 * 86400, "5d"),
    ],
)
def test_spans(
    operator: FakeOperator, config: str, seconds: float, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.rows[:] = [row(1, age=seconds)]
    assert run("queue", "list", "-c", config) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[2] == shown


def test_show(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    part = {
        "domain": "example.org",
        "state": "deferred",
        "site": "",
        "attempts": 3,
        "next": time.time() + 110,
        "reason": "451 4.3.0 later",
        "recipients": [{"address": "u@example.org", "state": "pending"}],
    }
    operator.rows[:] = [row(1, parts=[part, part | {"next": None, "reason": "", "site": "smtp:mx"}])]
    assert run("queue", "show", "000000000001", "-c", config) == 0
    assert capsys.readouterr().out.splitlines() == [
        "000000000001  from <a@example.com>, 1234 octets, in the queue for 2h",
        "  example.org: deferred, 3 attempts, via no site yet",
        "    next attempt in 2m",
        "    because: 451 4.3.0 later",
        "    <u@example.org> pending",
        "  example.org: deferred, 3 attempts, via smtp:mx",
        "    <u@example.org> pending",
    ]


def test_show_tells_what_the_client_said(
    operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipients = [
        {
            "address": "u@example.org",
            "state": "pending",
            "notify": ["success", "delay"],
            "orcpt": "rfc822;U@example.org",
        },
        {"address": "v@example.org", "state": "done"},
    ]
    part = {"domain": "example.org", "state": "deferred", "site": "", "attempts": 3, "next": None, "reason": ""}
    wishes = {"user": "ann", "require_tls": True, "hold_until": time.time() + 7200, "priority": -3}
    operator.rows[:] = [row(1, parts=[part | {"recipients": recipients, "told": ["delayed"]}], wishes=wishes)]
    assert run("queue", "show", "000000000001", "-c", config) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["  user: ann", "  require_tls: yes"]
    assert re.fullmatch(r"  hold_until: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} \(in 2h\)", lines[3])
    assert lines[4:] == [
        "  priority: -3",
        "  example.org: deferred, 3 attempts, via no site yet",
        "    its sender was told that it is delayed",
        "    <u@example.org> pending (notify success, delay; orcpt rfc822;U@example.org)",
        "    <v@example.org> done",
    ]


def test_show_of_an_unknown_id(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    operator.rows[0]["parts"] = []
    assert run("queue", "show", "none", "000000000001", "-c", config) == 1
    told = capsys.readouterr()
    assert "no message none in the queue" in told.err
    assert told.out.startswith("000000000001")


def test_show_by_a_filter(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    for found in operator.rows:
        found["parts"] = []
    operator.rows.append(operator.rows[0])  # a message has several deliveries
    assert run("queue", "show", "state=deferred", "000000000001", "-c", config) == 0
    assert operator.calls[0] == ("list", ["state=deferred", "id=000000000001"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    operator.rows.clear()
    assert run("queue", "show", "all", "-c", config) == 1


def test_status(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "-c", config) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mx.example.org: 2 messages queued, up 61 s, durability fsync",
        "deliveries  deferred 1",
        "spool       segments 3  commits 7  syncs 7  free 0.1235",
        "counters    nothing",
        "processes   receiver 0: pid 42",
    ]
    assert run("status", "--json", "-c", config) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_much_is_asked_about(
    operator: FakeOperator, config: str, answer: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.rows[:] = [row(1)] * 101
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert run("queue", "delete", "all", "-c", config) == code
    assert (("delete", ["all"]) in operator.calls) == (code == 0)


def test_nothing_is_asked_with_yes_and_a_program_has_to_say_it(
    operator: FakeOperator, config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.rows[:] = [row(1)] * 101
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert run("queue", "delete", "all", "--yes", "-c", config) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run("queue", "hold", "all", "-c", config) == 2
    assert "101 messages; say that so many are meant: add --yes" in capsys.readouterr().err
    assert operator.calls == [("delete", ["all"])]


def test_a_dry_run_shows_some(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("queue", "delete", "sender=a@*", "--dry-run", "-c", config) == 0
    assert capsys.readouterr().out.splitlines() == [
        "delete would concern 2 messages, such as",
        "  000000000001  deferred   <a@example.com> -> u@example.org",
        "  000000000002  active     <a@example.com> -> u@example.org",
    ]
    assert operator.orders[-1].dry_run


def test_verbs_with_more_to_say(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, verb, arguments in (
        (["reroute", "all", "--to", "smtp:h.test:25"], "reroute", {"to": "smtp:h.test:25"}),
        (["bounce", "all", "--reason", "no such list"], "bounce", {"reason": "no such list"}),
        (["bounce", "all"], "bounce", {}),
        (["undo", "12"], "undo", {"operation": 12}),
    ):
        assert run("queue", *words, "-c", config) == 0
        assert (operator.orders[-1].verb, operator.orders[-1].arguments) == (verb, arguments)
    assert run("queue", "hold", "all", "-c", config) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "2 messages"
    assert told.err == "to take it back: mta queue undo 5\n"
    assert run("queue", "undo", "x", "-c", config) == 2
    assert run("queue", "reroute", "all", "-c", config) == 2


def test_the_log_of_operations(operator: FakeOperator, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("queue", "log", "-c", config) == 0
    head, newest, oldest = capsys.readouterr().out.splitlines()
    assert head.split() == ["NO", "WHEN", "WHO", "VERB", "MESSAGES", "FILTER"]
    assert newest.endswith('bounce           0  sender=a@b.test reason="no" (it was cut short, or is under way)')
    assert oldest.split()[0] == "1"
    assert oldest.endswith("ann           hold             5  all")
    assert run("queue", "log", "--json", "--limit", "1", "-c", config) == 0
    assert json.loads(capsys.readouterr().out)["user"] == "root"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_has_seen_enough(operator: FakeOperator, config: str, form: list[str]) -> None:
    operator.rows[:] = [row(1)] * 20_000
    command = [sys.executable, "-m", "mta.cli.main", "queue", "list", "-c", config, *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_standard_output_that_is_closed(operator: FakeOperator, config: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mta.cli.main", "status", "-c", config]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
