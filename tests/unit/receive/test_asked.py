"""What a transaction asked for with its parameters is in the envelope that is stored."""

from __future__ import annotations

from typing import Any

from mta._fastparse import EXTENSIONS, ServerConfig, ServerSession
from mta.model import NOTIFY_DELAY, NOTIFY_NEVER, NOTIFY_SUCCESS, Options, Recipient
from mta.receive.asked import options_of, recipients_of


def session(commands: bytes, **config: Any) -> ServerSession:
    settings = {"hostname": b"mx.test", "message_size": 1000, "recipients": 10, "offers": sum(EXTENSIONS.values())}
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
