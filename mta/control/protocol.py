"""The control protocol: JSON lines over a unix socket. docs/control.md is its description for others.

    request   {"v": 1, "id": 7, "verb": "queue.list", "args": {"filter": ["state=deferred"], "limit": 10}}
    answers   {"id": 7, "row": {...}}          any number
              {"id": 7, "end": {...}}          the last one, or
              {"id": 7, "error": {"code": "usage", "text": "..."}}
    cancel    {"v": 1, "id": 8, "cancel": 7}   answered at once: {"id": 8, "end": {"cancelled": true}}

A line is at most `MAX_FRAME` octets. Requests of one connection are answered one after another, in order.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

VERSION: Final = 1
MAX_FRAME: Final = 1 << 20
SOCKET_NAME: Final = "control.sock"

Json = dict[str, object]


_LONGEST_NAME = 107  # octets of a unix socket's name: sun_path, less its NUL
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class ProtocolError(Exception):
    """A frame that is none."""


@contextlib.contextmanager
def socket_name(path: Path) -> Iterator[str]:
    """A name for `bind` and `connect`: the path, or a short way to it where the kernel would find it too long."""
    if len(os.fsencode(path)) <= _LONGEST_NAME:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def encode(frame: Json) -> bytes:
    """One line. Words of a command line that are no UTF-8 have lone surrogates, which only `json` can write."""
    try:
        return _encode(frame) + b"\n"
    except UnicodeEncodeError:
        return json.dumps(frame, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Json:
    """ProtocolError says what is wrong with the line."""
    try:
        frame = _decode(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(frame, dict):
        raise ProtocolError("not a JSON object")
    return frame
