"""A real PostgreSQL in a folder of its own, reached over a unix socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.kit.programs import need


@contextlib.contextmanager
def postgres(statements: str) -> Iterator[str]:
    """Its URL, after these statements."""
    initdb, control, psql = _program("initdb"), _program("pg_ctl"), _program("psql")
    with tempfile.TemporaryDirectory(prefix="mta-pg-", ignore_cleanup_errors=True) as name:
        # It refuses to run as root; Debian's package makes a user for it.
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if as_user:
            shutil.chown(name, "postgres", "postgres")
        data = f"{name}/data"

        def run(*words: str, **more: str) -> None:
            subprocess.run([*as_user, *words], check=True, timeout=60, cwd="/", stdout=subprocess.DEVNULL, **more)  # type: ignore[call-overload]

        run(initdb, "-D", data, "-A", "trust", "-U", "mail", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={name} -c fsync=off"
        run(control, "-D", data, "-l", f"{name}/log", "-o", options, "-w", "start")
        try:
            run(psql, "-q", "-h", name, "-U", "mail", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statements)
            yield f"postgresql://mail@/postgres?host={name}"
        finally:
            run(control, "-D", data, "-m", "immediate", "-w", "stop")


def _program(name: str) -> str:
    """Debian keeps most of them out of the usual places."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else need(name)
