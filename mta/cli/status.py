"""`mta status`: what the server does, on one screen or as JSON."""

from __future__ import annotations

import argparse
import json

from mta.cli.common import connect


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.config) as client:
        status = client.call("status")
    if arguments.json:
        print(json.dumps(status))
        return 0
    for line in _lines(status):
        print(line)
    return 0


def _lines(status: dict[str, object]) -> list[str]:
    lines = [
        f"{status['hostname']}: {status['messages']} messages queued, up {status['uptime']} s,"
        f" durability {status['durability']}"
        + (f" (synced every {status['interval']} s: not safe when the machine stops)" if "interval" in status else "")
        + ("" if status["recovered"] else ", still reading the spool")
    ]
    for title in ("deliveries", "spool", "counters"):
        table = status[title]
        assert isinstance(table, dict)
        shown = "  ".join(f"{name} {_short(value)}" for name, value in table.items() if value)
        lines.append(f"{title:11} {shown or 'nothing'}")
    if status.get("sites"):
        back = status.get("sites_held_back")
        lines.append(
            f"sites       {status['sites']}" + (f", {back} held back: `mta site list` says why" if back else "")
        )
    times = status.get("queue_time")
    for name, told in times.items() if isinstance(times, dict) else ():
        lines.append(
            f"queue time  {name}: {told['lately']} first attempts in {told['seconds']:.0f} s, half within"
            f" {told['p50']:g} s, 99 % within {told['p99']:g} s"
        )
    processes = status["processes"]
    assert isinstance(processes, list)
    lines.append("processes   " + "  ".join(map(_process, processes)))
    return lines


def _process(process: dict[str, object]) -> str:
    deaths = process.get("deaths")
    died = f" (died {deaths} times)" if deaths else ""
    return f"{process['role']} {process['worker']}: pid {process['pid']}{died}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
