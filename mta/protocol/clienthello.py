"""The first message of a TLS handshake (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2), read before TLS sees it.

    reader = HelloReader()
    hello = reader.feed(octets)      None until the message is whole; NotTls or Malformed
    reader.octets                    all that came, for whoever does the handshake

The library that does the handshake tells neither a client that names no application protocol from one that names a
foreign one, nor which of two certificates it has used. From this message both can be told beforehand.

Invariants
- The message may come in any portions and in any records (RFC 8446 §5.1); what is read does not depend on that.
- Bounded: a message above `LONGEST` octets, or records that make no progress, are an error.
- Every length is checked against what holds it; a list that does not end with its frame is an error, as it is for TLS.
- A server name is what a host name may be, in lower case; anything else counts as none, so that it is fit for a log
  line and a trace header (RFC 6066 §3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 32 << 10  # octets of the message; one with post-quantum key shares has 2 KiB
_MOST_RECORDS: Final = 64
_LONGEST_RECORD: Final = 1 << 14

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_GROUPS: Final = 10
_SIGNATURES: Final = 13
_ALPN: Final = 16
_EXTENDED_MASTER_SECRET: Final = 23
_VERSIONS: Final = 43

TLS_1_2: Final = 0x0303
TLS_1_3: Final = 0x0304
_VERSION_NAMES: Final = {0x0300: "SSLv3", 0x0301: "TLSv1.0", 0x0302: "TLSv1.1", TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}
_HOST_NAME: Final = re.compile(
    rb"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)


class HelloError(Exception):
    """The handshake cannot begin; the text is for the log."""


class NotTls(HelloError):
    """This is another protocol."""


class Malformed(HelloError):
    """It breaks the grammar, or the bounds."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a server decides by. `alpn` is None when the extension is not there; lists are in the client's order."""

    versions: tuple[int, ...]
    ciphers: tuple[int, ...]
    server_name: str = ""
    alpn: tuple[bytes, ...] | None = None
    signatures: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    extended_master_secret: bool = False

    @property
    def newest(self) -> str:
        """The newest version that the client offers, as people write it."""
        known = [v for v in self.versions if v in _VERSION_NAMES]
        return _VERSION_NAMES[max(known)] if known else "unknown"


class HelloReader:
    """Gathers the message out of its records."""

    __slots__ = ("_at", "_message", "_octets", "_records")

    def __init__(self) -> None:
        self._octets = bytearray()
        self._message = bytearray()
        self._at = 0  # where the next record begins
        self._records = 0

    @property
    def octets(self) -> bytes:
        """All that was fed."""
        return bytes(self._octets)

    def feed(self, data: bytes | memoryview) -> ClientHello | None:
        """Take what came; the message when it is whole. HelloError."""
        self._octets += data
        while self._take_record():
            if len(self._message) < 4:
                continue
            size = int.from_bytes(self._message[1:4], "big")
            if self._message[0] != _CLIENT_HELLO:
                raise Malformed(f"begins with handshake message {self._message[0]}, not with a ClientHello")
            if size > LONGEST:
                raise Malformed(f"a ClientHello of {size} octets")
            if len(self._message) >= 4 + size:
                return parse_hello(bytes(self._message[4 : 4 + size]))
        return None

    def _take_record(self) -> bool:
        """Whether another record is whole; its content is then in the message."""
        head = bytes(self._octets[self._at : self._at + 5])
        if head[:1] not in (b"", b"\x16") or head[1:2] not in (b"", b"\x03"):
            if self._records:
                raise Malformed(f"a record of type {head[0]} within the ClientHello")
            raise NotTls(f"begins with {bytes(self._octets[:16])!r}, which is not TLS")
        if len(head) < 5:
            return False
        size = int.from_bytes(head[3:5], "big")
        if not 0 < size <= _LONGEST_RECORD:
            raise Malformed(f"a record of {size} octets")
        if len(self._octets) < self._at + 5 + size:
            return False
        self._message += self._octets[self._at + 5 : self._at + 5 + size]
        self._at += 5 + size
        self._records += 1
        if self._records > _MOST_RECORDS:
            raise Malformed("a ClientHello in too many records")
        return True


class _Fields:
    """Reads fields from the front of some octets; what is not there is an error."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise Malformed("the ClientHello ends too early")
        self._at += size
        return taken

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets), "big")

    def vector(self, octets: int) -> bytes:
        """Octets behind their own length."""
        return self.take(self.number(octets))


def parse_hello(body: bytes) -> ClientHello:
    """The message without its head. Malformed."""
    fields = _Fields(body)
    legacy = fields.number(2)
    fields.take(32)  # random
    fields.vector(1)  # session id
    ciphers = _numbers(fields.vector(2))
    fields.vector(1)  # compression
    extensions = _extensions(fields.vector(2)) if fields else {}
    if fields:
        raise Malformed("octets behind the ClientHello")
    offered = extensions.get(_VERSIONS)
    alpn = extensions.get(_ALPN)
    return ClientHello(
        versions=_numbers(_whole_vector(offered, 1)) if offered is not None else (legacy,),
        ciphers=ciphers,
        server_name=_server_name(extensions.get(_SERVER_NAME)),
        alpn=_protocols(alpn) if alpn is not None else None,
        signatures=_numbers(_whole_vector(extensions.get(_SIGNATURES, b"\0\0"), 2)),
        groups=_numbers(_whole_vector(extensions.get(_GROUPS, b"\0\0"), 2)),
        extended_master_secret=_EXTENDED_MASTER_SECRET in extensions,
    )


def _extensions(data: bytes) -> dict[int, bytes]:
    fields = _Fields(data)
    found: dict[int, bytes] = {}
    while fields:
        kind = fields.number(2)
        if kind in found:
            raise Malformed(f"extension {kind} twice")
        found[kind] = fields.vector(2)
    return found


def _whole_vector(data: bytes, octets: int) -> bytes:
    fields = _Fields(data)
    content = fields.vector(octets)
    if fields:
        raise Malformed("octets behind the list in an extension")
    return content


def _numbers(data: bytes) -> tuple[int, ...]:
    if len(data) % 2:
        raise Malformed("half a number in a list")
    return tuple(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2))


def _server_name(data: bytes | None) -> str:
    if not data:
        return ""
    fields = _Fields(_whole_vector(data, 2))
    name = b""
    while fields:
        kind, content = fields.number(1), fields.vector(2)
        if kind == 0 and not name:
            name = content
    name = name.lower()
    return name.decode("ascii") if _HOST_NAME.fullmatch(name) else ""


def _protocols(data: bytes) -> tuple[bytes, ...]:
    fields = _Fields(_whole_vector(data, 2))
    names = []
    while fields:
        names.append(fields.vector(1))
    return tuple(names)
