"""Any octets, cut in any way: both sessions say the same, and what ends a text is CRLF.CRLF alone."""

from __future__ import annotations

import itertools
import re
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta import _fastparse
from mta.protocol import server
from mta.protocol.paths import parse_path
from mta.protocol.text import TextReader
from mta.protocol.times import read_date_time
from tests.kit.conversation import Conversation, converse, cut

RECIPIENT = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@mx.test>\r\n"
ENVELOPE = RECIPIENT + b"DATA\r\n"
PROMPT = b"354 Send the text and end it with <CR><LF>.<CR><LF>\r\n"

COMMANDS = [
    b"EHLO c.test",
    b"HELO c.test",
    b"HELO",
    b"MAIL FROM:<a@b.test>",
    b"MAIL FROM:<a@b.test> SIZE=50 BODY=8BITMIME",
    b"MAIL FROM:<> SIZE=999999999999",
    b"RCPT TO:<c@mx.test>",
    b"MAIL FROM:<\xc3\xa9@b.test> SMTPUTF8",
    b"RCPT TO:<\xe2\x82\xac@\xc3\xa9.test>",
    b"VRFY \xc3\xa9 SMTPUTF8",
    b"MAIL FROM:<a@b.test> HOLDFOR=60 BY=120;RT MT-PRIORITY=3 AUTH=c@d.test",
    b"MAIL FROM:<a@b.test> HOLDUNTIL=2027-01-15T08:10:00Z BY=-1;N",
    b"MAIL FROM:<a@b.test> RET=FULL ENVID=a+2Bb",
    b"RCPT TO:<c@mx.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+40mx",
    b"rcpt to: <@x.test:d@mx.test> ",
    b"RCPT TO:<nobody@mx.test>",
    b"RCPT TO:<later@mx.test>",
    b"RCPT TO:<Postmaster>",
    b"DATA",
    b"DATA ",
    b"RSET",
    b"NOOP",
    b"VRFY x",
    b"HELP",
    b"STARTTLS",
    b"AUTH PLAIN b3Blbg==",
    b"AUTH LOGIN",
    b"auth x =",
    b"b3Blbg==",
    b"*",
    b"EXPN",
    b"LHLO c.test",
    b"MAIL FROM:<a@b.test> BODY=BINARYMIME",
    b"BDAT 0",
    b"BDAT 1",
    b"BDAT 17",
    b"BDAT 600",
    b"BDAT 0 LAST",
    b"BDAT 2 LAST",
    b"BDAT 40 last",
    b"BDAT 9223372036854775807",
    b"BDAT 1 LAST ",
    b"BDAT",
    b"QUIT",
    b"",
]
HOSTILE = [
    b"\r",
    b"\n",
    b"\0",
    b".",
    b"\r\n.\r\n",
    b"\r\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"..",
    b" ",
    b"\t",
    b"\xff",
    b"<",
    b">",
]
SIZES = dict.fromkeys([1, 2, 15, 16, 17, 63, 64, 65, 511, 512, 513, 600])

commands = st.sampled_from(COMMANDS).map(lambda command: command + b"\r\n")
plain = st.sampled_from(list(SIZES)).map(lambda size: b"x" * size)
pieces = st.one_of(commands, commands, st.sampled_from(HOSTILE), plain, st.binary(max_size=20))
streams = st.lists(pieces, max_size=40).map(b"".join)
dialogues = st.one_of(streams, streams.map(lambda rest: ENVELOPE + rest), streams.map(lambda rest: RECIPIENT + rest))
places = st.lists(st.integers(min_value=0, max_value=4000), max_size=30)
configs = st.fixed_dictionaries(
    {
        "message_size": st.sampled_from([40, 600, 100_000]),
        "recipients": st.sampled_from([1, 3]),
        "errors": st.sampled_from([2, 1000]),
        "line": st.sampled_from([20, 2048]),
        "chunk": st.sampled_from([1, 100, 1_000_000]),
        "starttls": st.booleans(),
        "chunking": st.sampled_from([True, True, False]),
        "lmtp": st.sampled_from([False, False, False, True]),
        "offers": st.lists(st.sampled_from(list(_fastparse.EXTENSIONS)), max_size=14).map(" ".join),
        "refuse_mail": st.sampled_from([b"", b"", b"452 4.3.1 Full\r\n"]),
    }
)


