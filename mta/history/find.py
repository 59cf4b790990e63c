"""Asks the history: the databases, and behind them the rest of the mail log that is not in them yet.

The rest is read into a database in memory, by the same code: an answer is whole at any time, whether the historian has
kept up, is dead, or the server is stopped. What is found comes newest first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from mta.history.archive import began, files
from mta.history.asked import ENDED, REFUSED, Question, ask
from mta.history.historian import digested
from mta.history.partition import Partition
from mta.history.sources import Block, SourceError, Sources
from mta.history.steps import DELETED, DELIVERED, STATES, Arrival
from mta.mail.replyclass import classify_text
from mta.model import id_time_ms, parse_id

Row = dict[str, object]
_ENDING: Final = "id, at, state, recipient, hop, reply, sender, client, size, notes"
_REFUSAL: Final = "session, at, client, helo, verb, sender, recipient, reply, notes"
_SLACK: Final = 60_000  # milliseconds by which a clock may have been set


class Finder:
    """One look at the history of a server. `problem` is told of what cannot be read; the rest is given all the same.

    `only`: of the rest of the log, read the lines with one of these texts in them.
    """

    def __init__(
        self,
        folder: Path,
        log: Path | None,
        keep: float,
        now: float,
        problem: Callable[[str], None],
        *,
        only: Sequence[str] = (),
    ) -> None:
        self._now = now
        self._since = int((now - keep) * 1000)
        self._problem = problem
        self._parts: list[Partition] = []  # newest first
        for path in reversed(files(folder)):
            self._open(path)
        if log is not None:
            self._parts.insert(0, self._rest(log, [text.encode() for text in only]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._parts:
            part.disconnect()

    # ---- what may be asked

    def endings(self, words: Sequence[str], limit: int = 0) -> Iterator[Row]:
        """What became of mail, a row for each recipient; `limit` 0 is all. ValueError: the filter is wrong."""
        question = ask(words, ENDED, self._now)
        deleted: set[tuple[object, object]] = set()
        given = 0
        for row in self._select("ending", _ENDING, question):
            if row[2] == DELETED:  # mail with several parts is deleted in parts, and the log has a line for each
                if (row[0], row[3]) in deleted:
                    continue
                deleted.add((row[0], row[3]))
            if given == limit > 0:
                return
            given += 1
            yield self._ending(*row)

    def refusals(self, words: Sequence[str], limit: int = 0) -> Iterator[Row]:
        """What was refused, a row for each command."""
        question = ask(words, REFUSED, self._now)
        for number, row in enumerate(self._select("refusal", _REFUSAL, question)):
            if number == limit > 0:
                return
            yield _refusal(*row)

    def arrival(self, name: str) -> Arrival | None:
        """Of a message of which not all had ended when it was written down."""
        return next((found for part in self._parts if (found := self._asked(part, name)) is not None), None)

    def steps(self, name: str) -> list[Row]:
        """What happened to a message before it ended, oldest first."""
        rows: list[Row] = [
            {"at": at / 1000, "event": event, "recipient": recipient, "site": hop, "text": text}
            for part in self._parts
            for at, event, recipient, hop, text in self._query(
                part, "SELECT at, event, recipient, hop, text FROM step WHERE id = ? AND at >= ?", (name, self._since)
            )
        ]
        return sorted(rows, key=lambda row: float(str(row["at"])))

    # ---- inside

    def _open(self, path: Path) -> None:
        try:
            partition = Partition(path, readonly=True)
            partition.db.execute("BEGIN")
            partition.mark_of("closed")  # from here on what is read stays the same
        except sqlite3.Error as error:
            self._problem(f"{path} cannot be read: {error}")
        else:
            self._parts.append(partition)

    def _rest(self, log: Path, only: Sequence[bytes]) -> Partition:
        rest = Partition(None)
        marks = self._parts[0].positions() if self._parts else {}
        sources = Sources(log)
        try:
            for block in sources.read({name: at for name, (at, _) in marks.items()}, self._since / 1000):
                found = digested(_with(block, only) if only else block, self._since)
                found.explain(self.arrival)  # mail that ended now may have come when the databases were written last
                rest.add(found, {})
        except SourceError as error:
            self._problem(str(error))
        finally:
            sources.close()
        return rest

    def _asked(self, part: Partition, name: str) -> Arrival | None:
        try:
            return part.arrival(name)
        except sqlite3.Error as error:
            self._problem(f"{part.path} cannot be read: {error}")
            return None

    def _select(self, table: str, columns: str, question: Question) -> Iterator[tuple[Any, ...]]:
        statement = f"SELECT {columns} FROM {table} WHERE at >= ? AND {question.condition} ORDER BY rowid DESC"
        for part in self._parts:
            if question.ids is not None and part.path is not None and self._is_before(part.path, question.ids):
                continue
            for name, function in question.functions.items():
                part.db.create_function(name, 1, function, deterministic=True)
            part.db.create_function("class_of", 1, class_of, deterministic=True)
            part.db.create_function("attempts_of", 4, self._attempts)
            yield from self._query(part, statement, (self._since, *question.parameters))

    def _is_before(self, path: Path, ids: frozenset[str]) -> bool:
        """Whether all these messages came after a file was done with."""
        later = [part.path for part in self._parts if part.path is not None and part.path > path]
        return bool(later) and all(came(name) > began(min(later)) + _SLACK for name in ids)

    def _query(self, part: Partition, statement: str, parameters: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        try:
            yield from part.db.execute(statement, tuple(parameters))
        except sqlite3.Error as error:
            self._problem(f"{part.path or 'the rest of the log'} cannot be asked: {error}")

    def _attempts(self, name: str, recipient: str | None, at: int, state: int) -> int:
        """How many were made for a recipient until it ended."""
        before: int = sum(
            count
            for part in self._parts
            for (count,) in self._query(
                part,
                "SELECT count(*) FROM step WHERE id = ? AND event IN ('deferred', 'failed') AND at <= ?"
                " AND (recipient = ? OR ? IS NULL)",
                (name, at, recipient, recipient),
            )
        )
        return before + (state == DELIVERED)

    def _ending(
        self,
        name: str,
        at: int,
        state: int,
        recipient: str | None,
        hop: str | None,
        reply: str,
        sender: str | None,
        client: str | None,
        size: int | None,
        notes: str | None,
    ) -> Row:
        return {
            "id": name,
            "state": STATES[state],
            "at": at / 1000,
            "arrived": came(name) / 1000,
            "sender": sender,
            "recipient": recipient,
            "client": client,
            "size": size,
            "site": hop,
            "attempts": self._attempts(name, recipient, at, state),
            "class": class_of(reply) if state != DELIVERED else "",
            "reply": reply,
            "notes": notes or "",
        }


def _refusal(
    session: str,
    at: int,
    client: str,
    helo: str | None,
    verb: str,
    sender: str | None,
    recipient: str | None,
    reply: str,
    notes: str | None,
) -> Row:
    return {
        "session": session,
        "at": at / 1000,
        "client": client,
        "helo": helo,
        "verb": verb,
        "sender": sender,
        "recipient": recipient,
        "class": class_of(reply),
        "reply": reply,
        "notes": notes or "",
    }


def class_of(reply: str) -> str:
    return str(classify_text(reply))


def came(name: str) -> int:
    """When a message with this id came, in milliseconds."""
    return id_time_ms(parse_id(name))


def _with(block: Block, only: Sequence[bytes]) -> Block:
    if not any(text in block.text for text in only):
        return Block(block.name, b"", block.end)
    lines = [line for line in block.text.split(b"\n") if any(text in line for text in only)]
    return Block(block.name, b"\n".join(lines), block.end)
