"""How old what is queued is, by what it has in common: a table by site, domain, tenant or sender's domain, and by age.

The index counts it in C, a million deliveries in some hundredths of a second. Only for what the index does not know,
the sender's domain or a filter that names senders, envelopes are read, many at once, beside the loop.

A delivery is a message and one recipient domain; ages are those of the message.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections import defaultdict
from dataclasses import dataclass
from struct import pack
from typing import Final

from mta.model import MessageId, first_id_at, id_time_ms
from mta.queue.choice import Choice, Found, text_of
from mta.queue.manager import QueueManager

AGES: Final = (
    300,
    600,
    1200,
    2400,
    4800,
    9600,
    19200,
    38400,
    76800,
)  # seconds, where columns end
BY: Final = ("site", "domain", "sender-domain", "tenant")
_KEYS: Final = {"site": 0, "domain": 1, "tenant": 2}  # of Arena.ages
_FIELD: Final = 4  # octets of a count


@dataclass(slots=True)
class Line:
    """One row of the table."""

    name: str
    ages: list[int]

    @property
    def total(self) -> int:
        return sum(self.ages)


async def summary(chosen: Choice, manager: QueueManager, by: str) -> list[Line]:
    """The longest lines first. ValueError: there is no such table."""
    if by not in BY:
        raise ValueError(f"a summary is by {', '.join(BY)}, not by {by!r}")
    plain = by in _KEYS and chosen.indexed and chosen.ids is None and not manager.extras.doomed
    found = await (_counted(chosen, manager, by) if plain else _read(chosen, manager, by))
    lines = [Line(name, ages) for name, ages in found.items()]
    return sorted(lines, key=lambda line: (-line.total, line.name))


async def _counted(chosen: Choice, manager: QueueManager, by: str) -> dict[str, list[int]]:
    """By the index alone."""
    names = _names(manager, by)
    now = int(manager.clock() * 1000)
    marks = b"".join(pack("Q", first_id_at(now - age * 1000 + 1)) for age in AGES)
    columns = len(AGES) + 1
    counts = bytearray(_FIELD * columns * len(names))
    query = await chosen.prepared()
    cursor = 0
    while cursor >= 0:
        cursor = manager.arena.ages(cursor, query, _KEYS[by], marks, counts)
        await asyncio.sleep(0)
    table: dict[str, list[int]] = {}
    cells = array("I", bytes(counts))
    for number, name in enumerate(names):
        row = cells[number * columns : (number + 1) * columns]
        if any(row):
            known = table.setdefault(name, [0] * columns)  # a site has a number for each source
            table[name] = [old + new for old, new in zip(known, row, strict=True)]
    return table


async def _read(chosen: Choice, manager: QueueManager, by: str) -> dict[str, list[int]]:
    """Delivery by delivery."""
    table: dict[str, list[int]] = defaultdict(lambda: [0] * (len(AGES) + 1))
    names = None if by == "sender-domain" else _names(manager, by)
    now = manager.clock()
    async for batch in chosen.found(read=names is None):
        for found in batch:
            name = _sender_domain(found) if names is None else _shared(names, _number(manager, found, by))
            age = now - id_time_ms(MessageId(found[0][1])) / 1000
            table[name][sum(age >= bound for bound in AGES)] += 1
    return dict(table)


def _names(manager: QueueManager, by: str) -> list[str]:
    """Of all numbers of a key."""
    match by:
        case "site":
            sites = range(len(manager.sites.by_number))
            return [sys.intern(manager.site_name(number)) or "(no site yet)" for number in sites]
        case "domain":
            return [text_of(domain) for domain in manager.domains]
    return [name or "(none)" for name in manager.lanes.tenants]


def _number(manager: QueueManager, found: Found, by: str) -> int:
    entry = found[0]
    match by:
        case "site":
            return entry[10]
        case "domain":
            return entry[3]
    return manager.arena.lane(entry[0])[0]


def _shared(names: list[str], number: int) -> str:
    return names[number] if number < len(names) else "(new)"


def _sender_domain(found: Found) -> str:
    glance = found[1]
    if glance is None:
        return "(cannot be read)"
    return text_of(glance.envelope.sender).rpartition("@")[2].lower() or "<>"
