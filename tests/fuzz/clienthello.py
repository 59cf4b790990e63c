"""The reader of ClientHellos.

The first octet says how the rest is cut into portions. Nothing but HelloError may be raised; the outcome must not
depend on the cuts; what waits is bounded; a server name that is read is a host name.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator

from mta.protocol.clienthello import LONGEST as LONGEST_HELLO
from mta.protocol.clienthello import ClientHello, HelloError, HelloReader
from tests.kit.conversation import cut

WATCHED = ("mta.protocol.clienthello",)
LONGEST = 1200
TOKENS = [
    *(b"\x16\x03\x01", b"\x16\x03\x03", b"\x00\x01", b"\x00\x00", b"\x01\x00", b"\x03\x04", b"\x03\x03", b"\xff\xff"),
    *(b"\x00\x0d", b"\x00\x0a", b"\x00\x10", b"\x00\x17", b"\x00\x2b", b"\x04smtp", b"\x02h2", b"mx.example.org"),
    *(b"\x15\x03\x01\x00\x02\x01\x00", b"\x14\x03\x03\x00\x01\x01", b"EHLO x\r\n", b"\x80\x2e\x01\x00\x02"),
]
_NAME = re.compile(r"[a-z0-9_.-]*")


def check(data: bytes) -> None:
    if not data:
        return
    mode, data = data[0], data[1:]
    expected = outcome([data])
    assert outcome(cut(data, range(mode, len(data), mode) if mode else [])) == expected, data.hex()
    if isinstance(expected, ClientHello):
        assert _NAME.fullmatch(expected.server_name), data.hex()


def outcome(portions: Iterable[bytes]) -> ClientHello | type[HelloError] | None:
    reader = HelloReader()
    for portion in portions:
        try:
            found = reader.feed(portion)
        except HelloError as error:
            return type(error)
        assert len(reader.octets) <= 2 * LONGEST_HELLO + len(portion)
        if found is not None:
            return found
    return None


def seeds() -> Iterator[bytes]:
    for number, (newest, name) in enumerate(
        (newest, name)
        for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        for name in (None, "mx.example.org")
    ):
        for alpn in ([], ["smtp"], ["h2", "http/1.1"]):
            yield bytes([number * 7]) + _hello(newest, name, alpn)


def _hello(newest: ssl.TLSVersion, name: str | None, alpn: list[str]) -> bytes:
    """What OpenSSL begins with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = newest
    if alpn:
        context.set_alpn_protocols(alpn)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")
