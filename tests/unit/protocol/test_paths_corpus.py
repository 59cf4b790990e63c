"""Addresses that others have collected, all 664 of them, against both readers of paths.

What the corpus calls right or wrong for RFC 5321 is so here. Where it judges by other rules, `DIFFERENT` has the
reason; a row that differs without one fails, and so does a reason that no row needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mta import _fastparse
from mta.protocol import paths

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "suites" / "address" / "addresses.jsonl"
ACCEPT = {
    *("ISEMAIL_VALID_CATEGORY", "ISEMAIL_RFC5321", "ISEMAIL_DNSWARN"),
    *("test_email_valid", "test_email_valid_intl_local_part", "test_email_valid_only_if_quoted_local_part"),
    *("valid_mailfrom_addresses", "valid_rcptto_addresses"),
}
REFUSE = {
    *("ISEMAIL_ERR", "ISEMAIL_RFC5322", "ISEMAIL_DEPREC", "ISEMAIL_CFWS"),  # the latter three right for RFC 5322 alone
    *("test_email_invalid_syntax", "test_email_invalid_syntax_strict", "test_email_unsafe_character"),
    *("test_email_invalid_reserved_domain", "test_email_invalid_character_smtputf8_off", "invalid_email_addresses"),
}

_COMMENT = "comments and folding are of RFC 5322; an envelope has none"
_NAME = "a display name is of RFC 5322; an envelope has none"
_UTF8 = "non-ASCII needs SMTPUTF8 (RFC 6531), which a path without it has not"
_LONG = "longer than RFC 5321 §4.5.3.1 has it"
_MIXED = "a local part is quoted as a whole or not at all, and a backslash stands within quotes alone (RFC 5321 §4.1.2)"
_RESERVED = "whether mail for a domain can be delivered is no matter of grammar"
_LABELS = "any label of letters, digits and hyphens is a label here; what IDNA reserves is not looked at"
_LITERAL = "address literals are of the grammar (RFC 5321 §4.1.3)"
_ONE_GROUP = '"::" for one group of an IPv6 address (RFC 4291 §2.2, against RFC 5321 §4.1.3)'
_NO_IPV6 = '":1" is no IPv6 address'
DIFFERENT: dict[str, str] = {
    "test@[IPv6:1111:2222:3333:4444:5555:6666::8888]": _ONE_GROUP,
    "jeff@臺網中心.tw": _UTF8,
    '"unnecessarily.quoted.with.unicode.λ"@example.com': _UTF8,
    '"quoted.with..unicode.λ"@example.com': _UTF8,
    "MyName <me@example.org>": _NAME,
    "My Name <me@example.org>": _NAME,
    r'"My.\"Na\\me\".Is" <"me \" \\ me"@example.org>': _NAME,
    **dict.fromkeys(["my@localhost", "me@bad-tld-1", "me@bad.tld-2"], _RESERVED),
    **dict.fromkeys(["me@anything.arpa", "me@valid.invalid", "me@link.local", "me@host.localhost"], _RESERVED),
    **dict.fromkeys(["me@onion.onion.onion", "me@test.test.test"], _RESERVED),
    **dict.fromkeys(["me@xn--0.tld", "me@yy--0.tld"], _LABELS),
    **dict.fromkeys(["me@[127.0.0.1]", "me@[IPv6:::1]"], _LITERAL),
    "anne@[IPv6::1]": _NO_IPV6,
    **dict.fromkeys(["anne(comment)@example.com", "(comment)anne@example.com", "anne@example.com(comment)"], _COMMENT),
    "anne@machine(comment).  example": _COMMENT,
    **dict.fromkeys(['much."more\\ unusual"@example.com', "Fred\\ Bloggs@example.com"], _MIXED),
    'very."(),:;<>[]".VERY."very@\\ "very.unusual@strange.example.com': _MIXED,
    "Joe.\\\\Blow@example.com": _MIXED,
}


def rows() -> list[dict[str, Any]]:
    if not CORPUS.exists():
        pytest.skip(f"the address corpus is not there: {CORPUS}")
    return [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]


def octets(address: str) -> bytes:
    """The corpus writes control characters as their pictures (U+2400 and on)."""
    return address.translate({0x2400 + i: i for i in range(0x21)}).encode("utf-8", "surrogatepass")


def taken(parse: Any, row: dict[str, Any]) -> bool:
    """Rows of aiosmtpd are whole arguments, perhaps with brackets and blanks around them."""
    raw = octets(row["address"])
    argument = row["category"].endswith("_addresses")
    path = raw.strip(b" ") if argument and b"<" in raw else b"<" + (raw.strip(b" ") if argument else raw) + b">"
    found = parse(path)
    return bool(raw) and found is not None and found[1] == len(path)


def reason(row: dict[str, Any]) -> str:
    mailbox = row["address"].strip("<> ")
    if row["category"] == "test_email_valid_intl_local_part":
        return _UTF8
    if row["category"] in ("valid_mailfrom_addresses", "valid_rcptto_addresses") and (
        len(mailbox.rpartition("@")[0]) > 64 or len(mailbox) > 254
    ):
        return _LONG
    return DIFFERENT.get(row["address"], "")


@pytest.fixture(params=[_fastparse.parse_path, paths.parse_path], ids=["fast", "readable"])
def parse(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_every_row_is_judged(parse: Any) -> None:
    corpus = rows()
    assert len(corpus) == 664
    assert {row["category"] for row in corpus} == ACCEPT | REFUSE
    differing = [row for row in corpus if taken(parse, row) != (row["category"] in ACCEPT)]
    assert [row for row in differing if not reason(row)] == []
    assert set(DIFFERENT) <= {row["address"] for row in differing}


def test_what_is_of_rfc_5321_differs_nowhere(parse: Any) -> None:
    for row in rows():
        if row["category"] in ("ISEMAIL_VALID_CATEGORY", "ISEMAIL_RFC5321", "ISEMAIL_ERR"):
            assert taken(parse, row) == (row["category"] != "ISEMAIL_ERR"), row["address"]


def test_both_agree_on_the_whole_corpus() -> None:
    for row in rows():
        for raw in (octets(row["address"]), b"<" + octets(row["address"]) + b">"):
            assert _fastparse.parse_path(raw) == paths.parse_path(raw), raw
