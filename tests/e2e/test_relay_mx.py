"""Relay by MX records: texts arrive octet for octet, and hosts are tried as RFC 5321 §5.1 says."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

from tests.kit.dns import Zone
from tests.kit.server import Server
from tests.kit.sink import Sink

_TRACE = re.compile(rb"Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
RECORDS = {
    "far.test": ["MX 10 mx1.far.test.", "MX 20 mx2.far.test."],
    "mx1.far.test": ["A 127.0.0.2"],
    "mx2.far.test": ["A 127.0.0.1"],
    "one.test": ["MX 10 mx.one.test."],
    "mx.one.test": ["A 127.0.0.1"],
    "implicit.test": ["A 127.0.0.1"],
    "alias.test": ["CNAME one.test."],
    "big.test": ["MX 10 mx.one.test."],
}
TEXTS = {
    "plain": b"Subject: x\r\n\r\nhello\r\n",
    "dots": b"Subject: x\r\n\r\n.\r\n..\r\n...\r\n.x\r\nx.\r\n.\r\n",
    "dots from the first line on": b".\r\n.\r\n",
    "8-bit": "Subject: ünï\r\n\r\n☃\r\n".encode() + bytes(c for c in range(1, 256) if c not in b"\r\n") + b"\r\n",
    "long lines": b"Subject: x\r\n\r\n" + b"x" * 50_000 + b"\r\n" + b"." * 50_000 + b"\r\n",
    "10 MiB": b"Subject: x\r\n\r\n"
    + b"".join(b"%d " % n + random.Random(n).randbytes(500).hex().encode() + b"\r\n.\r\n" for n in range(10_400)),
    "empty": b"",
    "no header": b"\r\nonly a body\r\n",
    "no body": b"Subject: x\r\n",
}


def without_trace(content: bytes) -> bytes:
    """The text as its sender gave it: our own trace header is the first one."""
    trace = _TRACE.match(content)
    assert trace, content[:200]
    return content[trace.end() :]


def test_texts_arrive_octet_for_octet(tmp_path: Path) -> None:
    assert len(TEXTS["10 MiB"]) > 10 << 20
    with (
        Zone(RECORDS) as zone,
        Sink() as sink,
        Server(tmp_path, dns=zone.address, delivery={"port": sink.port}) as server,
    ):
        for number, text in enumerate(TEXTS.values()):
            parameters = "" if text.isascii() else " BODY=8BITMIME"
            server.send("ann@here.test", [f"n{number}@one.test"], text, parameters)
        got = {message.recipients[0]: message for message in sink.wait(len(TEXTS))}
        server.wait_empty()
    for number, (name, text) in enumerate(TEXTS.items()):
        content = without_trace(got[f"n{number}@one.test"].content)
        assert hashlib.sha256(content).digest() == hashlib.sha256(text).digest(), name
    assert got["n0@one.test"].sender == "ann@here.test"


def test_the_trace_header_tells_where_it_came_from(tmp_path: Path) -> None:
    with (
        Zone(RECORDS) as zone,
        Sink() as sink,
        Server(tmp_path, dns=zone.address, delivery={"port": sink.port}) as server,
    ):
        message_id = server.send("ann@here.test", ["bob@one.test"], TEXTS["plain"])
        content = sink.wait(1)[0].content
    header = re.sub(rb"\s+", b" ", content[: -len(TEXTS["plain"])]).decode()
    assert header.count("Received:") == 1
    assert f"id {message_id}" in header
    assert "[127.0.0.1]" in header


def test_the_first_choice_is_taken(tmp_path: Path) -> None:
    with Zone(RECORDS) as zone, Sink(host="127.0.0.2") as first, Sink(port=first.port) as second:
        with Server(tmp_path, dns=zone.address, delivery={"port": first.port}) as server:
            for _ in range(5):
                server.send("ann@here.test", ["bob@far.test"], TEXTS["plain"])
            first.wait(5)
            server.wait_empty()
        assert second.got == []


def test_the_next_host_is_tried_when_one_refuses_the_connection(tmp_path: Path) -> None:
    with (
        Zone(RECORDS) as zone,
        Sink() as second,
        Server(tmp_path, dns=zone.address, delivery={"port": second.port}) as server,
    ):
        server.send("ann@here.test", ["bob@far.test"], TEXTS["plain"])
        assert second.wait(1)[0].recipients == ("bob@far.test",)
        server.wait_empty()


def test_a_domain_without_mx_is_its_own_host(tmp_path: Path) -> None:
    with Zone(RECORDS) as zone, Sink() as sink:
        with Server(tmp_path, dns=zone.address, delivery={"port": sink.port}) as server:
            server.send("ann@here.test", ["bob@implicit.test", "eve@alias.test"], TEXTS["plain"])
            sink.wait(2)
            server.wait_empty()
        assert sorted(r for message in sink.got for r in message.recipients) == ["bob@implicit.test", "eve@alias.test"]


def test_a_truncated_answer_is_asked_again_over_tcp(tmp_path: Path) -> None:
    with Zone(RECORDS, {"big.test": "truncated"}) as zone, Sink() as sink:
        with Server(tmp_path, dns=zone.address, delivery={"port": sink.port}) as server:
            server.send("ann@here.test", ["bob@big.test"], TEXTS["plain"])
            sink.wait(1)
            server.wait_empty()
        assert ("big.test", "MX", "tcp") in zone.asked
