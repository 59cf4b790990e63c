"""What a transaction asked for with its parameters is in the envelope that is stored."""

from __future__ import annotations

from typing import Any

import pytest

from mta._fastparse import EXTENSIONS, ServerConfig, ServerSession
from mta.model import NOTIFY_DELAY, NOTIFY_NEVER, NOTIFY_SUCCESS, Options, Recipient
from mta.receive.asked import options_of, recipients_of


def session(commands: bytes, **config: Any) -> ServerSession:
    settings = {"hostname": b"mx.test", "message_size": 1000, "recipients": 10, "offers": sum(EXTENSIONS.values())}
    settings |= {"clock": lambda: 1000, "hold": 1000, "mechanisms_tls": b"PLAIN"}
    made = ServerSession(ServerConfig(**settings | config), lambda address: b"")
    made.secured()
    made.receive(b"EHLO c.test\r\n" + commands, 13 + len(commands))
    assert b"\r\n5" not in made.take_output()
    return made


def test_a_plain_transaction_asks_for_nothing() -> None:
    made = session(b"MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME\r\nRCPT TO:<c@d.test>\r\n")
    assert made.options is None
    assert recipients_of(made.recipients, None) == (Recipient(b"c@d.test"),)
    assert options_of(None, "anne") == Options(user="anne")


def test_the_message() -> None:
    made = session(b"MAIL FROM:<a@b.test> RET=HDRS ENVID=x+2By REQUIRETLS BODY=BINARYMIME\r\n")
    assert made.eight_bit
    assert options_of(made.options, "") == Options(ret="HDRS", envid=b"x+2By", require_tls=True, binary=True)


def test_each_recipient() -> None:
    made = session(
        b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
        b"RCPT TO:<e@d.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;e@old.test\r\nRCPT TO:<f@d.test> NOTIFY=NEVER\r\n"
    )
    assert options_of(made.options, "") == Options()
    assert recipients_of(made.recipients, made.options) == (
        Recipient(b"c@d.test"),
        Recipient(b"e@d.test", NOTIFY_SUCCESS | NOTIFY_DELAY, b"rfc822;e@old.test"),
        Recipient(b"f@d.test", NOTIFY_NEVER),
    )


def test_times_and_priority() -> None:
    made = session(b"MAIL FROM:<a@b.test> HOLDFOR=10 BY=60;RT MT-PRIORITY=4\r\n")
    expected = Options(hold="for;10", hold_until=11_000, deliver_by=61_000, by_return=True, by_trace=True, priority=4)
    assert options_of(made.options, "") == expected


def test_who_is_said_to_have_submitted_it_is_believed_of_himself_only() -> None:
    """RFC 4954 §5: of others it is as if AUTH=<> had been said."""
    made = session(b"MAIL FROM:<a@b.test> AUTH=anne+2Bx@b.test\r\n")
    assert options_of(made.options, "anne", lambda address: address == "anne+x@b.test").auth == b"anne+2Bx@b.test"
    assert options_of(made.options, "bob", lambda address: False).auth == b"<>"
    assert options_of(made.options, "", lambda address: True).auth == b"<>"
    assert options_of(made.options, "").auth == b"<>"
    assert options_of(session(b"MAIL FROM:<a@b.test> AUTH=<>\r\n").options, "").auth == b"<>"
    assert options_of(session(b"MAIL FROM:<a@b.test> RET=FULL\r\n").options, "").auth is None


def test_a_session_that_needs_a_clock_has_one() -> None:
    for keyword in ("FUTURERELEASE", "DELIVERBY"):
        with pytest.raises(ValueError, match="clock"):
            session(b"", offers=EXTENSIONS[keyword], clock=None)
