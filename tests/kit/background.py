"""An event loop in a thread, for helpers that must go on while a test waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Background:
    """Subclasses open and close what they serve in `opened` and `closing`, which run in the loop."""

    new_loop: Callable[[], asyncio.AbstractEventLoop] = staticmethod(asyncio.new_event_loop)

    def __enter__(self) -> Self:
        self._loop = self.new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self.opened())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Run in the loop; the result, here."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    async def opened(self) -> None: ...

    async def closing(self) -> None: ...

    async def _close(self) -> None:
        await self.closing()
        for _ in range(4):  # what was accepted just now gets transport, protocol and task, and so can be closed
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
