"""The verbs of the control socket: a row each, with who may use it and what it does.

A verb is an asynchronous generator of frames: dicts with "row" or, as the last one, "end"; `Rows` are many rows that
are encoded already. ValueError: the request is wrong, and how; StoreError: the spool could not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from mta.control import sites, suppress, transfer
from mta.control.access import Peer, Role
from mta.control.protocol import VERSION, Json
from mta.control.transcripts import transcripts
from mta.queue.audit import Doer
from mta.queue.deeds import Order
from mta.queue.imports import Importer

_MOST_SITES = 10  # in a table of `top`, when nobody says how many
_BREATH = 64  # rows after which mail has its turn


class Rows(NamedTuple):
    """Rows in JSON."""

    encoded: Sequence[bytes]


Frames = AsyncGenerator[Json | Rows, None]


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks; the accessors refuse what is of a wrong type."""

    peer: Peer
    arguments: Json
    runtime_dir: Path | None = None  # where the server keeps what does not outlive it

    def words(self) -> list[str]:
        words = self.arguments.get("filter", [])
        if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise ValueError("filter must be a list of strings")
        return words

    def whole(self, name: str) -> int:
        """0 where it is not given."""
        value = self.arguments.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} must be a whole number, 0 for all")
        return value

    def flag(self, name: str) -> bool:
        value = self.arguments.get(name, False)
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false")
        return value

    def text(self, name: str) -> str:
        """ "" where it is not given."""
        value = self.arguments.get(name, "")
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a string")
        return value


class Operator(Protocol):
    """What the queue manager offers; ValueError: the request is wrong, and how."""

    @property
    def status(self) -> Callable[[], Json]: ...
    @property
    def overview(self) -> Overview | None: ...
    @property
    def suppression(self) -> suppress.SuppressionDesk: ...
    @property
    def sites(self) -> sites.SiteDesk: ...
    async def count(self, words: Sequence[str]) -> int: ...
    async def summary(self, words: Sequence[str], by: str) -> tuple[Sequence[int], Sequence[Json]]: ...
    def listing(self, words: Sequence[str], limit: int) -> AsyncGenerator[list[bytes], None]: ...
    async def show(self, text: str) -> Json | None: ...
    async def explain(self, text: str) -> Json | None: ...
    async def act(self, order: Order) -> Json: ...
    async def log(self, limit: int) -> list[Json]: ...
    def export(self, words: Sequence[str], doer: Doer) -> AsyncGenerator[Json, None]: ...
    @property
    def importer(self) -> Importer: ...
    async def take_upload(self, upload: int, tail: Mapping[str, object], doer: Doer) -> list[str]: ...
    async def take(self, messages: list[Mapping[str, object]], doer: Doer) -> list[str]: ...


class Overview(Protocol):
    """What `mta top` shows."""

    async def frame(self, limit: int) -> Json: ...


class Verb(NamedTuple):
    """A row of the table."""

    role: Role  # the least that its user must have
    run: Callable[[Operator, Request], Frames]


async def _hello(operator: Operator, request: Request) -> Frames:
    peer = request.peer
    yield {"end": {"version": VERSION, "user": peer.name, "role": peer.role, "verbs": list(VERBS)}}


async def _status(operator: Operator, request: Request) -> Frames:
    yield {"end": operator.status()}


async def _list(operator: Operator, request: Request) -> Frames:
    rows = 0
    async with aclosing(operator.listing(request.words(), request.whole("limit"))) as batches:
        async for batch in batches:
            rows += len(batch)
            yield Rows(batch)
    yield {"end": {"rows": rows}}


async def _top(operator: Operator, request: Request) -> Frames:
    if operator.overview is None:
        raise ValueError("this server has no overview")
    yield {"end": await operator.overview.frame(request.whole("sites") or _MOST_SITES)}


