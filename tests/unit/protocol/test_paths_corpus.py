"""Addresses that others have collected, against both readers of paths.

No difference is deliberate: what the corpus calls right or wrong for RFC 5321 is so here, all of it. Should one become
so, it belongs into a table here, with its reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mta import _fastparse
from mta.protocol import paths

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "suites" / "address" / "addresses.jsonl"
ACCEPT = {"ISEMAIL_VALID_CATEGORY", "ISEMAIL_RFC5321"}
REFUSE = {"ISEMAIL_ERR"}


def rows() -> list[dict[str, Any]]:
    if not CORPUS.exists():
        pytest.skip(f"the address corpus is not there: {CORPUS}")
    return [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]


def octets(address: str) -> bytes:
    """The corpus writes control characters as their pictures (U+2400 and on)."""
    return address.translate({0x2400 + i: i for i in range(0x21)}).encode("utf-8", "surrogatepass")


def taken(parse: Any, address: str) -> bool:
    raw = octets(address)
    return bool(raw) and parse(b"<" + raw + b">") == (raw, len(raw) + 2)


@pytest.fixture(params=[_fastparse.parse_path, paths.parse_path], ids=["fast", "readable"])
def parse(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_addresses_that_are_right(parse: Any) -> None:
    right = [row["address"] for row in rows() if row["category"] in ACCEPT]
    assert len(right) > 100
    assert [address for address in right if not taken(parse, address)] == []


def test_addresses_that_are_wrong(parse: Any) -> None:
    wrong = [row["address"] for row in rows() if row["category"] in REFUSE]
    assert len(wrong) > 100
    assert [address for address in wrong if taken(parse, address)] == []


def test_both_agree_on_the_whole_corpus() -> None:
    for row in rows():
        for raw in (octets(row["address"]), b"<" + octets(row["address"]) + b">"):
            assert _fastparse.parse_path(raw) == paths.parse_path(raw), raw
