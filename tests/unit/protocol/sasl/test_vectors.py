"""SCRAM against the examples of its RFCs, and against a suite that others wrote; both sides."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mta.protocol.sasl import client as client_module
from mta.protocol.sasl import scram as scram_module
from mta.protocol.sasl.client import ScramClient, ServerMisbehaves
from mta.protocol.sasl.prep import saslprep
from mta.protocol.sasl.scram import Scram
from mta.protocol.sasl.steps import AskVerifier, Challenge, Proven, Refused
from mta.protocol.sasl.verifier import Verifier, make_verifier

SUITE = Path(__file__).resolve().parents[5] / "shared" / "suites" / "scram"

RFC_5802 = {  # section 5
    "digest": "SHA-1",
    "user": "user",
    "pass": "pencil",
    "salt64": "QSXCR+Q6sek8bf92",
    "iters": 4096,
    "clientNonce": "fyko+d2lbbFgONRv9qkxdawL",
    "serverNonce": "3rfcNHYJY1ZVvWVs7j",
    "steps": [
        "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        "",
    ],
}
RFC_7677 = {  # section 3
    "digest": "SHA-256",
    "user": "user",
    "pass": "pencil",
    "salt64": "W22ZaJ0SNY7soEsUEjb6gQ==",
    "iters": 4096,
    "clientNonce": "rOprNGfwEbeRWgbNEkqO",
    "serverNonce": "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
    "steps": [
        "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        "",
    ],
}


def verifier_of(case: dict[str, Any]) -> Verifier:
    password = case["pass"] if case.get("skipSASLprep") else saslprep(case["pass"])
    return make_verifier(password, base64.b64decode(case["salt64"]), case["iters"], case["digest"])


def run_server(case: dict[str, Any]) -> list[str]:
    """What the server says to the client's messages of the case; its end in words."""
    server = Scram(case["digest"], nonce=case["serverNonce"])
    heard = []
    for message in case["steps"][::2]:
        step = server.step(message.encode())
        if isinstance(step, AskVerifier):
            step = server.supply(verifier_of(case))
        if isinstance(step, Challenge):
            heard.append(step.data.decode())
        else:
            assert isinstance(step, Proven | Refused)
            heard.append(type(step).__name__)
            break
    return heard


def run_client(case: dict[str, Any]) -> list[str]:
    client = ScramClient(case["user"], case["pass"], nonce=case["clientNonce"], digest=case["digest"])
    said = [client.initial().decode()]
    said += [client.respond(message.encode()).decode() for message in case["steps"][1::2]]
    assert client.finished
    return said


def suite(folder: str) -> list[dict[str, Any]]:
    if not SUITE.exists():
        pytest.skip(f"the SCRAM suite is not there: {SUITE}")
    return [json.loads(path.read_text("utf-8")) for path in sorted((SUITE / folder).glob("*.json"))]


def check_good(case: dict[str, Any]) -> None:
    assert run_server(case) == [*case["steps"][1::2], "Proven"], case.get("label")
    assert run_client(case) == case["steps"][::2], case.get("label")


@pytest.mark.parametrize("case", [RFC_5802, RFC_7677], ids=["RFC 5802", "RFC 7677"])
def test_the_examples_of_the_rfcs(case: dict[str, Any]) -> None:
    check_good(case)


@pytest.fixture
def unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite has cases without SASLprep, which we always do."""
    monkeypatch.setattr(scram_module, "saslprep", str)
    monkeypatch.setattr(client_module, "saslprep", str)


def test_good_exchanges() -> None:
    cases = [case for case in suite("good") if not case["skipSASLprep"]]
    assert len(cases) > 8
    for case in cases:
        check_good(case)


@pytest.mark.usefixtures("unprepared")
def test_good_exchanges_without_saslprep() -> None:
    for case in suite("good"):
        if case["skipSASLprep"]:
            check_good(case)


def test_bad_clients_are_refused() -> None:
    for case in suite("bad-client"):
        unknown = "n=doesntexist" in case["steps"][0]
        heard = run_server(case)
        if unknown:  # gets as far as everybody else
            assert heard == [heard[0]]
        else:
            assert heard == [case["steps"][1], "Refused"]


def test_bad_servers_are_found_out() -> None:
    for case in suite("bad-server"):
        with pytest.raises(ServerMisbehaves):
            run_client(case)
