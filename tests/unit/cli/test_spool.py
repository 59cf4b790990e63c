"""`mta spool`: forms of arguments, exit codes, and what is printed."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from mta.cli.main import main
from mta.model import Arrival
from mta.premises import lock
from mta.spool.format import ref_offset, ref_segment
from mta.spool.segments import Folder
from tests.kit.operator import Control, FakeOperator
from tests.kit.spool import Log


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "mta.toml"
    file.write_text('[server]\nhostname = "mx.example.org"\n[[listener]]\naddress = "127.0.0.1:2525"\n')
    return str(file)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A spool of two lives of a log; a message of the first is damaged."""

    async def live(messages: int) -> list[Arrival]:
        log = Log(tmp_path / "var")
        for _ in range(messages):
            log.put()
        arrivals = await log.settled()
        await log.writer.close()
        return arrivals

    victim = asyncio.run(live(5))[1]
    asyncio.run(live(1))
    with Folder(tmp_path / "var").path(ref_segment(victim.ref)).open("r+b") as file:
        os.pwrite(file.fileno(), b"XX", ref_offset(victim.ref) + 50)
    return tmp_path / "var"


@pytest.fixture
def damaged(config: str, state_dir: Path) -> str:
    path = Path(config)
    path.write_text(path.read_text().replace("[server]\n", f'[server]\nstate_dir = "{state_dir}"\n', 1))
    return config


def test_damage_is_told_and_repaired(damaged: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", "check", "-c", damaged]) == 1
    out = capsys.readouterr().out
    assert "damage  01-00000001.seg is damaged from" in out
    assert main(["spool", "check", "--json", "-c", damaged]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["verdict"] for r in rows].count("damage") == 1
    assert main(["spool", "check", "--repair", "-c", damaged]) == 0
    assert "fixed" in capsys.readouterr().out
    assert main(["spool", "check", "-c", damaged]) == 0


def test_a_spool_in_use_is_not_repaired(damaged: str, state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = lock(state_dir, None)
    try:
        with pytest.raises(SystemExit) as end:
            main(["spool", "check", "--repair", "-c", damaged])
        assert end.value.code == 75
        assert "is not repaired" in capsys.readouterr().err
        assert main(["spool", "check", "-c", damaged]) == 1  # looking is allowed
    finally:
        os.close(held)


def test_a_server_that_never_ran_has_no_spool(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", "check", "-c", config]) == 0
    assert "no spool yet" in capsys.readouterr().out


def test_stats(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", "stats", "-c", config]) == 69
    capsys.readouterr()
    with Control(tmp_path / "run", FakeOperator()):
        assert main(["spool", "stats", "-c", config]) == 0
        out = capsys.readouterr().out
        assert "segments in use" in out
        assert "syncs a second" in out
        assert main(["spool", "stats", "--json", "-c", config]) == 0
        assert json.loads(capsys.readouterr().out)["segments"] == 3
