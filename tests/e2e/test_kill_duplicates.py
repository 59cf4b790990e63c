"""kill -9 under load: few messages come twice. `test_kill.py` has what must never be lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.test_kill import RETRY, a_process, audited, contents
from tests.kit.ledger import Load
from tests.kit.server import Server
from tests.kit.sink import Sink

MESSAGES = 300
# What was in hand or not yet on record when the process died: bounded by windows and delays, not by the load.
MOST = {"receiver": 0, "queue": 40, "courier": 40, "supervisor": 80}


@pytest.mark.parametrize("role", ["receiver", "queue", "courier", "supervisor"])
def test_few_messages_come_twice(tmp_path: Path, role: str) -> None:
    with (
        Sink() as sink,
        Server(tmp_path, routes={"*": sink.next_hop}, retry=RETRY) as server,
        Load(server.port, "ann@here.test", "bob@far.test") as load,
    ):
        load.wait(MESSAGES // 2)
        if role == "supervisor":
            server.kill()
            server.start()
        else:
            os.kill(a_process(server, role), signal.SIGKILL)
        load.wait(MESSAGES // 2)
        account = audited(load, server, lambda: contents(sink))
        acknowledged = len(load.ledger.acknowledged)
    assert acknowledged >= MESSAGES
    assert account.doubled <= MOST[role], (account, acknowledged)
