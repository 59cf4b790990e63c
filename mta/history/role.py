"""The historian's process: reads the mail log into the history when the machine has nothing else to do.

What it opens: the mail log and what it was before it was rotated, `state_dir/history`. No mail passes through it; it
may die at any time, SIGTERM included, and the next one goes on where it was. It is as nice as can be (which counts for
the disk too), and no more: a machine that is never idle still gets a history, if a late one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from mta.config.settings import Settings
from mta.spool.watermark import room

PAUSE: Final = 10.0  # seconds between two looks; who asks meanwhile reads the rest of the log himself
_NICEST: Final = 19
_RESERVE: Final = 64 << 20  # octets that are left free beyond what mail needs


def wanted(settings: Settings) -> bool:
    """Whether there is a history, and a log that it can be made of."""
    return settings.history.keep > 0 and settings.log.path is not None


def run(settings: Settings, up: Callable[[], None]) -> NoReturn:
    """Until it is killed."""
    up()  # a start must not wait for who lets everybody else go first
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, _NICEST)
    from mta.history.archive import folder_of  # late: SQLite and what comes with it is for this process alone
    from mta.history.historian import Historian

    state, log = settings.server.state_dir, settings.log.path
    historian = None
    if wanted(settings) and log is not None:
        min_free = settings.spool.min_free
        historian = Historian(log, folder_of(state), settings.history, say=_say, room=lambda: has_room(state, min_free))
    while True:
        if historian is not None:
            historian.turn()
        time.sleep(PAUSE)


def has_room(folder: Path, min_free: int) -> bool:
    return room(folder).octets >= min_free + _RESERVE


def _say(text: str) -> None:
    print(f"mta: {text}", file=sys.stderr, flush=True)
