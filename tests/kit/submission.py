"""A real server for users: a listener with STARTTLS, one under TLS from the start, one without it, and some users."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.kit.server import COMMAND, ROOT, Section, Server, free_port

ALICE = "alice@home.test"
PASSWORD = "sécret wörd"
PLAIN_PASSWORD = "open-sesame"  # for programs that cannot do better than ASCII
BOB = "bob@home.test"


@dataclass(frozen=True)
class Users:
    """The server, its ports, and the authority that its certificate is signed by."""

    server: Server
    starttls: int
    implicit: int
    plain: int
    authority: Path


@contextlib.contextmanager
def users_server(
    folder: Path,
    *,
    auth: Sequence[Section] | None = None,
    add: bool = False,
    networks: Sequence[str] = (),
    **sections: Section,
) -> Iterator[Users]:
    """Alice may also send as sales@home.test and anything@shop.test.

    `auth` replaces the users file, or has one itself, to which they are to `add`.
    """
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    ports = [free_port() for _ in range(3)]
    listeners = [
        {"address": f"127.0.0.1:{port}", "role": "submission", "tls": tls, **more}
        for port, (tls, more) in zip(
            ports, [("starttls", {}), ("implicit", {}), ("off", {"auth_without_tls": True})], strict=True
        )
    ]
    own = [{"type": "file", "path": str(folder / "users")}]
    server = Server(
        folder,
        listener=listeners,
        relay={"networks": list(networks)},
        routes={"*": "hold:"},
        tls={"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")},
        auth=own if auth is None else auth,
        **{"login": {"delay": "10ms", "scram_sha_1": True, "address_failures": 1000}, **sections},
    )
    server.port = ports[0]
    server.configure()
    if auth is None or add:
        add_user(server, ALICE, PASSWORD, "--alias", "sales@home.test", "--alias", "@shop.test")
        add_user(server, BOB, PLAIN_PASSWORD)
    with server:
        yield Users(server, *ports, folder / "ca.pem")


def add_user(server: Server, name: str, password: str, *more: str) -> None:
    done = subprocess.run(
        [*COMMAND, "user", "add", name, *more, "-c", str(server.config)],
        input=password + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
