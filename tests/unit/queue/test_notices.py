"""Notices on their way to the disk, and what waits for them."""

from __future__ import annotations

import asyncio
import dataclasses
import email
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import Notices, Octets
from mta.config.wording import ENGLISH
from mta.model import (
    NOTIFY_DELAY,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    TOLD_DELAY,
    TOLD_LATE,
    Envelope,
    MessageId,
    Options,
    Outcome,
    Recipient,
    Reply,
    Status,
    Stored,
    StoreError,
)
from mta.observe.counters import INDEX
from mta.queue import _arena
from mta.queue.notices import Notifier
from tests.kit.queue import FIRST, LATER, NO, NOW, World

MX = "mx.example[192.0.2.1]:25"
OK = Reply(250, "2.0.0", "ok")
FAILED = Outcome(Status.FAILED, NO, MX)
DEFERRED = Outcome(Status.DEFERRED, LATER, MX)
DONE = Outcome(Status.DELIVERED, OK, MX)
TEXT = b"Subject: hi\r\n\r\nthe body\r\n"


class Office(World):
    """A queue manager with the real notifier; notices are on disk when a test says so."""

    def __init__(self, settings: Notices | None = None, **retry: float) -> None:
        self.loop = asyncio.new_event_loop()
        self.notifier = Notifier(settings or Notices(), "mta.example", 0, self.loop)
        super().__init__(teller=self.notifier, **retry)
        self.notifier.attach(self.manager, 0)
        self.store.content = TEXT
        self.lines: list[str] = []
        self.manager.maillog = lambda *line: self.lines.append(" ".join(line))  # type: ignore[assignment]
        self.loop.close()

    def drafts(self) -> list[tuple[Envelope, Message]]:
        return [(draft.envelope, email.message_from_bytes(self._text(draft.body))) for draft, _ in self.store.put_down]

    @staticmethod
    def _text(body: object) -> bytes:
        assert isinstance(body, bytes)
        return body

    def durable(self) -> None:
        tokens = [token for _, token in self.store.put_down]
        self.store.put_down.clear()
        self.notifier.committed(tokens, (), None)

    def actions(self) -> list[list[tuple[str, str]]]:
        return [[(b["Final-Recipient"], b["Action"]) for b in blocks(message)[1:]] for _, message in self.drafts()]


def blocks(message: Message) -> list[Any]:
    parts: Any = message.get_payload()
    return list(parts[1].get_payload())


def test_a_failure_is_recorded_when_its_notice_is_durable() -> None:
    office = Office()
    office.arrive(1, b"a@x.example")
    office.result(office.couriers.given[0], FAILED)
    ((envelope, message),) = office.drafts()
    assert (envelope.sender, envelope.recipients) == (b"", (Recipient(b"s@x", NOTIFY_NEVER),))
    assert (envelope.eight_bit, envelope.options) == (False, None)
    assert message["To"] == "<s@x>"
    assert office.store.changes == []
    office.durable()
    assert [c.kind for c in office.store.changes] == ["finished"]
    assert office.counters[INDEX["bounces_made"]] == 1


def test_all_that_was_said_is_in_the_report() -> None:
    office = Office()
    recipient = Recipient(b"a@x.example", NOTIFY_SUCCESS, b"rfc822;A+2Bb@x.example")
    office.arrive(1, recipient, options=Options(envid=b"ab+3Dc", deliver_by=int(NOW * 1000)))
    office.result(office.couriers.given[0], DONE)
    ((_, message),) = office.drafts()
    about, block = blocks(message)
    assert about["Original-Envelope-Id"] == "ab=c"
    assert about["Deliver-By-Date"]
    assert block["Original-Recipient"] == "rfc822; A+b@x.example"
    assert (block["Action"], block["Status"], block["Remote-MTA"]) == ("relayed", "2.0.0", "dns; mx.example")


def test_a_success_does_not_hold_the_delivery_up() -> None:
    office = Office()
    office.arrive(1, Recipient(b"a@x.example", NOTIFY_SUCCESS))
    office.result(office.couriers.given[0], DONE)
    assert office.actions() == [[("rfc822; a@x.example", "relayed")]]
    assert [c.kind for c in office.store.changes] == ["finished"]
    assert office.counters[INDEX["successes_told"]] == 1
    office.durable()
    assert len(office.store.changes) == 1


def test_nobody_who_did_not_ask_hears_of_a_success() -> None:
    office = Office()
    office.arrive(1, b"a@x.example")
    office.result(office.couriers.given[0], DONE)
    assert office.drafts() == []
    assert [c.kind for c in office.store.changes] == ["finished"]


