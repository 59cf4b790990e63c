"""Dates and times of RFC 3339 §5.6, as FUTURERELEASE has them (RFC 4865 §4): read to seconds since the epoch.

A leap second counts as the first of the next minute, parts of a second are left out, and years before 1970 are none.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DATE_TIME: Final = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|([+-])(\d\d):(\d\d))", re.IGNORECASE
)


def utc_text(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode("ascii")


def read_date_time(value: bytes) -> int | None:
    """Seconds since the epoch; None for what is no time."""
    found = _DATE_TIME.fullmatch(value)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    sign, hours, minutes = found[7], int(found[8] or 0), int(found[9] or 0)
    if year < 1970 or second > 60 or hours > 23 or minutes > 59:
        return None
    try:
        moment = datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:
        return None
    ahead = timedelta(hours=hours, minutes=minutes) * (-1 if sign == b"-" else 1)
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC) - ahead).total_seconds()) + second
