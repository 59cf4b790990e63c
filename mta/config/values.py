"""Values of settings as people write them: durations, sizes, addresses, next hops.

Each parser takes what TOML gave and returns the typed value, or raises ValueError with the problem in words.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import pwd
import re
from collections.abc import Sequence
from pathlib import Path

from mta.config.settings import NO_RATE, Address, CoolDown, Network, NextHop, Octets, Rate, Seconds
from mta.idn import a_labels

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_SIZES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_RATE = re.compile(r"(\d{1,7})\s*/\s*(s|m|h|d|sec|second|min|minute|hour|day)", re.ASCII)
_MOST_IN_A_WINDOW = 1_000_000
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST_SOCKET = 107  # unix(7): 108 with the NUL behind it
_KINDS = ("smtp", "lmtp", "maildir", "mx", "hold", "discard")


def seconds(value: object) -> Seconds:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value!r} is negative; a duration is not")
        return Seconds(finite(value))
    if isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and _DURATION.sub("", value).strip() == "":
            return Seconds(finite(sum(float(number) * _UNITS[unit] for number, unit in parts)))
    raise ValueError(f'{value!r} is no duration; write "250ms", "30s", "5m", "1h30m", "5d" or a number of seconds')


def finite(value: float) -> float:
    """TOML knows inf and nan, and whole numbers of any length."""
    if not -(2.0**53) < value < 2.0**53 or math.isnan(value):  # beyond, floats lose whole numbers
        raise ValueError("must be a number of reasonable size")
    return float(value)


def octets(value: object) -> Octets:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value!r} is negative; a size is not")
        return Octets(int(finite(value)))
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return Octets(int(finite(float(match[1]) * (1 << _SIZES[match[2].upper()]))))
    raise ValueError(f'{value!r} is no size; write "64M", "256K" or a number of octets')


def rate(value: object) -> Rate:
    """ "60/m", or "none"."""
    if value == "none":
        return NO_RATE
    if isinstance(value, str) and (match := _RATE.fullmatch(value.strip())) and 0 < int(match[1]) <= _MOST_IN_A_WINDOW:
        return Rate(int(match[1]), int(_UNITS[match[2][0]]))
    raise ValueError(f'{value!r} is no rate; write "5/s", "60/m", "1000/h", "9000/d" (at most a million) or "none"')


def cool_down(pattern: str, action: object) -> CoolDown:
    """ "421 4.7.28" = "pause 30m", or "slow"."""
    if not pattern.strip() or not pattern.isprintable():
        raise ValueError(f'{pattern!r} names no reply; write "421", "421 4.7.28" or words of its text')
    if action == "slow":
        return CoolDown(pattern, 0.0)
    verb, _, span = action.partition(" ") if isinstance(action, str) else ("", "", "")
    if verb != "pause":
        raise ValueError(f'{action!r} is nothing that can follow a reply; write "pause 30m" or "slow"')
    if not (wait := seconds(span)):
        raise ValueError(f"{action!r} is no pause at all")
    return CoolDown(pattern, wait)


def user(value: object) -> str:
    """A user of this machine, by name or number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return str(value)
    name = _text(value)
    if name.isdigit():
        return name
    try:
        pwd.getpwnam(name)
    except KeyError:
        near = difflib.get_close_matches(name, [entry.pw_name for entry in pwd.getpwall()], 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise ValueError(f"there is no user {name!r} on this machine{hint}") from None
    return name


def address(value: object) -> Address:
    """ "127.0.0.1:25" or "[::1]:25"."""
    text = _text(value)
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or (":" in bare) != (bare != host):
        raise ValueError(f'{text!r} is no address with a port; write "127.0.0.1:25" or "[::1]:25"')
    try:
        return Address(str(ipaddress.ip_address(bare)), _port(port))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def listen_address(value: object, base: Path) -> Address:
    """An address as above, or "unix:PATH"; relative paths begin at the folder of the configuration file."""
    text = _text(value)
    if not text.startswith("unix:"):
        return address(value)
    file = str(path(text.removeprefix("unix:"), base))
    if len(file.encode("utf-8")) > _LONGEST_SOCKET:
        raise ValueError(f"{file} is too long for a unix socket, whose path has at most {_LONGEST_SOCKET} octets")
    return Address("", 0, file)


def mode(value: object) -> str:
    """Permissions in octal, as a string: TOML's 660 is another number than chmod's."""
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        raise ValueError(f'{value!r} are no permissions; write them in octal and quotes, as in "0660"')
    return value


def network(value: object) -> Network:
    text = _text(value)
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f'{error}; write "192.0.2.0/24", "2001:db8::/32" or one address') from None


