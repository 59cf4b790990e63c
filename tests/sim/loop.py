"""An event loop whose time is a number: while nothing is ready it jumps to the next timer.

Everything that asks the loop for the time, or for a callback at one, runs as it would, and a day takes seconds.
Threads and sockets have no place in it: what waits for such a thing alone waits for ever, and `Standstill` says so.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Standstill(Exception):
    """Nothing is ready and nothing is scheduled: whoever waits waits for ever."""


class _Nothing(selectors.SelectSelector):
    """Waits by moving the time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Standstill
        self.now += max(0.0, timeout)
        return []


class TimeLoop(asyncio.SelectorEventLoop):
    """See the module. `failures` are errors of callbacks, which nobody else would hear of."""

    def __init__(self) -> None:
        self._nothing = _Nothing()
        super().__init__(self._nothing)
        self._clock_resolution = 1e-6
        self.failures: list[BaseException] = []
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        return self._nothing.now

    def go(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until it is done; the first error of any callback is raised."""
        try:
            return self.run_until_complete(main)
        finally:
            if self.failures:
                raise self.failures[0]

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(context.get("exception") or RuntimeError(context["message"]))
        self.stop()