def test_failures_that_nobody_wants_to_hear_of_end_without_a_notice() -> None:
    office = Office()
    office.arrive(1, Recipient(b"a@x.example", NOTIFY_NEVER), Recipient(b"b@x.example", NOTIFY_NEVER))
    office.result(office.couriers.given[0], FAILED)
    assert office.drafts() == []
    assert [c.kind for c in office.store.changes] == ["finished"]
    assert "bounced to=<a@x.example> notice=none (not wanted)" in office.lines[0]
    assert office.counters[INDEX["bounces_made"]] == 0


def test_one_notice_for_all_that_one_attempt_decided(clock: list[float]) -> None:
    office = Office(delay_warning=10.0)
    to = [Recipient(b"%s@x.example" % n, NOTIFY_SUCCESS | NOTIFY_DELAY | 4) for n in (b"a", b"b", b"c")]
    office.arrive(1, *to)
    clock[0] = NOW + 11
    outcomes = [
        Outcome(Status.DELIVERED, OK, MX, (0,)),
        Outcome(Status.FAILED, NO, MX, (1,)),
        Outcome(Status.DEFERRED, LATER, MX, (2,)),
    ]
    office.result(office.couriers.given[0], *outcomes)
    (found,) = office.actions()
    assert found == [
        ("rfc822; b@x.example", "failed"),
        ("rfc822; c@x.example", "delayed"),
        ("rfc822; a@x.example", "relayed"),
    ]
    office.durable()
    (change,) = office.store.changes
    assert (change.kind, change.done, change.told) == ("waiting", (0, 1), TOLD_DELAY)


def test_a_warning_says_until_when_and_is_on_record_after_it(clock: list[float]) -> None:
    office = Office(delay_warning=10.0, expiry=1000.0)
    office.arrive(1, Recipient(b"a@x.example", NOTIFY_DELAY))
    clock[0] = NOW + 11
    office.result(office.couriers.given[0], DEFERRED)
    ((_, message),) = office.drafts()
    until = email.utils.parsedate_to_datetime(blocks(message)[1]["Will-Retry-Until"])
    assert until.timestamp() == NOW + 1000
    assert office.store.changes == []
    assert office.states(_arena.IDLE) == [1]
    office.durable()
    assert [(c.kind, c.told, c.attempts) for c in office.store.changes] == [("waiting", TOLD_DELAY, 1)]
    assert office.counters[INDEX["delays_told"]] == 1


def test_who_wants_no_warning_is_marked_all_the_same(clock: list[float]) -> None:
    """So that the envelope is read once, not at each further attempt."""
    office = Office(delay_warning=10.0)
    office.arrive(1, b"a@x.example")
    clock[0] = NOW + 11
    office.result(office.couriers.given[0], DEFERRED)
    assert office.drafts() == []
    assert office.store.changes[-1].told == TOLD_DELAY


def test_late_mail_is_told_and_stays_where_it_is(clock: list[float]) -> None:
    office = Office()
    office.arrive(1, b"a@x.example", options=Options(deliver_by=int(NOW * 1000) + 10_000))
    office.result(office.couriers.given[0], DEFERRED)
    clock[0] = NOW + 11
    office.manager.advance(clock[0])
    ((_, message),) = office.drafts()
    block = blocks(message)[1]
    assert (block["Action"], block["Status"]) == ("delayed", "4.4.7")
    assert [c.told for c in office.store.changes] == [0]
    office.durable()
    assert [(c.kind, c.told) for c in office.store.changes][1:] == [("waiting", TOLD_LATE)]
    assert office.states(_arena.DEFERRED) == [1]


# ---- RET


def returned(office: Office) -> str:
    ((_, message),) = office.drafts()
    parts: Any = message.get_payload()
    return str(parts[2].get_content_type())


@pytest.mark.parametrize(
    ("options", "settings", "kind"),
    [
        (None, Notices(), "text/rfc822-headers"),
        (Options(ret="HDRS"), Notices(), "text/rfc822-headers"),
        (Options(ret="FULL"), Notices(), "message/rfc822"),
        (Options(ret="FULL"), Notices(return_size=Octets(len(TEXT) - 1)), "text/rfc822-headers"),
        (Options(ret="FULL", require_tls=True), Notices(), "text/rfc822-headers"),
        (Options(ret="FULL", binary=True), Notices(), "text/rfc822-headers"),
    ],
)
def test_what_comes_back(options: Options | None, settings: Notices, kind: str) -> None:
    office = Office(settings)
    office.arrive(1, b"a@x.example", options=options)
    office.result(office.couriers.given[0], FAILED)
    assert returned(office) == kind


