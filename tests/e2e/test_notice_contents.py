"""A notice carries the headers of the original and nothing of its body: the sender may be forged."""

from __future__ import annotations

import email
from pathlib import Path
from typing import Any

import pytest

from tests.kit.server import Server
from tests.kit.sink import ScriptedServer, Sink

SECRET = b"4711-SECRET-4711"
ORIGINALS = {
    "plain": b"Subject: s\r\n\r\n" + SECRET + b"\r\n",
    "looks like headers": b"Subject: s\r\n\r\nX-Body: " + SECRET + b"\r\n\r\n" + SECRET + b"\r\n",
    "8-bit": "Subject: ünï\r\n\r\n".encode() + SECRET + b"\xff\r\n",
    "multipart": b"Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
    + SECRET
    + b"\r\n--b--\r\n",
    "no empty line": b"Subject: s\r\n" + SECRET + b"\r\n",
    "large": b"Subject: s\r\n\r\n" + (SECRET + b"\r\n") * 30_000,
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_no_body(tmp_path: Path, name: str) -> None:
    text = ORIGINALS[name]
    with Sink({"bob@a.test": ["550 5.1.1 nobody"]}) as sink, Server(tmp_path, routes={"*": sink.next_hop}) as server:
        server.send("ann@home.test", ["bob@a.test"], text, "" if text.isascii() else " BODY=8BITMIME")
        (letter,) = server.wait_letters("ann")
        server.wait_empty()
    assert SECRET not in letter
    assert letter.isascii()
    assert max(map(len, letter.split(b"\n"))) <= 998
    message = email.message_from_bytes(letter)
    assert message.get_content_type() == "multipart/report"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Date"]
    assert message["Message-ID"]
    parts: Any = message.get_payload()
    _, status, original = parts
    assert original.get_content_type() == "text/rfc822-headers"
    assert "Subject:" in original.get_payload()
    fields: Any = status.get_payload()[1]
    assert fields["Status"] == "5.1.1"
    assert fields["Final-Recipient"] == "rfc822; bob@a.test"


@pytest.mark.parametrize("octets", [b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8", b"\r", b"\0"])
def test_a_reply_cannot_write_headers(tmp_path: Path, octets: bytes) -> None:
    """What the next hop says is quoted in the notice and in the log; it must stay a quotation."""
    said = b"550 5.1.1 nobody" + octets + b"X-Forged: yes" + octets + octets + b"forged\r\n"
    with ScriptedServer({"RCPT": said}) as peer, Server(tmp_path, routes={"*": peer.next_hop}) as server:
        server.send("ann@home.test", ["bob@a.test"], ORIGINALS["plain"])
        (letter,) = server.wait_letters("ann")
        server.wait_empty()
        assert all(line[:4].isdigit() for line in server.log.read_bytes().splitlines())
    assert letter.isascii()
    assert octets == b"\r" or octets not in letter
    message = email.message_from_bytes(letter)
    parts: Any = message.get_payload()
    fields: Any = parts[1].get_payload()
    assert "nobody" in fields[1]["Diagnostic-Code"], "the words of the peer got as far as the notice"
    assert len(fields) == 2, "one block for the server, one for the recipient"
    assert [block["X-Forged"] for block in (message, *fields)] == [None] * 3
