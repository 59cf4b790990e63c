"""`mta user`: what comes of each verb, and that no password shows."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from mta.cli.main import main
from mta.net.certificates import read_file
from mta.policy.passwords import is_password_of
from mta.policy.users.accounts import Account
from mta.policy.users.userfile import load_users
from tests.kit.authority import Authority
from tests.kit.server import COMMAND, ROOT

HEAD = '[server]\nhostname = "mx.example.org"\n[[listener]]\naddress = "127.0.0.1:2525"\n'
SECRET = "correct horse"


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "mta.toml"
    file.write_text(f'{HEAD}[[auth]]\ntype = "file"\npath = "users"\n')
    return str(file)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{SECRET}\r\nmore\n".encode())))


def users(config: str) -> dict[str, Account]:
    return load_users(Path(config).with_name("users"))[0]


@pytest.mark.usefixtures("typed")
def test_add_and_delete(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["user", "add", "Alice@Example.org", "--alias", "Sales@example.org", "--alias", "@example.net"]
    assert main([*words, "-c", config]) == 0
    alice = users(config)["alice@example.org"]
    assert alice.aliases == ("sales@example.org", "@example.net")
    assert [c[:13] for c in alice.credentials] == ["$argon2id$v=1", "SCRAM-SHA-256"]
    assert all(is_password_of([credential], SECRET) for credential in alice.credentials)
    assert SECRET not in Path(config).with_name("users").read_text()
    assert main(["user", "delete", "alice@example.org", "-c", config]) == 0
    assert users(config) == {}
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_passwd_and_list(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "password"
    file.write_text("first password\n")
    assert main(["user", "add", "bob", "--password-file", str(file), "-c", config]) == 0
    file.write_text("pässword 2")
    assert main(["user", "passwd", "BOB", "--password-file", str(file), "-c", config]) == 0
    assert is_password_of(users(config)["bob"].credentials, "pässword 2")
    assert main(["user", "alias", "bob", "--add", "b@x.test", "--add", "c@x.test", "-c", config]) == 0
    assert main(["user", "alias", "bob", "--remove", "B@x.test", "-c", config]) == 0
    assert main(["user", "list", "-c", config]) == 0
    assert capsys.readouterr().out == "bob  c@x.test\n"
    assert main(["user", "list", "--json", "-c", config]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "bob",
        "aliases": ["c@x.test"],
        "kinds": ["ARGON2ID", "SCRAM-SHA-256"],
        "disabled": False,
        "certificates": [],
    }


def test_certificates(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "password"
    file.write_text("first password\n")
    assert main(["user", "add", "bob", "--password-file", str(file), "-c", config]) == 0
    pair = Authority().issue(tmp_path, "bob", [])
    digest = read_file(pair.certificate).digest.hex()
    other = ":".join(["AB"] * 32)
    words = ["user", "certificate", "bob", "-c", config]
    assert main([*words, "--add", str(pair.certificate), "--add", other]) == 0
    assert users(config)["bob"].certificates == (digest, "ab" * 32)
    assert main([*words, "--remove", "ab" * 32]) == 0
    assert users(config)["bob"].certificates == (digest,)
    assert main(["user", "passwd", "bob", "--password-file", str(file), "-c", config]) == 0
    assert users(config)["bob"].certificates == (digest,)
    for wrong, code in (("nonsense", 2), (str(file), 75)):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--add", wrong])
        assert ended.value.code == code
    assert "is no SHA-256" in (told := capsys.readouterr().err)
    assert "holds no certificate in PEM" in told


@pytest.mark.usefixtures("typed")
def test_scram_sha_1_by_option(config: str) -> None:
    with open(config, "a") as file:
        file.write("[login]\nscram_sha_1 = true\n")
    assert main(["user", "add", "bob", "-c", config]) == 0
    assert [c.partition("$")[0] for c in users(config)["bob"].credentials] == ["", "SCRAM-SHA-256", "SCRAM-SHA-1"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["passwd", "nobody"], 1, "there is no nobody"),
        (["delete", "nobody"], 1, "there is no nobody"),
        (["alias", "nobody"], 1, "there is no nobody"),
        (["add", "alice"], 1, "already"),
        (["add", "b ob"], 2, "blank"),
        (["add", "bob", "--alias", "x"], 2, "no address"),
        (["add", "bob", "--password-file", "/nowhere/at/all"], 2, "cannot be read"),
        (["add", "bob", "--password-file", "/dev/null"], 2, "the password is empty"),
    ],
)
def test_mistakes(
    config: str, words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("alice disabled\n")
    with pytest.raises(SystemExit) as end:
        main(["user", *words, "-c", config])
    assert end.value.code == code
    assert told in capsys.readouterr().err
    assert (tmp_path / "users").read_text() == "alice disabled\n"


def test_without_a_users_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mta.toml").write_text(HEAD)
    with pytest.raises(SystemExit) as end:
        main(["user", "list", "-c", str(tmp_path / "mta.toml")])
    assert end.value.code == 78
    assert "[[auth]]" in capsys.readouterr().err


def test_a_password_is_never_an_argument(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["user", "add", "bob", SECRET, "-c", config])
    assert end.value.code == 2


@pytest.mark.parametrize(("again", "code"), [(SECRET, 0), ("something else", 2)])
def test_on_a_terminal(config: str, again: str, code: int) -> None:
    """Asked for twice, and not echoed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "user", "add", "bob", "-c", config],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(theirs)
    shown = b""
    for prompt, text in ((b"Password: ", SECRET), (b"Again: ", again)):
        while prompt not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, text.encode() + b"\n")
    assert process.wait(30) == code
    os.close(ours)
    assert SECRET.encode() not in shown
    assert ("bob" in users(config)) == (code == 0)
