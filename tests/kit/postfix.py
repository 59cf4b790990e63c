"""A real Postfix in a folder of its own, as previous and next hop.

Debian's package is unpacked, not installed, and seen by Postfix alone, in a private mount namespace (bench/postfix.py).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from bench import postfix as package
from bench.server import BenchError
from tests.kit.peers import LATER, NEVER, Certificate, Peer, copy_readable, greets
from tests.kit.programs import in_ci
from tests.kit.server import free_port
from tests.kit.waiting import wait_for

DOMAIN = "postfix.test"


@contextlib.contextmanager
def postfix(
    certificate: Certificate, mailboxes: Sequence[str] = (), relay_port: int = 0, **parameters: object
) -> Iterator[Peer]:
    """It has mailboxes at DOMAIN, and relays all else to `relay_port`."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a Postfix")
    try:
        files = package.find(package.cache_folder(None))
    except BenchError as error:
        if in_ci():
            pytest.fail(str(error))
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory(prefix="mta-postfix-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = _Postfix(files, folder, certificate, relay_port, parameters)
        server.prepare()
        server.add(mailboxes)
        command, environment = server.command()
        with (folder / "stderr").open("w") as errors:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=errors)
        try:
            wait_for(lambda: greets(server.port) or process.poll() is not None, 30, "Postfix's greeting")
            assert process.poll() is None, (folder / "stderr").read_text()
            yield Peer(DOMAIN, folder, server.port, folder / "mail", folder / "mail.log")
        finally:
            process.terminate()
            process.wait(20)


class _Postfix(package.Postfix):
    """That of the benchmarks, but for mail that is looked at."""

    workload = "relay"

    def __init__(
        self,
        files: package.Package,
        folder: Path,
        certificate: Certificate,
        relay_port: int,
        parameters: Mapping[str, object],
    ) -> None:
        self.package = files
        self.folder = folder
        self.mail = folder / "mail"
        self.port = free_port()
        self.sink_port = relay_port or free_port()
        self._certificate = certificate
        self._more = parameters

    def add(self, mailboxes: Sequence[str]) -> None:
        copy_readable(self._certificate.both, self._conf / "both.pem")
        copy_readable(self._certificate.authority, self._conf / "ca.pem")
        boxes = [*mailboxes, LATER, NEVER]
        (self._conf / "mailboxes").write_text("".join(f"{box}@{DOMAIN} {box}/\n" for box in boxes))
        replies = {LATER: "450 4.2.1 busy", NEVER: "550 5.2.1 disabled"}
        (self._conf / "access").write_text("".join(f"{local}@{DOMAIN} {said}\n" for local, said in replies.items()))

    def _parameters(self) -> dict[str, object]:
        return {
            **super()._parameters(),
            "myhostname": DOMAIN,
            "virtual_mailbox_domains": DOMAIN,
            "smtputf8_enable": "yes",
            "smtpd_discard_ehlo_keywords": "",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": self._conf / "both.pem",
            "smtp_tls_CAfile": self._conf / "ca.pem",
            "smtpd_recipient_restrictions": f"check_recipient_access texthash:{self._conf}/access, permit_mynetworks",
            "smtp_connection_cache_on_demand": "no",
            **self._more,
        }
