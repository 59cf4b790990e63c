"""A mail with more recipients than a site takes at once, sent in several transactions. Its job ends in one result.

Invariant: what was said in earlier transactions is kept whatever becomes of the later ones; nobody who has the mail is
sent it again. Until the result is made, the job's seat says that the text may have been taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from mta.deliver.work import Work
from mta.model import Outcome


@dataclass(slots=True)
class Pieces:
    """Of one work: everybody, who is not tried yet, what came of the others, whether a transaction is under way."""

    members: tuple[int, ...]
    addresses: tuple[bytes, ...]
    rest: tuple[int, ...]
    outcomes: list[Outcome] = field(default_factory=list)
    begun: bool = False


def cut(work: Work, most: int) -> None:
    """Leave at most so many recipients for the transaction that begins; for each of its transactions anew."""
    if not most or (len(work.members) <= most and work.pieces is None):
        return
    work.restore()
    if work.pieces is None:
        work.pieces = Pieces(work.members, work.addresses, work.members)
    elif work.pieces.begun:
        uncut(work)  # it was taken, and put back
    pieces = work.pieces
    pieces.begun = True
    now, pieces.rest = pieces.rest[:most], pieces.rest[most:]
    by_index = dict(zip(pieces.members, pieces.addresses, strict=True))
    work.members = now
    work.addresses = tuple([by_index[i] for i in now])


def uncut(work: Work) -> None:
    """The transaction, if one was under way, did not take place: its recipients are untried."""
    if work.pieces is not None and work.pieces.begun:
        work.restore()
        work.pieces.rest = (*work.members, *work.pieces.rest)
        work.pieces.begun = False


def note(work: Work, outcomes: Sequence[Outcome]) -> bool:
    """What came of a transaction; whether there is another to come."""
    pieces = work.pieces
    assert pieces is not None
    pieces.begun = False
    pieces.outcomes += [o if o.recipients else msgspec.structs.replace(o, recipients=work.members) for o in outcomes]
    return bool(pieces.rest)


def whole(work: Work, last: Outcome | None = None) -> list[Outcome]:
    """All outcomes; `last` is that of those who are not tried. The work is whole again."""
    pieces, work.pieces = work.pieces, None
    assert pieces is not None
    outcomes = pieces.outcomes
    if last is not None and pieces.rest:
        outcomes.append(msgspec.structs.replace(last, recipients=pieces.rest))
    work.members, work.addresses = pieces.members, pieces.addresses
    return outcomes
