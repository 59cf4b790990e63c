"""Classes of replies: a corpus of what servers say, and what must hold for every reply."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.deliver.outcomes import reply_of
from mta.mail.replyclass import HARD, ReplyClass, classify, classify_text, reply_from
from mta.model import Reply
from mta.queue.outcome import judge


class Row(NamedTuple):
    meant: str
    source: str
    reply: str


def _corpus() -> list[Row]:
    lines = (Path(__file__).parent / "replies.txt").read_text("ascii").splitlines()
    return [Row(*line.split(" | ", 2)) for line in lines if line and not line.startswith("#")]


CORPUS = _corpus()


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: row.reply[:60])
def test_what_servers_say(row: Row) -> None:
    assert classify(reply_of(int(row.reply[:3]), row.reply[4:])) == row.meant, row.source


def test_the_corpus_is_wide() -> None:
    assert len({row.reply for row in CORPUS}) >= 500
    assert len({row.source.removeprefix("to ") for row in CORPUS}) >= 80
    told = Counter(row.meant for row in CORPUS)
    assert set(told) == {c.value for c in ReplyClass} - {"suppressed"}  # which is our own


@pytest.mark.parametrize(
    ("reply", "meant"),
    [
        (Reply(0, "4.4.1", "cannot connect to mx.example.net: connection refused"), "connection"),
        (Reply(451, "4.4.3", "looking up MX of example.net: timed out"), "dns"),
        (Reply(550, "5.1.2", "the domain example.net does not exist"), "dns"),
        (Reply(556, "5.1.10", "the domain does not accept mail (null MX)"), "dns"),
        (Reply(550, "5.4.6", "mail for this domain is routed back to this server"), "loop"),
        (Reply(0, "4.7.5", "mx.example.net: no TLS: certificate verify failed"), "tls"),
        (Reply(0, "5.4.7", "not delivered in the time allowed; the last answer was: 550 spam"), "expired"),
        (Reply(0, "5.1.1", "no mailbox can have this name"), "unknown-user"),
        (Reply(0, "5.7.1", "suppressed: unknown-user on 2026-11-20"), "suppressed"),
        (Reply(0, "", ""), "other"),
        (Reply(250, "2.0.0", "ok"), "other"),
    ],
)
def test_what_this_server_finds(reply: Reply, meant: str) -> None:
    assert classify(reply) == meant


def test_an_expiry_is_one_whatever_was_said_last() -> None:
    last = judge(deferred=Reply(450, "4.2.1", "<a@b.example> is over quota"))
    assert classify(last.expired().reply) is ReplyClass.EXPIRED


@pytest.mark.parametrize("address", ["spam@blacklist.example", "<quota@relay-denied.example>", "<user unknown>"])
def test_addresses_are_nobodys_words(address: str) -> None:
    assert classify(Reply(550, "", f"{address}: no")) is ReplyClass.OTHER


def test_words_over_wrong_codes() -> None:
    assert (
        classify(Reply(550, "5.1.1", "<a@b.example> - 192.0.2.1 has sent to too many recipients this hour")) == "rate"
    )
    assert classify(Reply(552, "5.1.1", "mailbox is over quota")) == "mailbox-full"


def test_the_code_that_a_text_hides() -> None:
    assert classify(Reply(550, "", "no (#5.2.2)")) is ReplyClass.MAILBOX_FULL
    assert classify(Reply(550, "", "version 1.5.2.2 says no")) is ReplyClass.OTHER


def test_greylisting_is_transient() -> None:
    assert classify(Reply(451, "4.7.1", "greylisted")) is ReplyClass.GREYLIST
    assert classify(Reply(550, "5.7.1", "greylisted")) is not ReplyClass.GREYLIST


def test_hard_classes_are_about_the_address() -> None:
    assert {"unknown-user", "disabled-user"} == HARD


replies = st.builds(
    Reply,
    st.sampled_from([0, 421, 450, 451, 452, 500, 550, 552, 554, 599]),
    st.sampled_from(["", "4.2.2", "5.1.1", "5.7.999", "5.999.999", "4.7.28"]),
    st.text(max_size=800),
)


@given(replies)
def test_any_reply_has_one_class(reply: Reply) -> None:
    assert classify(reply) in ReplyClass


@given(st.sampled_from(CORPUS))
def test_as_it_was_written_down(row: Row) -> None:
    reply = reply_of(int(row.reply[:3]), row.reply[4:])
    assert reply_from(str(reply)) == reply
    assert classify_text(str(reply)) is classify(reply)


def test_long_replies_take_no_time() -> None:
    assert classify(Reply(550, "", "<" * 100_000 + " spam")) is ReplyClass.OTHER
