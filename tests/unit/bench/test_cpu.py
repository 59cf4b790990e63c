"""CPU time of processes: the dead are counted too."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from bench.cpu import ControlGroup, Group, ProcessTree

BUSY = "import time; end = time.process_time() + 0.05\nwhile time.process_time() < end: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}]); print('done', flush=True); input()"


@pytest.fixture(params=[ControlGroup, ProcessTree], ids=lambda kind: kind.__name__)
def group(request: pytest.FixtureRequest) -> Group:
    try:
        made: Group = request.param(f"test-{time.monotonic_ns()}") if request.param is ControlGroup else request.param()
    except OSError:
        pytest.skip("no cgroup can be made here")
    return made


def test_a_dead_child_is_counted(group: Group) -> None:
    command = group.wrap([sys.executable, "-c", PARENT])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            group.adopt(process.pid)
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            assert group.pids() == [process.pid]
            assert group.usage().total >= 0.05
            assert group.memory() > 1
        finally:
            process.kill()
            process.wait()
            group.close()
