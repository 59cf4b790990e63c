"""Texts for hosts that take less: what is encoded, what stays, what cannot be done."""

from __future__ import annotations

import base64
import email
import email.policy
import mmap
import quopri
import tempfile
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.downgrade import Need, Unfit, fitted, is_ascii

SEVEN = Need.SEVEN_BIT
LINES = Need.LINES
BOTH = SEVEN | LINES


def fit(text: bytes, need: Need = SEVEN, *, utf8: bool = False) -> bytes:
    pieces: list[bytes] = []
    fitted(text, need, pieces.append, utf8=utf8)
    return b"".join(pieces)


def crlf(text: str) -> bytes:
    return text.encode("utf-8").replace(b"\n", b"\r\n")


def leaves(text: bytes) -> list[tuple[str, bytes]]:
    """Type and decoded content of each leaf, as another program reads them."""

    def walk(part: Message) -> list[tuple[str, bytes]]:
        if part.is_multipart():
            return [leaf for child in part.get_payload() for leaf in walk(child)]  # type: ignore[union-attr]
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        return [(part.get_content_type(), content)]

    return walk(email.message_from_bytes(text, policy=email.policy.SMTP))


# ---- what stays


def test_ascii_stays_as_it_is() -> None:
    text = crlf("Subject: x\nContent-Transfer-Encoding: 7bit\n\nhello\n.\n")
    assert fit(text) == text


def test_a_label_alone_needs_nothing() -> None:
    text = crlf("Subject: x\nContent-Transfer-Encoding: 8bit\n\nhello\n")
    assert fit(text) == text


MIXED = crlf(
    """From: a@x.test
MIME-Version: 1.0
Content-Type: multipart/mixed; x="; boundary=no"; boundary="a b"
Content-Transfer-Encoding: 8bit

preamble
--a b\x20\x20
Content-Type: text/plain; charset=utf-8
content-transfer-encoding:  8BIT
X-Kept: yes

gr\u00fc\u00df gott = \u20ac, and enough that is plain

--a b
Content-Type: multipart/alternative;
\tboundary=inner

--inner

plain
--inner
Content-Type: text/html; charset=utf-8

<p>na\u00efve</p>
--inner--
epilogue of inner
--a b
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Subject: nested
Content-Type: text/plain; charset=utf-8

enough that is plain \u00e4
--a b not a delimiter
--a bc
--a b
Content-Type: application/octet-stream
Content-Transfer-Encoding: base64

AAEC
--a b--
epilogue
"""
)


def test_only_the_leaves_that_need_it_are_encoded() -> None:
    assert fit(MIXED) == crlf(
        """From: a@x.test
MIME-Version: 1.0
Content-Type: multipart/mixed; x="; boundary=no"; boundary="a b"
Content-Transfer-Encoding: 7bit

preamble
--a b\x20\x20
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable
X-Kept: yes

gr=C3=BC=C3=9F gott =3D =E2=82=AC, and enough that is plain

--a b
Content-Type: multipart/alternative;
\tboundary=inner

--inner

plain
--inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<p>na=C3=AFve</p>
--inner--
epilogue of inner
--a b
Content-Type: message/rfc822
Content-Transfer-Encoding: 7bit

Subject: nested
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

enough that is plain =C3=A4
--a b not a delimiter
--a bc
--a b
Content-Type: application/octet-stream
Content-Transfer-Encoding: base64

AAEC
--a b--
epilogue
"""
    )


def test_a_mapped_file_reads_the_same() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(MIXED)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            pieces: list[bytes] = []
            fitted(mapped, SEVEN, pieces.append)
            assert b"".join(pieces) == fit(MIXED)
            assert not is_ascii(mapped)


