"""Notices as other programs read them; and nothing from outside breaks out of its place in them."""

from __future__ import annotations

import email
import email.policy
import email.utils
import tomllib
from email.message import EmailMessage
from typing import Any

import msgspec
import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from mta.config.wording import ENGLISH, SHIPPED, Wording, problems
from mta.mail.dsn import Action, Fate, Original, compose
from mta.model import MessageId, Reply, id_text

NOTICE, ORIGINAL = MessageId(1_795_439_400_000 << 16 | 1), MessageId(1_795_439_300_000 << 16)
NOW = 1_795_439_400
REFUSED = Fate(b"user@example.org", Reply(550, "5.1.1", "no such user"), "mx.example.org[192.0.2.1]:25")
TEXT = b"From: <a@example.com>\r\nSubject: hello\r\n\r\nthe secret body\r\n"
GERMAN = msgspec.convert(tomllib.loads((SHIPPED / "de.toml").read_text("utf-8")), Wording)
BOUNDARY = f"--notice-{id_text(NOTICE)}"


def notice(*fates: Fate, original: bytes = TEXT, sender: bytes = b"a@example.com", **more: Any) -> bytes:
    return compose(
        hostname="mta.example.net",
        notice_id=NOTICE,
        original=Original(id=ORIGINAL, sender=sender, text=original, **more),
        fates=fates or (REFUSED,),
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
    gone = Fate(b"other@example.com", Reply(550, "5.1.2", "the domain example.com does not exist"))
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
    fates = [Fate(b"u%d@example.org" % n, REFUSED.reply, REFUSED.hop) for n in range(5)]
    _, _, blocks, _ = parsed(notice(*fates))
    assert [b["Final-Recipient"] for b in blocks[1:]] == [f"rfc822; u{n}@example.org" for n in range(5)]


def test_a_finding_of_this_server_is_not_put_into_the_mouth_of_a_host() -> None:
    expiry = Reply(0, "5.4.7", "not delivered in the time allowed; the last answer was: 451 busy")
    _, people, (_, block), _ = parsed(notice(Fate(b"u@example.org", expiry, "mx.example.org[192.0.2.1]:25")))
    assert "Diagnostic-Code" not in block
    assert block["Remote-MTA"] == "dns; mx.example.org"
    assert block["Status"] == "5.4.7"
    assert "the reason: 5.4.7 not delivered" in people
    assert "said" not in people.replace("last answer", "")


def test_without_a_host_there_is_no_diagnostic() -> None:
    _, _, (_, block), _ = parsed(notice(Fate(b"u@example.org", Reply(550, "5.1.2", "no such domain"))))
    assert "Diagnostic-Code" not in block
    assert "Remote-MTA" not in block


@pytest.mark.parametrize("enhanced", ["", "4.2.1", "5", "5.1.1 x", "5.1.1\r\nX: y"])
def test_a_status_is_always_a_permanent_one(enhanced: str) -> None:
    _, _, (_, block), _ = parsed(notice(Fate(b"u@example.org", Reply(550, enhanced, "no"), "mx.example.org")))
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
    long = Fate(b"u@example.org", Reply(550, "5.0.0", "x" * 5000), REFUSED.hop)
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
        Fate(b"u@example.org", Reply(550, "5.1.1", text), f"mx\r\n{text}"),
        original=f"Subject: {text}\r\n\r\n".encode(),
        sender=text.encode(),
    )
    assert is_sound(data)
    assert len(parsed(data)[2]) == 2


def test_a_thousand_recipients_fit() -> None:
    fates = [
        Fate(b"%04d" % n + b"l" * 60 + b"@" + b"d" * 189, Reply(550, "5.1.1", "words " * 80), "h" * 200 + "[::1]:25")
        for n in range(1000)
    ]
    data = notice(*fates, original=b"Subject: x\r\n" * 8000)
    assert len(data) < 400 << 10
    assert is_sound(data)
    _, people, blocks, _ = parsed(data)
    assert people.count("lll@ddd") == 100
    assert "and 900 more recipients" in people
    assert len({b["Final-Recipient"] for b in blocks[1:]}) == 1000
    assert all(b["Status"] == "5.1.1" for b in blocks[1:])


def test_many_recipients_with_short_addresses_keep_their_diagnostics() -> None:
    fates = [Fate(b"u%d@example.org" % n, Reply(550, "5.1.1", "w" * 300), REFUSED.hop) for n in range(1000)]
    blocks = parsed(notice(*fates))[2]
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
    fates = [Fate(address, Reply(550, "5.1.1", reply), hop)] * count
    data = notice(*fates, original=original, sender=address)
    assert is_sound(data)
    message = email.message_from_bytes(data)
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert [p.get_content_type() for p in parts] == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert len(parts[1].get_payload()) == count + 1


