"""Which rule speaks about a site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.load import ConfigError, load
from mta.config.settings import NO_RATE, CoolDown, Rate, Shape
from mta.model import Hop, Reply, Site
from mta.queue.shapes import fits, shaping

BASIC = '[server]\nhostname = "mx.test"\n[[listener]]\naddress = "127.0.0.1:2525"\n'
GMAIL = Site(
    name="mx:5:gmail-smtp-in.l.google.com,10:alt1.gmail-smtp-in.l.google.com",
    kind="smtp",
    hops=(Hop(5, "gmail-smtp-in.l.google.com"), Hop(10, "alt1.gmail-smtp-in.l.google.com")),
)
OTHER = Site(name="mx:10:mx.small.example", kind="smtp", hops=(Hop(10, "mx.small.example"),))
RELAY = Site(name="smtp:relay.example:25", kind="smtp", hops=(Hop(0, "relay.example"),))


def rules(tmp_path: Path, text: str) -> tuple[Shape, ...]:
    file = tmp_path / "mta.toml"
    file.write_text(BASIC + text)
    return load(file).shape


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        rules(tmp_path, text)
    return [f"{p.line}: {p.key}: {p.text}" for p in error.value.problems]


def test_without_rules_connections_are_learned_or_those_of_the_operator() -> None:
    found = shaping((), OTHER, ["small.example"], 20)
    assert (found.floor, found.ceiling, found.start, found.rate) == (1, 20, 5, NO_RATE)
    assert shaping((), OTHER, [], 3).start == 3
    found = shaping((), RELAY, [], 20)
    assert (found.floor, found.ceiling, found.start) == (1, 20, 20)  # its operator knows it


def test_a_rule_of_the_file_goes_before_the_providers(tmp_path: Path) -> None:
    mine = '[[shape]]\nmx = "*.l.google.com"\nrate = "100/min"\nrecipients_per_message = 20\nreason = "mine"\n'
    found = shaping(rules(tmp_path, mine), GMAIL, ["gmail.com"], 20)
    assert found.rate == Rate(100, 60)
    assert found.recipients_per_message == 20
    assert found.places["rate"] == f"{tmp_path}/mta.toml:5: mine"
    reply = Reply(421, "4.7.28", "Our system has detected an unusual rate of unsolicited mail")
    answer = found.cool_down(reply)
    assert answer is not None
    assert answer[0].pause > 0
    assert "providers.toml:" in answer[1]
    assert "Gmail" in answer[1]


def test_the_providers_rules_can_be_switched_off(tmp_path: Path) -> None:
    assert rules(tmp_path, "")
    assert rules(tmp_path, "[delivery]\nprovider_rules = false\n") == ()


def test_each_providers_rule_says_why_and_when(tmp_path: Path) -> None:
    for rule in rules(tmp_path, ""):
        assert "2026-" in rule.reason
        assert "published" in rule.reason or "conservative" in rule.reason or "support wrote" in rule.reason
        assert rule.mx


def test_all_kinds_of_patterns_must_fit(tmp_path: Path) -> None:
    text = '[[shape]]\nmx = "*.small.example"\ndomain = "big.example"\nconnections = 2\n'
    (rule,) = rules(tmp_path, "[delivery]\nprovider_rules = false\n" + text)
    assert shaping((rule,), OTHER, ["small.example"], 20).ceiling == 20
    found = shaping((rule,), OTHER, ["small.example", "big.example"], 20)
    assert (found.floor, found.ceiling, found.fixed) == (2, 2, True)
    by_source = replace(rule, domain=(), source=("bulk*",))
    assert shaping((by_source,), OTHER, [], 20, "bulk-2").ceiling == 2
    assert shaping((by_source,), OTHER, [], 20, "main").ceiling == 20
    by_name = Shape(site=("smtp:relay.example:*",), connections_ceiling=4)
    assert shaping((by_name,), RELAY, [], 20).ceiling == 4


def test_for_each_key_the_first_rule_counts() -> None:
    learned = Shape(connections_floor=2, connections_ceiling=8, where="a:1")
    fixed = Shape(connections=4, rate=NO_RATE, where="a:2")
    later = Shape(connections_start=3, rate=Rate(1, 1), messages_per_connection=7, where="a:3")
    found = shaping((learned, fixed, later), OTHER, [], 20)
    assert (found.floor, found.ceiling, found.start) == (2, 8, 5)
    assert found.rate == NO_RATE
    assert found.messages_per_connection == 7
    assert found.places == {"floor": "a:1", "ceiling": "a:1", "rate": "a:2", "messages_per_connection": "a:3"}
    assert shaping((fixed, learned), OTHER, [], 20).fixed


@pytest.mark.parametrize(
    ("pattern", "good"),
    [
        ("421", True),
        ("42x", True),
        ("4xx", True),
        ("4.7.28", True),
        ("421 4.7.28", True),
        ("421 4.7.*", True),
        ("421 4.7.28 Unusual Rate", True),
        ("unusual", True),
        ("450", False),
        ("5xx", False),
        ("421 4.7.1", False),
        ("421 4.7.28 other words", False),
    ],
)
def test_patterns_of_replies(pattern: str, good: bool) -> None:
    assert fits(pattern, Reply(421, "4.7.28", "an unusual rate of mail")) is good


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    text = """
[[shape]]
connections = 3
connections_floor = 1
rate = "100/fortnight"
[[shape]]
connections_floor = 5
connections_ceiling = 4
[[shape]]
connections_start = 9
connections_ceiling = 8
cool_down = { "421" = "wait a bit" }
[[shape]]
cool_down = "421"
"""
    assert [line.split(": ", 2)[:2] for line in problems(tmp_path, text)] == [
        ["9", "shape.rate"],
        ["11", "shape.connections_floor"],
        ["16", "shape.cool_down.421"],
        ["18", "shape.cool_down"],
    ]
    wrong = "[[shape]]\nconnections = 3\nconnections_floor = 1\n[[shape]]\n"
    wrong += "connections_start = 9\nconnections_ceiling = 8\n"
    assert problems(tmp_path, wrong) == [
        "7: shape.connections_floor: means nothing beside `connections`, which is a fixed number",
        "9: shape.connections_start: 9 is not between floor and ceiling",
    ]


def test_cool_downs_of_the_file(tmp_path: Path) -> None:
    text = '[[shape]]\ncool_down = { "421 4.7.28" = "pause 30m", "4xx too fast" = "slow" }\n'
    rule = rules(tmp_path, text)[0]
    assert rule.cool_down == (CoolDown("421 4.7.28", 1800.0), CoolDown("4xx too fast", 0.0))
