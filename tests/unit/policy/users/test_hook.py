"""Python functions as judges of passwords."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from mta.policy.users.accounts import Unavailable, User
from mta.policy.users.hook import HookJudge, load_hook


@pytest.fixture
def module() -> Iterator[Any]:
    made = types.ModuleType("some_hooks")
    sys.modules["some_hooks"] = made
    yield made
    del sys.modules["some_hooks"]


def judge(name: str = "some_hooks:check") -> User | None:
    return asyncio.run(HookJudge(name).judge("alice", "secret", "192.0.2.1"))


@pytest.mark.parametrize(
    ("answer", "user"),
    [
        (True, User("alice")),
        (["A@x.test", "@y.test"], User("alice", ("a@x.test", "@y.test"))),
        ((), User("alice")),
        ({}, User("alice")),
        ({"tenant": "acme", "priority": -4}, User("alice", (), "acme", -4)),
        ({"addresses": ["A@x.test"], "tenant": None}, User("alice", ("a@x.test",))),
        (False, None),
        (None, None),
    ],
)
def test_answers(module: Any, answer: Any, user: User | None) -> None:
    async def later(*arguments: str) -> Any:
        assert arguments == ("alice", "secret", "192.0.2.1")
        return answer

    module.check = later
    assert judge() == user
    module.check = lambda *arguments: answer
    assert judge() == user


@pytest.mark.parametrize(
    "answer",
    [
        "alice@x.test",
        1,
        object(),
        {"tenent": "x"},
        {"priority": 10},
        {"priority": "high"},
        {"tenant": 7},
        {"addresses": "x"},
    ],
)
def test_wrong_answers(module: Any, answer: Any) -> None:
    module.check = lambda *arguments: answer
    with pytest.raises(Unavailable):
        judge()


def test_a_hook_that_fails(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*arguments: str) -> bool:
        raise KeyError("broken")

    module.check = fail
    with pytest.raises(Unavailable):
        judge()
    assert "KeyError: 'broken'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["some_hooks:nothing", "some_hooks:number", "no_such_module_at_all:f"])
def test_no_such_function(module: Any, name: str) -> None:
    module.number = 1
    with pytest.raises(ValueError, match=name.partition(":")[2]):
        load_hook(name)
