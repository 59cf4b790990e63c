"""Certificates in DER: what is none is a ValueError, what is one is read alike each time, its names in lower case."""

from __future__ import annotations

from collections.abc import Iterator

from mta.protocol.x509 import read_certificate

WATCHED = ("mta.protocol.x509",)
LONGEST = 1200
TOKENS = [
    *(
        b"\x30\x80",
        b"\x30\x82",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\xff",
        b"\x06\x03\x55\x1d\x11",
        b"\x06\x03\x55\x04\x03",
    ),
    *(b"\xa3\x82", b"\xa0\x03\x02\x01\x02", b"\x82\x07mx.test", b"\x17\x0d260101000000Z", b"\x18\x0f20510630010203Z"),
    *(
        b"\x2a\x86\x48\xce\x3d\x02\x01",
        b"\x2a\x86\x48\xce\x3d\x04\x03\x02",
        b"\x2b\x65\x70",
        b"\x01\x01\xff",
        b"\x04\x00",
    ),
]


def check(data: bytes) -> None:
    try:
        found = read_certificate(data)
    except ValueError:
        return
    assert len(found.digest) == 32, data
    assert found.binding is None or len(found.binding) in (32, 48, 64), data
    assert all(name == name.lower() for name in found.names), data
    assert read_certificate(data) == found, data


def seeds() -> Iterator[bytes]:
    name = _set(_sequence(_oid("550403") + _text("Mx.Test")))
    yield _certificate(_sequence(name), b"")
    names = b"\x82\x07mx.test" + b"\x82\x06*.test" + b"\x87\x04\xc0\x00\x02\x01"
    held = _sequence(_oid("551d11") + b"\x01\x01\xff" + _element(0x04, _sequence(names)))
    yield _certificate(_sequence(b""), _element(0xA3, _sequence(held)))


def _certificate(subject: bytes, extensions: bytes) -> bytes:
    algorithm = _sequence(_oid("2a8648ce3d040302"))
    validity = _sequence(_element(0x17, b"260101000000Z") + _element(0x18, b"20510630010203Z"))
    key = _sequence(_sequence(_oid("2a8648ce3d0201") + _oid("2a8648ce3d030107")) + _element(0x03, b"\0" * 66))
    first = b"\xa0\x03\x02\x01\x02" + b"\x02\x01\x01" + algorithm + _sequence(b"") + validity
    return _sequence(_sequence(first + subject + key + extensions) + algorithm + _element(0x03, b"\0" * 70))


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def _sequence(content: bytes) -> bytes:
    return _element(0x30, content)


def _set(content: bytes) -> bytes:
    return _element(0x31, content)


def _oid(digits: str) -> bytes:
    return _element(0x06, bytes.fromhex(digits))


def _text(text: str) -> bytes:
    return _element(0x0C, text.encode())