@settings(deadline=None, max_examples=400)
@given(dialogues, places, configs, st.booleans())
def test_any_octets_cut_in_any_way(stream: bytes, places: list[int], config: dict[str, Any], lazy: bool) -> None:
    expected = converse(server, [stream], **config)
    assert converse(_fastparse, [stream], lazy=lazy, **config) == expected
    assert converse(_fastparse, cut(stream, places), lazy=lazy, **config) == expected
    assert converse(_fastparse, cut(stream, range(len(stream))), **config) == expected
    assert converse(server, cut(stream, places), lazy=lazy, **config) == expected


@settings(deadline=None)
@given(st.binary(max_size=300), places)
def test_octets_without_any_sense(stream: bytes, places: list[int]) -> None:
    expected = converse(server, [stream])
    assert converse(_fastparse, [stream]) == converse(_fastparse, cut(stream, places)) == expected


# ---- the end of a text -----------------------------------------------------------------------------------------


def end_of(text: bytes) -> int:
    """Where a text ends, said in one line: behind the first CRLF.CRLF, the CRLF of DATA counted."""
    found = (b"\r\n" + text).find(b"\r\n.\r\n")
    return found + 3 if found >= 0 else -1


def unstuffed(text: bytes) -> bytes:
    return re.sub(rb"(\A|(?<=\r\n))\.(?!\r\n)", b"", text)


def told(text: bytes) -> bytes:
    """The reply to a whole text, up to and with its final dot."""
    names = ((rb"\r(?!\n)", b"bare CR"), (rb"(?<!\r)\n", b"bare LF"), (rb"\0", b"NUL"))
    faults = [name for pattern, name in names if re.search(pattern, text)]
    if not faults:
        return b"250 2.0.0 Message 1 taken\r\n"
    return b"550 5.6.0 The text holds a %b; it must be lines that end with CRLF\r\n" % b", a ".join(faults)


def check_text(module: Any, text: bytes, pieces: list[bytes]) -> None:
    conversation = Conversation(module)
    conversation.feed(ENVELOPE)
    conversation.take()
    for piece in pieces:
        conversation.feed(piece)
    end = end_of(text)
    if end < 0:
        assert conversation.session.in_data, text
        assert not conversation.output, text
        return
    reply = told(text[:end])
    assert conversation.output.startswith(reply), text
    if reply.startswith(b"250"):
        assert [m.body for m in conversation.messages] == [unstuffed(text[: end - 3])], text
    else:
        assert not conversation.messages


ALPHABET = (b"\r", b"\n", b".", b"x", b"\0")


@pytest.mark.parametrize("length", range(7))
def test_every_short_text(length: int) -> None:
    for octets in itertools.product(ALPHABET, repeat=length):
        text = b"".join(octets)
        check_text(_fastparse, text, [text])
        if length < 6:
            check_text(_fastparse, text, [bytes([octet]) for octet in text])
            check_text(server, text, [text])


@pytest.mark.parametrize("size", [*range(60, 70), 127, 128, 511, 512, 513, 576, 577])
def test_every_short_text_behind_a_long_one(size: int) -> None:
    # The fast scan takes 512, 64 and 16 octets at a time: each combination lies on each side of its borders.
    for octets in itertools.product(ALPHABET[:4], repeat=4):
        for text in (
            b"y" * size + b"".join(octets) + b"y" * 20,
            b"y" * (size - 2) + b"\r\n" + b"".join(octets) + b"z" * 100 + b"\r\n.\r\n",
        ):
            check_text(_fastparse, text, [text])
            check_text(_fastparse, text, [text[:size], text[size:]])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(HOSTILE), plain, st.binary(max_size=5)), max_size=30).map(b"".join), places)
def test_texts_against_the_rule(text: bytes, places: list[int]) -> None:
    for module in (_fastparse, server):
        check_text(module, text, list(cut(text, places)))


@settings(deadline=None)
@given(st.lists(st.sampled_from([b".", b"..", b".x", b"", b"x", b"x" * 600]), max_size=30))
def test_stuffing_is_undone_by_reading(texts: list[bytes]) -> None:
    text = b"".join(line + b"\r\n" for line in texts)
    reader = TextReader(1 << 20)
    wire = _fastparse.stuff(text) + b".\r\n"
    assert reader.read(wire + b"more") == len(wire)
    assert reader.ended
    assert reader.take() == text
    check_text(_fastparse, wire, [wire])


# ---- paths -----------------------------------------------------------------------------------------------------

