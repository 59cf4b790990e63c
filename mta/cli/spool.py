"""`mta spool check` and `mta spool stats`: the queue's files.

Exit code of `check`: 0 all is well or was put in order, 1 there is damage.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter

from mta.cli.common import TEMPORARY, connect, fail, settings

_LABELS = {
    "segments": "segments in use",
    "free_segments": "spare segments",
    "segment_octets": "octets of these",
    "live_octets": "octets of unfinished messages in them (where not counted yet: all)",
    "live_messages": "unfinished messages",
    "large_bodies": "large texts",
    "commits": "batches written",
    "syncs": "syncs",
    "octets": "octets written",
    "mean_seconds": "mean seconds of write and sync",
    "longest_seconds": "longest of them",
    "failures": "failed writes or syncs",
    "retired_segments": "segments retired for them",
    "uncut_batches": "failed batches that may be read again",
    "free_octets": "free octets of the disk",
    "free_inodes": "free inodes of the disk",
    "refusing_since": "mail is refused since (Unix time)",
    "refusing_why": "why",
    "unwritten_changes": "changes that wait to be written again",
    "unprepared_segments": "segments made without a spare at hand",
    "checkpoints": "checkpoints",
    "damaged_segments": "damaged segments",
    "unreadable_segments": "unreadable segments",
}


def run(arguments: argparse.Namespace) -> int:
    return _check(arguments) if arguments.action == "check" else _stats(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from mta.premises import StartError, lock
    from mta.spool.check import SpoolCheck

    state_dir = settings(arguments.config).server.state_dir
    held = -1
    if arguments.repair and state_dir.is_dir():
        try:
            held = lock(state_dir, None, patience=0.0)
        except StartError as error:
            fail(TEMPORARY, f"mta: {error}; a spool in use is not repaired")
    verdicts: Counter[str] = Counter()
    try:
        for finding in SpoolCheck(state_dir, repair=arguments.repair).findings():
            verdicts[finding.verdict] += 1
            if arguments.json:
                print(json.dumps({"verdict": finding.verdict, "text": finding.text}))
            else:
                print(f"{finding.verdict:6}  {finding.text}", flush=True)
    finally:
        if held >= 0:
            os.close(held)
    return 1 if verdicts["damage"] else 0


def _stats(arguments: argparse.Namespace) -> int:
    with connect(arguments.config) as client:
        status = client.call("status")
    numbers = status["spool"]
    assert isinstance(numbers, dict)
    if arguments.json:
        print(json.dumps(numbers))
        return 0
    uptime = status["uptime"]
    assert isinstance(uptime, int | float)
    width = max(map(len, _LABELS.values()))
    for name, value in numbers.items():
        shown = f"{value:.6f}" if isinstance(value, float) else str(value)
        print(f"{_LABELS.get(name, name.replace('_', ' ')):{width}}  {shown}")
    print(f"{'syncs a second since the start':{width}}  {numbers['syncs'] / max(uptime, 0.001):.2f}")
    return 0
