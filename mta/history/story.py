"""What became of a message, as `mta queue explain` tells it: a sentence a recipient, then what led to it. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

Row = dict[str, object]
Branches = list[tuple[str, str]]


def sentence(row: Row) -> str:
    """Of one recipient."""
    when, attempts = moment(row["at"]), number(row["attempts"])
    whom, reply = f"For <{row['recipient']}> it", str(row["reply"]).rstrip(". ")
    where = f"at {row['site']}" if row["site"] else "on the way"
    match row["state"]:
        case "delivered":
            target = f"to {row['site']} " if row["site"] else ""
            return f"{whom} was delivered {target}at {when}, in attempt {attempts}: {reply}."
        case "bounced":
            return f"{whom} failed {where} at {when}, after {counted(attempts)}, for good: {reply}."
        case "expired":
            return f"{whom} was given up at {when}, after {counted(attempts)}: {reply}."
    return f"{whom} was taken out of the queue at {when}, after {counted(attempts)} ({reply})."


def tree(rows: Sequence[Row], steps: Sequence[Row]) -> Branches:
    """What there is to tell of all of it; `steps` oldest first."""
    first = rows[0]
    sender = "?" if first["sender"] is None else first["sender"]
    branches: Branches = [
        ("message", f"from <{sender}>, {first['size'] or '?'} octets, came at {moment(first['arrived'])}"),
        ("client", str(first["client"] or "?") + (f" ({first['notes']})" if first["notes"] else "")),
    ]
    branches += [("state", f"{row['state']} <{row['recipient']}>{_blamed(row)}") for row in rows]
    return branches + timeline(steps)


def timeline(steps: Iterable[Row]) -> Branches:
    """Each thing that happened before."""
    return [(f"{moment(step['at'])}", f"{step['event']}{_whom(step)}{_where(step)}: {step['text']}") for step in steps]


def refusal(row: Row) -> str:
    """A command that was refused, in a sentence."""
    helo = f", who calls himself {row['helo']}" if row["helo"] else ""
    sender = f" from <{row['sender']}>" if row["sender"] is not None else ""
    recipient = f" to <{row['recipient']}>" if row["recipient"] is not None else ""
    what = f"{row['verb']}{sender}{recipient}" if row["verb"] else "a connection"
    return f"{what} of {row['client']}{helo} was refused at {moment(row['at'])}: {str(row['reply']).rstrip('. ')}."


def _blamed(row: Row) -> str:
    return f", class {row['class']}" if row["class"] else ""


def _whom(step: Row) -> str:
    return f" <{step['recipient']}>" if step["recipient"] else ""


def _where(step: Row) -> str:
    return f" at {step['site']}" if step["site"] else ""


def counted(attempts: int) -> str:
    return "one attempt" if attempts == 1 else f"{attempts or 'no'} attempts"


def number(value: object) -> int:
    assert isinstance(value, int)
    return value


def moment(seconds: object) -> str:
    """A time of the past, as people read it."""
    assert isinstance(seconds, int | float)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
