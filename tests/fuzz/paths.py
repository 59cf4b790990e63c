"""Addresses on their way in: path, relay rule, Maildir, trace header.

Both readers of paths agree; what they take is within the grammar's octets and lengths; a stranger's recipient is one of
our own; a Maildir lies where its template says; a header stays one header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from mta import _fastparse
from mta.config.settings import Domain, NextHop
from mta.idn import ascii_mailbox
from mta.mail.mailbox import maildir_path
from mta.mail.trace import Tracer
from mta.policy.relay import RelayControl
from mta.protocol import paths
from tests.kit.dialogs import FOLDER
from tests.kit.relaying import AT_HOME, BEHIND, OWN, REFUSED

WATCHED = ("mta.protocol", "mta.mail", "mta.policy.relay")
LONGEST = 300
TEMPLATE = "/m/{domain}/{local}/Maildir"
TOKENS = [
    *(
        b"<",
        b">",
        b"@",
        b":",
        b",",
        b".",
        b'"',
        b"\\",
        b"[",
        b"]",
        b"IPv6:",
        b"::",
        b"ffff",
        b"127.0.0.1",
        b"255",
        b"256",
    ),
    *(
        b"<>",
        b"<Postmaster>",
        b"@home.test",
        b"@behind.test",
        b"@far.test",
        b"%",
        b"!",
        b"..",
        b"/",
        b" ",
        b"\t",
        b"-",
        b"_",
    ),
    *(
        b"x" * 63,
        b"x" * 64,
        b"x" * 65,
        b"y" * 200,
        b"\xc3\xa9",
        b"\xe2\x80\xa8",
        b"\xef\xbd\x88",
        b"\xe3\x80\x82",
        b"\xed\xa0\x80",
        b"\xff",
        b"\0",
        b"\r",
        b"\n",
        b"\x7f",
        b"xn--",
        b"{local}",
    ),
]
_RELAY = RelayControl(
    [ipaddress.ip_network("192.0.2.0/24")],
    [
        Domain(name=OWN, deliver=NextHop(kind="maildir", path=TEMPLATE)),
        Domain(name=BEHIND, deliver=NextHop(kind="smtp", host="10.0.0.1", port=25)),
    ],
)
_STRANGER = _RELAY.judge_for("198.51.100.1", "mx")
_TRACER = Tracer("mx.test")


def check(data: bytes) -> None:
    found = paths.parse_path(data)
    assert _fastparse.parse_path(data) == found, data
    wide = paths.parse_path(data, utf8=True)
    assert _fastparse.parse_path(data, utf8=True) == wide, data
    assert found is None or wide == found, data
    if wide is not None:
        beyond_ascii(data, *wide)
    name = data.partition(b" ")[0]
    origin = _TRACER.origin(name, "192.0.2.1", b"ESMTP")
    assert origin.count(b"\r\n") == 1, data
    assert origin.isascii(), data
    maildir(data)
    if found is not None:
        address, end = found
        assert end <= min(len(data), paths.MAX_PATH), data
        mailbox(data, address)


def beyond_ascii(data: bytes, address: bytes, end: int) -> None:
    """Of a good path with SMTPUTF8: what is kept of it has an ASCII domain and ends no line."""
    assert end <= min(len(data), paths.MAX_PATH), data
    assert not any(c < " " or "\x7f" <= c < "\xa0" or c in "\u2028\u2029\u202e" for c in address.decode()), data
    kept = ascii_mailbox(address)
    assert kept.rpartition(b"@")[2].isascii(), data
    if b"@" in kept and not _STRANGER(kept):
        assert kept.rpartition(b"@")[2].lower() in (OWN.encode(), BEHIND.encode()), data


def mailbox(data: bytes, address: bytes) -> None:
    """Of a good path."""
    assert address.isascii(), data
    assert not address or address.decode().isprintable(), data
    header = _TRACER.received(b"Received: x", "0" * 12, address, 0)
    assert header.count(b"\r\n") == (3 if address else 2), data
    if address in (b"", b"postmaster"):
        return
    local, at, domain = address.rpartition(b"@")
    assert at, data
    assert local, data
    assert domain, data
    refusal = _STRANGER(address)
    assert not refusal or (refusal.startswith(b"550 5.") and refusal.endswith(b"\r\n")), data
    if not refusal:
        assert domain.lower() in (OWN.encode(), BEHIND.encode()), data
        assert domain.lower() == OWN.encode() or not set(local) & set(b"%!@"), data


def maildir(address: bytes) -> None:
    """Of anything."""
    path = maildir_path(TEMPLATE, address)
    if path is not None:
        root, top, domain, local, last = path.parts
        assert (root, top, last) == ("/", "m", "Maildir"), address
        assert not domain.startswith("."), address
        assert not local.startswith("."), address
        assert Path(f"/m/{domain}/{local}/Maildir") == path, address
        assert str(path).isprintable(), address


def seeds() -> Iterator[bytes]:
    for address in (*REFUSED, *AT_HOME):
        yield b"<" + address + b">"
    for name in ("paths-accepted", "paths-refused"):
        for line in (FOLDER / f"{name}.txt").read_bytes().split(b"\n"):
            if b":<" in line:
                yield line[line.index(b":<") + 1 :]
