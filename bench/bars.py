"""What the server promises beside Postfix, as a table, and whether one outcome kept it.

The bars hold for the load they were set at: 20 sessions, 4 KiB, connections reused, a command at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.measure import Job

IDLE_MEGABYTES = {"off": 10.0, "implicit": 60.0}  # for 1,000 sessions


@dataclass(frozen=True, slots=True)
class Bar:
    """At least so many times the rate, at most 1/cpu of the processor time."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bar, and what was measured against it."""

    what: str
    bar: float
    measured: float
    reached: bool

    def __str__(self) -> str:
        return f"{'bar reached' if self.reached else 'bar missed'} ({self.what})"


BARS = {"accept": Bar(6, 12), "relay": Bar(10, 20), "maildir": Bar(2.5, 6)}


def applies(job: Job) -> bool:
    """Whether the bars were set at this kind of load."""
    if job.workload == "idle":
        return job.sessions >= 1000 and job.tls in IDLE_MEGABYTES
    standard = (job.sessions, job.size, job.reuse, job.pipelined, job.tls) == (20, 4096, True, False, "off")
    return standard and job.workload in BARS


def judge(job: Job, ratios: Mapping[str, float], idle_megabytes: float | None = None) -> list[Verdict]:
    """The verdicts on a job; none where there is nothing to compare with, or no bar."""
    if not applies(job):
        return []
    if job.workload == "idle":
        if idle_megabytes is None:
            return []
        bar = IDLE_MEGABYTES[job.tls] * job.sessions / 1000
        return [Verdict(f"at most {bar:g} MB more than with none", bar, idle_megabytes, idle_megabytes <= bar)]
    if not ratios:
        return []
    bar = BARS[job.workload]
    return [
        Verdict(f"rate at least x{bar.rate:g}", bar.rate, ratios["rate"], ratios["rate"] >= bar.rate),
        Verdict(f"CPU at most 1/{bar.cpu:g}", bar.cpu, ratios["cpu"], ratios["cpu"] >= bar.cpu),
    ]