path_pieces = st.sampled_from(
    [
        *(bytes([octet]) for octet in b'<>@.:,[]"\\-_a1 \x7f\xe9\t%g'),
        *(
            b"\xc3\xa9",
            b"\xe2\x82\xac",
            b"\xf0\x9f\x98\x80",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"\xe2\x80\xa8",
            b"\xc2\x85",
            b"\xc3",
        ),
        *(b"b.test", b"255", b"256", b"01", b"IPv6:", b"::", b"ff", b"postmaster", b"x" * 63, b"y" * 64),
    ]
)
paths = st.lists(path_pieces, max_size=12).map(b"".join)
framed = st.one_of(
    paths,
    paths.map(lambda path: b"<" + path + b">"),
    paths.map(lambda local: b"<" + local + b"@b.test> X"),
    paths.map(lambda domain: b"<a@" + domain + b">"),
    paths.map(lambda literal: b"<a@[" + literal + b"]>"),
    paths.map(lambda literal: b"<a@[IPv6:" + literal + b"]>"),
    paths.map(lambda route: b"<@" + route + b":a@b.test>"),
    st.binary(max_size=20),
)
groups = st.lists(st.sampled_from([b"1", b"abcd", b"12345", b"", b"", b"1.2.3.4", b"0"]), max_size=10).map(b":".join)


@settings(deadline=None, max_examples=1000)
@given(framed)
def test_both_read_paths_alike(path: bytes) -> None:
    assert _fastparse.parse_path(path) == parse_path(path)
    assert _fastparse.parse_path(path, utf8=True) == parse_path(path, utf8=True)


@pytest.mark.parametrize("length", [2, 3, 4])
def test_both_read_all_borders_of_utf8_alike(length: int) -> None:
    firsts = [*range(0x7F, 0x82), *range(0xBF, 0x100)]
    borders = [0x20, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xA6, 0xA8, 0xAE, 0xAF, 0xB7, 0xBE, 0xBF, 0xC0, 0xFF]
    for octets in itertools.product(firsts, *[borders] * (length - 1)):
        for path in (b"<%b@b.test>" % bytes(octets), b"<a@%b>" % bytes(octets), b'<"%b"@b>' % bytes(octets)):
            found = _fastparse.parse_path(path, utf8=True)
            assert found == parse_path(path, utf8=True), path
            assert _fastparse.parse_path(path) is None
            if found is not None:
                path.decode("utf-8")


@settings(deadline=None, max_examples=500)
@given(groups)
def test_both_read_ipv6_alike(address: bytes) -> None:
    path = b"<a@[IPv6:" + address + b"]>"
    assert _fastparse.parse_path(path) == parse_path(path)


@settings(deadline=None)
@given(st.ip_addresses())
def test_every_address_may_be_a_literal(address: Any) -> None:
    literal = f"[{'IPv6:' if address.version == 6 else ''}{address.compressed}]".encode()
    path = b"<a@" + literal + b">"
    expected = None if b"%" in path else (b"a@" + literal, len(path))
    assert _fastparse.parse_path(path) == parse_path(path) == expected


# ---- times -----------------------------------------------------------------------------------------------------

moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)).map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%S"))
zones = st.sampled_from(["Z", "z", ".5Z", ".Z", "+01:00", "-23:59", "+24:00", "-00:60", "+1:00", "", ".1234567-05:30"])
CALENDAR = ("2000-02-29T00:00:00Z", "2100-02-28T23:59:59Z", "2026-11-27T12:40:00-05:30", "9999-12-31T23:59:59+00:01")


@settings(deadline=None, max_examples=500)
@given(moments, zones, st.integers(min_value=0, max_value=18), st.sampled_from("0123456789-T:a"))
def test_both_read_times_alike(moment: str, zone: str, place: int, other: str) -> None:
    for text in (moment + zone, moment[:place] + other + moment[place + 1 :] + zone):
        command = b"EHLO c.test\r\nMAIL FROM:<a@b.test> HOLDUNTIL=" + text.encode() + b"\r\n"
        config = {"offers": "FUTURERELEASE", "hold": 251_000_000_000}
        assert converse(_fastparse, [command], **config) == converse(server, [command], **config)


def test_times_are_those_of_the_calendar() -> None:
    for text in CALENDAR:
        moment = datetime.fromisoformat(text)
        assert read_date_time(text.encode()) == int(moment.timestamp())
    assert read_date_time(b"2016-12-31T23:59:60Z") == 1483228800
    assert read_date_time(b"2100-02-29T00:00:00Z") is None
