"""A Python function as a judge of passwords: `module:function`, given name, password and client address.

    async def check(user: str, password: str, client: str) -> bool | Iterable[str] | Mapping[str, object] | None

True lets the user in under his own name; addresses let him in and send as these too; False and None do not. A mapping
lets him in, and says more: {"addresses": [...], "tenant": "acme", "priority": -4}, each if there is need of it (see
[[tenant]]). What it raises is told on standard error, and the client may try again. A function that is not async runs
in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mta.policy.users.accounts import Unavailable, User, folded

_SECONDS = 60.0
_THREADS = 4


def load_hook(text: str) -> Callable[[str, str, str], Any]:
    """The function that is named; ValueError says why there is none."""
    module, _, name = text.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(f"{text}: {error}; it is looked for where Python looks (PYTHONPATH)") from None
    except AttributeError:
        raise ValueError(f"{text}: the module has no {name}") from None
    if not callable(function):
        raise ValueError(f"{text} is no function")
    return function  # type: ignore[no-any-return]


class HookJudge:
    """A PasswordJudge."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._function = load_hook(text)
        self._is_async = inspect.iscoroutinefunction(self._function)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="hook")

    async def judge(self, name: str, password: str, client: str) -> User | None:
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._call(name, password, client)
        except TimeoutError:
            raise Unavailable(f"{self._text} took more than {_SECONDS:g} seconds") from None
        except Exception as error:  # noqa: BLE001 - somebody else's code; it must not end the session
            traceback.print_exc()
            raise Unavailable(f"{self._text} failed: {error!r}") from None
        if answer is None or answer is False:
            return None
        try:
            return _user(name, answer)
        except (TypeError, ValueError) as error:
            raise Unavailable(f"{self._text} gave {error}") from None

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, name: str, password: str, client: str) -> Any:
        if self._is_async:
            return await self._function(name, password, client)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._function, name, password, client)


def _user(name: str, answer: object) -> User:
    """TypeError or ValueError: what was wrong with the answer."""
    if isinstance(answer, Mapping):
        if unknown := set(answer) - {"addresses", "tenant", "priority"}:
            raise ValueError(f"{unknown.pop()!r}, which is not one of addresses, tenant and priority")
        tenant, priority = answer.get("tenant") or "", answer.get("priority") or 0
        if not isinstance(tenant, str) or not isinstance(priority, int) or not -9 <= priority <= 9:
            raise ValueError(
                f"the tenant {tenant!r} and the priority {priority!r}, not a name and a number from -9 to 9"
            )
        return User(name, _addresses(answer.get("addresses") or ()), tenant, int(priority))
    return User(name, () if answer is True else _addresses(answer))


def _addresses(given: object) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{type(given).__name__}, not True, False or addresses")
    return tuple(folded(str(address)) for address in given)
