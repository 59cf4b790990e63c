"""Fuzzing, one driver for all targets: coverage-guided by atheris, which is libFuzzer for Python.

    python -m tests.fuzz.driver [TARGET ...] [--inputs 20000] [--seconds 0] [--seed 1] [--keep]

A target is a module of this folder, or a dotted name, and has
    WATCHED      packages whose branches guide the search: the plain-Python references; extensions get the same inputs
    TOKENS       words of its language
    LONGEST      octets of an input, at most
    seeds()      where to begin, beside the corpus in tests/fuzz/corpus/TARGET
    check(data)  raises when something is wrong

A target runs in a process of its own, so that a crash of an extension is a finding like any other; 60 seconds on one
input and 1 GiB of memory are findings too. Then its inputs are run again and again, and the process must not grow.
What is found lies in build/fuzz/TARGET (or under MTA_FUZZ_FOUND); `--keep` makes the corpus of the shortest inputs that
lead where no other does.
The corpus is replayed by the default test suite: tests/unit/fuzz/test_corpus.py.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/fuzz"
FOUND = Path(os.environ.get("MTA_FUZZ_FOUND", ROOT / "build/fuzz"))
SECONDS_FOR_ONE = 60  # the machine may be busy
MEGABYTES = 1024
AGAIN = 8000  # inputs that it has run before, of which a process may
GROWTH = 512 << 10  # grow by so many octets


class Target(Protocol):
    WATCHED: tuple[str, ...]
    TOKENS: Iterable[bytes]
    LONGEST: int

    def seeds(self) -> Iterable[bytes]: ...

    def check(self, data: bytes) -> None: ...


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != Path(__file__).stem)


def load(name: str) -> Any:
    return importlib.import_module(
        name if "." in name or not (FOLDER / f"{name}.py").exists() else f"tests.fuzz.{name}"
    )


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FOLDER / "corpus" / name).glob("*"))]


def inputs(name: str) -> list[bytes]:
    """Everything there is to begin with."""
    target: Target = load(name)
    return [*corpus(name), *(seed[: target.LONGEST] for seed in target.seeds())]


# ---- the process that fuzzes


def fuzz(name: str, arguments: list[str]) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    folder = FOUND / name
    with atheris.instrument_imports(include=_watched(name)):
        target: Target = load(name)
    words = "".join('"' + "".join(f"\\x{octet:02x}" for octet in token) + '"\n' for token in target.TOKENS)
    (folder / "words").write_text(words)
    options = [f"-max_len={target.LONGEST}", f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/fault-"]
    options += [f"-timeout={SECONDS_FOR_ONE}", f"-rss_limit_mb={MEGABYTES}", "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, *arguments, str(folder / "inputs")], target.check)
    atheris.Fuzz()


def _watched(name: str) -> list[str]:
    """WATCHED of a target that must not be imported yet: what is imported before atheris watches is not watched."""
    code = f"from tests.fuzz.driver import load; print(*load({name!r}).WATCHED)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


# ---- the process that looks after it


def run(name: str, count: int, seconds: int, seed: int) -> str:
    """What was wrong; "" for nothing."""
    folder = FOUND / name
    (folder / "inputs").mkdir(parents=True, exist_ok=True)
    for data in inputs(name):
        _put(folder / "inputs", data)
    arguments = [f"-runs={count}", f"-seed={seed}", f"-max_total_time={seconds}"]
    command = [sys.executable, "-m", "tests.fuzz.driver", "--child", name, "--", *arguments]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    spent = time.monotonic() - start
    if done.returncode:
        return done.stdout[-20_000:] + done.stderr[-20_000:]
    found = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", done.stderr)}
    covered = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)[-1]
    grown = growth(name)
    print(
        f"{name}: {found['number_of_executed_units']} inputs in {spent:.0f} s,"
        f" {covered[0]} branches, peak {found['peak_rss_mb']} MB, grows by {grown} octets, no fault",
        flush=True,
    )
    return "" if grown <= GROWTH else f"{name}: inputs that it knows already make the process grow by {grown} octets"


def growth(name: str) -> int:
    """Octets by which a process grows that runs the same inputs over and over."""
    code = f"from tests.fuzz.driver import measure; print(measure({name!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


def measure(name: str) -> int:
    target: Target = load(name)
    data = [path.read_bytes() for path in sorted((FOUND / name / "inputs").glob("*"))]
    data = sorted(data, key=len)[:AGAIN]

    def turn() -> int:
        for number in range(AGAIN):
            target.check(data[number % len(data)])
        return _resident()

    before = max(turn(), turn())
    return turn() - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _put(folder: Path, data: bytes) -> None:
    (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]).write_bytes(data)


# ---- the corpus


def keep(name: str) -> int:
    """Make the corpus anew of what was found: shortest first, each that goes a step which none before it went."""
    found = [path.read_bytes() for path in (FOUND / name / "inputs").glob("*")]
    target: Target = load(name)
    known: set[tuple[str, int, int]] = set()
    folder = FOLDER / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for data in sorted({*found, *inputs(name)}, key=lambda one: (len(one), one)):
        steps = steps_of(target, data)
        if not steps <= known:
            known |= steps
            _put(folder, data)
    return len(list(folder.iterdir()))


def steps_of(target: Target, data: bytes) -> set[tuple[str, int, int]]:
    """From which line to which each function of the watched packages went."""
    steps: set[tuple[str, int, int]] = set()
    watched = tuple(f"{ROOT}/{package.replace('.', '/')}" for package in target.WATCHED)

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(watched):
            return None
        last = [0]

        def line(frame: FrameType, event: str, argument: object) -> Any:
            steps.add((name, last[0], frame.f_lineno))
            last[0] = frame.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        target.check(data)
    finally:
        sys.settrace(None)
    return steps


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.driver", description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", default=names(), help=f"some of {' '.join(names())} (all)")
    parser.add_argument("--inputs", type=int, default=20_000, help="how many inputs each gets (20000)")
    parser.add_argument("--seconds", type=int, default=0, help="at most so long for each (0: no limit)")
    parser.add_argument("--seed", type=int, default=1, help="which inputs (1)")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what leads to new places")
    options = parser.parse_args(arguments)
    for name in options.targets:
        if fault := run(name, options.inputs, options.seconds, options.seed):
            print(fault)
            return 1
        if options.keep:
            print(f"{name}: {keep(name)} inputs in the corpus", flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[2], sys.argv[4:])
    sys.exit(main())