def path(value: object, base: Path) -> Path:
    """A path; relative ones begin at the folder of the configuration file."""
    text = _text(value)
    if not text:
        raise ValueError("is an empty path")
    return base / text


def database(value: object, base: Path) -> str:
    """ "sqlite:PATH", whose path may be relative, or anything else as it is."""
    text = _text(value)
    return f"sqlite:{base / text.removeprefix('sqlite:')}" if text.startswith("sqlite:") else text


def domain(value: object) -> str:
    """A domain name, in lower case and in ASCII."""
    text = _text(value).lower()
    if not text.isascii():
        try:
            text = a_labels(text)
        except ValueError:
            raise ValueError(f"{text!r} is no domain name, and has no form that begins with xn--") from None
    if not text or len(text) > 253 or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError(f"{text!r} is no domain name")
    return text


def pattern(value: object) -> str:
    """ "*", "*.domain" or a domain name."""
    text = _text(value)
    if text == "*":
        return text
    if text.startswith("*."):
        return "*." + domain(text[2:])
    return domain(text)


def choice(value: object, allowed: Sequence[str]) -> str:
    if value in allowed:
        return str(value)
    near = difflib.get_close_matches(str(value), allowed, 1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise ValueError(f"{value!r} is not one of {', '.join(allowed)}{hint}")


def next_hop(value: object, base: Path) -> NextHop:
    """See settings.NextHop for the forms."""
    text = _text(value)
    kind, colon, rest = text.partition(":")
    if kind == "pipe":
        raise ValueError("pipe: is not available in this version")
    if kind not in _KINDS or (not colon and kind != "mx") or (kind in ("hold", "discard", "mx") and rest):
        raise ValueError(
            f"{text!r} is no next hop; write smtp:HOST[:PORT], lmtp:HOST:PORT, lmtp:unix:PATH, maildir:TEMPLATE,"
            " mx, hold: or discard:"
        )
    if kind == "maildir":
        return NextHop(kind="maildir", path=_template(rest, base), text=text)
    if kind == "smtp":
        host, port = _host(rest, 25)
        return NextHop(kind="smtp", host=host, port=port, text=text)
    if kind == "lmtp":
        return _lmtp(rest, base, text)
    return NextHop(kind="mx" if kind == "mx" else "hold" if kind == "hold" else "discard", text=text)


def _lmtp(rest: str, base: Path, text: str) -> NextHop:
    if rest.startswith("unix:"):
        return NextHop(kind="lmtp", path=str(path(rest.removeprefix("unix:"), base)), text=text)
    host, port = _host(rest, 0)
    if not port:
        raise ValueError(f"{text!r}: lmtp needs a port, as in lmtp:127.0.0.1:24")
    return NextHop(kind="lmtp", host=host, port=port, text=text)


def _template(template: str, base: Path) -> str:
    names = re.findall(r"\{([^{}]*)\}", template)
    if "local" not in names or set(names) - {"local", "domain"} or re.search(r"[{}]", re.sub(r"\{\w+\}", "", template)):
        raise ValueError(f"{template!r} must contain {{local}}, may contain {{domain}}, and nothing else in braces")
    return str(base / template)


def _host(text: str, port: int) -> tuple[str, int]:
    """HOST, HOST:PORT, [IPv6] or [IPv6]:PORT."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no host; write [::1] or [::1]:25")
        return str(ipaddress.IPv6Address(host)), _port(rest[1:]) if rest else port
    host, colon, number = text.partition(":")
    if ":" in number:
        raise ValueError(f"{text!r}: an IPv6 address goes in brackets")
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        host = domain(host)
    return host, _port(number) if colon else port


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} is no port; ports are 1 to 65535")
    return int(text)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} must be a string in quotes")
    if not value.isprintable():
        raise ValueError(f"{value!r} has a control character in it")
    return value
