"""`mta check`: what it says of a machine."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from mta.cli.main import main
from tests.kit.authority import Authority
from tests.kit.dns import Zone
from tests.kit.operator import Control, FakeOperator


def configured(folder: Path, port: int, more: str = "", listener: str = "") -> str:
    file = folder / "mta.toml"
    file.write_text(
        f'[server]\nhostname = "localhost"\n[[listener]]\naddress = "127.0.0.1:{port}"\n{listener}\n{more}\n'
    )
    return str(file)


def check(file: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[tuple[str, str]]]:
    code = main(["check", "-c", file])
    lines = capsys.readouterr().out.splitlines()
    return code, [(line[:4].strip(), line[6:]) for line in lines]


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_all_is_well(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with Zone({"example.com": ["MX 10 mx.example.com."]}) as zone:
        file = configured(tmp_path, port, f"[dns]\nnameservers = '{zone.address}'")
        code, said = check(file, capsys)
    assert code == 0
    assert [verdict for verdict, _ in said] == ["ok"] * 7
    assert ("ok", f"{file} is understood") in said
    assert ("ok", f"{tmp_path}/var will be made") in said
    assert ("ok", f"127.0.0.1:{port} is free") in said
    assert ("ok", f"name server {zone.address} answers") in said
    assert not (tmp_path / "var").exists()


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        code, said = check(configured(tmp_path, port), capsys)
        assert code == 78
        assert ("FAIL", f"127.0.0.1:{port}: Address already in use") in said
        with Control(tmp_path / "run", FakeOperator()):
            code, said = check(configured(tmp_path, port), capsys)
        assert code == 0
        assert ("ok", f"127.0.0.1:{port} is served by this server, which runs") in said


def test_an_address_of_another_machine(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(configured(tmp_path, port, "[[listener]]\naddress = '192.0.2.1:25'"), capsys)
    assert code == 78
    assert ("FAIL", "192.0.2.1:25: Cannot assign requested address") in said


def test_a_file_where_a_folder_must_be(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "var").write_text("")
    code, said = check(configured(tmp_path, port), capsys)
    assert code == 78
    assert ("FAIL", f"{tmp_path}/var is not a directory") in said


def test_a_folder_below_a_file(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o755)
    file = configured(tmp_path, port)
    Path(file).write_text(Path(file).read_text().replace('"localhost"', '"localhost"\nstate_dir = "file/var"'))
    code, said = check(file, capsys)
    assert code == 78
    assert ("FAIL", f"{tmp_path}/file is not a directory") in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "var").mkdir(mode=0o500)
    code, said = check(configured(tmp_path, port), capsys)
    assert code == 78
    assert ("FAIL", f"{tmp_path}/var cannot be written by this user") in said


def test_a_dead_name_server(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with Zone({}, {"example.com": "silent"}) as zone:
        code, said = check(configured(tmp_path, port, f"[dns]\nnameservers = '{zone.address}'"), capsys)
    assert code == 0
    assert said[-1] == ("warn", f"name server {zone.address} does not answer: Timeout")


DAY = 86400


@pytest.mark.parametrize(
    ("age", "life", "verdict", "told"),
    [
        (DAY, 90 * DAY + 60, "ok", r"until \d{4}-\d\d-\d\d, 90 days"),
        (DAY, 14 * DAY + 60, "ok", r"until \d{4}-\d\d-\d\d, 14 days"),
        (DAY, 14 * DAY - 60, "warn", r"until \d{4}-\d\d-\d\d, 13 days"),
        (2 * DAY, -DAY, "FAIL", r"expired on \d{4}-\d\d-\d\d"),
        (-DAY, 2 * DAY, "FAIL", "not good yet"),
    ],
)
def test_certificates(
    tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str], age: int, life: int, verdict: str, told: str
) -> None:
    authority = Authority()
    authority.issue(tmp_path, "first", ["localhost", "*.example.org"], key="rsa")
    authority.issue(tmp_path, "second", [], age=age, life=life)
    tls = "[tls]\ncertificate = 'first.pem'\nkey = 'first.key'\n"
    more = "[[tls.certificates]]\ncertificate = 'second.pem'\nkey = 'second.key'"
    code, said = check(configured(tmp_path, port, tls + more, "tls = 'starttls'"), capsys)
    assert code == (78 if verdict == "FAIL" else 0)
    first = f"{tmp_path}/first.pem and its key belong together: localhost, *.example.org; RSA; until "
    assert any(found == "ok" and text.startswith(first) for found, text in said)
    second = re.escape(f"{tmp_path}/second.pem and its key belong together: second; ECDSA P-256; ") + told
    assert any(found == verdict and re.fullmatch(second, text) for found, text in said)


@pytest.mark.parametrize(
    ("names", "warned"), [(["localhost"], False), (["mx.test", "localhost"], False), (["mx.test"], True)]
)
def test_a_certificate_for_the_name_of_the_server(
    tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str], names: list[str], warned: bool
) -> None:
    Authority().issue(tmp_path, "cert", names)
    tls = "[tls]\ncertificate = 'cert.pem'\nkey = 'cert.key'"
    _, said = check(configured(tmp_path, port, tls, "tls = 'starttls'"), capsys)
    text = "no certificate is for server.hostname localhost; servers that verify this one's will not send"
    assert (("warn", text) in said) == warned


def test_a_key_of_another_certificate(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    for stem in ("cert", "other"):
        Authority().issue(tmp_path, stem, [])
    tls = "[tls]\ncertificate = 'cert.pem'\nkey = 'other.key'"
    code, said = check(configured(tmp_path, port, tls, "tls = 'starttls'"), capsys)
    assert code == 78
    assert any(verdict == "FAIL" and "other.key" in text for verdict, text in said)


@pytest.mark.parametrize(
    ("text", "mode", "finding"),
    [
        (None, 0, "warn  {path} is missing, so nobody in it can log in; mta user add makes it"),
        ("alice disabled\nbob disabled\n", 0o600, "ok    {path} has 2 users"),
        (
            "alice disabled\n",
            0o644,
            "warn  {path} can be read by everybody, who may then guess passwords; chmod o= {path}",
        ),
        ("a secret\nb secret\n", 0o600, "warn  {path}: line 1: field 2 is no SCRAM verifier, and 1 more"),
        ("\udcff", 0o600, "FAIL  {path} cannot be read: "),
    ],
)
def test_a_users_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, mode: int, finding: str
) -> None:
    path = tmp_path / "users"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        path.chmod(mode)
    config = tmp_path / "mta.toml"
    config.write_text(
        f'[server]\nhostname = "localhost"\nstate_dir = "{tmp_path}"\nruntime_dir = "{tmp_path}"\n'
        '[[listener]]\naddress = "127.0.0.1:2525"\n[[auth]]\ntype = "file"\npath = "users"\n'
    )
    main(["check", "-c", str(config)])
    assert any(line.startswith(finding.format(path=path)) for line in capsys.readouterr().out.splitlines())


def test_unix_sockets(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # a unix socket's path may not be long
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as left, socket.socket(socket.AF_UNIX) as used:
        left.bind("left")
        used.bind("used")
        used.listen()
        names = ["free", "file", "left", "used", "run/made", "gone/x"]
        listener = f"[[listener]]\naddress = {[f'unix:{name}' for name in names]}"
        code, said = check(configured(tmp_path, port, listener), capsys)
    assert code == 78
    told = {text.partition(f"unix:{tmp_path}/")[2]: verdict for verdict, text in said if "unix:" in text}
    assert told == {
        "free is free": "ok",
        "file: there is a file that is no socket": "FAIL",
        "left was left behind and will be replaced: nobody listens there": "ok",
        "used: another program listens there": "FAIL",
        "run/made is free": "ok",
        f"gone/x: there is no directory {tmp_path}/gone": "FAIL",
    }