def test_a_digest_holds_messages() -> None:
    text = crlf("Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\n\u00e4\u00f6\n--b--\n")
    assert b"=C3=A4" in fit(text) or b"w6TDtg==" in fit(text)
    assert fit(text).startswith(b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n")
    assert b"\r\nSubject: x\r\n" in fit(text)


def test_what_readers_ignore_loses_its_high_octets() -> None:
    text = crlf("Content-Type: multipart/mixed; boundary=b\n\npr\u00e9\n--b\n\nx\n--b--\n\u00e9pi\n")
    assert fit(text) == crlf("Content-Type: multipart/mixed; boundary=b\n\npr??\n--b\n\nx\n--b--\n??pi\n")


def test_a_multipart_that_never_ends() -> None:
    text = crlf("Content-Type: multipart/mixed; boundary=b\n\n--b\nX: y\n\nabcdefghijklmn \u00e9\n")
    assert fit(text).endswith(b"abcdefghijklmn =C3=A9\r\n")


# ---- without MIME


def test_a_text_without_mime_gets_its_fields() -> None:
    assert fit(b"Subject: x\r\n\r\nabcdefghijk \xe4\r\n") == (
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\nSubject: x\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nabcdefghijk =E4\r\n"
    )


def test_much_that_is_not_ascii_becomes_base64() -> None:
    content = ("\u65e5\u672c\u8a9e" * 60 + "\n").encode().replace(b"\n", b"\r\n")
    text = b"Mime-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + content
    result = fit(text)
    assert b"Content-Transfer-Encoding: base64\r\n" in result
    assert all(len(line) <= 76 for line in result.split(b"\r\n"))
    assert base64.b64decode(result.partition(b"\r\n\r\n")[2]) == content
    assert result.endswith(b"\r\n")


# ---- binary


def test_binary_parts_become_base64() -> None:
    blob = bytes(range(256)) * 300
    head = b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n--b\r\n"
    part = b"Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    text = head + part + blob + b"\r\n--b--\r\n"
    for need in (LINES, BOTH):
        result = fit(text, need)
        assert leaves(result) == [("image/png", blob)]
        assert (b"Content-Transfer-Encoding: 7bit" in result) == (need == BOTH)
        assert b"binary" not in result


def test_binary_text_with_clean_lines_is_only_relabelled() -> None:
    text = crlf(
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: binary\n\n\u00e4\n"
    )
    assert fit(text, LINES) == text.replace(b"binary", b"8bit")


def test_a_long_line_is_no_line() -> None:
    text = b"MIME-Version: 1.0\r\n\r\n" + b"x" * 998 + b"\r\n"
    assert fit(text, LINES) == text
    longer = b"MIME-Version: 1.0\r\n\r\n" + b"x" * 999 + b"\r\n"
    assert leaves(fit(longer, LINES)) == [("text/plain", b"x" * 999 + b"\r\n")]


# ---- what cannot be done

CANNOT = {
    "header": ("Subject: \u00e4\n\nx\n", "5.6.3"),
    "header of a part": ("Content-Type: multipart/mixed; boundary=b\n\n--b\nX: \u00e4\n\nx\n--b--\n", "5.6.3"),
    "header of a nested message": ("Content-Type: message/rfc822\n\nSubject: \u00e4\n\nx\n", "5.6.3"),
    "partial": ("Content-Type: message/partial; id=x\n\n\u00e4\n", "5.6.3"),
    "delivery status": ("Content-Type: message/delivery-status\n\n\u00e4\n", "5.6.3"),
    "no boundary": ("Content-Type: multipart/mixed\n\n\u00e4\n", "5.6.3"),
    "false base64": ("Content-Transfer-Encoding: base64\n\n\u00e4\n", "5.6.3"),
    "false quoted-printable": ("Content-Transfer-Encoding: quoted-printable\n\n\u00e4\n", "5.6.3"),
    "unknown encoding": ("Content-Transfer-Encoding: x-uuencode\n\n\u00e4\n", "5.6.3"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_made_to_fit(name: str) -> None:
    text, enhanced = CANNOT[name]
    with pytest.raises(Unfit) as caught:
        fit(crlf(text))
    assert caught.value.enhanced == enhanced


def test_no_header_at_all() -> None:
    with pytest.raises(Unfit):
        fit(crlf("\n\u00e4\n").removeprefix(b"\r\n"))


def test_too_deep() -> None:
    text = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(40)) + "\n\u00e4\n"
    with pytest.raises(Unfit, match="deep"):
        fit(crlf(text))


def test_internationalised_header() -> None:
    text = crlf("Subject: \u00e4\n\nx\n")
    with pytest.raises(Unfit) as caught:
        fit(text, Need.ASCII_HEADER, utf8=True)
    assert caught.value.enhanced == "5.6.7"
    body = crlf("Subject: a\n\n\u00e4\n")
    assert fit(body, Need.ASCII_HEADER, utf8=True) == body


# ---- any content

LINE = st.binary(max_size=120).map(lambda line: line.translate(None, b"\r\n\0"))


@given(st.lists(LINE, min_size=1), st.booleans())
def test_any_lines_come_back(lines: list[bytes], text: bool) -> None:
    kind = b"text/plain" if text else b"application/x"
    content = b"".join(line + b"\r\n" for line in lines)
    whole = b"MIME-Version: 1.0\r\nContent-Type: " + kind + b"\r\n\r\n" + content
    result = fit(whole, BOTH)
    assert is_ascii(result)
    assert result.endswith(b"\r\n")
    if result == whole:
        assert is_ascii(content)
        return
    head, _, body = result.partition(b"\r\n\r\n")
    assert all(len(line) <= 76 for line in body.split(b"\r\n"))
    assert b"\n" not in body.replace(b"\r\n", b"")
    if head.endswith(b"base64"):
        assert base64.b64decode(body) == content
    else:
        assert quopri.decodestring(body).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") == content


@given(st.binary(max_size=3000), st.sampled_from([LINES, BOTH]))
def test_any_octets_in_a_part_come_back(content: bytes, need: Need) -> None:
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b0undary\r\n\r\n"
    part = b"--b0undary\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    result = fit(head + part + content + b"\r\n--b0undary--\r\n", need)
    label = b"Content-Transfer-Encoding: base64\r\n\r\n"
    if label in result and label not in content:
        body = result.partition(label)[2].partition(b"\r\n--b0undary--")[0]
        assert base64.b64decode(body) == content
    else:
        assert content in result


@given(st.binary(max_size=2000))
def test_nothing_makes_it_raise_but_unfit(text: bytes) -> None:
    for need in (SEVEN, LINES, BOTH, Need.ASCII_HEADER):
        try:
            result = fit(text, need)
        except Unfit:
            continue
        assert need is LINES or need is Need.ASCII_HEADER or is_ascii(result)


def test_long_texts_are_encoded_in_chunks() -> None:
    lines = [b"%06d " % n + b"\xe4" * (n % 3) + b"x" * (n % 60) + b" " * (n % 2) for n in range(8000)]
    content = b"".join(line + b"\r\n" for line in lines)
    text = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=latin1\r\n\r\n" + content
    body = fit(text).partition(b"\r\n\r\n")[2]
    assert quopri.decodestring(body) == content
    assert all(len(line) <= 76 for line in body.split(b"\r\n"))