async def _trace(operator: Operator, request: Request) -> Frames:
    folder, follow = request.runtime_dir, request.flag("follow")
    if folder is None:
        raise ValueError("this server keeps no transcripts")
    async with aclosing(transcripts(folder, request.words(), request.whole("limit"), follow=follow)) as frames:
        async for frame in frames:
            yield frame


async def _summary(operator: Operator, request: Request) -> Frames:
    by = request.text("by") or "site"
    ages, lines = await operator.summary(request.words(), by)
    limit = request.whole("limit") or len(lines)
    for line in lines[:limit]:
        yield {"row": line}
    yield {"end": {"by": by, "ages": ages, "rows": min(limit, len(lines)), "lines": len(lines), **_sum(lines)}}


def _sum(lines: Sequence[Json]) -> Json:
    """Of all lines, given or not."""
    columns = [line["ages"] for line in lines if isinstance(line["ages"], list)]
    return {"totals": [sum(column) for column in zip(*columns, strict=True)]}


def _on_one(look: Callable[[Operator], Callable[[str], Awaitable[Json | None]]]) -> Verb:
    """A verb that takes an id and tells of this message, if it is there."""

    async def run(operator: Operator, request: Request) -> Frames:
        row = await look(operator)(str(request.arguments.get("id", "")))
        if row is not None:
            yield {"row": row}
        yield {"end": {"rows": 0 if row is None else 1}}

    return Verb("viewer", run)


async def _count(operator: Operator, request: Request) -> Frames:
    yield {"end": {"messages": await operator.count(request.words())}}


async def _log(operator: Operator, request: Request) -> Frames:
    rows = await operator.log(request.whole("limit"))
    for row in rows:
        yield {"row": row}
    yield {"end": {"rows": len(rows)}}


def _deed(verb: str, *names: str) -> Verb:
    """A verb that changes many messages; `names` are further arguments."""

    async def run(operator: Operator, request: Request) -> Frames:
        order = Order(
            Doer(request.peer.uid, request.peer.name),
            verb,
            request.words(),
            {name: request.arguments[name] for name in names if name in request.arguments},
            request.flag("dry_run"),
            request.whole("most"),
        )
        yield {"end": await operator.act(order)}

    return Verb("admin", run)


VERBS: dict[str, Verb] = {
    "hello": Verb("viewer", _hello),
    "status": Verb("viewer", _status),
    "queue.list": Verb("viewer", _list),
    "queue.summary": Verb("viewer", _summary),
    "queue.show": _on_one(lambda operator: operator.show),
    "queue.explain": _on_one(lambda operator: operator.explain),
    "queue.count": Verb("viewer", _count),
    "queue.log": Verb("viewer", _log),
    "queue.hold": _deed("hold"),
    "queue.release": _deed("release"),
    "queue.undo": _deed("undo", "operation"),
    "queue.retry": _deed("retry"),
    "queue.delete": _deed("delete"),
    "queue.expire": _deed("expire"),
    "queue.bounce": _deed("bounce", "reason"),
    "queue.reroute": _deed("reroute", "to"),
    "queue.edit": _deed("edit", "sender", "recipients"),
    "queue.export": Verb("admin", transfer.take_out),
    "queue.import": Verb("admin", transfer.take_in),
    "queue.upload": Verb("admin", transfer.upload),
    "suppress.list": Verb("viewer", suppress.entries),
    "suppress.check": Verb("viewer", suppress.check),
    "suppress.add": Verb("admin", suppress.add),
    "suppress.remove": Verb("admin", suppress.remove),
    "trace": Verb("viewer", _trace),
    "top": Verb("viewer", _top),
    "site.list": Verb("viewer", sites.rows),
    "site.show": Verb("viewer", sites.show),
    "site.pause": Verb("admin", sites.pause),
    "site.resume": Verb("admin", sites.resume),
    "site.flush": Verb("admin", sites.flush),
    "site.limits": Verb("admin", sites.limits),
    "site.forget": Verb("admin", sites.forget),
}
