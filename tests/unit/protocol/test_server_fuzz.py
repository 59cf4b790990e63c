"""The fuzz program itself: it runs, it is repeatable, and it finds a fault that is there."""

from __future__ import annotations

import pytest

from mta import _fastparse
from tests.fuzz import server_session as fuzz


def test_some_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--inputs", "300", "--seed", "7"]) == 0
    assert capsys.readouterr().out == "300 inputs, 0 differences\n"


def test_a_fault_is_found_again_by_the_same_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Faulty(_fastparse.ServerSession):
        def take_output(self) -> bytes:
            return super().take_output().replace(b"503", b"502")

    class Module:
        ServerSession = Faulty
        ServerConfig = _fastparse.ServerConfig
        OUTPUT, DISCARD, BODY = _fastparse.OUTPUT, _fastparse.DISCARD, _fastparse.BODY
        MESSAGE, STARTTLS, CLOSE = _fastparse.MESSAGE, _fastparse.STARTTLS, _fastparse.CLOSE
        AUTH = _fastparse.AUTH

    monkeypatch.setattr(fuzz, "_fastparse", Module)
    assert fuzz.main(["--inputs", "300", "--seed", "7"]) == 1
    first = capsys.readouterr().out
    assert "input: b" in first
    assert "output: expected" in first
    assert fuzz.main(["--inputs", "300", "--seed", "7"]) == 1
    assert capsys.readouterr().out == first
