"""How much of the disk is left, and whether that is enough for new mail.

    at or above [spool] min_free and min_free_inodes    mail is taken
    below one of them, or the disk cannot be asked      mail is refused, 452 4.3.1 or 451 4.3.0; deliveries go on

What lies below the mark is the reserve of those who free room: the state log, notices, checkpoints. A log for mail
makes no segment that would reach into it (`Supply.untouched`). For the case that others use that up as well, the state
log has a whole segment, written to its end, in advance (`mta.spool.segments.Supply`).

Not every file system counts inodes: one that says it has none in all has as many as it wants.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from mta.config.settings import Spool
from mta.model import StoreError
from mta.spool.bodies import store_error


@dataclass(frozen=True, slots=True)
class Room:
    """What is left of a disk for us; `inodes` is None where they are not counted."""

    octets: int
    inodes: int | None


def room(path: Path) -> Room:
    """Ask the file system; OSError when it does not answer."""
    disk = os.statvfs(path)
    return Room(disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else None)


class Watermark:
    """The disk under one spool. `since` is when it began to be too full, 0 while it is not; `why` says in what."""

    def __init__(self, settings: Spool, path: Path) -> None:
        self._settings = settings
        self._path = path
        self.room = Room(0, None)
        self.since = 0.0
        self.why = ""

    def look(self) -> StoreError | None:
        """Why new mail has no room now."""
        try:
            self.room = room(self._path)
        except OSError as error:
            return self._noted(store_error("the spool cannot be looked at", error))
        if self.room.octets < self._settings.min_free:
            return self._noted(StoreError("the disk is below [spool] min_free", full=True))
        if self.room.inodes is not None and self.room.inodes < self._settings.min_free_inodes:
            return self._noted(StoreError("the disk is below [spool] min_free_inodes", full=True))
        return self._noted(None)

    def _noted(self, error: StoreError | None) -> StoreError | None:
        self.why = "" if error is None else str(error)
        if error is None:
            self.since = 0.0
        elif not self.since:
            self.since = time.time()
        return error
