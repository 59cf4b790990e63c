"""[[source]] and [[egress]]: addresses, pools, and rules that name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.config.load import ConfigError, load
from mta.config.settings import Settings

HEAD = '[server]\nhostname = "mx.example.org"\n[[listener]]\naddress = "127.0.0.1:25"\n'
OUT = '[[source]]\nname = "out"\nipv4 = "192.0.2.1"\n'


def read(folder: Path, text: str) -> Settings:
    file = folder / "mta.toml"
    file.write_text(HEAD + text)
    return load(file)


def test_sources_are_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        OUT + 'ipv6 = "2001:DB8:0::1"\nehlo = "Out.Example.org"\nweight = 3\npools = ["fast"]\n'
        '[[egress]]\npool = "fast"\nsender = "*.News.test"\npriority = "bulk"\n[[egress]]\npool = "out"\n',
    )
    [source] = found.source
    assert (source.ipv4, source.ipv6, source.ehlo) == ("192.0.2.1", "2001:db8::1", "out.example.org")
    assert (source.weight, source.pools) == (3, ("fast",))
    assert [(rule.pool, rule.sender, rule.priority) for rule in found.egress] == [
        ("fast", "*.news.test", "bulk"),
        ("out", "*", "any"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[source]]\nname = "a"', "6: source.name: a says nothing: give it ipv4, ipv6 or ehlo"),
        ('[[source]]\nname = "a"\nipv4 = "::1"', "7: source.ipv4: '::1' is no IPv4 address of a machine; write it as"),
        ('[[source]]\nname = "a"\nipv6 = "127.0.0.1"', "source.ipv6: '127.0.0.1' is no IPv6 address"),
        ('[[source]]\nname = "a"\nipv4 = "0.0.0.0"', "source.ipv4: '0.0.0.0' is no IPv4 address"),
        ('[[source]]\nname = "a"\nipv4 = 7', "source.ipv4: 7 is no IPv4 address"),
        ('[[source]]\nname = "a"\nehlo = "-"', "source.ehlo: '-' is no domain name"),
        (OUT + OUT, "9: source.name: out is there twice"),
        (OUT + 'pools = ["a b"]', "8: source.pools: 'a b' is no name"),
        (
            OUT + '[[egress]]\npool = "aut"',
            """9: egress.pool: no [[source]] is called 'aut' or in a pool of this name; did""",
        ),
        ('[[egress]]\npool = "x"', "egress.pool: no [[source]] is called 'x' or in a pool of this name; declare"),
        (OUT + '[[egress]]\npool = "out"\ntenant = "acme"', "10: egress.tenant: no [[tenant]] is called 'acme'"),
        (OUT + '[[egress]]\npool = "out"\npriority = "low"', "egress.priority: 'low' is not one of any, urgent"),
        (OUT + '[[egress]]\npool = "out"\nsender = "-"', "egress.sender: '-' is no domain name"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    [problem] = caught.value.problems
    assert said in f"{problem.line}: {problem.key}: {problem.text}"


def test_rules_may_name_tenants_that_a_header_may_name(tmp_path: Path) -> None:
    text = OUT + '[[egress]]\npool = "out"\ntenant = "acme"\n[tenants]\nheader = "X-Tenant"\nundeclared = true\n'
    assert read(tmp_path, text).egress[0].tenant == "acme"
