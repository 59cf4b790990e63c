"""Every call of the spool on the way of a message fails once, and for good, with each error a disk can give.

Runs in a process with `faults.c` preloaded; `python -m tests.crash.faults.sweep` sees to that. One scenario takes
messages, small and large, through all of the store: put, committed, claimed, deferred, finished, segments used again, a
checkpoint. It is repeated with the 1st, 2nd, 3rd ... call failing, until no call is left to fail.

After each run, with a sound disk again:
- the store takes a message again within `_HEALTHY` seconds,
- a recovery finds every message that was acknowledged and not finished, with its text,
- and no exception came out of the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from mta.config.settings import Octets, Spool
from mta.model import Arrival, Arrivals, Body, Change, Draft, Envelope, IdSource, Queued, Recipient, Ref, StoreError
from mta.spool import store as stores
from mta.spool import writer as writers
from mta.spool.store import LocalStore
from mta.spool.writer import LogWriter
from tests.kit.memory import in_memory

ERRORS = {name: getattr(errno, name) for name in ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "EROFS")}
_SETTINGS = Spool(segment_size=Octets(1 << 20), large_body=Octets(4096), min_free=Octets(0))
_HEALTHY = 5.0
_NOW = 1_795_000_000_000
_SOURCE = Path(__file__).with_name("faults.c")


@dataclass(slots=True)
class Outcome:
    """What came of one run; `problems` is empty when the promises held."""

    calls: int = 0
    failed: str = ""  # the call that failed first
    acknowledged: int = 0
    refused: int = 0
    revived: int = 0  # refused, and found by the recovery all the same
    problems: list[str] = field(default_factory=list)


class Faults:
    """The preloaded library's switch."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._fault = library.mta_fault
        self._fault.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
        self._calls = library.mta_calls
        self._calls.restype = ctypes.c_long
        self._failed = library.mta_failed
        self._failed.restype = ctypes.c_char_p

    def arm(self, folder: Path, number: int, error: int, *, lasting: bool) -> None:
        self._fault(os.fsencode(folder), number, error, lasting)

    def disarm(self) -> tuple[int, str]:
        """How many calls there were, and which one failed first."""
        calls, failed = self._calls(), self._failed().decode()
        self._fault(b"/nowhere/at/all", 0, 0, 0)
        return calls, failed


class Life:
    """One life of a spool: a receiver's log and the queue manager's store, with what was promised."""

    def __init__(self, folder: Path, outcome: Outcome) -> None:
        self.outcome = outcome
        self.texts: dict[int, bytes] = {}  # acknowledged and not finished, by id
        self.refused: set[int] = set()
        self.doubtful: set[int] = set()  # their end was not confirmed
        self.arrivals: list[Arrival] = []
        loop = asyncio.get_running_loop()
        self.told = asyncio.Event()
        self.writer = LogWriter(_SETTINGS, folder, 1, loop, self.committed)
        self.store = LocalStore(_SETTINGS, folder, loop, lambda tokens, arrivals, error: None)
        self.queue: dict[int, Queued] = {queued.ref: queued for queued in self.store.recover()}
        self.store.snapshot = lambda: iter(list(self.queue.values()))
        self.ids = IdSource(1, self.writer.floor)

    def committed(self, tokens: Sequence[object], arrivals: Sequence[Arrival], error: StoreError | None) -> None:
        for token in tokens:
            message_id, text = token  # type: ignore[misc]
            if error is None:
                self.texts[message_id] = text
            else:
                self.refused.add(message_id)
        self.arrivals.extend(arrivals)
        self.told.set()

    async def put(self, text: bytes, *, large: bool = False) -> bool:
        """Offer a message; whether it was acknowledged."""
        message_id = self.ids.next(_NOW)
        envelope = Envelope(sender=b"a@x.example", recipients=(Recipient(b"b@y.example"),))
        body: bytes | Body = text
        file: Body | None = None
        try:
            if large:
                file = body = self.writer.body(message_id)
                file.write(text)
            self.told.clear()
            self.writer.put(Draft(message_id, envelope, b"Received: here\r\n", body), (message_id, text))
        except StoreError:
            self.refused.add(message_id)
            if file is not None:
                file.discard()
            return False
        async with asyncio.timeout(10):
            while message_id not in self.texts and message_id not in self.refused:
                self.told.clear()
                await self.told.wait()
        return message_id in self.texts

    def claim(self) -> None:
        news, self.arrivals = self.arrivals, []
        self.queue.update((queued.ref, queued) for queued in self.store.claim(Arrivals(1, tuple(news))))

    async def finish(self, queued: Queued) -> None:
        """The message was delivered."""
        self.queue.pop(queued.ref, None)
        self.texts.pop(queued.id, None)
        try:
            await self.store.record([Change(ref=queued.ref, id=queued.id, part=0, kind="finished")])
        except StoreError:
            self.doubtful.add(queued.id)  # it is written again; until then it may be delivered twice

    async def close(self) -> None:
        await self.store.close()
        await self.writer.close()


