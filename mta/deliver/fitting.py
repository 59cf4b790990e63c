"""Makes a stored text fit for a host that takes less than it holds; runs in a thread, for it may be large.

A text that lies in the record is made anew in memory; a large one into a file without a name, which ends with the last
reference to it. `mta.mail.downgrade` says what is done, and when it cannot
be.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from mta.mail.downgrade import Need, Unfit, fitted, is_ascii
from mta.model import Reply, Stored


class Spare:
    """A descriptor that is closed with the last reference to it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)

    @property
    def path(self) -> str:
        """Opens the same file again, at its beginning."""
        return f"/proc/self/fd/{self.fd}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A text that is what `need` asked for. `spare` keeps its file."""

    stored: Stored
    need: Need
    eight_bit: bool  # it holds octets above 127 still
    spare: Spare | None = None


@dataclass(frozen=True, slots=True)
class Unfitted:
    """Why there is none; `permanent`: the text is to blame."""

    reply: Reply
    permanent: bool


def fit(stored: Stored, need: Need, scratch: Path, why: str) -> Fitted | Unfitted:
    """The text as `need` asks for it. `why` says what asked, for who reads the bounce."""
    options = stored.envelope.options
    utf8 = options is not None and options.utf8
    try:
        if stored.path:
            return _fit_large(stored, need, scratch, utf8=utf8)
        pieces: list[bytes] = []
        fitted(stored.content, need, pieces.append, utf8=utf8)
        content = b"".join(pieces)
        made = structs.replace(stored, content=content, size=len(content))
        return Fitted(made, need, not content.isascii())
    except Unfit as error:
        return Unfitted(Reply(0, error.enhanced, f"{error}, and {why}"), permanent=True)
    except OSError as error:
        return Unfitted(Reply(0, "4.3.0", f"the text cannot be converted: {error.strerror}"), permanent=False)


def _fit_large(stored: Stored, need: Need, scratch: Path, *, utf8: bool) -> Fitted:
    """The text of a file of its own. What stands in the record before it are whole fields of its header, all ours."""
    options = stored.envelope.options
    with open(stored.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if not need & Need.LINES and is_ascii(text):
            return Fitted(stored, need, False)
        with tempfile.TemporaryFile(dir=scratch) as made:
            fitted(text, need, made.write, start=stored.offset, utf8=utf8)
            made.flush()
            size = made.tell()
            spare = Spare(os.dup(made.fileno()))
    eight_bit = stored.envelope.eight_bit or (options is not None and options.binary)
    whole = structs.replace(stored, path=spare.path, offset=0, size=len(stored.content) + size, checksum=0)
    return Fitted(whole, need, eight_bit and not need & Need.SEVEN_BIT, spare)


def is_fit(stored: Stored, need: Need) -> bool:
    """Whether a look at the text in memory tells that nothing is to be done."""
    return not stored.path and not need & Need.LINES and stored.content.isascii()
