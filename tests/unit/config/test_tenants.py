"""[[tenant]] and [tenants]: names, who is whose, and what is there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.config.load import ConfigError, load
from mta.config.settings import Settings

HEAD = '[server]\nhostname = "mx.example.org"\n[[listener]]\naddress = "127.0.0.1:25"\n'


def read(folder: Path, text: str) -> Settings:
    file = folder / "mta.toml"
    file.write_text(HEAD + text)
    return load(file)


def test_tenants_are_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        'tenant = "acme"\npriority = -2\n[[tenant]]\nname = "acme"\nweight = 3\nusers = ["@acme.test"]\n'
        'senders = ["*.Acme.Example"]\n[tenants]\nheader = "X-Tenant"\n',
    )
    assert (found.listener[0].tenant, found.listener[0].priority) == ("acme", -2)
    assert (found.tenant[0].weight, found.tenant[0].senders) == (3, ("*.acme.example",))
    assert (found.tenants.header, found.tenants.undeclared) == ("X-Tenant", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'tenant = "acne"\n[[tenant]]\nname = "acme"',
            """5: listener.tenant: no [[tenant]] is called 'acne'; did you""",
        ),
        ('tenant = "acme"', "5: listener.tenant: no [[tenant]] is called 'acme'; declare one"),
        ('[[tenant]]\nname = "a b"', "6: tenant.name: 'a b' is no name: up to 64 letters"),
        ('[[tenant]]\nname = "a"\nweight = 0', "7: tenant.weight: 0 is too small; at least 1"),
        ('[[tenant]]\nname = "a"\n[[tenant]]\nname = "A"', "8: tenant.name: A is there twice"),
        (
            '[[tenant]]\nname = "a"\nusers = ["u"]\n[[tenant]]\nname = "b"\nusers = ["U"]',
            "10: tenant.users: U is there twice",
        ),
        ('[[tenant]]\nname = "a"\nsenders = ["-"]', "tenant.senders: '-' is no domain name"),
        ('[tenants]\nheader = "X Tenant"', "6: tenants.header: 'X Tenant' is no name of a header field"),
        ("priority = 10", "5: listener.priority: 10 is too large; at most 9"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    [problem] = caught.value.problems
    assert said in f"{problem.line}: {problem.key}: {problem.text}"
