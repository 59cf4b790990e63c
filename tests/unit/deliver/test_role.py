"""The role as the supervisor runs it: a process that serves until it is told to stop."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import msgspec
import pytest

from mta.config.settings import Log, Server, Settings
from mta.deliver.role import CourierStart, run
from mta.model import LINK_VERSION, Bye, Hello, LinkRecord
from mta.net.link import MAX_PACKET, socket_pair
from mta.net.seats import SeatTable
from mta.observe.counters import Table

_DECODE = msgspec.msgpack.Decoder(LinkRecord).decode


def child(start: CourierStart) -> int:
    """Fork a courier; its exit code is 0 only after a clean return."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            run(start)
            code = 0
        finally:
            os._exit(code)
    return pid


@pytest.mark.parametrize("how", ["signal", "record"])
def test_serves_until_told_to_stop(tmp_path: Path, how: str) -> None:
    ours, theirs = socket_pair()
    (tmp_path / "spool").mkdir()
    up, ready = os.pipe()
    start = CourierStart(
        settings=Settings(
            server=Server(hostname="me.example", state_dir=tmp_path),
            listener=(),
            log=Log(path=tmp_path / "log"),
        ),
        worker=3,
        life=7,
        counters=Table(1).row(0),
        link=theirs,
        seats=SeatTable(None, 1, "").rows[0],
        up=lambda: os.write(ready, b"x") and None,
    )

    def hear() -> LinkRecord:
        assert select.select([ours], [], [], 20)[0]
        record: LinkRecord = _DECODE(ours.recv(MAX_PACKET))
        return record

    pid = child(start)
    assert hear() == Hello(LINK_VERSION, "courier", 3, 7, ())
    assert select.select([up], [], [], 20)[0]
    os.kill(pid, signal.SIGTERM)
    assert hear() == Bye(3)
    assert os.waitpid(pid, 0)[1] == 0
    for sock in (ours, theirs):
        sock.close()
    os.close(up)
    os.close(ready)
