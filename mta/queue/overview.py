"""What `mta top` shows: rates are made by who looks twice, so here are totals, the queue by site, processes, failures.

A frame costs one look at each slot of the arena, in C and in slices, and the details of as few sites as are shown.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mta._fastparse import REPLIED
from mta.observe.maillog import printable
from mta.observe.transcripts import Shelf, Transcript
from mta.queue.filter import STATES
from mta.queue.manager import QueueManager
from mta.queue.sites import SiteQueue

Row = dict[str, object]
Running = tuple[str, int, int, int]  # role, worker, pid, how often one in that place has died

CELLS: Final = 8  # of a site in a census
_SLICE: Final = 5000  # sites looked at in one turn of the loop
_FAILURES: Final = 8
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Overview:
    """That of one queue manager; `status` is what `mta status` shows."""

    def __init__(
        self,
        manager: QueueManager,
        status: Callable[[], Row],
        processes: Callable[[], Sequence[Running]],
        runtime_dir: Path,
    ) -> None:
        self._manager = manager
        self._status = status
        self._processes = processes
        self._shelf = Shelf(runtime_dir)
        self._behind: dict[str, int] = {}
        self._failures: deque[Transcript] = deque(maxlen=_FAILURES)
        self._reading = asyncio.Lock()

    async def frame(self, limit: int) -> Row:
        """All, with at most `limit` sites in each table."""
        counts = await self._census()
        busiest = heapq.nlargest(limit, range(1, len(counts) // CELLS), key=lambda number: _total(counts, number))
        return {
            "now": time.time(),
            **self._status(),
            "processes": [self._process(*running) for running in self._processes()],
            "busiest": [self._site(number, counts) for number in busiest if _total(counts, number)],
            "slowest": [self._site(number, counts) for number in await self._slowest(limit)],
            "failures": [_failure(transcript) for transcript in await self._newest()],
        }

    async def _census(self) -> array[int]:
        """Deliveries by site and state."""
        manager = self._manager
        counts = array("I", bytes(4 * CELLS * len(manager.sites.by_number)))
        cursor = 0
        while cursor >= 0:
            cursor = manager.arena.census(cursor, counts)
            await asyncio.sleep(0)
        return counts

    async def _slowest(self, limit: int) -> list[int]:
        """Of the sites that mail is with now, those where a delivery takes longest."""
        queues = self._manager.sites.by_number
        found: list[tuple[float, int]] = []
        for start in range(1, len(queues), _SLICE):
            busy = (queue for queue in queues[start : start + _SLICE] if queue.out)
            found += [(seconds, queue.number) for queue in busy if (seconds := queue.limits.concurrency.service)]
            await asyncio.sleep(0)
        return [number for _, number in heapq.nlargest(limit, found)]

    def _site(self, number: int, counts: array[int]) -> Row:
        queue: SiteQueue = self._manager.sites.by_number[number]
        state = self._manager.regulator.state(queue)
        at = number * CELLS
        known = at + CELLS <= len(counts)
        return {
            "site": printable(state.name),
            "source": state.source,
            **{name: counts[at + number] if known else 0 for name, number in STATES.items()},
            "open": state.open,
            "connections": state.limits.connections,
            "service": state.limits.service,
            "gate": state.limits.gate,
            "sentence": printable(state.sentence),
        }

    def _process(self, role: str, worker: int, pid: int, deaths: int) -> Row:
        cpu, memory = _usage(pid)
        return {"role": role, "worker": worker, "pid": pid, "cpu": cpu, "memory": memory, "deaths": deaths}

    async def _newest(self) -> list[Transcript]:
        """The newest failures that there are transcripts of."""
        async with self._reading:  # two that look at once must not read the same twice
            for transcript in await asyncio.to_thread(self._shelf.read, self._behind):
                if transcript.why != "fine":
                    self._failures.append(transcript)
        return list(self._failures)


def _total(counts: array[int], number: int) -> int:
    return sum(counts[number * CELLS : number * CELLS + CELLS])


def _usage(pid: int) -> tuple[float, int]:
    """Seconds of processor time so far, and octets of memory; zeros of one that has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0, 0
    return (int(fields[11]) + int(fields[12])) / _TICK, pages * _PAGE


def _failure(transcript: Transcript) -> Row:
    """What went wrong, in as few words as there are: the last refusal of the session, else how it ended."""
    refusals = [line[3] for line in transcript.lines if line and line[1] == REPLIED and line[3][:1] in (b"4", b"5")]
    return {
        "at": transcript.kept / 1000,
        "side": transcript.side,
        "peer": printable(transcript.peer),
        "session": transcript.session,
        "why": transcript.why,
        "text": printable(refusals[-1].split(b"\r\n")[0]) if refusals else printable(transcript.ended),
        "messages": transcript.messages[-1:],
    }
