"""The verbs of sites: list, show, pause, resume, flush, limits, forget. What they do is in `mta.queue.site_desk`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Protocol

from mta.control.protocol import Json
from mta.queue.audit import Doer

if TYPE_CHECKING:
    from mta.control.verbs import Operator, Request

Frames = AsyncGenerator[Json, None]


class SiteDesk(Protocol):
    """What the queue manager offers."""

    def rows(self, pattern: str = "*") -> AsyncIterator[Json]: ...
    async def show(self, pattern: str) -> list[Json]: ...
    async def pause(self, pattern: str, seconds: float, why: str, doer: Doer) -> int: ...
    async def resume(self, pattern: str, doer: Doer) -> int: ...
    async def flush(self, pattern: str, doer: Doer) -> int: ...
    async def limit(self, pattern: str, connections: int, rate: str, doer: Doer) -> int: ...
    async def forget(self, pattern: str, doer: Doer) -> int: ...


async def rows(operator: Operator, request: Request) -> Frames:
    """`site` may be a pattern; without it all."""
    count, limit = 0, request.whole("limit")
    async for row in operator.sites.rows(request.text("site") or "*"):
        count += 1
        yield {"row": row}
        if count == limit:
            break
    yield {"end": {"rows": count}}


async def show(operator: Operator, request: Request) -> Frames:
    found = await operator.sites.show(_site(request))
    for row in found:
        yield {"row": row}
    yield {"end": {"rows": len(found)}}


async def pause(operator: Operator, request: Request) -> Frames:
    """`seconds` 0: until it is resumed."""
    reason, seconds = request.text("reason"), float(request.whole("seconds"))
    yield {"end": {"sites": await operator.sites.pause(_site(request), seconds, reason, _doer(request))}}


async def resume(operator: Operator, request: Request) -> Frames:
    yield {"end": {"sites": await operator.sites.resume(_site(request), _doer(request))}}


async def flush(operator: Operator, request: Request) -> Frames:
    yield {"end": {"sites": await operator.sites.flush(_site(request), _doer(request))}}


async def limits(operator: Operator, request: Request) -> Frames:
    """`connections` 0 and `rate` "": what rules and learning say."""
    connections, rate = request.whole("connections"), request.text("rate")
    yield {"end": {"sites": await operator.sites.limit(_site(request), connections, rate, _doer(request))}}


async def forget(operator: Operator, request: Request) -> Frames:
    yield {"end": {"sites": await operator.sites.forget(_site(request), _doer(request))}}


def _site(request: Request) -> str:
    site = request.text("site")
    if not site:
        raise ValueError("site is missing: its name, one of its hosts, or a pattern")
    return site


def _doer(request: Request) -> Doer:
    return Doer(request.peer.uid, request.peer.name)