def test_a_success_brings_only_headers_back() -> None:
    office = Office()
    office.arrive(1, Recipient(b"a@x.example", NOTIFY_SUCCESS), options=Options(ret="FULL"))
    office.result(office.couriers.given[0], DONE)
    assert returned(office) == "text/rfc822-headers"


def test_eight_bits_are_declared_in_the_envelope() -> None:
    office = Office()
    office.store.content = "Subject: hi\r\n\r\nGrüße\r\n".encode()
    office.arrive(1, b"a@x.example", options=Options(ret="FULL"))
    office.result(office.couriers.given[0], FAILED)
    ((envelope, _),) = office.drafts()
    assert envelope.eight_bit
    assert envelope.options is None


def test_a_notice_to_a_utf8_address_needs_smtputf8() -> None:
    office = Office()
    office.arrive(1, b"a@x.example", sender="zoë@x".encode(), options=Options(utf8=True))
    office.result(office.couriers.given[0], FAILED)
    ((envelope, message),) = office.drafts()
    assert envelope.eight_bit
    assert envelope.options == Options(utf8=True)
    assert message.get_param("report-type") == "global-delivery-status"


def test_a_notice_of_what_needs_tls_needs_it_too() -> None:
    office = Office()
    office.arrive(1, b"a@x.example", options=Options(require_tls=True, user="ann", envid=b"x"))
    office.result(office.couriers.given[0], FAILED)
    ((envelope, _),) = office.drafts()
    assert envelope.options == Options(require_tls=True)


def test_a_notice_is_as_urgent_as_its_original() -> None:
    """RFC 6710 §4.6."""
    office = Office()
    office.arrive(1, b"a@x.example", options=Options(priority=4, user="ann"))
    office.result(office.couriers.given[0], FAILED)
    ((envelope, _),) = office.drafts()
    assert envelope.options == Options(priority=4)


def test_a_notice_goes_on_the_account_of_its_original() -> None:
    office = Office()
    office.arrive(1, b"a@x.example", options=Options(tenant="news", rank=-4, pool="slow", user="ann"))
    office.result(office.couriers.given[0], FAILED)
    ((envelope, _),) = office.drafts()
    assert envelope.options == Options(tenant="news", rank=-4), "its sender is another, so the pool may be"


def test_a_notice_tells_for_how_long_its_sender_had_held_the_mail() -> None:
    """RFC 4865 §5.1.2: with the value that MAIL had."""
    office = Office()
    office.arrive(1, b"a@x.example", options=Options(hold="for;60", hold_until=1))
    office.result(office.couriers.given[0], FAILED)
    ((_, message),) = office.drafts()
    about = blocks(message)[0]
    assert about["Future-Release-Request"] == "for;60"
    assert about["Arrival-Date"]


@pytest.mark.parametrize("cut", [0, 5])
def test_a_large_text_comes_back_whole_or_not_at_all(tmp_path: Path, cut: int) -> None:
    office = Office()
    office.arrive(1, b"a@x.example", options=Options(ret="FULL"))
    body = tmp_path / "body"
    body.write_bytes(b"????" + TEXT[: len(TEXT) - cut])
    head = b"Received: here\r\n"

    def read(ref: int) -> Stored:
        size = len(head) + len(TEXT)
        return Stored(MessageId(FIRST + 1), office.store.envelopes[ref], head, str(body), 4, size)

    office.store.read = read  # type: ignore[method-assign,assignment]
    office.result(office.couriers.given[0], FAILED)
    assert returned(office) == ("text/rfc822-headers" if cut else "message/rfc822")
    draft, _ = office.store.put_down[0]
    assert (head + TEXT in bytes(draft.body)) == (not cut)  # type: ignore[arg-type]


# ---- trouble


def test_without_room_a_failure_waits_and_what_was_delivered_is_not_sent_again() -> None:
    office = Office()
    office.arrive(1, b"a@x.example", b"b@x.example")
    office.store.refusing = StoreError("the disk is full", full=True)
    failed = Outcome(Status.FAILED, NO, MX, (1,))
    office.result(office.couriers.given[0], Outcome(Status.DELIVERED, OK, MX, (0,)), failed)
    (change,) = office.store.changes
    assert (change.kind, change.done) == ("waiting", (0,))
    assert change.why == "its notice cannot be stored: the disk is full"
    assert office.drafts() == []


