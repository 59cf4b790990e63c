"""What proxies and trusted peers say of the client they speak for: PROXY headers, XCLIENT, XFORWARD.

The first octet chooses. A header that is read is found again when it comes in parts, and nothing behind it is read; an
address is an address; no value can end a line or a field.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator

from mta.protocol.claims import XCLIENT, XFORWARD, ClaimError
from mta.protocol.claims import parse as parse_claims
from mta.protocol.proxy import MOST, Header, ProxyError, parse

WATCHED = ("mta.protocol.proxy", "mta.protocol.claims")
LONGEST = 500
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TOKENS = [
    *(
        _SIGNATURE,
        b"\x21\x11",
        b"\x21\x21",
        b"\x21\x31",
        b"\x20\x00",
        b"\x00\x0c",
        b"\x00\x24",
        b"\x00\xd8",
        b"\x00\x00",
    ),
    *(
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b"\r\n",
        b"192.0.2.1 ",
        b"2001:db8::1 ",
        b" 65535",
        b" 65536",
        b"::ffff:",
    ),
    *(
        b"\x20\x00\x0f\x01\0\0\0\0\x21\x00\x07TLSv1.3",
        b"\x03\x00\x04",
        b"\x04\x00\x00",
        b"\xff\xff",
        b"\x23\x00\x06AES128",
    ),
    *(f"{name}=".encode() for name in XCLIENT),
    *(
        b"IDENT=",
        b"SOURCE=LOCAL",
        b"[UNAVAILABLE]",
        b"[TEMPUNAVAIL]",
        b"IPV6:",
        b"ESMTP",
        b"+0D+0A",
        b"+20",
        b"+00",
        b"+E2+80+AE",
    ),
]


def check(data: bytes) -> None:
    if not data:
        return
    which, data = data[0] % 3, data[1:]
    if which:
        look_at_claims(data, (XCLIENT, XFORWARD)[which - 1])
    else:
        look_at_header(data)


def look_at_header(data: bytes) -> None:
    found = outcome(data)
    if not isinstance(found, Header):
        return
    assert 0 < found.size <= min(len(data), MOST), data
    assert outcome(data[: found.size] + b"EHLO x\r\n") == found, data
    for size in range(found.size):
        assert outcome(data[:size]) is None, (size, data)
    for address in filter(None, (found.client, found.server)):
        assert str(ipaddress.ip_address(address)) == address, data


def outcome(data: bytes) -> Header | str | None:
    try:
        return parse(data)
    except ProxyError as error:
        return str(error)


def look_at_claims(data: bytes, names: tuple[str, ...]) -> None:
    try:
        claims = parse_claims(data, names)
    except ClaimError:
        return
    assert claims, data
    assert set(claims) <= set(names), data
    for key, value in claims.items():
        assert value.isprintable(), data
        assert " " not in value, data
        assert not value or "ADDR" not in key or ipaddress.ip_address(value), data


def seeds() -> Iterator[bytes]:
    inet = socket.inet_aton("192.0.2.1") + socket.inet_aton("203.0.113.9") + struct.pack("!HH", 1, 25)
    inet6 = 2 * socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack("!HH", 1, 25)
    tls = b"\x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3"
    for kind, body in ((0x11, inet), (0x21, inet6), (0x31, bytes(216)), (0x00, b""), (0x11, inet + tls), (0x12, inet)):
        for command in (0x20, 0x21):
            yield b"\0" + _SIGNATURE + bytes([command, kind]) + struct.pack("!H", len(body)) + body + b"EHLO x\r\n"
    for line in (b"TCP4 192.0.2.1 203.0.113.9 1 25", b"TCP6 2001:db8::1 ::1 0 65535", b"UNKNOWN what ever"):
        yield b"\0PROXY " + line + b"\r\n"
    yield b"\x01ADDR=192.0.2.1 PORT=25 NAME=a.test HELO=b.test PROTO=ESMTP LOGIN=alice+40home.test DESTADDR=IPV6:::1"
    yield b"\x01NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL] LOGIN="
    yield b"\x02NAME=a ADDR=IPv6:2001:db8::1 PORT=1 HELO=x PROTO=SMTP IDENT=QQ1 SOURCE=REMOTE"
