"""What real servers of others have in common when they stand before or behind ours in a test."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.kit.waiting import wait_for

LATER, NEVER = "later", "never"  # local parts that each of them answers 4yz and 5yz


@dataclass(frozen=True)
class Certificate:
    """For `localhost` and 127.0.0.1; all are paths of PEM files."""

    authority: Path
    chain: Path
    key: Path
    both: Path


def issue(folder: Path) -> Certificate:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    made = Certificate(*(folder / f"{name}.pem" for name in ("ca", "chain", "key", "both")))
    authority.cert_pem.write_to_path(made.authority)
    issued.cert_chain_pems[0].write_to_path(made.chain)
    issued.private_key_pem.write_to_path(made.key)
    issued.private_key_and_cert_chain_pem.write_to_path(made.both)
    return made


@dataclass(frozen=True)
class Peer:
    """A running server that keeps Maildirs at `mail`/LOCAL."""

    domain: str
    folder: Path
    port: int
    mail: Path
    log_path: Path

    @property
    def next_hop(self) -> str:
        return f"smtp:127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def letters(self, local: str) -> list[bytes]:
        folder = self.mail / local / "new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []

    def wait(self, local: str, count: int = 1) -> list[bytes]:
        def found() -> list[bytes] | None:
            letters = self.letters(local)
            return letters if len(letters) >= count else None

        try:
            return wait_for(found, 30, f"letter {count} for {local}@{self.domain}")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log: {self.log[-5000:]}") from None

    def wait_for_log(self, words: str) -> None:
        wait_for(lambda: words in self.log, 30, f"{words!r} in the log of {self.domain}")


def greets(port: int) -> bool:
    """Whether an SMTP or LMTP server speaks there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.settimeout(5)
            return client.recv(4)[:3] == b"220"
    except OSError:
        return False


def copy_readable(source: Path, target: Path) -> Path:
    """For a server that reads its key as another user."""
    shutil.copy(source, target)
    target.chmod(0o644)
    return target
