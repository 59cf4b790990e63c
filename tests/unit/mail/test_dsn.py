"""Notices as other programs read them; and nothing from outside breaks out of its place in them."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.dsn import Failure, compose
from mta.model import MessageId, Reply, id_text

NOTICE, ORIGINAL = MessageId(1_795_439_400_000 << 16 | 1), MessageId(1_795_439_300_000 << 16)
NOW = 1_795_439_400
REFUSED = Failure(b"user@example.org", Reply(550, "5.1.1", "no such user"), "mx.example.org[192.0.2.1]:25")
TEXT = b"From: <a@example.com>\r\nSubject: hello\r\n\r\nthe secret body\r\n"
BOUNDARY = f"--notice-{id_text(NOTICE)}"


def notice(*failures: Failure, original: bytes = TEXT, sender: bytes = b"a@example.com") -> bytes:
    return compose(
        hostname="mta.example.net",
        notice_id=NOTICE,
        original_id=ORIGINAL,
        sender=sender,
        failures=failures or (REFUSED,),
        original=original,
        now=NOW,
    )


def parsed(data: bytes) -> tuple[EmailMessage, str, list[EmailMessage], str]:
    """The message; its parts for people and programs; the headers of the original."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    parts = list(message.iter_parts())
    kinds = [part.get_content_type() for part in parts]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert not [part.defects for part in message.walk() if part.defects]
    blocks = parts[1].get_payload()
    assert isinstance(blocks, list)
    return message, parts[0].get_content().replace("\r\n", "\n"), blocks, str(parts[2].get_payload())


def is_sound(data: bytes) -> bool:
    """7 bits, CRLF, no NUL, and lines that SMTP takes."""
    bare = data.replace(b"\r\n", b"")
    return (
        data.isascii()
        and not {b"\r", b"\n", b"\0"} & {bare[i : i + 1] for i in range(len(bare))}
        and max(map(len, data.split(b"\r\n"))) <= 998
    )


def test_the_headers() -> None:
    message, *_ = parsed(notice())
    assert message["From"] == "Mail Delivery <MAILER-DAEMON@mta.example.net>"
    assert message["To"] == "a@example.com"
    assert message["Subject"] == "Your message could not be delivered"
    assert message["Date"].datetime.timestamp() == NOW
    assert message["Message-ID"] == f"<{id_text(NOTICE)}@mta.example.net>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"


def test_the_part_for_people_names_each_recipient_and_reason() -> None:
    gone = Failure(b"other@example.com", Reply(550, "5.1.2", "the domain example.com does not exist"))
    _, people, _, _ = parsed(notice(REFUSED, gone))
    assert "This is the mail server mta.example.net." in people
    assert "<user@example.org>\n    mx.example.org[192.0.2.1]:25 said: 550 5.1.1 no such user\n" in people
    assert "<other@example.com>\n    the reason: 550 5.1.2 the domain example.com does not exist\n" in people


def test_the_part_for_programs() -> None:
    _, _, (about, block), _ = parsed(notice())
    assert about["Reporting-MTA"] == "dns; mta.example.net"
    assert about["X-Original-ID"] == id_text(ORIGINAL)
    assert about["Arrival-Date"]
    assert dict(block.items()) == {
        "Final-Recipient": "rfc822; user@example.org",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.org",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
    }


def test_a_block_for_each_recipient() -> None:
    failures = [Failure(b"u%d@example.org" % n, REFUSED.reply, REFUSED.hop) for n in range(5)]
    _, _, blocks, _ = parsed(notice(*failures))
    assert [b["Final-Recipient"] for b in blocks[1:]] == [f"rfc822; u{n}@example.org" for n in range(5)]


def test_a_finding_of_this_server_is_not_put_into_the_mouth_of_a_host() -> None:
    expiry = Reply(0, "5.4.7", "not delivered in the time allowed; the last answer was: 451 busy")
    _, people, (_, block), _ = parsed(notice(Failure(b"u@example.org", expiry, "mx.example.org[192.0.2.1]:25")))
    assert "Diagnostic-Code" not in block
    assert block["Remote-MTA"] == "dns; mx.example.org"
    assert block["Status"] == "5.4.7"
    assert "the reason: 5.4.7 not delivered" in people
    assert "said" not in people.replace("last answer", "")


def test_without_a_host_there_is_no_diagnostic() -> None:
    _, _, (_, block), _ = parsed(notice(Failure(b"u@example.org", Reply(550, "5.1.2", "no such domain"))))
    assert "Diagnostic-Code" not in block
    assert "Remote-MTA" not in block


