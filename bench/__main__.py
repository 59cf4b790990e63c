"""The server under load, alone or beside Postfix.

python -m bench accept|relay|maildir|idle [options], under TLS with --tls
python -m bench handshakes [options]: connections that shake hands and go; --reuse resumes them
python -m bench all --against postfix --results bench/RESULTS.md
python -m bench backlog [options]: starts with a million queued messages
python -m bench compaction [options]: nine tenths of a long queue are deleted
python -m bench large [options]: large messages side by side, one message to very many
python -m bench crowd [options]: ten thousand idle connections, a thousand slow senders
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import backlog, compaction, crowd, large, machine, postfix, report, verbs
from bench.measure import Bench, Job, Measure
from bench.report import Outcome
from bench.server import BenchError, Mta, Server

WORKLOADS = ("accept", "relay", "maildir", "idle", "handshakes", "all")

Make = Callable[[Path, str, int], Server]


def everything(messages: int, sessions: int, size: int, generator: str) -> list[Job]:
    """What `all` measures: the three loads as such, then what changes one thing about them."""
    own = Job("accept", messages, sessions, size)
    return [
        replace(own, generator=generator),
        replace(own, workload="relay", generator=generator),
        replace(own, workload="maildir"),
        own,
        replace(own, workload="relay"),
        replace(own, pipelined=True),
        replace(own, sessions=100),
        replace(own, reuse=False),
        replace(own, sessions=1, messages=max(1, messages // 5)),
        replace(own, workload="relay", size=100_000, messages=max(1, messages // 5)),
        Job("idle", 0, 1000),
    ]


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--messages", type=int, default=5000, help="in a round (default 5000)")
    parser.add_argument("--peer-messages", type=int, help="for Postfix (default 3 for each 5 of the others)")
    parser.add_argument("--sessions", type=int, help="connections at once (default 20; idle: 1000)")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message (default 4096)")
    parser.add_argument(
        "--reuse", action=argparse.BooleanOptionalAction, help="of connections (default), of TLS sessions"
    )
    parser.add_argument(
        "--tls", choices=("off", "starttls", "implicit"), default="off", help="mta and own generator only"
    )
    parser.add_argument("--pipelined", action="store_true", help="RFC 2920; own generator only")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the median counts (default 3)")
    parser.add_argument("--receivers", type=int, default=1)
    parser.add_argument("--couriers", type=int, default=1)
    parser.add_argument("--server", choices=("mta", "postfix"), default="mta", help="what to measure (default mta)")
    parser.add_argument("--against", choices=("postfix",), help="measure this one too, in turns")
    parser.add_argument(
        "--generator",
        choices=("auto", "own", "postfix"),
        default="auto",
        help="auto: smtp-source and smtp-sink where Postfix is at hand and the work allows it",
    )
    parser.add_argument("--peer-dir", help="where Postfix is unpacked (default ~/.cache/mta-bench)")
    parser.add_argument("--folder", default="/var/tmp", help="on the disk to be measured (default /var/tmp)")
    parser.add_argument("--lock", type=Path, default=Path(tempfile.gettempdir(), "bench.lock"))
    parser.add_argument("--results", type=Path, help="write a Markdown page there")
    parser.add_argument("--assert", dest="strict", action="store_true", help="exit code 1 when a bar is missed")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args(words)


def find_package(options: argparse.Namespace) -> postfix.Package | None:
    """Postfix, when it is asked for or already here."""
    needed = "postfix" in (options.server, options.against, options.generator)
    cache = postfix.cache_folder(options.peer_dir)
    return postfix.find(cache) if needed or (cache / "postfix/complete").exists() else None


def jobs(options: argparse.Namespace, package: postfix.Package | None) -> list[Job]:
    generator = options.generator
    if generator == "auto":
        generator = "postfix" if package is not None else "own"
    sessions = options.sessions or {"idle": 1000, "handshakes": 8}.get(options.workload, 20)
    tls = "implicit" if options.workload == "handshakes" else options.tls
    if tls != "off":
        if "postfix" in (options.server, options.against, options.generator):
            raise BenchError("Postfix is measured without TLS only")
        generator = "own"
    if options.workload == "all":
        return everything(options.messages, sessions, options.size, generator)
    if generator == "postfix" and (options.pipelined or options.workload == "maildir"):
        if options.generator == "postfix":
            raise BenchError("smtp-source can neither pipeline nor take 100 recipients in turn: use --generator own")
        generator = "own"
    reuse = options.workload != "handshakes" if options.reuse is None else options.reuse
    return [Job(options.workload, options.messages, sessions, options.size, reuse, options.pipelined, generator, tls)]


def makers(options: argparse.Namespace, package: postfix.Package | None) -> dict[str, Make]:
    """The servers, in the order in which they take turns."""
    Mta.receivers, Mta.couriers = options.receivers, options.couriers
    Mta.tls = "implicit" if options.workload == "handshakes" else options.tls
    known: dict[str, Make] = {"mta": Mta}
    if package is not None:
        postfix.Postfix.package = package
        known["postfix"] = postfix.Postfix
    return {name: known[name] for name in (options.server, options.against) if name}


def run(options: argparse.Namespace) -> int:
    package = find_package(options)
    place = Path(tempfile.mkdtemp(prefix="mta-bench-", dir=options.folder))
    place.chmod(0o755)
    machine.spread_folders(place)
    try:
        about = machine.describe(place)
        if about["disk"].startswith("tmpfs"):
            raise BenchError(f"{options.folder} is in memory, where syncing costs nothing: name another --folder")
        about["versions"] = ", ".join([Mta.version(), *([package.version()] if package else [])])
        bench = Bench(place, options.lock, package)
        outcomes = [measure(bench, job, options) for job in jobs(options, package)]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    tell(outcomes, about, options)
    return 1 if options.strict and missed(outcomes) else 0


def measure(bench: Bench, job: Job, options: argparse.Namespace) -> Outcome:
    """All rounds of a job, the servers in turns."""
    servers = makers(options, find_package(options))
    if job.workload == "idle":  # a server with a process for each session has no figure to compare
        servers.pop(options.against, None)
    found: dict[str, list[Measure]] = {name: [] for name in servers}
    for number in range(options.rounds):
        for name, make in servers.items():
            print(f"{report.title(job)}: {name}, round {number + 1} of {options.rounds}", file=sys.stderr)
            found[name].append(bench.round(make, job if name == "mta" else peer_job(job, options)))
    outcome = Outcome(job, found)
    if not options.json:
        print("\n".join(report.rows(outcome)), flush=True)
    return outcome


def peer_job(job: Job, options: argparse.Namespace) -> Job:
    """The same load in fewer messages: the rate of a slower server shows as soon, and the rounds stay short."""
    if job.workload == "idle":
        return job
    if options.peer_messages:
        return replace(job, messages=options.peer_messages)
    return replace(job, messages=max(1, job.messages * 3 // 5))


def missed(outcomes: Sequence[Outcome]) -> bool:
    return any(not verdict.reached for outcome in outcomes for verdict in outcome.verdicts())


def tell(outcomes: Sequence[Outcome], about: dict[str, str], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(report.as_json(outcomes, about), indent=1))
    if options.results:
        command = f"python -m bench {' '.join(options.words)}"
        options.results.write_text(report.page(outcomes, about, command))


def main(words: Sequence[str]) -> int:
    others = {"backlog": backlog, "compaction": compaction, "crowd": crowd, "large": large, "verbs": verbs}
    if words[:1] and words[0] in others:
        return others[words[0]].main(words[1:])
    options = parse(words)
    options.words = words
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))  # so that servers and folders go too
    try:
        return run(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
