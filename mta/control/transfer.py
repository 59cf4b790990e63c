"""The verbs that carry mail to another queue and back: export, import, and upload for texts of several frames."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from mta.control.protocol import Json
from mta.queue.audit import Doer

if TYPE_CHECKING:
    from mta.control.verbs import Operator, Request

Frames = AsyncGenerator[Json, None]


async def take_out(operator: Operator, request: Request) -> Frames:
    """Rows as they are in `mta.queue.exports`."""
    messages = 0
    async with aclosing(operator.export(request.words(), _doer(request))) as rows:
        async for row in rows:
            messages += "tail" in row
            yield {"row": row}
    yield {"end": {"messages": messages}}


async def take_in(operator: Operator, request: Request) -> Frames:
    """`messages`: a list of {"head", "text", "tail"}, each with its whole text."""
    messages = request.arguments.get("messages", [])
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("messages must be a list of objects")
    yield {"end": {"ids": await operator.take(messages, _doer(request))}}


async def upload(operator: Operator, request: Request) -> Frames:
    """`head` begins one, and tells its number; `upload` with `text` goes on, with `tail` it ends."""
    head, tail = request.arguments.get("head"), request.arguments.get("tail")
    if isinstance(head, dict):
        yield {"end": {"upload": operator.importer.begin(head)}}
        return
    number = request.whole("upload")
    if isinstance(tail, dict):
        yield {"end": {"ids": await operator.take_upload(number, tail, _doer(request))}}
        return
    operator.importer.write(number, request.text("text"))
    yield {"end": {"upload": number}}


def _doer(request: Request) -> Doer:
    return Doer(request.peer.uid, request.peer.name)
