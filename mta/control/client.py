"""A synchronous, typed client of the control socket, for the command line and for other programs.

    with Client(Path("/run/mta")) as mta:
        print(mta.count("all"))
        for delivery in mta.list("state=deferred", "age>1h"):
            print(delivery.id, delivery.reason)
        mta.hold("sender=news@example.org")

Synchronous on purpose: the answers stream, and a `for` loop is back-pressure enough. In a program with an event loop,
give it a thread (`asyncio.to_thread`). One request of a connection is under way at a time; `cancel` ends it from a
second one, and so does leaving a loop over rows before its end, with the next request.

Failure: NoServer when nobody answers, Refused with the server's words when the request is wrong or not allowed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import msgspec

from mta.control.protocol import SOCKET_NAME, VERSION, Json, encode, socket_name
from mta.control.rows import Delivery, Done, Greeting, Message, Operation, SiteRow, SummaryLine

_READ = 1 << 18  # octets at once: a long list is many short lines
_BATCH = 400_000  # octets of texts in one request of an import
_MOST_IN_BATCH = 500
T = TypeVar("T")


class NoServer(Exception):
    """Nobody answers on the socket."""


class Refused(Exception):
    """The server's own words: the request is wrong, or not allowed."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Error(msgspec.Struct):
    code: str
    text: str


class _Ids(msgspec.Struct):
    ids: tuple[str, ...]


class _Upload(msgspec.Struct):
    upload: int


class _Sites(msgspec.Struct):
    sites: int


class _Frame(msgspec.Struct, Generic[T]):
    """One line of an answer."""

    id: int | str | None = None
    row: T | msgspec.UnsetType = msgspec.UNSET
    end: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


