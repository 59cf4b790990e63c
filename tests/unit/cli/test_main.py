"""The words of `mta`, its exit codes, and what it prints; the server is a control socket made up here."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mta.cli.main import main
from mta.control.protocol import Json as Row
from mta.queue.deeds import Order, TooMany
from tests.kit.operator import Control, FakeOperator

CONFIG = """\
[server]
hostname = "localhost"
[[listener]]
address = "127.0.0.1:2525"
"""
NOW = time.time()


def row(number: int) -> Row:
    return {
        "id": f"0000000000{number:02}",
        "state": "deferred" if number else "ready",
        "sender": "a@a.example",
        "recipients": [f"{n}@b.example" for n in range(number + 1)],
        "size": 1234,
        "age": 7300.0,
        "attempts": number,
        "next": NOW + 5 * 3600 if number else None,
        "site": "smtp:b.example:25" if number else "",
        "reason": "450 4.2.1 mailbox busy" if number else "",
    }


class FakeQueue(FakeOperator):
    """Four deliveries; the word `many` finds 101 messages."""

    def __init__(self) -> None:
        super().__init__()
        self.acted: list[tuple[str, list[str]]] = []

    @property
    def status(self) -> Callable[[], Row]:
        return lambda: {
            "hostname": "localhost",
            "messages": 4,
            "uptime": 1.5,
            "durability": "commit",
            "recovered": True,
            "deliveries": {"ready": 1, "deferred": 3, "held": 0},
            "spool": {},
            "counters": {"received": 9},
            "processes": [{"role": "queue", "worker": 0, "pid": 11}],
        }

    async def count(self, words: Sequence[str]) -> int:
        if words == ["what"]:
            raise ValueError("unknown filter word 'what'")
        return 101 if words == ["many"] else 4

    async def listing(self, words: Sequence[str], limit: int) -> AsyncGenerator[list[bytes], None]:
        for number in range(limit or (20_000 if words == ["many"] else 4)):
            found = row(number % 100)
            if not words[0].startswith("id=") or words == [f"id={found['id']}"]:
                yield [json.dumps(found).encode()]

    async def show(self, text: str) -> Row | None:
        if text != row(1)["id"]:
            return None
        part: Row = {"domain": "b.example", "state": "deferred", "site": "smtp:b.example:25", "attempts": 1}
        part |= {"next": NOW + 60, "reason": "busy", "recipients": [{"address": "0@b.example", "state": "pending"}]}
        return row(1) | {"arrived": NOW, "parts": [part]}

    async def act(self, order: Order) -> Row:
        messages = 101 if order.words == ["many"] else 2
        if order.most and messages > order.most:
            raise TooMany(messages)
        self.acted.append((order.verb, list(order.words)))
        return {"messages": messages, "operation": 7}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mta.toml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def queue(config: str) -> Iterator[FakeQueue]:
    fake = FakeQueue()
    with Control(Path(config).parent / "run", fake):
        yield fake


Output = pytest.CaptureFixture[str]


# ---- words and exit codes


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize(
    "words",
    [
        "-c FILE queue count all --json",
        "queue -c FILE count all --json",
        "queue count -c FILE all --json",
        "queue count all --json -c FILE",
        "queue count --json -c FILE",
    ],
)
def test_the_file_may_be_named_anywhere(config: str, words: str, capsys: Output) -> None:
    assert main(words.replace("FILE", config).split()) == 0
    assert json.loads(capsys.readouterr().out) == {"messages": 4}


@pytest.mark.usefixtures("queue")
def test_the_file_in_this_folder_is_used_when_none_is_named(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(Path(config).parent)
    assert main(["queue", "count"]) == 0
    assert capsys.readouterr().out == "4 messages\n"


@pytest.mark.parametrize(
    "words",
    [
        "",
        "queue",
        "queue cuont",
        "queue delete",
        "queue hold --yes",
        "queue retry",
        "queue release",
        "queue show",
        "serve now",
        "send -t b@b.example",
        "send -f a@a.example",
        "queue list --limit x",
        "queue count --limit 1",
    ],
)
def test_wrong_words_are_usage(words: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert "usage: mta" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["serve", "check", "status", "queue list"])
def test_a_bad_configuration_is_78_with_all_that_is_wrong(tmp_path: Path, words: str, capsys: Output) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[server]\nhostnam = 1\n")
    with pytest.raises(SystemExit) as caught:
        main([*words.split(), "-c", str(path)])
    assert caught.value.code == 78
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.removeprefix(f"{path}:").split(";")[0] for line in printed.err.splitlines()] == [
        "1: server.hostname: is missing",
        "1: listener: is missing",
        "2: server.hostnam: unknown key",
    ]


def test_no_configuration_at_all_is_78(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["queue", "list", "-c", "none.toml"])
    assert caught.value.code == 78
    assert capsys.readouterr().err == "none.toml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("words", ["status", "queue list", "queue delete all"])
def test_no_server_is_69(config: str, words: str, capsys: Output) -> None:
    assert main([*words.split(), "-c", config]) == 69
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"mta: no server answers on \S+/run/control.sock \(.*\n", printed.err)


@pytest.mark.usefixtures("queue")
def test_a_wrong_filter_is_2_in_the_words_of_the_server(config: str, capsys: Output) -> None:
    assert main(["queue", "count", "what", "-c", config]) == 2
    assert capsys.readouterr().err == "mta: unknown filter word 'what'\n"


# ---- the queue


@pytest.mark.usefixtures("queue")
def test_list_for_people(config: str, capsys: Output) -> None:
    assert main(["queue", "list", "--limit", "2", "-c", config]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ID            STATE         AGE      SIZE  ATTEMPTS    NEXT  SENDER -> RECIPIENTS",
        "000000000000  ready          2h      1234         0       -  <a@a.example> -> 0@b.example",
        "000000000001  deferred       2h      1234         1      5h  <a@a.example> -> 0@b.example, 1@b.example",
        "              450 4.2.1 mailbox busy",
    ]


@pytest.mark.usefixtures("queue")
def test_list_for_programs(config: str, capsys: Output) -> None:
    assert main(["queue", "list", "all", "--json", "-c", config]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [row(n) for n in range(4)]


@pytest.mark.usefixtures("queue")
def test_summary(config: str, capsys: Output) -> None:
    assert main(["queue", "summary", "state=deferred", "-c", config, "--by", "domain", "--limit", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "        TOTAL  <5m  <1h  older",
        "all         3    1    2      0",
        "site 0      1    0    1      0",
        "and 1 more; --limit 0 shows all",
    ]
    assert main(["queue", "summary", "-c", config, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["by"], told["ages"], told["totals"]) == ("site", [300, 3600], [1, 2, 0])
    assert [line["name"] for line in told["table"]] == ["site 0", "site 1"]


@pytest.mark.usefixtures("queue")
def test_show(config: str, capsys: Output) -> None:
    known = str(row(1)["id"])
    assert main(["queue", "show", known, "-c", config]) == 0
    shown = capsys.readouterr().out
    for text in (
        known,
        "b.example: deferred, 1 attempts, via smtp:b.example:25",
        "because: busy",
        "<0@b.example> pend",
    ):
        assert text in shown
    assert main(["queue", "show", f"id={known}", "--json", "-c", config]) == 0
    assert json.loads(capsys.readouterr().out)["parts"][0]["state"] == "deferred"


@pytest.mark.usefixtures("queue")
def test_show_of_what_is_not_there_is_1(config: str, capsys: Output) -> None:
    assert main(["queue", "show", "000000000099", "-c", config]) == 1
    assert "no message 000000000099 in the queue" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["retry", "delete", "hold", "release"])
def test_verbs_that_act(queue: FakeQueue, config: str, verb: str, capsys: Output) -> None:
    assert main(["queue", verb, "domain=b.example", "state=deferred", "--yes", "--json", "-c", config]) == 0
    assert queue.acted == [(verb, ["domain=b.example", "state=deferred"])]
    assert json.loads(capsys.readouterr().out) == {"messages": 2, "operation": 7, "sample": []}


class Terminal(io.StringIO):
    """Standard input with a person at it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("words", "typed", "code", "asked"),
    [
        ("delete many", "n\n", 1, True),
        ("delete many", "", 1, True),
        ("delete many", "y\n", 0, True),
        ("hold many", "yes\n", 0, True),
        ("delete many --yes", "", 0, False),
        ("delete few", "", 0, False),
        ("retry many", "", 0, False),
    ],
)
def test_a_person_is_asked_before_much_is_deleted(
    queue: FakeQueue,
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    words: str,
    typed: str,
    code: int,
    asked: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert main(["queue", *words.split(), "-c", config]) == code
    assert ("it is 101 messages; say that so many are meant [y/N]" in capsys.readouterr().out) == asked
    assert bool(queue.acted) == (code == 0)


def test_a_script_has_to_say_yes(
    queue: FakeQueue, config: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["queue", "delete", "many", "-c", config]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert queue.acted == []
    assert main(["queue", "delete", "many", "--yes", "-c", config]) == 0
    assert queue.acted == [("delete", ["many"])]


# ---- status, check


@pytest.mark.usefixtures("queue")
def test_status(config: str, capsys: Output) -> None:
    assert main(["status", "-c", config]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "localhost: 4 messages queued, up 1.5 s, durability commit",
        "deliveries  ready 1  deferred 3",
        "spool       nothing",
        "counters    received 9",
        "processes   queue 0: pid 11",
    ]
    assert main(["status", "--json", "-c", config]) == 0
    assert json.loads(capsys.readouterr().out) == FakeQueue().status()


def test_check_tells_what_will_not_work(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "mta.toml"
        path.write_text(
            '[server]\nhostname = "name.invalid"\nruntime_dir = "file"\n'
            f'[[listener]]\naddress = "127.0.0.1:{port}"\ntls = "starttls"\n'
            '[tls]\ncertificate = "file"\nkey = "file"\n'
        )
        assert main(["check", "-c", str(path)]) == 78
    lines = capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()
    assert lines[:5] == [
        "ok    mta.toml is understood",
        "ok    var will be made",
        "FAIL  file is not a directory",
        "ok    a message is answered 250 when it is on disk",
        f"FAIL  127.0.0.1:{port}: Address already in use",
    ]
    assert lines[5].startswith("FAIL  file with file cannot be used: ")
    assert lines[6].startswith("warn  server.hostname name.invalid does not resolve")


@pytest.mark.usefixtures("queue")
def test_check_of_a_running_server_is_good(config: str, capsys: Output) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        Path(config).write_text(CONFIG.replace("2525", str(port)))
        assert main(["check", "-c", config]) == 0
    assert f"ok    127.0.0.1:{port} is served by this server, which runs\n" in capsys.readouterr().out


def test_check_warns_of_a_name_server_that_does_not_answer(config: str, capsys: Output) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, socket.socket() as free:
        silent.bind(("127.0.0.1", 0))
        free.bind(("127.0.0.1", 0))
        name_server = f"127.0.0.1:{silent.getsockname()[1]}"
        listener = free.getsockname()[1]
        free.close()
        text = CONFIG.replace("2525", str(listener))
        Path(config).write_text(f'{text}[dns]\nnameservers = ["{name_server}"]\n')
        assert main(["check", "-c", config]) == 0
    assert f"warn  name server {name_server} does not answer" in capsys.readouterr().out


# ---- as a process


def mta(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mta.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )


@pytest.mark.usefixtures("queue")
def test_a_reader_that_has_seen_enough_is_no_error(config: str) -> None:
    with mta("queue", "list", "many", "--json", "-c", config) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_ctrl_c_leaves_no_traceback(config: str) -> None:
    runtime_dir = Path(config).parent / "run"
    runtime_dir.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(runtime_dir / "control.sock"))
        listener.listen()
        listener.settimeout(60)
        with mta("status", "-c", config) as process:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(60)
                assert peer.recv(10)  # it waits for an answer now
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130


def test_a_verb_imports_only_what_it_needs() -> None:
    code = "import sys, mta.cli.main, mta.cli.queue, mta.cli.status, mta.cli.send, mta.cli.serve, mta.cli.check\n"
    code += "print(sorted({'uvloop', 'dns', 'asyncio', 'mta.supervisor'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=dict(os.environ))
    assert done.stdout == "[]\n", done.stderr
