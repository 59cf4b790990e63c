"""The PROXY protocol, versions 1 and 2: what a proxy says of its client before the client's first octet.

Written by haproxy's "The PROXY protocol" (2020): a line of text of up to 107 octets, or a binary header with a length.
`parse` is given what came so far; it reads nothing behind the header, whatever comes there.

Invariants
- Nothing is guessed: a header that is not exactly as the specification has it is an error, and ends the connection.
- Bounded: a header of version 2 may have up to `MOST` octets.
- Of a client that the proxy does not know (UNKNOWN, AF_UNSPEC), and of the proxy's own connections (LOCAL), there is no
  address here (`own`); a client at a unix socket of the proxy has the address "", which nobody trusts.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

MOST: Final = 16384  # octets of a header
_LONGEST_LINE: Final = 107
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = 16  # octets of a binary header in front of the addresses
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_CRC32C: Final = 0x03
_SSL: Final = 0x20
_SSL_VERSION: Final = 0x21
_SSL_CIPHER: Final = 0x23
_CLIENT_SSL: Final = 1


class ProxyError(ValueError):
    """This is no header, or a broken one."""


@dataclass(frozen=True, slots=True)
class Header:
    """`size` octets of what came are the header. `own`: it speaks of no client.

    `tls`: how the client came to the proxy; "" for in plain, or unknown.
    """

    size: int
    own: bool = False
    client: str = ""
    port: int = 0
    server: str = ""
    server_port: int = 0
    tls: str = ""


def parse(octets: bytes) -> Header | None:
    """The header that the octets begin with; None when more must come. ProxyError."""
    if octets[:1] == b"P":
        return _line(octets)
    if octets[: len(_SIGNATURE)] != _SIGNATURE[: len(octets)]:
        raise ProxyError("no PROXY header")
    if len(octets) < _FIXED:
        return None
    return _binary(octets)


# ---- version 1


def _line(octets: bytes) -> Header | None:
    start = b"PROXY "
    if octets[: len(start)] != start[: len(octets)]:
        raise ProxyError("no PROXY header")
    end = octets.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0:
        if len(octets) >= _LONGEST_LINE:
            raise ProxyError("the line has no end")
        return None
    try:
        words = octets[len(start) : end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyError("the line is not ASCII") from None
    if words[0] == "UNKNOWN":
        return Header(end + 2, own=True)
    if len(words) != 5 or words[0] not in ("TCP4", "TCP6"):
        raise ProxyError("the line is not as it must be")
    version = 4 if words[0] == "TCP4" else 6
    client, server = (_address(word, version) for word in words[1:3])
    return Header(end + 2, client=client, port=_port(words[3]), server=server, server_port=_port(words[4]))


def _address(word: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(word)
    except ValueError:
        raise ProxyError("an address is none") from None
    if address.version != version or "%" in word:
        raise ProxyError("an address is of the wrong family")
    return str(address)


def _port(word: str) -> int:
    if not _PORT.fullmatch(word) or int(word) > 65535:
        raise ProxyError("a port is none")
    return int(word)


# ---- version 2


def _binary(octets: bytes) -> Header | None:
    version, command = octets[12] >> 4, octets[12] & 15
    size = _FIXED + int.from_bytes(octets[14:16], "big")
    if version != 2 or command not in (0, 1):
        raise ProxyError("the version or the command is unknown")
    if size > MOST:
        raise ProxyError("the header is too long")
    if len(octets) < size:
        return None
    header = octets[:size]
    if command == 0:
        return Header(size, own=True)
    family, transport = header[13] >> 4, header[13] & 15
    if family > 3 or transport > 2:
        raise ProxyError("the address family is unknown")
    room = (0, 12, 36, 216)[family]
    if _FIXED + room > size:
        raise ProxyError("the addresses are not whole")
    tls = _tls(_tlvs(header, _FIXED + room, size), header)
    if family == 0 or transport == 0:
        return Header(size, own=True, tls=tls)
    if transport == 2:
        raise ProxyError("mail does not come by datagrams")
    if family == 3:
        return Header(size, tls=tls)
    return _internet(header, (room - 4) // 2, tls)


def _internet(header: bytes, width: int, tls: str) -> Header:
    client, server = (header[_FIXED + n * width : _FIXED + (n + 1) * width] for n in range(2))
    ports = header[_FIXED + 2 * width : _FIXED + 2 * width + 4]
    return Header(
        len(header),
        client=str(ipaddress.ip_address(client)),
        port=int.from_bytes(ports[:2], "big"),
        server=str(ipaddress.ip_address(server)),
        server_port=int.from_bytes(ports[2:], "big"),
        tls=tls,
    )


def _tlvs(octets: bytes, at: int, end: int) -> dict[int, tuple[int, bytes]]:
    """Type to place and value."""
    found: dict[int, tuple[int, bytes]] = {}
    while at < end:
        if at + 3 > end:
            raise ProxyError("a TLV is not whole")
        size = int.from_bytes(octets[at + 1 : at + 3], "big")
        if at + 3 + size > end:
            raise ProxyError("a TLV is not whole")
        found[octets[at]] = at + 3, octets[at + 3 : at + 3 + size]
        at += 3 + size
    return found


def _tls(tlvs: dict[int, tuple[int, bytes]], header: bytes) -> str:
    """What the TLVs say of TLS; the checksum is checked on the way."""
    if _CRC32C in tlvs:
        place, value = tlvs[_CRC32C]
        if len(value) != 4 or crc32c(header[:place] + bytes(4) + header[place + 4 :]) != int.from_bytes(value, "big"):
            raise ProxyError("the checksum does not fit")
    if _SSL not in tlvs:
        return ""
    place, value = tlvs[_SSL]
    if len(value) < 5:
        raise ProxyError("a TLV is not whole")
    if not value[0] & _CLIENT_SSL:
        return ""
    inner = _tlvs(value, 5, len(value))
    words = [inner[kind][1].decode("ascii", "replace") for kind in (_SSL_VERSION, _SSL_CIPHER) if kind in inner]
    return "/".join(words) or "yes"


def crc32c(octets: bytes) -> int:
    """Castagnoli's checksum, for headers: short, and seldom with one."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = _TABLE[(crc ^ octet) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _entry(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
    return octet


_TABLE: Final = [_entry(octet) for octet in range(256)]