class Client:
    """One connection. `timeout` seconds without an octet mean that nobody answers."""

    def __init__(self, runtime_dir: Path, timeout: float = 60.0) -> None:
        path = runtime_dir / SOCKET_NAME
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            with socket_name(path) as name:
                self._socket.connect(name)
        except OSError as error:
            self._socket.close()
            raise NoServer(
                f"no server answers on {path} ({error.strerror or error});"
                " is it running, with this configuration, and are you its user, root, or one of [control]?"
            ) from error
        self._file = self._socket.makefile("rb", buffering=_READ)
        self._sending = threading.Lock()
        self._number = 0
        self._under_way = 0  # the number of the request whose answer is not read to its end

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    # ---- looking

    def hello(self) -> Greeting:
        """Who the server takes us for, and what it can."""
        return self._ended("hello", Greeting)

    def status(self) -> Json:
        return self.call("status")

    def count(self, *filter: str) -> int:
        """Messages that a filter chooses."""
        return self._ended("queue.count", Done, filter=filter).messages

    def list(self, *filter: str, limit: int = 0) -> Iterator[Delivery]:
        """The deliveries that a filter chooses, as they come; `limit` 0 means all."""
        return self.typed_rows("queue.list", Delivery, filter=filter, limit=limit)

    def show(self, message_id: str) -> Message | None:
        """All about a message; None when it is not in the queue."""
        return next(self.typed_rows("queue.show", Message, id=message_id), None)

    def summary(self, *filter: str, by: str = "site", limit: int = 0) -> Iterator[SummaryLine]:
        """How many deliveries of which age there are for each site, domain, sender-domain or tenant."""
        return self.typed_rows("queue.summary", SummaryLine, filter=filter, by=by, limit=limit)

    def log(self, limit: int = 0) -> Iterator[Operation]:
        """What was done by hand, and by whom; the newest first."""
        return self.typed_rows("queue.log", Operation, limit=limit)

    # ---- acting: `most` refuses to touch more messages than that (Refused, code "many"); 0 means any number

    def hold(self, *filter: str, dry_run: bool = False, most: int = 0) -> Done:
        """Keep messages until they are released; `undo` with the number of the operation takes it back."""
        return self.act("hold", *filter, dry_run=dry_run, most=most)

    def undo(self, operation: int, *, dry_run: bool = False) -> Done:
        """Take a hold back: what it holds waits again for what it waited for before."""
        return self.act("undo", dry_run=dry_run, operation=operation)

    def release(self, *filter: str, dry_run: bool = False, most: int = 0) -> Done:
        """Let held messages go, now."""
        return self.act("release", *filter, dry_run=dry_run, most=most)

    def retry(self, *filter: str, dry_run: bool = False, most: int = 0) -> Done:
        """Try now what waits for a time."""
        return self.act("retry", *filter, dry_run=dry_run, most=most)

    def reroute(self, to: str, *filter: str, dry_run: bool = False, most: int = 0) -> Done:
        """Send messages to another next hop, `smtp:HOST:PORT` and so on; "rules": where the configuration says."""
        return self.act("reroute", *filter, dry_run=dry_run, most=most, to=to)

    def edit(
        self,
        *filter: str,
        sender: str | None = None,
        recipients: Mapping[str, str] | None = None,
        dry_run: bool = False,
        most: int = 0,
    ) -> Done:
        """Give messages another sender, or some of their recipients other addresses ({old: new}); they get new ids."""
        more: Json = {} if sender is None else {"sender": sender}
        return self.act("edit", *filter, dry_run=dry_run, most=most, recipients=dict(recipients or {}), **more)

    def delete(self, *filter: str, dry_run: bool = False, most: int = 0) -> Done:
        """Take messages out of the queue, without a notice to the sender."""
        return self.act("delete", *filter, dry_run=dry_run, most=most)

    def expire(self, *filter: str, dry_run: bool = False, most: int = 0) -> Done:
        """Give messages up: they go back to their senders now."""
        return self.act("expire", *filter, dry_run=dry_run, most=most)

    def bounce(self, reason: str, *filter: str, dry_run: bool = False, most: int = 0) -> Done:
        """Return messages to their senders, as if a host had refused them for this reason."""
        return self.act("bounce", *filter, dry_run=dry_run, most=most, reason=reason)

    def act(self, verb: str, *filter: str, dry_run: bool = False, **arguments: object) -> Done:
        """Any verb of `mta queue` that changes messages."""
        return self._ended(f"queue.{verb}", Done, filter=filter, dry_run=dry_run, **arguments)

    # ---- to another queue, and back

    def export(self, *filter: str) -> Iterator[Json]:
        """Messages as rows, for `import_rows` of another server; they stay in the queue. See docs/control.md."""
        return self.rows("queue.export", filter=filter)

    def import_rows(self, rows: Iterable[Json]) -> Iterator[str]:
        """Take exported rows in; the ids here, as soon as the messages are on disk. ValueError: it is no export."""
        batch: list[Json] = []
        octets = 0
        for message, first, more in _messages(rows):
            if more:
                yield from self._uploaded(message, first, more)
                continue
            batch.append({**message, "text": first})
            octets += len(first)
            if octets > _BATCH or len(batch) == _MOST_IN_BATCH:
                yield from self._imported(batch)
                batch, octets = [], 0
        if batch:
            yield from self._imported(batch)

    def _imported(self, batch: Sequence[Json]) -> Sequence[str]:
        return self._ended("queue.import", _Ids, messages=batch).ids

    def _uploaded(self, message: Json, first: str, more: Sequence[str]) -> Sequence[str]:
        """One whose text is in several rows."""
        number = self._ended("queue.upload", _Upload, head=message["head"]).upload
        for text in (first, *more):
            self._ended("queue.upload", _Upload, upload=number, text=text)
        return self._ended("queue.upload", _Ids, upload=number, tail=message["tail"]).ids

    # ---- sites: by name, by one of their hosts, or by a pattern

    def sites(self, pattern: str = "*") -> Iterator[SiteRow]:
        """The sites that have had mail, the longest queue first."""
        return self.typed_rows("site.list", SiteRow, site=pattern)

    def pause_site(self, site: str, seconds: int = 0, reason: str = "") -> int:
        """Give nothing more to it; 0 seconds: until it is resumed. How many sites it was, as with the next ones."""
        return self._ended("site.pause", _Sites, site=site, seconds=seconds, reason=reason).sites

    def resume_site(self, site: str) -> int:
        return self._ended("site.resume", _Sites, site=site).sites

    def flush_site(self, site: str) -> int:
        """Try all its mail now, whatever was learned of it."""
        return self._ended("site.flush", _Sites, site=site).sites

    # ---- any verb

    def call(self, verb: str, **arguments: object) -> Json:
        """The end of an answer; its rows, if any, are passed over."""
        found: Json = self._ended(verb, dict[str, object], **arguments)
        return found

    def rows(self, verb: str, **arguments: object) -> Iterator[Json]:
        """The rows of an answer, as they come."""
        return self.typed_rows(verb, dict[str, object], **arguments)

    def typed_rows(self, verb: str, kind: type[T], **arguments: object) -> Iterator[T]:
        """The same, as objects of a type; `msgspec.Raw`: as they are on the wire."""
        for frame in self._frames(verb, kind, arguments):
            if frame.row is not msgspec.UNSET:
                yield frame.row

    def answer(self, verb: str, **arguments: object) -> tuple[Sequence[Json], Json]:
        """All rows of an answer, and its end."""
        rows = []
        end: Json = {}
        for frame in self._frames(verb, dict[str, object], arguments):
            if frame.row is not msgspec.UNSET:
                rows.append(frame.row)
            elif frame.end is not msgspec.UNSET:
                end = msgspec.json.decode(bytes(frame.end), type=dict[str, object])
        return rows, end

    def cancel(self) -> None:
        """End the request that is under way, from another thread; what it had done by then stays."""
        if number := self._under_way:
            self._send({"v": VERSION, "id": f"cancel {number}", "cancel": number})

    # ---- inside

    def _ended(self, verb: str, kind: type[T], **arguments: object) -> T:
        end = b"{}"
        for frame in self._frames(verb, msgspec.Raw, arguments):
            if frame.end is not msgspec.UNSET:
                end = bytes(frame.end)
        try:
            return msgspec.json.decode(end, type=kind)
        except msgspec.DecodeError as error:
            raise NoServer(f"{_NOT_UNDERSTOOD} ({error})") from error

    def _frames(self, verb: str, kind: type[T], arguments: Json) -> Iterator[_Frame[T]]:
        self.cancel()  # a loop was left before its end
        self._number += 1
        number = self._under_way = self._number
        decode = msgspec.json.Decoder(_Frame[kind]).decode  # type: ignore[valid-type]
        try:
            self._send({"v": VERSION, "id": number, "verb": verb, "args": arguments})
            while line := self._file.readline():
                frame = decode(line)
                if frame.id != number and frame.id is not None:
                    continue  # of one that was left
                if frame.error is not None:
                    self._under_way = 0
                    raise Refused(frame.error.code, frame.error.text)
                if frame.end is not msgspec.UNSET:
                    self._under_way = 0
                yield frame
                if frame.end is not msgspec.UNSET:
                    return
        except OSError as error:
            raise NoServer(f"the server stopped answering: {error}") from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise NoServer(f"{_NOT_UNDERSTOOD} ({error})") from error
        raise NoServer("the server closed the connection before its answer was whole")

    def _send(self, frame: Json) -> None:
        with self._sending, contextlib.suppress(BrokenPipeError):  # who hangs up on us may have said why
            self._socket.sendall(encode(frame))


def _messages(rows: Iterable[Json]) -> Iterator[tuple[Json, str, Sequence[str]]]:
    """Each message of an export: head and tail, the first part of its text, and the others. ValueError."""
    head: object = None
    texts: Sequence[str] = ()
    for row in rows:
        if "head" in row and head is None:
            head, texts = row["head"], ()
        elif "text" in row and head is not None:
            texts = (*texts, str(row["text"]))
        elif "tail" in row and head is not None:
            yield {"head": head, "tail": row["tail"]}, texts[0] if texts else "", texts[1:]
            head = None
        elif "error" not in row:
            raise ValueError("this is no export: its rows are not in order")
    if head is not None:
        raise ValueError("the export ends in the middle of a message")


_NOT_UNDERSTOOD = "the server's answer is not understood; is it of another version?"
