"""Loss of power: a real server under load is recorded, then many disks that it might have left are opened.

python -m tests.crash.power.run --states 1000

Every message whose 250 was on its way before the moment of the crash must be recovered with the text that was sent, and
every state must open without an error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from mta.config.settings import Octets, Spool
from mta.model import Ref, StoreError, id_text
from mta.spool.store import LocalStore
from tests.crash.power.recording import ANSWER, Disk, Event, build, events
from tests.kit.memory import in_memory
from tests.kit.server import Server

_KEPT = "kept.test"  # held: these must be there whenever the power fails
_GONE = "gone.test"  # discarded at once: they make segments empty, and checkpoints
_SETTINGS = {"segment_size": "1M", "large_body": 4096}


@dataclass(slots=True)
class Recording:
    """What the server did, and what its clients sent."""

    root: Path
    events: list[Event]
    texts: dict[str, bytes]  # by id: of messages that are held


@dataclass(slots=True)
class Account:
    """What the states held."""

    states: int = 0
    checked: int = 0  # acknowledged messages looked for, in all states together
    lost: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)  # states that did not open, or that a recovery called damaged

    @property
    def sound(self) -> bool:
        return not (self.lost or self.altered or self.unclean)

    def __str__(self) -> str:
        return (
            f"power loss: {self.states} crash states, {self.checked} acknowledged messages looked for:"
            f" {len(self.lost)} lost, {len(self.altered)} altered, {len(self.unclean)} states not clean"
        )


# ---- the recording


def record(folder: Path, compiler: str, messages: int, seed: int, sessions: int = 8) -> Recording:
    """Drive a server with so many messages, half of them held; one life ends in good order, the second by SIGKILL."""
    library = build(folder, compiler)
    log = folder / "recording"
    root = folder / "state/spool"
    with _environment(LD_PRELOAD=str(library), MTA_RECORD_ROOT=str(root), MTA_RECORD_LOG=str(log)):
        server = Server(folder, routes={_KEPT: "hold:", _GONE: "discard:"}, domains={}, spool=_SETTINGS)
        try:
            texts: dict[str, bytes] = {}
            for life, end in enumerate((server.stop, server.kill)):
                server.start()
                numbers = iter(range(messages * life // 2, messages * (life + 1) // 2))
                uvloop.run(_send_all(server.port, numbers, seed, sessions, texts))
                end()
        finally:
            server.discard()
    return Recording(root, list(events(log)), texts)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def _send_all(port: int, numbers: Iterator[int], seed: int, sessions: int, texts: dict[str, bytes]) -> None:
    await asyncio.gather(*[_session(port, numbers, seed, texts) for _ in range(sessions)])


async def _session(port: int, numbers: Iterator[int], seed: int, texts: dict[str, bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def say(line: bytes, expected: bytes) -> bytes:
        writer.write(line)
        while (reply := await reader.readline())[3:4] == b"-":
            continue
        assert reply.startswith(expected), reply
        return reply

    await say(b"", b"220")
    await say(b"EHLO client.test\r\n", b"250")
    for number in numbers:
        dice = random.Random(seed << 32 | number)
        domain = dice.choice((_KEPT, _GONE))
        size = dice.choice((40, 700, 2000, 3500, 9000))
        line = b"%08d %s\r\n" % (number, dice.randbytes(30).hex().encode())
        text = b"Subject: %d\r\n\r\n" % number + line * (size // len(line) + 1)
        await say(b"MAIL FROM:<sender@client.test>\r\n", b"250")
        await say(f"RCPT TO:<user{number}@{domain}>\r\n".encode(), b"250")
        await say(b"DATA\r\n", b"354")
        reply = await say(text + b".\r\n", b"250")
        if domain == _KEPT:
            texts[reply.split()[-1].decode()] = text
    writer.close()


# ---- the states


def examine(recording: Recording, states: int, seed: int, *, obeys_syncs: bool = True) -> Account:
    """Open so many crash states, spread over the whole recording."""
    account = Account()
    dice = random.Random(seed)
    first = next(n for n, event in enumerate(recording.events) if event.kind == ANSWER)
    moments = sorted(dice.randrange(first, len(recording.events) + 1) for _ in range(states))
    disk = Disk(recording.root, obeys_syncs=obeys_syncs)
    played = 0
    with tempfile.TemporaryDirectory(dir=in_memory(), prefix="crash-state-") as name:
        for moment in moments:
            while played < moment:
                disk.play(recording.events[played])
                played += 1
            state_dir = Path(name) / "state"
            disk.crash(dice, state_dir / "spool")
            acknowledged = [known for known in disk.answered if known in recording.texts]
            uvloop.run(_open(state_dir, acknowledged, recording.texts, account, moment))
            shutil.rmtree(state_dir)
    return account


async def _open(state_dir: Path, expected: list[str], texts: dict[str, bytes], account: Account, moment: int) -> None:
    settings = Spool(segment_size=Octets(1 << 20), large_body=Octets(4096), min_free=Octets(0))
    account.states += 1
    store = LocalStore(settings, state_dir, asyncio.get_running_loop(), lambda tokens, arrivals, error: None)
    found = {id_text(queued.id): queued.ref for queued in store.recover()}
    if store.report.damaged:
        account.unclean.append(f"at event {moment}: {'; '.join(store.report.notes)}")
    for known in expected:
        account.checked += 1
        if known not in found:
            account.lost.append(f"{known} at event {moment}")
            continue
        try:
            stored = store.read(Ref(found[known]))
            store.verify(stored)
            content = stored.content + (Path(stored.path).read_bytes() if stored.path else b"")
        except (StoreError, OSError) as error:
            account.lost.append(f"{known} at event {moment}: {error}")
            continue
        if not content.endswith(b"\r\n" + texts[known]):
            account.altered.append(f"{known} at event {moment}")
    await store.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.power.run", description=__doc__)
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        print("a C compiler is needed: apt-get install gcc", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="power-loss-") as name:
        recording = record(Path(name), compiler, options.messages, options.seed)
        print(f"{len(recording.events)} events, {len(recording.texts)} messages held", flush=True)
        account = examine(recording, options.states, options.seed)
    print(account)
    for problem in (*account.lost, *account.altered, *account.unclean):
        print(problem)
    return 0 if account.sound else 1


if __name__ == "__main__":
    sys.exit(main())
