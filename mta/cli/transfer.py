"""`mta queue export` and `import`: messages to a file and back. A file is written whole, or not at all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import msgspec

from mta.cli.common import NOTHING, fail
from mta.control.client import Client
from mta.control.protocol import Json

_DATA = 65  # sysexits: what was given is wrong


def export(client: Client, words: Sequence[str], file: str) -> int:
    """One line a row; how many messages, on standard error."""
    if file == "-":
        messages, lost = _written(client, words, sys.stdout.buffer)
    else:
        unfinished = Path(f"{file}.part")
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            messages, lost = _written(client, words, out)
            out.flush()
            os.fsync(out.fileno())
        unfinished.rename(file)
    print(f"{messages} messages" + (f", and {lost} that cannot be read" if lost else ""), file=sys.stderr)
    return NOTHING if lost else 0


def _written(client: Client, words: Sequence[str], out: BinaryIO) -> tuple[int, int]:
    messages = lost = 0
    for row in client.typed_rows("queue.export", msgspec.Raw, filter=list(words)):
        line = bytes(row)
        messages += line.startswith(b'{"tail"')
        lost += line.startswith(b'{"error"')
        out.write(line + b"\n")
    return messages, lost


def take(client: Client, file: str, *, as_json: bool) -> int:
    """Import; the new ids as JSON, or how many they are."""
    count = 0
    with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as lines:
        try:
            for message_id in client.import_rows(_rows(lines)):
                count += 1
                if as_json:
                    print(json.dumps({"id": message_id}))
        except ValueError as error:
            fail(_DATA, f"mta: {error}; {count} messages before were imported")
    if not as_json:
        print(f"{count} messages")
    return 0


def _rows(lines: BinaryIO) -> Iterator[Json]:
    for number, line in enumerate(lines, 1):
        try:
            yield msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError as error:
            raise ValueError(f"line {number} is no line of an export: {error}") from None