def test_without_room_a_success_and_a_delay_are_not_told_and_mail_goes_on(clock: list[float]) -> None:
    office = Office(delay_warning=10.0)
    office.store.refusing = StoreError("the disk is full", full=True)
    office.arrive(1, Recipient(b"a@x.example", NOTIFY_SUCCESS))
    office.arrive(2, Recipient(b"b@x.example", NOTIFY_DELAY))
    clock[0] = NOW + 11
    office.result(office.couriers.given[0], DONE)
    office.result(office.couriers.given[1], DEFERRED)
    assert [(c.kind, c.told) for c in office.store.changes] == [("finished", 0), ("waiting", 0)]
    assert all("notice=none (no room for it)" in line for line in office.lines)
    assert office.counters[INDEX["delays_told"]] == office.counters[INDEX["successes_told"]] == 0


def test_without_room_a_failure_that_nobody_wants_to_hear_of_ends() -> None:
    office = Office()
    office.store.refusing = StoreError("the disk is full", full=True)
    office.arrive(1, Recipient(b"a@x.example", NOTIFY_NEVER), Recipient(b"b@x.example", NOTIFY_SUCCESS))
    outcomes = Outcome(Status.FAILED, NO, MX, (0,)), Outcome(Status.DELIVERED, OK, MX, (1,))
    office.result(office.couriers.given[0], *outcomes)
    assert [c.kind for c in office.store.changes] == ["finished"]


def test_a_record_that_cannot_be_read_is_held_unless_all_have_it() -> None:
    office = Office()
    office.arrive(1, Recipient(b"a@x.example", NOTIFY_SUCCESS))
    office.arrive(2, b"a@x.example")
    office.store.read = lambda ref: _raise()  # type: ignore[method-assign]
    office.result(office.couriers.given[0], DONE)
    office.result(office.couriers.given[1], FAILED)
    assert [c.kind for c in office.store.changes] == ["finished", "held"]


def _raise() -> Stored:
    raise StoreError("damaged")


def test_what_was_deleted_before_its_notice_was_durable_stays_deleted() -> None:
    office = Office()
    office.arrive(1, b"a@x.example")
    office.result(office.couriers.given[0], FAILED)
    office.manager.by_hand.delete(office.couriers.given[0][1].slot)
    office.durable()
    assert office.manager.messages == 0


def test_a_success_that_its_courier_could_not_report_is_told() -> None:
    office = Office()
    office.arrive(1, Recipient(b"a@x.example", NOTIFY_SUCCESS), b"b@x.example")
    office.notifier.unheard(office.manager, office.couriers.given[0][1].slot)
    assert office.actions() == [[("rfc822; a@x.example", "relayed")]]


def told(settings: Notices, sender: bytes = b"", *to: bytes, outcome: Outcome = FAILED) -> Office:
    """A mail that failed, mostly one without a sender."""
    office = Office(settings)
    office.arrive(1, *(to or (b"a@x.example",)), sender=sender)
    office.result(office.couriers.given[0], outcome)
    return office


def test_a_notice_that_fails_is_told_to_the_postmaster() -> None:
    office = told(Notices(postmaster="post@mta.example"))
    ((envelope, message),) = office.drafts()
    assert (envelope.sender, envelope.recipients) == (b"", (Recipient(b"post@mta.example", NOTIFY_NEVER),))
    assert (message["To"], message["Subject"]) == ("<post@mta.example>", "A notice could not be delivered")
    assert office.store.changes == []  # it waits for its notice, as others do
    office.durable()
    assert [c.kind for c in office.store.changes] == ["finished"]
    assert "bounced to=<a@x.example> notice=" in office.lines[0]


@pytest.mark.parametrize(
    ("settings", "to"),
    [
        (Notices(), b"a@x.example"),
        (Notices(postmaster="post@mta.example"), b"post@mta.example"),
        (Notices(postmaster="post@mta.example", double_bounces=("content",)), b"a@x.example"),
    ],
)
def test_a_notice_of_which_nobody_is_told(settings: Notices, to: bytes) -> None:
    office = told(settings, b"", to)
    assert office.drafts() == []
    assert [c.kind for c in office.store.changes] == ["finished"]
    assert "notice=none (null reverse-path)" in office.lines[0]


def test_the_postmaster_chooses_by_class() -> None:
    assert len(told(Notices(postmaster="post@mta.example", double_bounces=("unknown-user",))).drafts()) == 1


def test_who_has_a_sender_is_no_double_bounce() -> None:
    ((envelope, _),) = told(Notices(postmaster="post@mta.example"), b"s@x").drafts()
    assert envelope.recipients[0].address == b"s@x"


def test_notices_speak_the_language_that_is_set() -> None:
    words = dataclasses.replace
    german = words(ENGLISH, failed=words(ENGLISH.failed, subject="Unzustellbar"))
    ((_, message),) = told(Notices(wording=german, language="de"), b"s@x").drafts()
    assert message["Subject"] == "Unzustellbar"