# ---- what became of it


OK = Reply(250, "2.1.5", "taken")


def blocks_of(data: bytes) -> list[dict[str, str]]:
    """The fields for the message, and those for each recipient, as they lie there."""
    part = next(p for p in email.message_from_bytes(data).walk() if "delivery-status" in p.get_content_type()[8:])
    payload: Any = part.get_payload()
    if isinstance(payload, str):  # message/global-delivery-status: the email package does not look into it
        payload = [email.message_from_string(b) for b in payload.replace("\r\n", "\n").strip().split("\n\n")]
    return [dict(block.items()) for block in payload]


@pytest.mark.parametrize(
    ("action", "reply", "status", "subject"),
    [
        ("failed", Reply(550, "5.1.1", "no"), "5.1.1", "Your message could not be delivered"),
        ("failed", Reply(550, "", "no"), "5.0.0", "Your message could not be delivered"),
        ("delayed", Reply(451, "4.4.1", "later"), "4.4.1", "Your message is delayed"),
        ("delayed", Reply(0, "", "later"), "4.0.0", "Your message is delayed"),
        ("delivered", OK, "2.1.5", "Your message was delivered"),
        ("relayed", Reply(250, "", "ok"), "2.0.0", "Your message was handed on"),
    ],
)
def test_each_action_has_its_class_of_status(action: Action, reply: Reply, status: str, subject: str) -> None:
    data = notice(Fate(b"user@example.org", reply, REFUSED.hop, action, until=NOW + 3600))
    message, _, (_, block), _ = parsed(data)
    assert (block["Action"], block["Status"], message["Subject"]) == (action, status, subject)
    assert is_sound(data)


def test_a_delay_says_until_when() -> None:
    _, people, (_, block), _ = parsed(
        notice(Fate(b"u@example.org", Reply(451, "4.2.1", "busy"), REFUSED.hop, "delayed", until=NOW + 86400))
    )
    until = email.utils.parsedate_to_datetime(block["Will-Retry-Until"])
    assert until.timestamp() == NOW + 86400
    assert f"It will be tried again until {block['Will-Retry-Until']}." in people
    assert "will not be tried" not in people
    assert block["Diagnostic-Code"] == "smtp; 451 4.2.1 busy"


def test_several_fates_in_one_notice_the_worst_first() -> None:
    fates = [
        Fate(b"r@example.org", OK, REFUSED.hop, "relayed"),
        Fate(b"f@example.org", REFUSED.reply, REFUSED.hop),
        Fate(b"w@example.org", Reply(451, "", "later"), REFUSED.hop, "delayed", until=NOW + 60),
    ]
    message, people, blocks, _ = parsed(notice(*fates))
    assert [b["Action"] for b in blocks[1:]] == ["failed", "delayed", "relayed"]
    assert message["Subject"] == "Your message could not be delivered"
    assert people.index("<f@example.org>") < people.index("<w@example.org>") < people.index("<r@example.org>")


def test_a_local_delivery_names_no_remote_host() -> None:
    _, people, (_, block), _ = parsed(notice(Fate(b"u@example.org", OK, "maildir", "delivered")))
    assert block["Remote-MTA"] is None
    assert block["Diagnostic-Code"] is None
    assert "said" not in people


# ---- what the sender had said


def test_the_envelope_id_comes_back_decoded() -> None:
    assert blocks_of(notice(envid=b"QQ314+2B159+3D"))[0]["Original-Envelope-Id"] == "QQ314+159="
    assert "Original-Envelope-Id" not in blocks_of(notice())[0]


@pytest.mark.parametrize(
    ("orcpt", "value"),
    [
        (b"rfc822;Bob+2Bx@Example.COM", "rfc822; Bob+x@Example.COM"),
        (b"x400;+2FC=us+2F", "x400; /C=us/"),
        (b"rfc822;a+0D+0AX:+20y@b", "rfc822; a??X: y@b"),
        (b"rfc822;a+zz@b", "rfc822; a+zz@b"),
        (b"utf-8;b+5Cx{F6}b@example.org", "utf-8; b\\x{F6}b@example.org"),
        (b"utf-8;b\\x{F6}b@example.org", "utf-8; b\\x{F6}b@example.org"),
        ("utf-8;böb@example.org".encode(), "utf-8; b\\x{F6}b@example.org"),
        (b"no type", "rfc822; no type"),
    ],
)
def test_the_original_recipient_comes_back_decoded(orcpt: bytes, value: str) -> None:
    data = notice(Fate(b"user@example.org", REFUSED.reply, orcpt=orcpt))
    block = blocks_of(data)[1]
    assert block["Original-Recipient"] == value
    assert list(block)[:4] == ["Original-Recipient", "Final-Recipient", "Action", "Status"], "RFC 3464 §2.3"
    assert is_sound(data)


