"""A bad configuration is told by file, line and key, with exit code 78."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kit.server import COMMAND, ROOT, Server

GOOD = """\
[server]
hostname = "mx.test"
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"

[[listener]]
address = "127.0.0.1:{port}"
"""


@pytest.mark.parametrize("verb", ["serve", "check"])
@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (8, 'color = "blue"', ["color"]),
        (8, 'rolle = "mx"', ["rolle", "role"]),
        (8, 'role = "spectator"', ["role", "mx"]),
        (8, 'role = "mx"\n[retry]\nfirst = true', ["first"]),
        (8, 'role = "mx"\n[[route]]\ndomain = "*"\nnext_hop = "pigeon:"', ["next_hop", "pigeon"]),
        (8, 'role = "mx"\n[limits]\nrecipients = 0', ["recipients"]),
        (8, "role = mx", []),
    ],
    ids=["unknown", "misspelt", "wrong word", "wrong type", "wrong next hop", "out of range", "no TOML"],
)
def test_it_is_told_where(tmp_path: Path, verb: str, line: int, text: str, words: list[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(GOOD.format(folder=tmp_path, port=1) + text + "\n")
    wrong = line + text.count("\n")
    done = subprocess.run(
        [*COMMAND, verb, "-c", str(path)], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
    )
    assert done.returncode == 78, done.stderr
    said = done.stderr + done.stdout
    assert f"{path}:{wrong}" in said, said
    assert all(word in said for word in words), said
    assert "Traceback" not in said


def test_a_good_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(GOOD.format(folder=tmp_path, port=2525))
    done = subprocess.run(
        [*COMMAND, "check", "-c", str(path)], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    done = subprocess.run(
        [*COMMAND, "serve", "-c", str(path)], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
    )
    assert done.returncode == 78
    assert str(path) in done.stderr


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """Another server's port is an error, not a share of its connections (SO_REUSEPORT)."""
    (tmp_path / "one").mkdir()
    with Server(tmp_path / "one") as server:
        path = tmp_path / "two.toml"
        path.write_text(GOOD.format(folder=tmp_path, port=server.port))
        done = subprocess.run(
            [*COMMAND, "serve", "-c", str(path)], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
        )
        assert done.returncode != 0
        assert f"127.0.0.1:{server.port}" in done.stderr
        assert "Traceback" not in done.stderr


def test_one_spool_has_one_server(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        path = tmp_path / "two.toml"
        path.write_text(GOOD.format(folder=tmp_path, port=0).replace(":0", ":1"))
        text = server.config.read_text().replace(f":{server.port}", ":1")
        path.write_text(text)
        done = subprocess.run(
            [*COMMAND, "serve", "-c", str(path)], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
        )
        assert done.returncode != 0
        assert "state" in done.stderr or "run" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_reload_takes_new_settings(tmp_path: Path) -> None:
    """SIGHUP: a new route counts, a bad file changes nothing."""
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        server.configure(route=[{"domain": "*", "next_hop": "discard:"}])
        before = server.children()
        server.reload()
        assert server.children() != before
        server.send("a@x.test", ["b@y.test"], b"x\r\n")
        server.wait_empty()
