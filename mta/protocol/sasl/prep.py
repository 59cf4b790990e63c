"""SASLprep (RFC 4013), the profile of stringprep (RFC 3454) for user names and passwords.

The tables are the standard library's, which are those of RFC 3454: Unicode 3.2, as the RFC wants it. Characters that
Unicode did not have then are let through, as in a query (RFC 3454 §7): today's passwords hold today's characters.
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (  # RFC 4013 §2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """The prepared form; ValueError when the text holds what it may not, or nothing is left of it."""
    if text.isascii() and text.isprintable() and text:
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c
        for c in text
        if not stringprep.in_table_b1(c)  # commonly mapped to nothing
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared:
        raise ValueError("is empty")
    for character in prepared:
        if any(prohibited(character) for prohibited in _PROHIBITED):
            raise ValueError(f"has U+{ord(character):04X} in it, which is not allowed")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """RFC 3454 §6: a text from right to left begins and ends so, and holds nothing from left to right."""
    if not any(map(stringprep.in_table_d1, text)):
        return
    if any(map(stringprep.in_table_d2, text)):
        raise ValueError("mixes writing from the left and from the right")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("must begin and end in its own direction")


def prepared_name(octets: bytes) -> str:
    """A user name from the wire; ValueError (UnicodeDecodeError is one)."""
    return saslprep(octets.decode("utf-8"))
