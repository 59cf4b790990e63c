"""A file system in memory, for tests that make many files and need no disk under them."""

from __future__ import annotations

import os
from pathlib import Path

_SHARED = Path("/dev/shm")


def in_memory() -> Path | None:
    """Where temporary folders may lie in memory; None: wherever they usually do."""
    return _SHARED if os.access(_SHARED, os.W_OK) else None
