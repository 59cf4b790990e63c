"""The fuzzers' corpora, replayed: whatever led somewhere once goes there again."""

from __future__ import annotations

import pytest

from mta import _fastparse
from tests.fuzz import driver, server_session


@pytest.mark.parametrize("name", driver.names())
def test_replay(name: str) -> None:
    known = driver.corpus(name)
    assert known, f"make one: python -m tests.fuzz.driver {name} --keep"
    target = driver.load(name)
    for data in known:
        assert len(data) <= target.LONGEST
        target.check(data)


def test_a_fault_of_the_fast_session_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty(_fastparse.ServerSession):
        def take_output(self) -> bytes:
            return super().take_output().replace(b"503", b"502")

    class Module:
        def __getattr__(self, name: str) -> object:
            return Faulty if name == "ServerSession" else getattr(_fastparse, name)

    data = bytes(server_session.HEAD) + b"DATA\r\n"
    server_session.check(data)
    monkeypatch.setattr(server_session, "_fastparse", Module())
    with pytest.raises(AssertionError, match="expected and found"):
        server_session.check(data)
