"""What a server without users does not carry."""

from __future__ import annotations

import subprocess
import sys

from tests.kit.server import ROOT


def test_a_server_without_users_does_not_load_what_they_need() -> None:
    code = (
        "import sys, mta.roles; print([m for m in sys.modules if m in"
        " ('argon2', 'asyncpg', 'aiohttp', 'jwt', 'mta.policy.authenticate')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
