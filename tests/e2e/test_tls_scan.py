"""testssl.sh looks at the listeners: nothing below TLS 1.2, no weak cipher, no compression, no renegotiation."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.kit.peers import issue
from tests.kit.programs import need
from tests.kit.server import Server, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

CHECKS = [
    *("--protocols", "--std", "--renegotiation", "--crime", "--heartbleed", "--ccs-injection", "--sweet32", "--freak"),
    *("--poodle", "--tls-fallback", "--robot", "--lucky13", "--beast"),
]
NOT_OFFERED = [
    *("SSLv2", "SSLv3", "TLS1", "TLS1_1", "cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT"),
    *("cipherlist_LOW", "cipherlist_3DES_IDEA", "cipherlist_AVERAGE"),
]
NOT_VULNERABLE = [
    *("secure_client_renego", "CRIME_TLS", "heartbleed", "CCS", "SWEET32", "FREAK", "POODLE_SSL", "ROBOT", "LUCKY13"),
    "BEAST",
]
WRONG = {"LOW", "MEDIUM", "HIGH", "CRITICAL"}


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_what_a_scanner_finds(tmp_path: Path, tls: str) -> None:
    program = need("testssl")
    certificate = issue(tmp_path)
    port = free_port()
    server = Server(
        tmp_path,
        listener=[{"address": f"127.0.0.1:{port}", "role": "mx", "tls": tls}],
        tls={"certificate": str(certificate.chain), "key": str(certificate.key)},
    )
    server.port = port
    found = tmp_path / "found.json"
    command = [program, "--quiet", "--warnings", "off", "--color", "0", "--fast", "--jsonfile", str(found), *CHECKS]
    if tls == "starttls":
        command += ["--starttls", "smtp"]
    with server:
        done = subprocess.run([*command, f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=270, check=False)
        with server.talk() as talk:  # and it is well after all that
            assert tls == "implicit" or talk.reply().startswith("220")
    assert found.exists(), done.stdout + done.stderr
    rows = {row["id"]: row for row in json.loads(found.read_text())}
    assert [name for name in NOT_OFFERED if not rows[name]["finding"].startswith("not offered")] == []
    assert [name for name in NOT_VULNERABLE if not rows[name]["finding"].startswith("not vulnerable")] == []
    assert [name for name in ("TLS1_2", "TLS1_3") if not rows[name]["finding"].startswith("offered")] == []
    assert rows["secure_renego"]["finding"] == "supported"  # RFC 5746
    assert [row for row in rows.values() if row["severity"] in WRONG] == []