async def _scenario(life: Life) -> None:
    """A message's whole way, many times: enough for several segments, and for one to be used again."""
    for number in range(3):
        await life.put(b"small %d\r\n" % number)
    await life.put(b"large\r\n" * 1000, large=True)
    life.claim()
    first = list(life.queue.values())
    for queued in first[:1]:
        await life.finish(queued)
    for queued in first[1:2]:
        life.store.record_soon([Change(ref=queued.ref, id=queued.id, part=0, kind="waiting", due=9, why="later")])
    for number in range(14):
        await life.put(b"%06d\r\n" % number + bytes(90_000))
    life.claim()
    for queued in [q for q in life.queue.values() if q.size > 80_000][:-2]:
        await life.finish(queued)
    for queued in [q for q in life.queue.values() if q.size < 10_000 and q.id != first[1].id if len(first) > 1]:
        await life.finish(queued)
    await life.store._upkeep.settle()
    try:
        await life.store._upkeep.checkpoint()
    except (OSError, StoreError):
        return  # told by the upkeep, which tries again later


async def _run(folder: Path, faults: Faults, number: int, error: int, *, lasting: bool) -> Outcome:
    outcome = Outcome()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: outcome.problems.append(f"out of the loop: {context}"))
    threading.excepthook = lambda arguments: outcome.problems.append(f"out of a thread: {arguments.exc_value!r}")
    faults.arm(folder, number, error, lasting=lasting)
    life = None
    try:
        life = Life(folder, outcome)
        await _scenario(life)
    except (OSError, StoreError) as problem:
        if life is not None:
            outcome.problems.append(f"the store raised {problem!r}")
        # Else: a process that cannot start is started again by its supervisor.
    outcome.calls, outcome.failed = faults.disarm()
    if life is None:
        life = Life(folder, outcome)
        await _scenario(life)
    deadline = loop.time() + _HEALTHY
    while not await life.put(b"is all well again?\r\n"):
        if loop.time() > deadline:
            outcome.problems.append(f"refuses mail {_HEALTHY} s after the fault")
            break
        await asyncio.sleep(0.02)
    life.claim()
    await life.close()
    outcome.acknowledged, outcome.refused = len(life.texts), len(life.refused)
    await _recover(folder, life, outcome)
    return outcome


async def _recover(folder: Path, life: Life, outcome: Outcome) -> None:
    store = LocalStore(_SETTINGS, folder, asyncio.get_running_loop(), lambda tokens, arrivals, error: None)
    found = {queued.id: queued.ref for queued in store.recover()}
    for message_id, text in life.texts.items():
        ref = found.pop(message_id, None)
        if ref is None:
            outcome.problems.append(f"acknowledged and lost: {text[:20]!r}; {store.report.notes}")
            continue
        stored = store.read(Ref(ref))
        content = stored.content + (Path(stored.path).read_bytes() if stored.path else b"")
        if content != b"Received: here\r\n" + text:
            outcome.problems.append(f"acknowledged and altered: {text[:20]!r}")
    outcome.revived = len(found.keys() & life.refused)
    unknown = found.keys() - life.refused - life.doubtful
    if unknown:
        outcome.problems.append(f"finished, and queued again: {len(unknown)}")
    await store.close()


def sweep(errors: Sequence[str], step: int, first: int = 1) -> dict[str, object]:
    """Run all; every `step`th call only, from the `first` on."""
    faults = Faults()
    writers._LOOK_EVERY = 0.05  # the disk is looked at again so much sooner: the same code, less waiting
    stores._AGAIN = 0.05
    runs = acknowledged = refused = revived = 0
    calls: dict[str, int] = {}
    problems: list[str] = []
    for name in errors:
        for lasting in (False, True):
            number = first
            while True:
                folder = Path(tempfile.mkdtemp(prefix="fault-", dir=in_memory()))
                try:
                    outcome = uvloop.run(_run(folder, faults, number, ERRORS[name], lasting=lasting))
                finally:
                    faults.disarm()
                    shutil.rmtree(folder)
                where = f"{name}{' lasting' if lasting else ''} at call {number} ({outcome.failed})"
                problems += [f"{where}: {problem}" for problem in outcome.problems]
                if not outcome.failed:
                    break
                runs += 1
                acknowledged += outcome.acknowledged
                refused += outcome.refused
                revived += outcome.revived
                if outcome.revived:
                    print(f"{where}: {outcome.revived} refused and found all the same", file=sys.stderr)
                calls[outcome.failed] = calls.get(outcome.failed, 0) + 1
                number += step
    return {
        "runs": runs,
        "acknowledged": acknowledged,
        "refused": refused,
        "revived": revived,
        "calls": calls,
        "problems": problems,
    }


def build(folder: Path, compiler: str) -> Path:
    """The library, compiled."""
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def preloaded(folder: Path, compiler: str, words: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """This module with the library in front of the system's."""
    environment = {**os.environ, "LD_PRELOAD": str(build(folder, compiler))}
    command = [sys.executable, "-m", "tests.crash.faults.sweep", *words]
    return subprocess.run(command, env=environment, text=True, **more)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.faults.sweep", description=__doc__)
    parser.add_argument("--errors", nargs="*", default=list(ERRORS), choices=list(ERRORS))
    parser.add_argument("--step", type=int, default=1, help="only each so manieth call")
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    if not hasattr(ctypes.CDLL(None), "mta_fault"):
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            print("a C compiler is needed: apt-get install gcc", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory(prefix="faults-") as name:
            return preloaded(Path(name), compiler, sys.argv[1:]).returncode
    result = sweep(options.errors, options.step, options.first)
    print(json.dumps(result, indent=1))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
