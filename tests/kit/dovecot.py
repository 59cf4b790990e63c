"""A real Dovecot in a folder of its own: one that checks logins on a unix socket, one that takes mail by LMTP."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.kit.peers import Peer, greets
from tests.kit.programs import need
from tests.kit.server import free_port
from tests.kit.waiting import wait_for

_MAIL_USER = "dovecot"  # owns the mailboxes; any user that is not root

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


_LMTP = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
ssl = no
protocols = lmtp
mail_location = maildir:{folder}/mail/%n
mail_uid = {user}
mail_gid = {user}
first_valid_uid = 1
lmtp_save_to_detail_mailbox = no
auth_username_chars = abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567890.-_@+
passdb {{
  driver = passwd-file
  args = {folder}/passwd
}}
userdb {{
  driver = passwd-file
  args = {folder}/passwd
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


@contextlib.contextmanager
def dovecot_lmtp(domain: str, mailboxes: Sequence[str]) -> Iterator[Peer]:
    """Its LMTP server, on a port and on the unix socket `lmtp` in its folder; who is not named is refused."""
    program = need("dovecot")
    if not Path("/usr/lib/dovecot/lmtp").exists():
        need("dovecot-lmtpd")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Dovecot")
    with tempfile.TemporaryDirectory(prefix="mta-dovecot-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "run").mkdir()
        (folder / "mail").mkdir(mode=0o777)
        (folder / "mail").chmod(0o777)
        port = free_port()
        entry = pwd.getpwnam(_MAIL_USER)
        user, group = entry.pw_uid, entry.pw_gid
        (folder / "passwd").write_text(
            "".join(f"{box}@{domain}:{{PLAIN}}x:{user}:{group}::{folder}/mail/{box}::\n" for box in mailboxes)
        )
        (folder / "conf").write_text(_LMTP.format(folder=folder, port=port, user=_MAIL_USER))
        process = subprocess.Popen([program, "-F", "-c", str(folder / "conf")], stdin=subprocess.DEVNULL)
        try:
            wait_for(lambda: greets(port), what="Dovecot's greeting")
            yield Peer(domain, folder, port, folder / "mail", folder / "log")
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
