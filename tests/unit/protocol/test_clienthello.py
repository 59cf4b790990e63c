"""The reader of ClientHello, against what real clients send, cut in every way, and against damage."""

from __future__ import annotations

import ssl

import pytest

from mta.protocol.clienthello import (
    LONGEST,
    TLS_1_2,
    TLS_1_3,
    ClientHello,
    HelloError,
    HelloReader,
    Malformed,
    NotTls,
    parse_hello,
)


def real_hello(
    server_name: str | None = "mx.example.org",
    alpn: list[str] | None = None,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bytes:
    """The octets that OpenSSL begins with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = newest
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def read(data: bytes) -> ClientHello | None:
    return HelloReader().feed(data)


def record(content: bytes) -> bytes:
    return b"\x16\x03\x01" + len(content).to_bytes(2, "big") + content


def message(body: bytes) -> bytes:
    return b"\x01" + len(body).to_bytes(3, "big") + body


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def body(*extensions: bytes) -> bytes:
    joined = b"".join(extensions)
    return b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\xc0\x2b" + b"\x01\0" + len(joined).to_bytes(2, "big") + joined


def test_what_openssl_sends() -> None:
    hello = read(real_hello(alpn=["h2", "smtp"]))
    assert hello is not None
    assert hello.server_name == "mx.example.org"
    assert hello.alpn == (b"h2", b"smtp")
    assert hello.versions == (TLS_1_3, TLS_1_2)
    assert hello.newest == "TLSv1.3"
    assert 0x1301 in hello.ciphers
    assert 0x0403 in hello.signatures
    assert 0x001D in hello.groups
    assert hello.extended_master_secret


def test_what_is_not_said() -> None:
    hello = read(real_hello(server_name=None, newest=ssl.TLSVersion.TLSv1_2))
    assert hello is not None
    assert (hello.server_name, hello.alpn, hello.versions) == ("", None, (TLS_1_2,))


def test_without_extensions_at_all() -> None:
    """As clients of before 2003 are."""
    old = b"\x03\x01" + bytes(32) + b"\0" + b"\0\x02\0\x2f" + b"\x01\0"
    assert parse_hello(old) == ClientHello(versions=(0x0301,), ciphers=(0x2F,))
    assert parse_hello(old).newest == "TLSv1.0"


def test_every_split_of_the_octets() -> None:
    whole = real_hello(alpn=["smtp"])
    expected = read(whole)
    for cut in range(1, len(whole)):
        reader = HelloReader()
        assert reader.feed(whole[:cut]) is None
        assert reader.feed(whole[cut:]) == expected
        assert reader.octets == whole
    reader = HelloReader()
    found = [reader.feed(whole[n : n + 1]) for n in range(len(whole))]
    assert found == [None] * (len(whole) - 1) + [expected]


@pytest.mark.parametrize("size", [16, 17, 100, 511])
def test_a_message_in_several_records(size: int) -> None:
    """RFC 8446 §5.1: a message may be cut into records anywhere, even within its head."""
    whole = real_hello()
    content = whole[5:]
    cut = record(content[:2]) + b"".join(record(content[n : n + size]) for n in range(2, len(content), size))
    assert read(cut) == read(whole)


def test_what_follows_the_message_is_kept_for_the_handshake() -> None:
    reader = HelloReader()
    assert reader.feed(real_hello() + b"more") is not None
    assert reader.octets.endswith(b"more")


@pytest.mark.parametrize(
    "data", [b"EHLO x.example\r\n", b"GET / HTTP/1.1\r\n", b"\x80\x2e\x01\0\x02", b"\0", b"\x16\x02\0", b"\r\n"]
)
def test_other_protocols(data: bytes) -> None:
    with pytest.raises(NotTls):
        read(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x16\x03\x01\0\0", "a record of 0 octets"),
        (b"\x16\x03\x01\x40\x01", "a record of 16385 octets"),
        (record(b"\x02\0\0\0"), "handshake message 2"),
        (record(b"\x01" + (LONGEST + 1).to_bytes(3, "big")), f"ClientHello of {LONGEST + 1} octets"),
        (record(b"\x01") * 65, "too many records|of 65793 octets"),
        (record(b"\x01\0\0\x64") + b"\x17\x03\x03", "type 23 within"),
        (record(message(body() + b"x")), "behind the ClientHello"),
        (record(message(body()[:40])), "ends too early"),
        (record(message(body(extension(16, b"\0\x05\x04smtpx")))), "behind the list"),
        (record(message(body(extension(16, b"\0\x05\x05smtp")))), "ends too early"),
        (record(message(body(extension(16, b"")))), "ends too early"),
        (record(message(body(extension(0, b""), extension(0, b"")))), "extension 0 twice"),
        (record(message(body(extension(43, b"\x03\x03\x04\x03")))), "half a number"),
    ],
)
def test_damage(data: bytes, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        read(data)


def test_many_small_records_end() -> None:
    reader = HelloReader()
    with pytest.raises(Malformed, match="too many records"):
        reader.feed(record(b"\x01\0\x10\0") + record(b"x") * 64)


@pytest.mark.parametrize(
    ("name", "read_as"),
    [
        (b"MX.Example.ORG", "mx.example.org"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"a_b.example", "a_b.example"),
        (b"mx.example.", ""),
        (b"mx example", ""),
        (b"a\r\nReceived: x", ""),
        (b"-a.example", ""),
        (b"b\xc3\xbccher.example", ""),
        (b"x" * 64, ""),
        (b".".join([b"x" * 60] * 5), ""),
        (b"", ""),
    ],
)
def test_server_names(name: bytes, read_as: str) -> None:
    entry = b"\0" + len(name).to_bytes(2, "big") + name
    assert parse_hello(body(extension(0, len(entry).to_bytes(2, "big") + entry))).server_name == read_as


def test_of_server_names_only_host_names_count() -> None:
    entries = b"\x07\0\x01x" + b"\0\0\x01a" + b"\0\0\x01b"
    assert parse_hello(body(extension(0, len(entries).to_bytes(2, "big") + entries))).server_name == "a"


def test_an_error_is_one_of_two() -> None:
    assert issubclass(NotTls, HelloError)
    assert issubclass(Malformed, HelloError)