def test_the_time_by_which_it_should_have_been_there() -> None:
    found = blocks_of(notice(deliver_by=NOW - 60))[0]["Deliver-By-Date"]
    assert email.utils.parsedate_to_datetime(found).timestamp() == NOW - 60


# ---- the whole original


def returned(data: bytes) -> EmailMessage:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    (_, _, part) = message.iter_parts()
    assert not [p.defects for p in message.walk() if p.defects]
    assert isinstance(part, EmailMessage)
    return part


def test_the_whole_message_comes_back() -> None:
    data = notice(whole=True)
    part = returned(data)
    assert part.get_content_type() == "message/rfc822"
    assert part.get_content()["Subject"] == "hello"
    assert part.get_content().get_content() == "the secret body\r\n".replace("\r\n", "\n") or b"secret body" in data
    assert b"\r\n\r\n" + TEXT + b"\r\n--notice-" in data, "octet for octet"
    assert is_sound(data)
    assert b"Your message is attached." in data


def test_eight_bits_are_declared_in_every_part_around_them() -> None:
    text = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n".encode()
    data = notice(original=text, whole=True)
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert message["Content-Transfer-Encoding"] == returned(data)["Content-Transfer-Encoding"] == "8bit"
    assert text in data


@pytest.mark.parametrize(
    "text",
    [
        b"Subject: x\r\n\r\n" + b"secret" * 200 + b"\r\n",
        b"Subject: x\r\n\r\nsecret\nbare\r\n",
        b"Subject: x\r\n\r\nsecret\rbare\r\n",
        b"Subject: x\r\n\r\nsecret\0\r\n",
    ],
    ids=["long line", "bare LF", "bare CR", "NUL"],
)
def test_what_no_report_can_hold_comes_back_as_headers(text: bytes) -> None:
    data = notice(original=text, whole=True)
    assert returned(data).get_content_type() == "text/rfc822-headers"
    assert b"secret" not in data
    assert is_sound(data)


def test_a_boundary_in_the_original_is_no_boundary() -> None:
    text = f"Subject: x\r\n\r\n{BOUNDARY}\r\n{BOUNDARY}-\r\n{BOUNDARY}--\r\n".encode()
    data = notice(original=text, whole=True)
    assert returned(data).get_content_type() == "message/rfc822"
    assert len(blocks_of(data)) == 2


def test_a_text_without_a_last_line_end_gets_one() -> None:
    assert b"\r\n\r\nbody\r\n\r\n--notice-" in notice(original=b"Subject: x\r\n\r\nbody", whole=True)


# ---- UTF-8 (RFC 6533)

JOSE = "josé@example.org"


def test_utf8_addresses_get_the_forms_of_rfc_6533() -> None:
    data = notice(
        Fate(JOSE.encode(), REFUSED.reply, REFUSED.hop, orcpt=b"utf-8;jos\\x{E9}@example.org"),
        original="Subject: Grüße\r\n\r\nsecret\r\n".encode(),
        sender="zoë@example.com".encode(),
        utf8=True,
    )
    message = email.message_from_bytes(data)
    assert message.get_param("report-type") == "global-delivery-status"
    parts: Any = message.get_payload()
    kinds = [p.get_content_type() for p in parts]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert [p["Content-Transfer-Encoding"] for p in (message, *parts)] == ["8bit"] * 4
    text = data.decode()
    assert "\r\nTo: <zoë@example.com>\r\n" in text
    assert f"\r\nFinal-Recipient: utf-8; {JOSE}\r\n" in text
    assert f"\r\nOriginal-Recipient: utf-8; {JOSE}\r\n" in text
    assert "\r\nSubject: Grüße\r\n" in text
    assert "secret" not in text


def test_the_whole_of_a_message_with_utf8_headers_is_global() -> None:
    text = "Subject: Grüße\r\n\r\nbody\r\n".encode()
    data = notice(original=text, utf8=True, whole=True)
    parts: Any = email.message_from_bytes(data).get_payload()
    assert parts[2].get_content_type() == "message/global"
    assert text in data


def test_smtputf8_without_need_changes_nothing() -> None:
    assert notice(utf8=True) == notice()


