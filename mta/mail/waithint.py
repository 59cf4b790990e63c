"""How long a reply asks its client to wait: `wait_hint`. Pure.

Greylisting hosts say when to come again, in as many ways as there are programs: "in 300 seconds", "for 5 minutes", "in
00:04:59", "after 5m". A number without a unit means nothing here, nor does one that stands for how much was too much
("30 messages per 10 minutes"): it must follow a word that speaks of a wait.
"""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_WAIT: Final = re.compile(
    r"\b(?:in|after|for|within|wait|another|least|about|approximately)[ :]+"
    r"(?:(?P<clock>\d{1,2}(?::\d{2}){1,2})"
    r"|(?P<count>\d{1,6})(?:\.\d+)?[ -]*(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b)",
    re.IGNORECASE,
)
_MOST_READ: Final = 600


def wait_hint(text: str) -> int | None:
    """Seconds that a reply's text asks for; None where it names no time."""
    match = _WAIT.search(text[:_MOST_READ])
    if match is None:
        return None
    if clock := match["clock"]:
        seconds = 0
        for part in clock.split(":"):
            seconds = 60 * seconds + int(part)
        return seconds
    return int(match["count"]) * _UNITS[match["unit"][0].lower()]
