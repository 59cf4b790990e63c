"""Values as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.config import values
from mta.config.settings import Address, NextHop

BASE = Path("/etc/mta")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("5d", 432000),
        ("2w", 1209600),
        ("1.5h", 5400),
        ("1h 30m", 5400),
        (7, 7),
        (0.5, 0.5),
        (0, 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert values.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "bad",
    ["", "5", "m", "-5m", "5 minutes", "1h30", "x5m", -1, True, None, [], "9" * 400 + "d", float("inf"), float("nan")],
)
def test_no_durations(bad: object) -> None:
    with pytest.raises(ValueError):
        values.seconds(bad)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("64M", 64 << 20),
        ("256K", 256 << 10),
        ("1g", 1 << 30),
        ("1.5K", 1536),
        ("10MiB", 10 << 20),
        ("5B", 5),
        ("2MB", 2 << 20),
        ("1T", 1 << 40),
        ("12", 12),
        (12, 12),
        (0, 0),
    ],
)
def test_sizes(text: object, octets: int) -> None:
    assert values.octets(text) == octets


@pytest.mark.parametrize("bad", ["", "M", "-1M", "1X", "1 2M", -1, 1.5, True, None, "9" * 400 + "M", "9" * 30, 10**30])
def test_no_sizes(bad: object) -> None:
    with pytest.raises(ValueError):
        values.octets(bad)


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:25", "127.0.0.1", 25, "127.0.0.1:25"),
        ("0.0.0.0:65535", "0.0.0.0", 65535, "0.0.0.0:65535"),
        ("[::]:25", "::", 25, "[::]:25"),
        ("[2001:DB8:0::1]:2525", "2001:db8::1", 2525, "[2001:db8::1]:2525"),
    ],
)
def test_addresses(text: str, host: str, port: int, shown: str) -> None:
    assert values.address(text) == Address(host, port)
    assert str(values.address(text)) == shown


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "127.0.0.1",
        ":25",
        "::1:25",
        "[::1]",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "localhost:25",
        25,
        "127.0.0.1:+5",
        "127.0.0.1:٢٥",
        "[::1:25",
        "::1]:25",
        "[127.0.0.1:25",
        "[127.0.0.1]:25",
        "127.0.0.1:25\n",
    ],
)
def test_no_addresses(bad: object) -> None:
    with pytest.raises(ValueError):
        values.address(bad)


@pytest.mark.parametrize(
    "text", ["example.org", "EXAMPLE.org", "a_b.example.org", "xn--bcher-kva.example", "localhost"]
)
def test_domains(text: str) -> None:
    assert values.domain(text) == text.lower()


@pytest.mark.parametrize("text", ["bücher.example", "BÜCHER.example", "bu\u0308cher.example"])
def test_domains_beyond_ascii_are_kept_in_ascii(text: str) -> None:
    assert values.domain(text) == "xn--bcher-kva.example"
    assert values.pattern(f"*.{text}") == "*.xn--bcher-kva.example"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "a..b",
        "a.",
        ".a",
        "-a.b",
        "a-.b",
        "b\u20acr.example",
        "b\u00fccher.",
        "a b",
        "*.a",
        "l" * 64 + ".a",
        "a." * 127 + "a",
        5,
    ],
)
def test_no_domains(bad: object) -> None:
    with pytest.raises(ValueError):
        values.domain(bad)


@pytest.mark.parametrize("text", ["*", "*.example.net", "example.net"])
def test_patterns(text: str) -> None:
    assert values.pattern(text) == text


@pytest.mark.parametrize("bad", ["", "*.", "**", "*example.net", "a.*.b", "*.*"])
def test_no_patterns(bad: str) -> None:
    with pytest.raises(ValueError):
        values.pattern(bad)


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("smtp:relay.example.net", NextHop("smtp", "relay.example.net", 25)),
        ("smtp:RELAY.example.net:587", NextHop("smtp", "relay.example.net", 587)),
        ("smtp:192.0.2.1:26", NextHop("smtp", "192.0.2.1", 26)),
        ("smtp:[2001:db8::0:1]", NextHop("smtp", "2001:db8::1", 25)),
        ("smtp:[::1]:2525", NextHop("smtp", "::1", 2525)),
        ("lmtp:127.0.0.1:24", NextHop("lmtp", "127.0.0.1", 24)),
        ("lmtp:[::1]:24", NextHop("lmtp", "::1", 24)),
        ("lmtp:unix:/run/lmtp.sock", NextHop("lmtp", path="/run/lmtp.sock")),
        ("lmtp:unix:lmtp.sock", NextHop("lmtp", path="/etc/mta/lmtp.sock")),
        ("maildir:/var/mail/{local}", NextHop("maildir", path="/var/mail/{local}")),
        ("maildir:{domain}/{local}/", NextHop("maildir", path="/etc/mta/{domain}/{local}")),
        ("mx", NextHop("mx")),
        ("mx:", NextHop("mx")),
        ("hold:", NextHop("hold")),
        ("discard:", NextHop("discard")),
    ],
)
def test_next_hops(text: str, hop: NextHop) -> None:
    found = values.next_hop(text, BASE)
    assert found.text == text
    assert (found.kind, found.host, found.port, found.path) == (hop.kind, hop.host, hop.port, hop.path)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "smtp",
        "smtp:",
        "smtp:a:b",
        "smtp:a:0",
        "smtp:a:",
        "smtp:::1",
        "smtp:[::1",
        "smtp:[::1]25",
        "smtp:[a]",
        "lmtp:127.0.0.1",
        "lmtp:unix:",
        "lmtp:unix",
        "maildir:",
        "maildir:/x",
        "maildir:/{local}{user}",
        "maildir:{local",
        "maildir:{local}/{}",
        "maildir:{{local}}",
        "hold",
        "hold:x",
        "discard:x",
        "mx:x",
        "pipe:/bin/true",
        "SMTP:a",
        5,
        "smtp:[127.0.0.1]",
        "maildir:/x/{local}\n",
    ],
)
def test_no_next_hops(bad: object) -> None:
    with pytest.raises(ValueError):
        values.next_hop(bad, BASE)


def test_networks() -> None:
    assert str(values.network("192.0.2.0/24")) == "192.0.2.0/24"
    assert str(values.network("2001:db8::/32")) == "2001:db8::/32"
    assert str(values.network("192.0.2.1")) == "192.0.2.1/32"
    for bad in ("192.0.2.1/24", "192.0.2.0/33", "", "net", 5):
        with pytest.raises(ValueError):
            values.network(bad)


def test_paths_begin_at_the_folder_of_the_file() -> None:
    assert values.path("var", BASE) == Path("/etc/mta/var")
    assert values.path("/var", BASE) == Path("/var")
    for bad in ("", "a\0b", 5):
        with pytest.raises(ValueError):
            values.path(bad, BASE)
