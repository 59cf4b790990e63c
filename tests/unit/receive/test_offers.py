"""Which extensions a listener offers, and what `without` takes away."""

from __future__ import annotations

from typing import Any

import pytest

from mta._fastparse import EXTENSIONS
from mta.config.settings import Limits, Listener, Seconds
from mta.receive.offers import offers

BASE = {"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "LIMITS"}
USERS = {"FUTURERELEASE", "DELIVERBY", "MT-PRIORITY"}


def offered(**settings: Any) -> set[str]:
    limits = Limits(hold=Seconds(settings.pop("hold", 100.0)))
    trusted = settings.pop("trusted", False)
    bits = offers(Listener(address=(), **settings), limits, trusted=trusted)
    return {name for name, bit in EXTENSIONS.items() if bits & bit}


def test_a_listener_without_tls_offers_no_requiretls() -> None:
    assert offered() == BASE
    assert offered(tls="starttls") == offered(tls="implicit") == BASE | {"REQUIRETLS"}


def test_what_moves_mail_in_time_is_for_users() -> None:
    assert offered(role="submission") == BASE | USERS
    assert offered(role="submission", hold=0.0) == BASE | USERS - {"FUTURERELEASE"}


def test_or_for_networks_that_are_trusted_with_it() -> None:
    names = ("DELIVERBY", "MT-PRIORITY", "FUTURERELEASE")
    assert offered(trusted_extensions=names) == BASE
    assert offered(trusted=True) == BASE
    assert offered(trusted=True, trusted_extensions=names) == BASE | USERS
    assert offered(trusted=True, trusted_extensions=names, hold=0.0) == BASE | USERS - {"FUTURERELEASE"}
    assert offered(trusted=True, trusted_extensions=("DELIVERBY",), without=("DSN",)) == BASE - {"DSN"} | {"DELIVERBY"}


@pytest.mark.parametrize("name", sorted(EXTENSIONS))
def test_each_can_be_taken_away(name: str) -> None:
    for role in ("mx", "submission"):
        assert name not in offered(role=role, tls="starttls", without=(name,))


def test_smtputf8_goes_with_8bitmime() -> None:
    """RFC 6531 §3.1 wants both."""
    assert offered(without=("8BITMIME",)) == BASE - {"8BITMIME", "SMTPUTF8"}


def test_all_can_be_taken_away() -> None:
    assert offered(role="submission", tls="implicit", without=tuple(EXTENSIONS)) == set()


def test_binary_texts_come_in_chunks_only() -> None:
    assert offered(without=("CHUNKING",)) == BASE - {"CHUNKING", "BINARYMIME"}
