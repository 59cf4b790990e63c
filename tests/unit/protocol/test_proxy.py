"""PROXY headers, right and wrong, whole and in parts."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.protocol.proxy import MOST, Header, ProxyError, crc32c, parse

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(family: int = 0x11, body: bytes = b"", *tlvs: tuple[int, bytes], command: int = 0x21) -> bytes:
    body += b"".join(bytes([kind]) + struct.pack("!H", len(value)) + value for kind, value in tlvs)
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


INET = socket.inet_aton("192.0.2.1") + socket.inet_aton("203.0.113.9") + struct.pack("!HH", 56324, 25)
INET6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + struct.pack("!HH", 56324, 25)
)
SSL = (0x20, b"\x01\0\0\0\0" + b"\x21\0\x07TLSv1.3" + b"\x23\0\x06AES128")


def with_checksum(*, right: bool) -> bytes:
    header = v2(0x11, INET, (0x03, bytes(4)), (0xE0, b"own"))
    place = header.index(b"\x03\0\x04") + 3
    return header[:place] + struct.pack("!I", crc32c(header) ^ (not right)) + header[place + 4 :]


CLIENT = {"client": "192.0.2.1", "port": 56324, "server": "203.0.113.9", "server_port": 25}
CLIENT6 = {"client": "2001:db8::1", "port": 56324, "server": "2001:db8::9", "server_port": 25}

GOOD = {
    "TCP4": (b"PROXY TCP4 192.0.2.1 203.0.113.9 56324 25\r\n", CLIENT),
    "TCP6": (b"PROXY TCP6 2001:db8::1 2001:db8:0::9 56324 25\r\n", CLIENT6),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", {"own": True}),
    "UNKNOWN with more": (b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n", {"own": True}),
    "longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", {"own": True}),
    "INET": (v2(0x11, INET), CLIENT),
    "INET6": (v2(0x21, INET6), CLIENT6),
    "UNIX": (v2(0x31, b"/run/a".ljust(108, b"\0") + bytes(108)), {}),
    "LOCAL": (v2(0x00, command=0x20), {"own": True}),
    "LOCAL with what is to be skipped": (v2(0x11, b"\xff" * 9, command=0x20), {"own": True}),
    "AF_UNSPEC": (v2(0x00), {"own": True}),
    "SSL": (v2(0x11, INET, SSL), CLIENT | {"tls": "TLSv1.3/AES128"}),
    "SSL without a word more": (v2(0x11, INET, (0x20, b"\x01\0\0\0\0")), CLIENT | {"tls": "yes"}),
    "SSL, but not the client": (v2(0x11, INET, (0x20, b"\0\0\0\0\0")), CLIENT),
    "other TLVs": (v2(0x11, INET, (0x01, b"smtp"), (0x04, b"\0" * 9), (0xEA, b"x")), CLIENT),
    "checksum": (with_checksum(right=True), CLIENT),
}
BAD = {
    "SMTP": b"EHLO x\r\n",
    "nothing like it": b"\x16\x03\x01\x02\0",
    "lower case": b"proxy TCP4 192.0.2.1 203.0.113.9 56324 25\r\n",
    "POST": b"POST / HTTP/1.1\r\n",
    "no end": b"PROXY UNKNOWN " + b"x" * 120,
    "end too late": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "LF": b"PROXY TCP4 192.0.2.1 203.0.113.9 56324 25\n" + b" " * 80,
    "two blanks": b"PROXY TCP4  192.0.2.1 203.0.113.9 56324 25\r\n",
    "wrong family": b"PROXY TCP4 ::1 ::1 56324 25\r\n",
    "wrong family, 6": b"PROXY TCP6 192.0.2.1 203.0.113.9 56324 25\r\n",
    "no address": b"PROXY TCP4 192.0.2.256 203.0.113.9 56324 25\r\n",
    "leading zeros": b"PROXY TCP4 192.0.2.01 203.0.113.9 56324 25\r\n",
    "scope": b"PROXY TCP6 fe80::1%eth0 ::1 56324 25\r\n",
    "port": b"PROXY TCP4 192.0.2.1 203.0.113.9 65536 25\r\n",
    "port with zeros": b"PROXY TCP4 192.0.2.1 203.0.113.9 56324 025\r\n",
    "missing": b"PROXY TCP4 192.0.2.1 203.0.113.9 56324\r\n",
    "one more": b"PROXY TCP4 192.0.2.1 203.0.113.9 56324 25 x\r\n",
    "other protocol": b"PROXY UDP4 192.0.2.1 203.0.113.9 56324 25\r\n",
    "not ASCII": b"PROXY TCP4 192.0.2.\xb9 203.0.113.9 56324 25\r\n",
    "version 3": SIGNATURE + b"\x31\x11\0\0",
    "command": SIGNATURE + b"\x22\x11\0\0",
    "family": v2(0x41, INET),
    "transport": v2(0x13, INET),
    "datagrams": v2(0x12, INET),
    "addresses cut": v2(0x11, INET[:-1]),
    "TLV cut": v2(0x11, INET + b"\x04\0"),
    "TLV longer than what is there": v2(0x11, INET + b"\x04\0\x05abcd"),
    "SSL cut": v2(0x11, INET, (0x20, b"\x01\0")),
    "SSL with a cut TLV": v2(0x11, INET, (0x20, b"\x01\0\0\0\0\x21\0\x09TLS")),
    "checksum": with_checksum(right=False),
    "checksum of three octets": v2(0x11, INET, (0x03, b"abc")),
    "too long": SIGNATURE + b"\x21\x11" + struct.pack("!H", MOST),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_however_they_come(name: str) -> None:
    octets, facts = GOOD[name]
    header = Header(len(octets), **facts)  # type: ignore[arg-type]
    assert parse(octets) == parse(octets + b"EHLO x\r\n") == header
    for size in range(len(octets)):
        assert parse(octets[:size]) is None


@pytest.mark.parametrize("name", BAD)
def test_bad_ones(name: str) -> None:
    with pytest.raises(ProxyError):
        parse(BAD[name])


def test_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary(max_size=300))
def test_whatever_comes_it_is_a_header_or_an_error_or_goes_on(start: bytes, rest: bytes) -> None:
    octets = start + rest
    try:
        header = parse(octets)
    except ProxyError:
        return
    if header is None:
        assert len(octets) < MOST
    else:
        assert header.size <= len(octets)
        assert parse(octets[: header.size]) == header