@pytest.mark.parametrize("enhanced", ["", "4.2.1", "5", "5.1.1 x", "5.1.1\r\nX: y"])
def test_a_status_is_always_a_permanent_one(enhanced: str) -> None:
    _, _, (_, block), _ = parsed(notice(Failure(b"u@example.org", Reply(550, enhanced, "no"), "mx.example.org")))
    assert block["Status"] == "5.0.0"


def test_the_headers_of_the_original_without_its_body() -> None:
    data = notice()
    assert parsed(data)[3] == "From: <a@example.com>\r\nSubject: hello\r\n"
    assert b"secret" not in data


@pytest.mark.parametrize(
    "original",
    [
        b"\r\nsecret body\r\n",
        b"secret body\r\n",
        b"Subject: x\r\nsecret body: of a message without an empty line\r\n",
        b"Subject: x\r\n\r\nsecret\r\n",
        b" secret",
        b"",
    ],
)
def test_no_body_is_sent_to_a_sender_who_may_be_forged(original: bytes) -> None:
    data = notice(original=original)
    assert b"secret" not in data
    parsed(data)


def test_eight_bit_headers_become_ascii() -> None:
    data = notice(original="Subject: Grüße\r\n\tund mehr\r\n\r\n".encode())
    assert "Subject: Gr????e\r\n und mehr\r\n" in parsed(data)[3]
    assert is_sound(data)


@pytest.mark.parametrize("original", [b"X: " + b"a" * 200_000, b"Subject: x\r\n" * 20_000])
def test_headers_without_an_end_are_cut(original: bytes) -> None:
    data = notice(original=original)
    assert is_sound(data)
    assert len(data) < 70_000
    parsed(data)


def test_long_lines_are_folded() -> None:
    long = Failure(b"u@example.org", Reply(550, "5.0.0", "x" * 5000), "mx.example.org")
    data = notice(long, original=b"X: " + b"a" * 897 + BOUNDARY.encode() * 200 + b"\r\n\r\n")
    assert is_sound(data)
    _, _, (_, block), headers = parsed(data)
    assert block["Diagnostic-Code"].replace(" ", "").count("x") == 5000
    assert headers.count(BOUNDARY) >= 190


@pytest.mark.parametrize(
    "text",
    [
        f"no\r\n{BOUNDARY}--\r\n",
        f"no\r\n\r\n{BOUNDARY}\r\nContent-Type: text/html\r\n\r\n<b>",
        "a\0b",
        f"{'x' * 872}{BOUNDARY}--",
        "no\n\nFinal-Recipient: rfc822; x@example.org",
        "\x85\u2028\x0b\x0c\x1c",
    ],
)
def test_hostile_words_stay_in_their_place(text: str) -> None:
    data = notice(
        Failure(b"u@example.org", Reply(550, "5.1.1", text), f"mx\r\n{text}"),
        original=f"Subject: {text}\r\n\r\n".encode(),
        sender=text.encode(),
    )
    assert is_sound(data)
    assert len(parsed(data)[2]) == 2


def test_a_thousand_recipients_fit() -> None:
    failures = [
        Failure(b"%04d" % n + b"l" * 60 + b"@" + b"d" * 189, Reply(550, "5.1.1", "words " * 80), "h" * 200 + "[::1]:25")
        for n in range(1000)
    ]
    data = notice(*failures, original=b"Subject: x\r\n" * 8000)
    assert len(data) < 400 << 10
    assert is_sound(data)
    _, people, blocks, _ = parsed(data)
    assert people.count("lll@ddd") == 100
    assert "and 900 more recipients" in people
    assert len({b["Final-Recipient"] for b in blocks[1:]}) == 1000
    assert all(b["Status"] == "5.1.1" for b in blocks[1:])


def test_many_recipients_with_short_addresses_keep_their_diagnostics() -> None:
    failures = [Failure(b"u%d@example.org" % n, Reply(550, "5.1.1", "w" * 300), REFUSED.hop) for n in range(1000)]
    blocks = parsed(notice(*failures))[2]
    assert all(len(b["Diagnostic-Code"]) == 66 for b in blocks[1:])


@given(
    reply=st.text(max_size=1200),
    hop=st.text(max_size=60),
    address=st.binary(max_size=60),
    original=st.binary(max_size=1200)
    | st.text(max_size=600).map(lambda t: b"Subject: " + t.encode("utf-8", "replace")),
    count=st.integers(1, 3),
)
def test_any_words_make_a_sound_notice(reply: str, hop: str, address: bytes, original: bytes, count: int) -> None:
    failures = [Failure(address, Reply(550, "5.1.1", reply), hop)] * count
    data = notice(*failures, original=original, sender=address)
    assert is_sound(data)
    message = email.message_from_bytes(data)
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert [p.get_content_type() for p in parts] == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert len(parts[1].get_payload()) == count + 1
