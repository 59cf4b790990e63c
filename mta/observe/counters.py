"""Counters that outlive the process that counts, in memory shared by all processes of a server.

Each process owns one row and is the only one that writes it, so no lock is needed; a reader may see a sum that is
one event old. The supervisor makes the table before the first fork.
"""

from __future__ import annotations

import mmap
from typing import Final

# INVARIANT: the order is the layout of a row; append only.
NAMES: Final = (
    "sessions_opened",
    "sessions_closed",
    "messages_accepted",
    "octets_accepted",
    "messages_refused",
    "recipients_refused",
    "commits",
    "commit_failures",
    "protocol_errors",
    "deliveries_done",
    "deliveries_deferred",
    "deliveries_failed",
    "bounces_made",
    "connections_opened",
    "connections_failed",
    "internal_errors",
    "messages_ambiguous",
    "segments_retired",
    "receivers_refusing",  # not a count: how many do so now
    "logins",
    "logins_refused",
    "delays_told",
    "successes_told",
    "fallbacks",  # hosts that could not do what they offer
    "tls_handshakes",
    "tls_resumed",  # of those
    "tls_failures",
    "connections_refused",  # turned away at the door
)
INDEX: Final = {name: i for i, name in enumerate(NAMES)}
_ROW: Final = 64  # room for more names, and rows on cache lines of their own


class Table:
    """Rows of 64-bit counters; `row(i)` is a writable view for process i."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._cells = memoryview(mmap.mmap(-1, max(mmap.PAGESIZE, rows * _ROW * 8))).cast("Q")

    def row(self, index: int) -> memoryview:
        if not 0 <= index < self.rows:
            raise IndexError(f"no counter row {index}")
        return self._cells[index * _ROW : (index + 1) * _ROW]

    def totals(self) -> dict[str, int]:
        """Each counter, summed over all processes."""
        return {name: sum(self._cells[row * _ROW + i] for row in range(self.rows)) for i, name in enumerate(NAMES)}
