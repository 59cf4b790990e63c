"""A real Exim with a configuration of its own, as previous and next hop."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.kit.peers import LATER, NEVER, Certificate, Peer, copy_readable, greets
from tests.kit.programs import need
from tests.kit.server import free_port
from tests.kit.waiting import wait_for

DOMAIN = "exim.test"

_CONFIG = """\
primary_hostname = {domain}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
domainlist ours = {domain}
acl_smtp_rcpt = rcpt
acl_smtp_data = data
tls_advertise_hosts = *
tls_certificate = {folder}/both.pem
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
pipelining_advertise_hosts = *
accept_8bitmime = true
message_size_limit = 100M
recipients_max = 2000
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
never_users =
qualify_domain = {domain}
timeout_frozen_after = 1d
queue_only = false
smtp_accept_max = 100
smtp_accept_queue_per_connection = 2000
log_selector = +received_sender +received_recipients +tls_cipher +smtp_protocol_error

begin acl
rcpt:
  defer    local_parts = {later}
           message = 4.2.1 busy
  deny     local_parts = {never}
           message = 5.2.1 disabled
  accept
data:
  accept

begin routers
home:
  driver = accept
  domains = +ours
  local_parts = lsearch;{folder}/mailboxes
  transport = mailbox
onward:
  driver = manualroute
  domains = !+ours
  transport = onward
  route_list = * 127.0.0.1
  self = send
  host_find_failed = defer

begin transports
mailbox:
  driver = appendfile
  directory = {folder}/mail/$local_part_data
  maildir_format
  create_directory
  user = {user}
  mode = 0644
  directory_mode = 0755
onward:
  driver = smtp
  port = {relay_port}
  allow_localhost
  {transport}

begin retry
* * F,1h,2s
"""


@contextlib.contextmanager
def exim(
    certificate: Certificate, mailboxes: Sequence[str] = (), relay_port: int = 0, transport: str = ""
) -> Iterator[Peer]:
    """It has mailboxes at DOMAIN, and relays all else to `relay_port`; `transport` has more lines for that."""
    program = need("exim4")
    if os.geteuid() != 0:
        pytest.skip("only root can start an Exim with a configuration of its own")
    with tempfile.TemporaryDirectory(prefix="mta-exim-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        user = pwd.getpwnam("Debian-exim")
        for part in ("spool", "log", "mail"):
            (folder / part).mkdir()
            os.chown(folder / part, user.pw_uid, user.pw_gid)
        (folder / "mailboxes").write_text("".join(f"{box}: {box}\n" for box in mailboxes))
        copy_readable(certificate.both, folder / "both.pem")
        copy_readable(certificate.authority, folder / "ca.pem")
        port = free_port()
        text = _CONFIG.format(
            domain=DOMAIN,
            folder=folder,
            port=port,
            later=LATER,
            never=NEVER,
            user=user.pw_name,
            relay_port=relay_port or free_port(),
            transport=transport.format(folder=folder),
        )
        (folder / "conf").write_text(text)
        with (folder / "stderr").open("w") as errors:
            command = [program, "-bdf", "-q1s", "-C", str(folder / "conf")]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
        try:
            wait_for(lambda: greets(port) or process.poll() is not None, 30, "Exim's greeting")
            assert process.poll() is None, (folder / "stderr").read_text()
            yield Peer(DOMAIN, folder, port, folder / "mail", folder / "log/mainlog")
        finally:
            process.terminate()
            process.wait(20)
