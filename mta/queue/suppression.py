"""Addresses that are not written to: whoever sends to one gets his mail back before anybody is asked.

An entry is of one tenant ("" is nobody, "*" everybody) and one address, or "@domain". They come by hand
(`mta suppress`), and from hosts that refuse a recipient for good and blame what `[suppression] classes` names.

Where there are entries, `Places` asks `stops` before it gives a delivery a place: those for a domain without any cost
one look into a dict, others the reading of their envelope. Where there are none it is not asked.

Invariants
- Memory has what is decided by (some 300 octets an entry), the file all that is told; both have the same entries. What
  is added counts at once; a crash in the same moment may lose it.
- What is stopped is settled in `advance`, not by the call that found it: that may be about to record something else.

Failure: where its file cannot be opened the list is empty, which is told on standard error; mail goes on.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mta.config.settings import Suppression as Settings
from mta.mail.dsn import Fate
from mta.mail.replyclass import SUPPRESSED, classify
from mta.mail.trace import date_text
from mta.model import Envelope, MessageId, Ref, Reply, StoreError, domain_of, id_text
from mta.observe.database import Database
from mta.observe.maillog import printable, quoted
from mta.queue import _arena
from mta.queue.outcome import Group, Verdict

if TYPE_CHECKING:
    from mta.queue.manager import QueueManager

EVERYBODY: Final = "*"
BY_HAND: Final = "operator"
_SCHEMA: Final = (
    "CREATE TABLE suppressed (tenant TEXT NOT NULL, address BLOB NOT NULL, reason TEXT NOT NULL, reply TEXT NOT NULL,"
    " added INTEGER NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (address, tenant)) WITHOUT ROWID",
)
_COLUMNS: Final = "tenant, address, reason, reply, added, expires"
_PUT: Final = f"INSERT OR REPLACE INTO suppressed ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
_TAKE: Final = "DELETE FROM suppressed WHERE tenant = ? AND address = ?"
_OLD: Final = "DELETE FROM suppressed WHERE expires AND expires <= ?"
_PAGE: Final = (
    f"SELECT {_COLUMNS} FROM suppressed WHERE (address, tenant) > (?, ?)"
    " AND (expires = 0 OR expires > ?) ORDER BY address, tenant LIMIT ?"
)
_PAGE_ROWS: Final = 1000
_PATIENCE: Final = 10.0  # seconds that an operator waits for the disk
_SWEEP: Final = 3600.0  # seconds between two looks for what has expired


class Entry(NamedTuple):
    """A row. Times in seconds; `expires` 0: never. `reason` is a class of replies, or what an operator said."""

    tenant: str
    address: bytes
    reason: str
    reply: str
    added: int
    expires: int


class _Known(NamedTuple):
    reason: str
    added: int
    expires: int


class Suppression:
    """The list of one server."""

    def __init__(self, settings: Settings, path: Path, clock: Callable[[], float]) -> None:
        self._classes = frozenset(settings.classes)
        self._keep = settings.keep
        self._path = path
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._domains: dict[bytes, int] = {}  # with the number of their entries
        self._database: Database | None = None
        self._manager: QueueManager | None = None
        self._stopped = -1  # the list of deliveries that are to be settled
        self._next_sweep = 0.0
        if self._classes or path.exists():
            self._load()

    def attach(self, manager: QueueManager) -> None:
        """Whose deliveries are looked at."""
        self._manager = manager
        self._stopped = manager.arena.new_list()
        self._arm()

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def __len__(self) -> int:
        return len(self._known)

    # ---- who is on it

    def find(self, tenant: str, address: bytes) -> Entry | None:
        """The entry that keeps a tenant from writing to an address."""
        address = address.lower()
        for name in (address, b"@" + domain_of(address)):
            for whose in (tenant, EVERYBODY):
                known = self._known.get(_key(whose, name))
                if known is not None and not 0 < known.expires <= self._clock():
                    return Entry(whose, name, known.reason, "", known.added, known.expires)
        return None

    def add(self, tenant: str, address: bytes, reason: str, *, keep: float = 0.0, reply: str = "") -> Entry:
        """Put an address on the list, or what is there in another way; `keep` seconds, 0: for ever."""
        file, now = self._file(), int(self._clock())
        entry = Entry(tenant, address.lower(), reason, reply, now, int(now + keep) if keep else 0)
        self._remember(entry)
        file.write(_PUT, entry)
        self._arm()
        return entry

    def remove(self, tenant: str, address: bytes) -> bool:
        """Take an address off; whether it was there."""
        address = address.lower()
        if self._known.pop(_key(tenant, address), None) is None:
            return False
        self._forget_domain(address)
        self._file().write(_TAKE, (tenant, address))
        self._arm()
        return True

    async def whole(self, entry: Entry) -> Entry:
        """An entry that was found, with what the host had said."""
        statement = f"SELECT {_COLUMNS} FROM suppressed WHERE tenant = ? AND address = ?"
        rows = await self._file().query(statement, (entry.tenant, entry.address))
        return Entry(*rows[0]) if rows else entry

    async def flush(self) -> None:
        """All that was added and removed is in the file. StoreError when the disk takes nothing: it counts still."""
        if self._database is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._database.flush()
        except TimeoutError:
            why = self._database.trouble or "the disk is slow"
            raise StoreError(f"it counts, but is not in the file yet: {why}") from None

    async def entries(self) -> AsyncIterator[Entry]:
        """All of them, by address; what is added meanwhile may be among them."""
        last: tuple[bytes, str] = (b"", "")
        while self._database is not None:
            page = await self._database.query(_PAGE, (*last, int(self._clock()), _PAGE_ROWS))
            for row in page:
                yield Entry(*row)
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1][1], page[-1][0]
            await asyncio.sleep(0)

    # ---- in the way of mail

    def learn(self, message_id: MessageId, envelope: Envelope, fates: Iterable[Fate]) -> None:
        """Recipients failed: those of whom a host says that they are not there go on the list."""
        if not self._classes or not envelope.sender:
            return
        tenant = envelope.options.tenant if envelope.options is not None else ""
        for fate in fates:
            if fate.action != "failed" or not fate.is_spoken or fate.reply.code < 500:
                continue
            blame = classify(fate.reply)
            if blame.value in self._classes:
                self._take_in(message_id, tenant, fate, blame.value)

    def stops(self, slot: int) -> bool:
        """Whether a delivery, which is idle, has recipients on the list; then it waits for `advance`."""
        manager = self._manager
        assert manager is not None
        arena = manager.arena
        if manager.domains[arena.domain(slot)] not in self._domains or not self._hits(slot):
            return False
        arena.push(self._stopped, slot, _arena.RESOLVING)
        return True

    def advance(self, now: float) -> None:
        """Settle what was stopped; forget what has expired."""
        manager = self._manager
        assert manager is not None
        while (slot := manager.arena.pop(self._stopped)) >= 0:
            hits = self._hits(slot)
            if hits:
                more = len(hits) < len(manager.left(slot))
                manager.settling.settle(slot, Verdict(failures=tuple(hits), reply=hits[0].reply, untried=more))
            else:
                manager.places.route(slot)  # it was taken off meanwhile
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP
            self._sweep(now)

    # ---- inside

    def _take_in(self, message_id: MessageId, tenant: str, fate: Fate, blame: str) -> None:
        assert self._manager is not None
        try:
            entry = self.add(tenant, fate.address, blame, keep=self._keep, reply=str(fate.reply))
        except StoreError as error:
            why = f"class={blame} trouble={quoted(str(error))}"
        else:
            why = f"class={blame} until={entry.expires or 'ever'}"
        to = f"to=<{printable(fate.address.lower())}> tenant={printable(tenant) or '-'}"
        self._manager.maillog(id_text(message_id), "suppressed", f"{to} {why}")

    def _hits(self, slot: int) -> list[Group]:
        """The recipients of a delivery that are on the list, with what their sender is told."""
        manager = self._manager
        assert manager is not None
        try:
            envelope = manager.store.envelope(Ref(manager.arena.ref(slot)))
        except StoreError:
            return []  # its attempt will find that out
        tenant = envelope.options.tenant if envelope.options is not None else ""
        return [
            Group((index,), _reply(entry))
            for index in manager.left(slot)
            if (entry := self.find(tenant, envelope.recipients[index].address)) is not None
        ]

    def _load(self) -> None:
        try:
            file = self._file()
        except StoreError as error:
            print(f"mta: nobody is suppressed: {error}", file=sys.stderr, flush=True)
            return
        for row in file.rows(f"SELECT {_COLUMNS} FROM suppressed"):
            self._remember(Entry(*row))

    def _file(self) -> Database:
        if self._database is None:
            try:
                self._database = Database(self._path, _SCHEMA)
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self._path} cannot be opened: {error}") from error
        return self._database

    def _remember(self, entry: Entry) -> None:
        key = _key(entry.tenant, entry.address)
        if key not in self._known:
            domain = domain_of(entry.address)
            self._domains[domain] = self._domains.get(domain, 0) + 1
        self._known[key] = _Known(entry.reason, entry.added, entry.expires)

    def _forget_domain(self, address: bytes) -> None:
        domain = domain_of(address)
        left = self._domains[domain] - 1
        if left:
            self._domains[domain] = left
        else:
            del self._domains[domain]

    def _sweep(self, now: float) -> None:
        old = [key for key, known in self._known.items() if 0 < known.expires <= now]
        for key in old:
            del self._known[key]
            self._forget_domain(key.partition(b"\0")[2])
        if old:
            self._file().write(_OLD, (int(now),))
            self._arm()

    def _arm(self) -> None:
        """The way of mail leads past here only while there is something to find."""
        if self._manager is not None:
            self._manager.places.gate = self.stops if self._known else None


def _key(tenant: str, address: bytes) -> bytes:
    return tenant.encode("utf-8", "surrogateescape") + b"\0" + address


def _reply(entry: Entry) -> Reply:
    """What the sender is told, and why."""
    what = "this domain" if entry.address.startswith(b"@") else "this address"
    return Reply(0, "5.7.1", f"{SUPPRESSED}{what} is not written to since {date_text(entry.added)}: {entry.reason}")
