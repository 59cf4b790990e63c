"""The text of a message on the wire: that of DATA with dots and an end (RFC 5321 §4.5.2), that of BDAT as it is.

Invariants
- Only CRLF "." CRLF ends a text, where the first CRLF may be that of the DATA command (RFC 5321 §4.1.1.4).
- A CR without LF, an LF without CR, and NUL neither begin nor end a line here. They are noted as faults, because
  another server might read them as line ends, and the message would then end in two places (RFC 5321 §2.3.8).
- BDAT says how long a text is, so nothing in it ends it and no dot is taken off (RFC 3030 §2). The same faults are
  noted, since the next server may get the text by DATA; in a text of BODY=BINARYMIME there are none.
- What is found does not depend on how the octets were cut into packets.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Fault(enum.IntFlag):
    """What spoils a text."""

    NONE = 0
    BARE_CR = 1
    BARE_LF = 2
    NUL = 4


class Place(enum.Enum):
    """Where in a text the next octet stands."""

    LINE_START = enum.auto()
    IN_LINE = enum.auto()
    AFTER_CR = enum.auto()  # the CR is not written yet
    AFTER_DOT = enum.auto()  # a dot that began its line; it is never written
    AFTER_DOT_CR = enum.auto()
    END = enum.auto()


class Step(NamedTuple):
    """What one octet does: the next place, what is written before it, whether it is written, what is wrong."""

    place: Place
    before: bytes = b""
    written: bool = False
    fault: Fault = Fault.NONE


_CR, _LF, _DOT, _NUL = b"\r\n.\0"
_OTHER = -1  # an octet without a row of its own

_IN_LINE: Final = {
    _CR: Step(Place.AFTER_CR),
    _LF: Step(Place.IN_LINE, written=True, fault=Fault.BARE_LF),
    _NUL: Step(Place.IN_LINE, written=True, fault=Fault.NUL),
    _OTHER: Step(Place.IN_LINE, written=True),
}
_AFTER_BARE_CR: Final = {
    octet: Step(step.place, b"\r", step.written, step.fault | Fault.BARE_CR) for octet, step in _IN_LINE.items()
}
_STEPS: Final = {
    Place.IN_LINE: _IN_LINE,
    Place.LINE_START: _IN_LINE | {_DOT: Step(Place.AFTER_DOT)},
    Place.AFTER_CR: _AFTER_BARE_CR | {_LF: Step(Place.LINE_START, b"\r\n")},
    Place.AFTER_DOT: _IN_LINE | {_CR: Step(Place.AFTER_DOT_CR)},
    Place.AFTER_DOT_CR: _AFTER_BARE_CR | {_LF: Step(Place.END)},
}


class TextReader:
    """Reads one text. `limit` octets are kept at most: of a larger or spoilt text nothing is."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0  # octets of the text so far, kept or not
        self.faults = Fault.NONE
        self.place = Place.LINE_START
        self.kept = bytearray()

    @property
    def ended(self) -> bool:
        return self.place is Place.END

    @property
    def too_large(self) -> bool:
        return self.size > self.limit

    def read(self, data: bytes) -> int:
        """Take octets up to the end of the text, at most all; returns how many were taken."""
        used = 0
        while used < len(data) and not self.ended:
            self._step(data[used])
            used += 1
        if self.faults or self.too_large:
            self.kept.clear()
        return used

    def _step(self, octet: int) -> None:
        rows = _STEPS[self.place]
        step = rows.get(octet, rows[_OTHER])
        written = step.before + bytes([octet]) if step.written else step.before
        self.place = step.place
        self.faults |= step.fault
        self.size += len(written)
        self.kept += written

    def take(self) -> bytes:
        """What is kept; each octet is given once."""
        taken = bytes(self.kept)
        self.kept.clear()
        return taken


class ExactReader:
    """Reads a text whose length is known. With `binary` any octet may be in it; nothing of a spoilt one is kept."""

    def __init__(self, *, binary: bool) -> None:
        self.size = 0
        self.kept = bytearray()
        self._binary = binary
        self._faults = Fault.NONE
        self._after_cr = False

    @property
    def faults(self) -> Fault:
        """As if the text ended here: a CR at its end is a bare one."""
        return self._faults | (Fault.BARE_CR if self._after_cr else Fault.NONE)

    def read(self, data: bytes) -> None:
        self.size += len(data)
        self.kept += data
        if self._binary:
            return
        for octet in data:
            self._look_at(octet)
        if self._faults:
            self.kept.clear()

    def _look_at(self, octet: int) -> None:
        if self._after_cr != (octet == _LF):
            self._faults |= Fault.BARE_CR if self._after_cr else Fault.BARE_LF
        if octet == _NUL:
            self._faults |= Fault.NUL
        self._after_cr = octet == _CR

    def take(self) -> bytes:
        """What is kept; each octet is given once."""
        taken = bytes(self.kept)
        self.kept.clear()
        return taken


def fault_reply(faults: Fault) -> bytes:
    names = {Fault.BARE_CR: b"bare CR", Fault.BARE_LF: b"bare LF", Fault.NUL: b"NUL"}
    held = b", a ".join(name for fault, name in names.items() if fault in faults)
    return b"550 5.6.0 The text holds a %b; it must be lines that end with CRLF" % held
