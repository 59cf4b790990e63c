"""The courier role: takes jobs from the queue manager, reads texts from the spool, delivers, reports.

What it opens: connections to other servers, the certificates that these are verified with, files below the Maildir
templates, the spool for reading, nameless files beside it for texts that are converted, the mail log, the link to the
queue manager.
"""

from __future__ import annotations

import asyncio
import os
import signal

import uvloop

from mta.deliver.courier import Courier, CourierStart
from mta.net.resolver import DnsResolver
from mta.spool.reader import SpoolReader

__all__ = ["CourierStart", "run"]


def run(start: CourierStart) -> None:
    """Serve until SIGTERM."""
    # Works in batches: it need not interrupt a receiver that answers a client.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    uvloop.run(_serve(start))


async def _serve(start: CourierStart) -> None:
    loop = asyncio.get_running_loop()
    settings = start.settings
    courier = Courier(start, loop, SpoolReader(settings.server.state_dir), DnsResolver(settings.dns))
    loop.add_signal_handler(signal.SIGTERM, courier.stopping.set)
    courier.hello()
    start.up()
    await courier.stopping.wait()
    await courier.drain(settings.server.drain)
