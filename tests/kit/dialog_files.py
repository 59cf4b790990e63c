"""Files of dialogues: lines of a mark, a colon, a blank and what it is about; rows say what each mark does.

    C: EHLO client.test
    S: 250 mx.test

A line that begins with # is a comment. The escapes are in tests/dialogs/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

D = TypeVar("D")
Rows = Mapping[str, Callable[[D, bytes], Any]]

_REPEAT = re.compile(r"\\\{(.+?)\*(\d+)\}")


def fill(dialog: D, path: Path, rows: Rows[D]) -> D:
    """The dialogue with what the file says of it; ValueError names the line that is not understood."""
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        mark, _, rest = line.partition(":")
        try:
            rows[mark](dialog, unescape(rest.removeprefix(" ")))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path.name}, line {number}: {line!r} is not understood: {error!r}") from error
    return dialog


def unescape(text: str) -> bytes:
    """\\r \\n \\0 \\t \\\\ \\xHH as in Python, and \\{text*N} for text N times."""
    text = _REPEAT.sub(lambda found: found[1] * int(found[2]), text)
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")
