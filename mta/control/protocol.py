"""The control protocol: JSON lines over a unix socket.

    request   {"v": 1, "id": 7, "verb": "queue.list", "args": {"filter": ["state=deferred"], "limit": 10}}
    answers   {"id": 7, "row": {...}}          any number
              {"id": 7, "end": {...}}          the last one, or
              {"id": 7, "error": {"code": "usage", "text": "..."}}

A line is at most `MAX_FRAME` octets. Requests of one connection are answered one after another.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

VERSION: Final = 1
MAX_FRAME: Final = 1 << 20
SOCKET_NAME: Final = "control.sock"

Json = dict[str, object]


_LONGEST_NAME = 107  # octets of a unix socket's name: sun_path, less its NUL


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
    return json.dumps(frame, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Json:
    """ProtocolError says what is wrong with the line."""
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(frame, dict):
        raise ProtocolError("not a JSON object")
    return frame
