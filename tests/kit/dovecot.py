"""A real Dovecot that does nothing but check logins, on a unix socket in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kit.programs import need
from tests.kit.waiting import wait_for

_CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
ssl = no
protocols =
auth_mechanisms = plain login
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {folder}/passwd
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {folder}/auth-client {{
    mode = 0666
  }}
}}
"""


@contextlib.contextmanager
def dovecot(users: Mapping[str, str]) -> Iterator[Path]:
    """The socket; `users` are names and passwords."""
    program = need("dovecot")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Dovecot")
    # A unix socket's path has 108 octets at most, and folders of tests are deep.
    with tempfile.TemporaryDirectory(prefix="mta-dovecot-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "run").mkdir()
        (folder / "passwd").write_text("".join(f"{user}:{{PLAIN}}{word}\n" for user, word in users.items()))
        (folder / "conf").write_text(_CONFIG.format(folder=folder))
        process = subprocess.Popen([program, "-F", "-c", str(folder / "conf")], stdin=subprocess.DEVNULL)
        try:
            wait_for(lambda: _answers(folder / "auth-client"), what="Dovecot's greeting")
            yield folder / "auth-client"
        finally:
            process.terminate()
            process.wait(20)


def _answers(path: Path) -> bool:
    """The socket is there before anybody listens, and somebody listens before he can speak."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        try:
            client.connect(str(path))
            client.sendall(b"VERSION\t1\t2\n")
            return client.recv(8) == b"VERSION\t"
        except OSError:
            return False
