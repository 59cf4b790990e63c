"""The verb `trace`: transcripts of SMTP sessions, from the files of the workers.

    trace  {"filter": ["site=mx.example.net"], "limit": 5, "follow": false}
    row    {"side": "out", "peer": ..., "lines": [{"at": 0.012, "who": "server", "text": "220 ..."}, ...], ...}

Peers' octets are shown escaped. The files are read in a thread, and again every `_PAUSE` for whoever follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from mta import _fastparse
from mta.control.protocol import Json
from mta.observe.maillog import printable
from mta.observe.transcripts import Line, Shelf, Transcript

_PAUSE: Final = 0.2  # seconds
_LONGEST_SILENCE: Final = 10.0
_KEYS: dict[str, Callable[[Transcript, str], bool]] = {
    "site": lambda t, value: t.side == "out" and _like(t.peer, value),
    "client": lambda t, value: t.side == "in" and _like(t.peer, value),
    "id": lambda t, value: value.upper() in (t.session, *t.messages),
    "host": lambda t, value: _like(t.host, value),
    "why": lambda t, value: _like(t.why, value),
    "side": lambda t, value: t.side == value,
}


def chooser(words: Sequence[str]) -> Callable[[Transcript], bool]:
    """Whether a transcript is one that all the words are true of. ValueError."""
    wanted: list[tuple[Callable[[Transcript, str], bool], str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _KEYS:
            keys = ", ".join(f"{each}=" for each in _KEYS)
            raise ValueError(
                f"{word!r} is not understood: transcripts are chosen by {keys}, and all of them must be true"
            )
        wanted.append((_KEYS[name], value))
    return lambda transcript: all(is_true(transcript, value) for is_true, value in wanted)


async def transcripts(folder: Path, words: Sequence[str], limit: int, *, follow: bool) -> AsyncGenerator[Json, None]:
    """The newest `limit` of those chosen (0: all), the oldest first; with `follow` those that come, without end."""
    chosen, shelf = chooser(words), Shelf(folder)
    behind: dict[str, int] = await asyncio.to_thread(shelf.newest) if follow and not limit else {}
    found = [each for each in await asyncio.to_thread(shelf.read, behind) if chosen(each)]
    for transcript in found[-limit:] if limit else found:
        yield {"row": row(transcript)}
    quiet = 0
    while follow:
        await asyncio.sleep(_PAUSE)
        quiet += 1
        if quiet * _PAUSE >= _LONGEST_SILENCE:
            quiet = 0
            yield {"quiet": True}  # so that we notice when nobody listens any more
        for transcript in await asyncio.to_thread(shelf.read, behind):
            if chosen(transcript):
                yield {"row": row(transcript)}
    yield {"end": {"rows": len(found[-limit:] if limit else found), "omitted": await asyncio.to_thread(shelf.omitted)}}


def row(transcript: Transcript) -> Json:
    """As the control protocol has it; times in seconds."""
    lines = transcript.lines
    return {
        "side": transcript.side,
        "peer": printable(transcript.peer),
        "host": transcript.host,
        "session": transcript.session,
        "why": transcript.why,
        "ended": printable(transcript.ended),
        "began": transcript.began / 1000,
        "kept": transcript.kept / 1000,
        "over": transcript.over,
        "messages": transcript.messages,
        "tls": transcript.tls,
        "certificate": printable(transcript.certificate),
        "lines": [_line(line, transcript) if line is not None else {"gap": transcript.dropped} for line in lines],
        "lost": transcript.lost,
    }


def _like(text: str, pattern: str) -> bool:
    return fnmatchcase(text.lower(), pattern.lower())


def _line(line: Line, transcript: Transcript) -> Json:
    at, kind, octets, kept = line
    told: Json = {"at": at / 1000, "who": "server" if kind == _fastparse.REPLIED else "client"}
    if kind == _fastparse.TLS_BEGAN:
        return {**told, "who": "both", "event": "tls"}
    if kind == _fastparse.TEXT_PASSED:
        return {**told, "event": "text", "octets": octets}
    # Our own replies of many lines are one entry; a peer's come line by line.
    text = "\n".join(printable(part) for part in kept.split(b"\r\n"))
    return {**told, "text": text, "hidden": octets - len(kept)}


__all__ = ["chooser", "row", "transcripts"]
