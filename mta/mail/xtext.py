"""Addresses and names as DSN parameters carry them: xtext (RFC 3461 §4) and the forms of UTF-8 addresses (RFC 6533 §3).

Pure. What is not well formed stays as it came: these values are shown to people and programs, and decide nothing.
"""

from __future__ import annotations

import re

_XTEXT = re.compile(rb"\+([0-9A-F]{2})")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_TYPE = re.compile(rb"([0-9A-Za-z-]{1,32});(.*)", re.DOTALL)
_KEPT = frozenset(map(chr, range(0x21, 0x7F))) - set("\\+=")  # QCHAR of RFC 6533 §3


def decode_xtext(text: bytes) -> bytes:
    """The octets that xtext stands for."""
    return _XTEXT.sub(lambda match: bytes((int(match[1], 16),)), text)


def decode_embedded(text: str) -> str:
    r"""An address in which characters are written as \x{HEX}, with the characters themselves."""

    def character(match: re.Match[str]) -> str:
        number = int(match[1], 16)
        # Not for a surrogate, nor above the last character: these have no UTF-8.
        return chr(number) if number < 0xD800 or 0xE000 <= number <= 0x10FFFF else match[0]

    return _EMBEDDED.sub(character, text)


def encode_embedded(text: str) -> str:
    r"""The address in ASCII, each other character as \x{HEX}."""
    return "".join(c if c in _KEPT else f"\\x{{{ord(c):02X}}}" for c in text)


def split_typed(orcpt: bytes) -> tuple[str, bytes]:
    """Type and value of an ORCPT parameter; the type is "" where there is none."""
    match = _TYPE.fullmatch(orcpt)
    return (match[1].decode("ascii"), match[2]) if match is not None else ("", orcpt)
