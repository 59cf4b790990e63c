"""The verbs of the suppression list: list, check, add, remove."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Final, Protocol

from mta.control.protocol import Json

if TYPE_CHECKING:
    from mta.control.verbs import Operator, Request

_BREATH: Final = 64  # rows after which mail has its turn
_FAR: Final = 100 * 366 * 86400.0  # seconds; who means more means for ever


class SuppressionDesk(Protocol):
    """What the queue manager offers (`mta.queue.suppression_desk`)."""

    def entries(self, pattern: str, tenant: str | None) -> AsyncIterator[Json]: ...
    async def add(self, address: str, tenant: str, reason: str, keep: float, by: str) -> Json: ...
    async def remove(self, address: str, tenant: str, by: str) -> int: ...
    async def check(self, address: str, tenant: str) -> Json | None: ...


async def entries(operator: Operator, request: Request) -> AsyncGenerator[Json, None]:
    tenant = request.text("tenant") if "tenant" in request.arguments else None
    rows = 0
    async for row in operator.suppression.entries(request.text("pattern"), tenant):
        rows += 1
        yield {"row": row}
        if rows % _BREATH == 0:
            await asyncio.sleep(0)
    yield {"end": {"rows": rows}}


async def check(operator: Operator, request: Request) -> AsyncGenerator[Json, None]:
    row = await operator.suppression.check(request.text("address"), request.text("tenant"))
    if row is not None:
        yield {"row": row}
    yield {"end": {"rows": 0 if row is None else 1}}


async def add(operator: Operator, request: Request) -> AsyncGenerator[Json, None]:
    keep = request.arguments.get("keep", 0)
    if not isinstance(keep, int | float) or isinstance(keep, bool) or not 0 <= keep <= _FAR:
        raise ValueError("keep must be a number of seconds, 0 for ever")
    desk, by = operator.suppression, request.peer.name
    row = await desk.add(request.text("address"), request.text("tenant"), request.text("reason"), keep, by)
    yield {"end": row}


async def remove(operator: Operator, request: Request) -> AsyncGenerator[Json, None]:
    found = await operator.suppression.remove(request.text("address"), request.text("tenant"), request.peer.name)
    yield {"end": {"entries": found}}
