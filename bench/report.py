"""Medians, ratios, and how they are told: a table for people, JSON for machines, a page for the repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.bars import Verdict, judge
from bench.measure import Job, Measure

METHODS = {
    "accept": "until the last 250; Postfix puts each message on hold, mta has a route to `hold:`, so neither delivers;"
    " the queue is counted afterwards.",
    "relay": "every message goes on to one next hop, until this sink has counted the last one.",
    "maildir": "100 recipients in turn (own generator for both servers), until the last file lies in its `new`.",
    "handshakes": "connections under TLS that hear the greeting and go; a key of type P-256, full handshakes unless"
    " they are resumed.",
    "idle": "proportional set size of all processes with greeted, then silent sessions, minus that with none; Postfix"
    " has a process for each session and is left out.",
}


@dataclass(frozen=True)
class Outcome:
    """All rounds of one job, by server."""

    job: Job
    rounds: Mapping[str, Sequence[Measure]]

    def median(self, server: str, what: str) -> float | None:
        values = [value for measure in self.rounds[server] if (value := getattr(measure, what)) is not None]
        return median(values) if values else None

    def ratios(self) -> dict[str, float]:
        """How many times faster, and how many times cheaper, the first server is than the second."""
        if len(self.rounds) < 2 or self.job.workload == "idle":
            return {}
        ours, theirs = self.rounds
        return {
            "rate": (self.median(ours, "rate") or 0.0) / (self.median(theirs, "rate") or 1.0),
            "cpu": (self.median(theirs, "cpu_per_1000") or 0.0) / (self.median(ours, "cpu_per_1000") or 1.0),
        }

    def verdicts(self) -> list[Verdict]:
        """Which bars the first server reached."""
        idle = self.job.workload == "idle"
        return judge(self.job, self.ratios(), self.median(next(iter(self.rounds)), "megabytes") if idle else None)


def title(job: Job) -> str:
    under = {"off": "", "starttls": ", STARTTLS", "implicit": ", TLS"}[job.tls]
    if job.workload == "idle":
        return f"{job.sessions} idle sessions{under}"
    if job.workload == "handshakes":
        return f"handshakes: {job.sessions} at once, {'resumed' if job.reuse else 'full'}"
    ways = [
        f"{job.sessions} session{'s' if job.sessions > 1 else ''}",
        f"{job.size} octets",
        "connections reused" if job.reuse else "a connection for each message",
        *(["pipelined"] if job.pipelined else []),
    ]
    return f"{job.workload}: {', '.join(ways)}{under}"


def as_json(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> dict[str, Any]:
    runs = [
        {
            "job": asdict(outcome.job),
            "servers": {
                server: {
                    "rate": outcome.median(server, "rate"),
                    "cpu_per_1000": outcome.median(server, "cpu_per_1000"),
                    "p50_ms": outcome.median(server, "p50_ms"),
                    "p99_ms": outcome.median(server, "p99_ms"),
                    "megabytes": outcome.median(server, "megabytes"),
                    "rounds": [asdict(measure) for measure in measures],
                }
                for server, measures in outcome.rounds.items()
            },
            "ratios": outcome.ratios(),
            "bars": [asdict(verdict) for verdict in outcome.verdicts()],
        }
        for outcome in outcomes
    ]
    return {"machine": dict(machine), "runs": runs}


def rows(outcome: Outcome) -> list[str]:
    """Lines for the terminal."""
    lines = [title(outcome.job)]
    for server, measures in outcome.rounds.items():
        if outcome.job.workload == "idle":
            lines.append(f"  {server:8} {outcome.median(server, 'megabytes'):8.1f} MB more than without")
            continue
        rates = sorted(measure.rate for measure in measures)
        lines.append(
            f"  {server:8} {median(rates):8.0f} /s [{rates[0]:.0f} to {rates[-1]:.0f}]"
            f"  {outcome.median(server, 'cpu_per_1000'):.3f} CPU-s per 1,000"
            f" (user {outcome.median(server, 'user_per_1000'):.3f},"
            f" system {outcome.median(server, 'system_per_1000'):.3f})"
            f"  p50 {_latency(outcome, server, 'p50_ms')}  p99 {_latency(outcome, server, 'p99_ms')}"
        )
    ratios = outcome.ratios()
    if ratios:
        lines.append(f"  {'ratio':8} rate x{ratios['rate']:.1f}, CPU /{ratios['cpu']:.1f}")
    return lines + [f"  {verdict}" for verdict in outcome.verdicts()]


def page(outcomes: Sequence[Outcome], machine: Mapping[str, str], command: str) -> str:
    """The results as a Markdown page."""
    load = [outcome for outcome in outcomes if outcome.job.workload != "idle"]
    idle = [outcome for outcome in outcomes if outcome.job.workload == "idle"]
    lines = ["# Benchmark results", "", f"Made by `{command}`.", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine.items()), ""]
    lines += [
        "Load generator, servers and sink share this machine. Medians over the rounds, the servers in turns; each"
        " round on fresh folders after a warm-up. All servers are durable: a 250 means synced. CPU is that of all"
        " processes of a server, read before the first connect and after it went idle. Latency runs from the end of"
        " the text to its reply; it is missing where the generator does not tell it.",
        "",
        *(f"- **{name}**: {METHODS[name]}" for name in METHODS if any(o.job.workload == name for o in outcomes)),
        "",
        "| workload | generator | server | messages/s | CPU-s per 1,000 | p50 ms | p99 ms | rate | CPU |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for outcome in load:
        lines += _page_rows(outcome)
    for outcome in idle:
        lines += ["", *(_idle_sentence(outcome, server) for server in outcome.rounds)]
    bars = [f"- {title(outcome.job)}: {verdict}" for outcome in outcomes for verdict in outcome.verdicts()]
    return "\n".join([*lines, *(["", "## Bars", "", *bars] if bars else [])]) + "\n"


def _page_rows(outcome: Outcome) -> list[str]:
    ratios = outcome.ratios()
    found = []
    for place, server in enumerate(outcome.rounds):
        first = place == 0
        shown = [f"x{ratios['rate']:.1f}", f"/{ratios['cpu']:.1f}"] if first and ratios else ["", ""]
        cells = [
            title(outcome.job) if first else "",
            outcome.job.generator if first else "",
            server,
            f"{outcome.median(server, 'rate'):,.0f}",
            f"{outcome.median(server, 'cpu_per_1000'):.3f}",
            _latency(outcome, server, "p50_ms"),
            _latency(outcome, server, "p99_ms"),
            *shown,
        ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def _idle_sentence(outcome: Outcome, server: str) -> str:
    added = outcome.median(server, "megabytes") or 0.0
    each = added * 1e3 / outcome.job.sessions
    return f"{title(outcome.job)}: {server} takes {added:.1f} MB more than with none ({each:.1f} kB each)."


def _latency(outcome: Outcome, server: str, which: str) -> str:
    value = outcome.median(server, which)
    return "-" if value is None else f"{value:.2f}"
