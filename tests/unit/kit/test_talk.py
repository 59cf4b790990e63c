"""Dot-stuffing of the raw client."""

from __future__ import annotations

import pytest

from tests.kit.talk import stuffed


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (b"", b""),
        (b"a\r\n", b"a\r\n"),
        (b".\r\n", b"..\r\n"),
        (b".\r\n.\r\n", b"..\r\n..\r\n"),
        (b"a\r\n..b\r\nc.d\r\n", b"a\r\n...b\r\nc.d\r\n"),
    ],
)
def test_stuffed(text: bytes, wire: bytes) -> None:
    assert stuffed(text) == wire
