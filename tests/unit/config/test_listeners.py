"""[[listener]]: unix addresses and their permissions, LMTP, and what does not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.config.load import ConfigError, load
from mta.config.settings import Address, Listener

HEAD = '[server]\nhostname = "mx.example.org"\n[[listener]]\n'


def read(folder: Path, text: str) -> Listener:
    file = folder / "mta.toml"
    file.write_text(HEAD + text)
    return load(file).listener[0]


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return [f"{problem.line}: {problem.key}: {problem.text}" for problem in caught.value.problems]


def test_a_unix_address_is_a_path(tmp_path: Path) -> None:
    found = read(tmp_path, 'address = ["unix:/run/mta/lmtp", "unix:run/smtp", "[::1]:2525"]')
    assert found.address == (
        *(Address("", 0, "/run/mta/lmtp"), Address("", 0, f"{tmp_path}/run/smtp"), Address("::1", 2525)),
    )
    assert [str(address) for address in found.address] == [
        "unix:/run/mta/lmtp",
        f"unix:{tmp_path}/run/smtp",
        "[::1]:2525",
    ]
    assert (found.socket_mode, found.socket_group, found.trusted) == ("0660", "", False)


@pytest.mark.parametrize("mode", ["0600", "666", "0777"])
def test_permissions_are_octal(tmp_path: Path, mode: str) -> None:
    assert read(tmp_path, f'address = "unix:x"\nsocket_mode = "{mode}"').socket_mode == mode


@pytest.mark.parametrize("mode", ["660", "0o660", '"660 "', '"0888"', '"rw-rw----"', '"1777"', '""'])
def test_other_permissions_are_refused(tmp_path: Path, mode: str) -> None:
    [problem] = problems(tmp_path, f'address = "unix:x"\nsocket_mode = {mode}')
    assert problem.startswith("5: listener.socket_mode: ")
    assert problem.endswith('are no permissions; write them in octal and quotes, as in "0660"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('address = "unix:"', "4: listener.address: is an empty path"),
        (
            'address = "unix:/' + "x" * 107 + '"',
            "4: listener.address: /" + "x" * 107 + " is too long for a unix socket",
        ),
        ('address = ["unix:/x", "unix:/x"]', "4: listener.address: unix:/x is there twice"),
        ('address = "unix"', "4: listener.address: 'unix' is no address with a port"),
        (
            'address = "127.0.0.1:25"\nrole = "lmtp"',
            "4: listener.address: 127.0.0.1:25: LMTP must not be spoken on port",
        ),
        ('address = "unix:x"\nrole = "lmtp"\nwithout = "PIPELINING"', "6: listener.without: LMTP cannot be without"),
        (
            'address = "unix:x"\nrole = "lmtp"\nmechanisms = "PLAIN"',
            '6: listener.mechanisms: means nothing with role "lm',
        ),
        ('address = "127.0.0.1:24"\ntrusted = true', "5: listener.trusted: is for unix: addresses only; who may relay"),
        ('address = ["unix:x", "[::]:24"]\ntrusted = true', "5: listener.trusted: is for unix: addresses only"),
        ('address = "127.0.0.1:24"\nsocket_mode = "0666"', "5: listener.socket_mode: means nothing without a unix:"),
        ('address = "127.0.0.1:24"\nsocket_group = "mail"', "5: listener.socket_group: means nothing without a unix:"),
    ],
    ids=lambda value: value[:40],
)
def test_what_does_not_go_together(tmp_path: Path, text: str, said: str) -> None:
    [problem] = problems(tmp_path, text)
    assert problem.startswith(said), problem


def test_name_servers_are_not_asked_over_unix_sockets(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, 'address = "unix:x"\n[dns]\nnameservers = "unix:/run/dns"')
    assert problem.startswith("6: dns.nameservers: 'unix:/run/dns'")
