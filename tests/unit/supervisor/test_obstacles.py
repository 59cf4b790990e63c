"""What a file does not tell by itself, a useless certificate or log path, is told before anybody dies of it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from mta.config.load import load
from mta.processes import rehearse
from mta.roles import Server, obstacle

TLS = 'tls = "starttls"\n[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n'


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def file(tmp_path: Path, listening: socket.socket) -> Path:
    """A configuration that works; its certificate is in use."""
    port = listening.getsockname()[1]
    path = tmp_path / "mta.toml"
    server = f'[server]\nhostname = "localhost"\nruntime_dir = "{tmp_path}"\n'
    path.write_text(f'{server}[[listener]]\naddress = "127.0.0.1:{port}"\n{TLS}')
    certify(tmp_path)
    return path


def certify(folder: Path, names: tuple[str, ...] = ("cert.pem", "key.pem")) -> None:
    issued = trustme.CA().issue_cert("localhost")
    for name in names:
        blob = issued.private_key_pem if name == "key.pem" else issued.cert_chain_pems[0]
        blob.write_to_path(str(folder / name))


@pytest.fixture
def running(file: Path, listening: socket.socket) -> Iterator[Server]:
    settings = load(file)
    (address,) = settings.listener[0].address
    server = Server(settings, file, {address: [listening]}, 1, 1)
    links = [link for role in server.plan().roles for link in role.links]
    yield server
    for link in links:
        link.close()


def test_nothing_stands_in_the_way_of_a_good_file(file: Path) -> None:
    assert obstacle(load(file)) == ""


def test_a_key_of_another_certificate_is_told(file: Path) -> None:
    certify(file.parent, ("key.pem",))
    problem = obstacle(load(file))
    assert problem.startswith(f"[tls]: {file.parent}/cert.pem with {file.parent}/key.pem cannot be used: ")
    assert "mismatch" in problem


def test_a_certificate_that_is_none_is_told(file: Path) -> None:
    (file.parent / "cert.pem").write_text("not one\n")
    assert "cannot be used" in obstacle(load(file))


def test_a_certificate_that_no_listener_uses_is_not_looked_at(file: Path) -> None:
    (file.parent / "cert.pem").write_text("not one\n")
    file.write_text(file.read_text().replace('"starttls"', '"off"'))
    assert obstacle(load(file)) == ""


def test_a_log_that_cannot_be_opened_is_told(file: Path) -> None:
    file.write_text(file.read_text() + '[log]\npath = "nowhere/mail.log"\n')
    wanted = f"[log] path: cannot open {file.parent}/nowhere/mail.log: No such file or directory"
    assert obstacle(load(file)) == wanted


def test_a_reload_with_a_useless_certificate_changes_nothing(
    file: Path, running: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    certify(file.parent, ("key.pem",))
    assert running.reload() is None
    told = capfd.readouterr().err
    assert told.startswith(f"{file}: [tls]: ")
    assert told.endswith("mta: the settings in use stay\n")
    certify(file.parent)
    assert running.reload() is not None


def test_a_rehearsal_leaves_no_process_and_no_descriptor() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    assert rehearse(lambda: f"as {os.getpid()}") != f"as {os.getpid()}"
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_rehearsal_has_no_input_to_wait_for() -> None:
    assert rehearse(lambda: repr(os.read(0, 1))) == "b''"


def test_a_long_answer_comes_whole() -> None:
    assert rehearse(lambda: "x" * 1_000_000) == "x" * 1_000_000


def test_a_rehearsal_that_fails_is_a_problem_itself(capfd: pytest.CaptureFixture[str]) -> None:
    def fall() -> str:
        raise RuntimeError("the stage is on fire")

    assert rehearse(fall) == "trying it ended with exit status 70"
    assert "the stage is on fire" in capfd.readouterr().err
    assert rehearse(lambda: str(os.kill(os.getpid(), signal.SIGKILL))) == "trying it ended with signal SIGKILL"
