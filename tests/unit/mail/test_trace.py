"""The Received header: right form, and nothing from the peer can break out of it."""

from email import message_from_bytes
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.trace import Tracer, date_text, priority_clause, tls_clause, was_delivered

SECOND = 1_795_439_400


def received(
    helo: bytes = b"client.example", client: str = "192.0.2.1", recipient: bytes = b"user@example.org"
) -> bytes:
    tracer = Tracer("mx.example.org")
    return tracer.received(tracer.origin(helo, client, b"ESMTP"), "1AHHN4AQ0C00", recipient, SECOND)


def test_the_whole_header() -> None:
    assert received() == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.example.org with ESMTP id 1AHHN4AQ0C00\r\n"
        b"\tfor <user@example.org>;\r\n"
        b"\tMon, 23 Nov 2026 13:10:00 +0000\r\n"
    )


def test_several_recipients_are_not_told_of_each_other() -> None:
    assert b"for" not in received(recipient=b"")


def test_a_text_that_came_under_tls_says_so() -> None:
    """RFC 8314 §4.3, behind the clauses of RFC 5321 §4.4."""
    tracer = Tracer("mx.example.org")
    origin = tracer.origin(b"client.example", "192.0.2.1", b"ESMTPS")
    clause = tls_clause("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example.org")
    assert tracer.received(origin, "1AHHN4AQ0C00", b"user@example.org", SECOND, clause) == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.example.org with ESMTPS id 1AHHN4AQ0C00\r\n"
        b"\tfor <user@example.org>\r\n"
        b"\ttls TLS_AES_256_GCM_SHA384 (TLSv1.3 sni=mx.example.org);\r\n"
        b"\tMon, 23 Nov 2026 13:10:00 +0000\r\n"
    )
    assert tls_clause("TLSv1.2", "X", "") == b"\r\n\ttls X (TLSv1.2)"


def test_the_priority_that_was_asked_for_is_in_a_clause() -> None:
    """RFC 6710 §4.1, §7."""
    tracer = Tracer("mx.example.org")
    origin = tracer.origin(b"client.example", "192.0.2.1", b"ESMTP")
    header = tracer.received(origin, "1AHHN4AQ0C00", b"", SECOND, b"\r\n\ttls X (TLSv1.3)" + priority_clause(-4))
    assert b" id 1AHHN4AQ0C00\r\n\ttls X (TLSv1.3)\r\n\tPRIORITY -4;\r\n\tMon," in header


def test_an_ipv6_client_is_written_as_a_literal() -> None:
    assert b"([IPv6:2001:db8::1])" in received(client="2001:db8::1")


@given(st.binary(max_size=80))
def test_no_helo_name_breaks_out(helo: bytes) -> None:
    message = message_from_bytes(received(helo=helo) + b"\r\nbody\r\n")
    assert message.keys() == ["Received"]
    assert message.get_payload() == "body\r\n"


def test_the_date_is_understood_by_others() -> None:
    assert parsedate_to_datetime(date_text(SECOND)).timestamp() == SECOND


def test_who_came_over_a_unix_socket_has_no_address() -> None:
    assert received(client="unix").startswith(b"Received: from client.example (unix socket)\r\n\tby ")


ROUND = b"Received: x\r\nDelivered-To: Bob@Home.example\r\nReceived: y\r\nDelivered-To: <eve@home.example>\r\n"


@pytest.mark.parametrize(
    ("text", "recipient", "found"),
    [
        (ROUND + b"\r\nhi\r\n", b"bob@home.example", True),
        (ROUND + b"\r\nhi\r\n", b"EVE@home.example", True),
        (ROUND, b"eve@home.example", True),
        (ROUND + b"\r\nhi\r\n", b"ob@home.example", False),
        (b"Received: x\r\n\r\nDelivered-To: bob@home.example\r\n", b"bob@home.example", False),
        (b"Received: x\r\nX-Delivered-To: bob@home.example\r\n\r\n", b"bob@home.example", False),
        (b"Received: x\r\nDelivered-To: bob@home.example", b"bob@home.example", True),
        (b"", b"bob@home.example", False),
    ],
)
def test_a_text_that_was_here_before(text: bytes, recipient: bytes, found: bool) -> None:
    assert was_delivered(text, recipient) == found
