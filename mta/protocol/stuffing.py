"""Dot-stuffing (RFC 5321 §4.5.2) in plain Python: the readable reference of `mta._fastparse.stuff`.

A dot behind a bare LF is doubled too, so that no server takes it for an end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


def stuff(text: Buffer, *, line_start: bool = True) -> bytes:
    """The text with each dot at the start of a line doubled."""
    octets = bytes(text)
    stuffed = octets.replace(b"\n.", b"\n..")
    return b"." + stuffed if line_start and octets.startswith(b".") else stuffed
