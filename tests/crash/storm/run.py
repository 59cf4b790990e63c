"""The kill storm: kill -9 of any process under load, over and over, and books that must agree at the end.

    python -m tests.crash.storm.run --kills 500 --messages 200000 --queued 10000

The real server takes mail from sessions on one side and hands it to a sink on the other, with so many messages queued
all the while. After a random number of acknowledged messages a random process dies by SIGKILL: a receiver, the queue
manager, a courier, or the supervisor, with which all others die and which is started again. One kill in six strikes
while the one before is being recovered from. At the end everything must drain, what was queued before included.

No process is killed four times in one life of the supervisor: from the fifth early death on it takes them for a loop,
as it should, and waits for ten seconds before each new try.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.storm.ledger import Account
from tests.crash.storm.load import FAR, HELD, Load
from tests.kit.server import Server
from tests.kit.waiting import wait_for

SERVICE = 2.0  # seconds without a 250, at most, on a machine of its own
_STUCK = 15.0  # and on any machine
_TWICE = 0.001  # of the acknowledged messages, at most
_MOST_DEATHS = 3  # of one process in one life of the supervisor
_ONE_IN_SUPERVISOR = 8
_ONE_IN_AT_ONCE = 6
_DRAIN = 300.0
_RETRY = {"first": "0.3s", "ambiguous_wait": "0.3s", "factor": 1.0, "expiry": "1h"}
_SPOOL = {"segment_size": "4M", "large_body": "32K"}


@dataclass(frozen=True, slots=True)
class Plan:
    kills: int
    messages: int
    queued: int
    seed: int
    sessions: int = 20
    receivers: int = 2
    couriers: int = 2


@dataclass(slots=True)
class Result:
    account: Account
    kills: Counter[str]
    in_flight: int  # deliveries that couriers had in hand when something was killed, summed
    longest: float  # that a client had to do without a 250
    deferrals: int
    seconds: float
    refused: list[str] = field(default_factory=list)
    left: int = 0  # in the queue at the end
    check: str = ""  # what `mta spool check` had to say, if it was not content

    @property
    def problems(self) -> list[str]:
        """What misses a bar."""
        account = self.account
        found = [f"lost: {text}" for text in account.lost] + [f"altered: {text}" for text in account.altered]
        found += [f"refused: {text}" for text in self.refused]
        if account.doubled > min(self.in_flight, max(_TWICE * account.acknowledged, 1)):
            found.append(f"{account.doubled} duplicates")
        if self.longest > _STUCK:
            found.append(f"{self.longest:.2f} s without service")
        if self.left:
            found.append(f"{self.left} left in the queue")
        return found + ([f"spool check: {self.check}"] if self.check else [])

    def __str__(self) -> str:
        account, kills = self.account, ", ".join(f"{role} {count}" for role, count in sorted(self.kills.items()))
        return (
            f"kill storm: {self.kills.total()} kills ({kills}) over {account.acknowledged} acknowledged messages in"
            f" {self.seconds:.0f} s: {len(account.lost)} lost, {len(account.altered)} altered, {account.doubled} twice"
            f" ({self.in_flight} in flight at kills), {self.longest:.2f} s without service at most,"
            f" {account.open} without a 250 ({account.arrived_open} of them arrived), {self.deferrals} deferred"
        )


class Killer:
    """Chooses victims. What lives is asked of the server, while it has a queue manager to answer."""

    def __init__(self, server: Server, dice: random.Random) -> None:
        self.kills: Counter[str] = Counter()
        self.in_flight = 0
        self._server = server
        self._dice = dice
        self._deaths: Counter[tuple[str, int]] = Counter()  # by role and place, in this life of the supervisor
        self._places: dict[tuple[str, int], int] = {}  # their process ids

    def strike(self) -> None:
        """Kill one, and perhaps another one at once."""
        self._look()
        self._kill()
        if self._dice.randrange(_ONE_IN_AT_ONCE) == 0:
            self._kill()

    def _look(self) -> None:
        self.in_flight += self._server.count("state=active")
        self._places = {
            (role, place): pid
            for role, pids in self._server.children().items()
            for place, pid in enumerate(pids)
            if pid
        }

    def _kill(self) -> None:
        places = [place for place in sorted(self._places) if self._deaths[place] < _MOST_DEATHS]
        if not places or self._dice.randrange(_ONE_IN_SUPERVISOR) == 0:
            self._server.kill()
            self._server.start()
            self._deaths.clear()
            self._places.clear()
            self.kills["supervisor"] += 1
            return
        place = self._dice.choice(places)
        try:
            os.kill(self._places.pop(place), signal.SIGKILL)
        except ProcessLookupError:
            return  # an earlier victim, which the table still named when it was read
        self._deaths[place] += 1
        self.kills[place[0]] += 1


def storm(folder: Path, plan: Plan) -> Result:
    """Run one, in a new folder."""
    began = time.monotonic()
    dice = random.Random(plan.seed)
    with Load(plan.seed) as load:
        routes = {HELD[0].decode(): "hold:", "*": f"smtp:127.0.0.1:{load.sink}"}
        server = Server(
            folder, routes=routes, receivers=plan.receivers, couriers=plan.couriers, retry=_RETRY, spool=_SPOOL
        )
        with server:
            _fill(load, server, plan)
            killer = Killer(server, dice)
            _play(load, server, plan, dice, killer)
            wait_for(lambda: server.count() <= server.count("state=held"), _DRAIN, "a queue of held messages only")
            server.stop()
            server.configure(route=[{"domain": "*", "next_hop": routes["*"]}])
            server.start()
            server.ctl("queue", "release", "--yes", "all")
            wait_for(lambda: server.count() == 0, _DRAIN, "an empty queue")
            left = server.count()
        check = server.run("spool", "check")
        return Result(
            account=load.ledger.account(),
            kills=killer.kills,
            in_flight=killer.in_flight,
            longest=max(client.longest for client in load.clients),
            deferrals=sum(client.deferrals for client in load.clients),
            seconds=time.monotonic() - began,
            refused=[text for client in load.clients for text in client.refused],
            left=left,
            check=check.stdout + check.stderr if check.returncode else "",
        )


def _fill(load: Load, server: Server, plan: Plan) -> None:
    """What is queued all the while."""
    load.begin(server.port, plan.sessions, HELD)
    load.wait(plan.queued)
    load.finish()


def _play(load: Load, server: Server, plan: Plan, dice: random.Random, killer: Killer) -> None:
    """Kills, spread over the messages; then the rest of these."""
    before = load.ledger.acknowledged
    mean = plan.messages / plan.kills
    target = float(before)
    load.begin(server.port, plan.sessions, FAR)
    while killer.kills.total() < plan.kills:
        target = max(target, load.ledger.acknowledged) + mean * dice.uniform(0.2, 1.4)
        load.wait(int(target))
        killer.strike()
    load.wait(max(before + plan.messages, load.ledger.acknowledged + plan.sessions))
    load.finish()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.storm.run", description=__doc__)
    for name, default in (("kills", 500), ("messages", 200_000), ("queued", 10_000), ("sessions", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("receivers", "couriers"):
        parser.add_argument(f"--{name}", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    plan = Plan(**vars(parser.parse_args()))
    print(f"seed {plan.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="kill-storm-"))
    result = storm(folder, plan)
    print(result)
    for problem in result.problems[:50]:
        print(problem)
    if result.account.sound:
        shutil.rmtree(folder)
    else:
        print(f"log and spool are kept in {folder}")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