def test_a_utf8_address_in_an_ascii_notice_is_written_in_ascii() -> None:
    data = notice(Fate(JOSE.encode(), REFUSED.reply))
    assert blocks_of(data)[1]["Final-Recipient"] == "utf-8; jos\\x{E9}@example.org"
    assert is_sound(data)


@given(
    reply=st.text(max_size=1200),
    address=st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")),
    orcpt=st.binary(max_size=80),
    envid=st.binary(max_size=80),
    original=st.binary(max_size=1200)
    | st.text(max_size=600).map(lambda t: b"Subject: " + t.encode("utf-8", "replace")),
    whole=st.booleans(),
)
def test_any_words_make_a_sound_utf8_notice(
    reply: str, address: bytes, orcpt: bytes, envid: bytes, original: bytes, whole: bool
) -> None:
    fate = Fate(address, Reply(550, "5.1.1", reply), REFUSED.hop, orcpt=orcpt)
    data = notice(fate, original=original, sender=address, utf8=True, envid=envid, whole=whole)
    bare = data.replace(b"\r\n", b"")
    assert not {b"\r", b"\n", b"\0"} & {bare[i : i + 1] for i in range(len(bare))}
    assert max(map(len, data.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(data)
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    assert not message.defects
    assert data.isascii() == (message["Content-Transfer-Encoding"] is None)


# ---- read by a program that others have written


def test_mailing_lists_find_who_failed() -> None:
    late = Fate(b"late@example.org", Reply(451, "4.2.0", "busy"), "mx[192.0.2.1]", "delayed", until=NOW + 60)
    gone = Fate(b"gone@example.com", Reply(550, "5.1.2", "the domain example.com does not exist"))
    done = Fate(b"done@example.com", Reply(250, "2.0.0", "ok"), "mx[192.0.2.1]", "delivered")
    temporary, permanent = all_failures(email.message_from_bytes(notice(REFUSED, late, gone, done)))
    assert permanent == {b"user@example.org", b"gone@example.com"}
    assert temporary == {b"late@example.org"}


@given(st.sets(st.from_regex(r"[a-z0-9.+_-]{1,20}@[a-z0-9]{1,10}\.example", fullmatch=True), min_size=1, max_size=30))
def test_mailing_lists_find_all_of_them(addresses: set[str]) -> None:
    fates = [Fate(a.encode(), Reply(550, "5.1.1", "no such user"), "mx[192.0.2.1]:25") for a in sorted(addresses)]
    _, permanent = all_failures(email.message_from_bytes(notice(*fates)))
    assert permanent == {a.encode() for a in addresses}


# ---- in other languages


def german(*fates: Fate, **more: Any) -> EmailMessage:
    data = compose(
        hostname="mta.example.net",
        notice_id=NOTICE,
        original=Original(id=ORIGINAL, sender=b"a@example.com", text=TEXT),
        fates=fates or (REFUSED,),
        now=NOW,
        wording=GERMAN,
        language="de",
        **more,
    )
    assert is_sound(data)
    message, *_ = parsed(data)
    return message


def test_what_people_read_is_in_their_language() -> None:
    late = Fate(b"late@example.org", Reply(451, "4.2.0", "busy"), "mx[192.0.2.1]", "delayed", until=NOW + 60)
    message = german(REFUSED, late)
    assert message["Subject"] == "Ihre Nachricht konnte nicht zugestellt werden"
    people = next(message.iter_parts())
    assert people["Content-Language"] == "de"
    text = people.get_content().replace("\r\n", "\n")
    assert "Hier ist der Mailserver mta.example.net." in text
    assert "    mx.example.org[192.0.2.1]:25 sagt: 550 5.1.1 no such user\n" in text
    assert f"Es wird bis {email.utils.formatdate(NOW + 60)[:16]}" in text
    _, permanent = all_failures(message)
    assert permanent == {b"user@example.org"}


def test_a_subject_with_other_letters() -> None:
    message = german(Fate(b"late@example.org", Reply(451, "4.2.0", "busy"), action="delayed", until=NOW))
    assert message["Subject"] == "Ihre Nachricht verspätet sich"


def test_a_notice_about_a_notice_goes_to_the_postmaster() -> None:
    message = german(postmaster="postmaster@example.net")
    assert message["To"] == "postmaster@example.net"
    assert message["Subject"] == "Eine Benachrichtigung konnte nicht zugestellt werden"
    assert "Sonst erfährt niemand davon." in next(message.iter_parts()).get_content()


def test_every_text_of_every_language_that_is_shipped_is_right() -> None:
    for file in SHIPPED.glob("*.toml"):
        assert list(problems(msgspec.convert(tomllib.loads(file.read_text("utf-8")), Wording))) == []
    assert list(problems(ENGLISH)) == []
