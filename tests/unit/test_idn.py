"""Domains beyond ASCII have one form here, in ASCII, or none."""

from __future__ import annotations

import pytest

from mta.idn import a_labels, ascii_mailbox, with_a_labels

BOOKS = "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "domain", ["b\u00fccher.example", "B\u00dcCHER.Example", "bu\u0308cher.example", "b\u00fccher\u3002example", BOOKS]
)
def test_one_domain_in_many_forms(domain: str) -> None:
    assert a_labels(domain) == BOOKS
    assert ascii_mailbox(f"anne@{domain}".encode()) == f"anne@{BOOKS}".encode()


@pytest.mark.parametrize(
    "domain",
    [
        "\u20ac.example",  # a symbol
        "b\u00fccher..example",
        "b\u00fccher.",
        "b\u00fccher\u3002",
        "b\u00fccher\u2215x.example",  # a stroke that is mapped to none of ASCII
        "\u2100.example",  # "a/c" in compatibility
        "\u00fc_x.example",
        "\u0300a.example",  # a mark without its letter
        "a\u200db.example",  # a joiner without its context
        "\u05d0a.example",  # two directions in a label
        "\u00fc" * 60 + ".example",  # its A-label is too long
        "xn--\u00fc.example",
    ],
)
def test_domains_without_a_form_in_ascii(domain: str) -> None:
    with pytest.raises(ValueError):
        a_labels(domain)
    assert ascii_mailbox(f"anne@{domain}".encode()) == b""
    assert with_a_labels(f"anne@{domain}") == f"anne@{domain}"


def test_the_local_part_stays() -> None:
    assert ascii_mailbox("\u00c9va@b\u00fccher.example".encode()) == f"\u00c9va@{BOOKS}".encode()
    assert ascii_mailbox("\u00c9va@Mx.example".encode()) == "\u00c9va@Mx.example".encode()
    assert with_a_labels("\u00c9va@b\u00fccher.example") == f"\u00c9va@{BOOKS}"
    assert with_a_labels("@b\u00fccher.example") == f"@{BOOKS}"
    assert with_a_labels("\u00c9va") == "\u00c9va"
