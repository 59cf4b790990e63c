"""No address leads out of the mail directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.mailbox import maildir_path

TEMPLATE = "var/mail/{domain}/{local}"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (b"bob@example.org", "var/mail/example.org/bob"),
        (b"Bob.Smith@EXAMPLE.org", "var/mail/example.org/bob.smith"),
        (b'"Bob"@example.org', "var/mail/example.org/bob"),
        (b'"a b"@example.org', "var/mail/example.org/a b"),
        (b'"a\\"b\\\\c"@example.org', 'var/mail/example.org/a"b\\c'),
        (b'"a@b"@example.org', "var/mail/example.org/a@b"),
        (b"a+tag@example.org", "var/mail/example.org/a+tag"),
        (b"-rf@example.org", "var/mail/example.org/-rf"),
        (b"{domain}@example.org", "var/mail/example.org/{domain}"),
        ("jürgen@example.org".encode(), "var/mail/example.org/jürgen"),
        (b"a" * 200 + b"@x", f"var/mail/x/{'a' * 200}"),
    ],
)
def test_good_addresses(address: bytes, path: str) -> None:
    assert maildir_path(TEMPLATE, address) == Path(path)


@pytest.mark.parametrize(
    "address",
    [
        b"bob",
        b"",
        b"@example.org",
        b"bob@",
        b'""@example.org',
        b".@example.org",
        b"..@example.org",
        b".bob@example.org",
        b'".."@example.org',
        b'"\\.\\."@example.org',
        b'"../../etc/passwd"@example.org',
        b"../x@example.org",
        b"/etc/passwd@example.org",
        b'"\\/etc"@example.org',
        b"a/b@example.org",
        b"bob@../..",
        b"bob@..",
        b"bob@a/b",
        b"bob@.hidden",
        b"bob\x00@example.org",
        b'"bob\\\x00"@example.org',
        b"bob@example.org\x00",
        b"bob\n@example.org",
        b"bob\x7f@example.org",
        b"bob\x1b[2J@example.org",
        b"bob\xff@example.org",
        "bob\u2028@example.org".encode(),
        "bob\u202e@example.org".encode(),
        b'"bob@example.org',
        b'"bob"x"@example.org',
        b'"bob\\"@example.org',
        b"a" * 201 + b"@example.org",
        ("\u0130" * 70 + "@x").encode(),  # three octets each, once in lower case
        b"bob@" + b"x" * 201,
    ],
)
def test_hostile_addresses(address: bytes) -> None:
    assert maildir_path(TEMPLATE, address) is None


@pytest.mark.parametrize("local", ["\u00c9va", "\u00e9va", "e\u0301va", "E\u0301VA"])
def test_what_looks_the_same_is_one_mailbox(local: str) -> None:
    assert maildir_path("/mail/{local}", f"{local}@x".encode()) == Path("/mail/\u00e9va")


ODD = st.lists(
    st.sampled_from([b".", b"..", b"/", b"\\", b'"', b"@", b"a", b"\x00", b"~", b"\xc0\xaf", b"%2e", b"{local}"])
).map(b"".join)


@given(address=ODD | st.binary(max_size=40))
def test_never_leads_out(address: bytes) -> None:
    path = maildir_path("/mail/{domain}/{local}", address)
    if path is not None:
        assert os.path.normpath(path) == str(path)
        assert len(path.parts) == 4
        assert path.parts[:2] == ("/", "mail")
