"""How a setting is declared: its default, its sentence, its bounds; and the units that values have."""

from __future__ import annotations

from dataclasses import field
from typing import Any, NewType

Seconds = NewType("Seconds", float)  # "5m", "1h30m", or a number of seconds
Octets = NewType("Octets", int)  # "64M", "256K", or a number of octets


def key(help: str, default: Any = ..., **more: Any) -> Any:
    """Declare a setting; without a default it must be given."""
    if default is ...:
        return field(metadata={"help": help, **more})
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata={"help": help, **more})
    return field(default=default, metadata={"help": help, **more})


def place() -> Any:
    """Where a table begins, "FILE:LINE": no setting, the loader fills it in, so that it can be named as a cause."""
    return field(default="", compare=False, repr=False, metadata={"place": True})


def made(default: Any) -> Any:
    """What the loader makes of other keys: no setting itself."""
    return field(default=default, repr=False, metadata={"made": True})
