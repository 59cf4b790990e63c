"""The mail log: whole lines, nothing from outside can forge one."""

import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mta.observe._lines as native
from mta.model import id_text
from mta.observe.maillog import MailLog, printable, quoted


@given(st.one_of(st.text(), st.binary()))
def test_text_from_outside_stays_on_its_line(text: str | bytes) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable()
    assert quoted(text).count('"') == 2


def test_plain_text_is_left_alone() -> None:
    assert printable("user@example.org") == "user@example.org"
    assert printable("Zoë".encode()) == "Zoë"
    assert printable(b"\xff") == "\\x5cxff"
    assert printable('"a b"@home.test') == '"a b"@home.test'
    assert quoted('a "b"') == "\"a 'b'\""


@pytest.mark.parametrize("character", "\x1b\x7f\x85\x9b\u2028\u202e\u2066\u200b\u061c\ufeff\U000e0041\ud800", ids=ascii)
def test_what_a_terminal_obeys_or_hides_is_escaped(character: str) -> None:
    assert printable(f"a{character}b") == f"a\\x{ord(character):02x}b"


def test_lines_gather_until_the_turn_of_the_loop_ends(tmp_path: Path) -> None:
    asked = []
    log = MailLog(tmp_path / "mail.log", asked.append)
    log("ID1", "received", "from=<a>")
    log("ID2", "received", "from=<b>")
    assert len(asked) == 1
    assert (tmp_path / "mail.log").read_text() == ""
    asked[0]()
    lines = (tmp_path / "mail.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["ID1 received from=<a>", "ID2 received from=<b>"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in lines)


def test_reopening_follows_a_rotated_file(tmp_path: Path) -> None:
    log = MailLog(tmp_path / "mail.log")
    log("ID1", "received", "")
    (tmp_path / "mail.log").rename(tmp_path / "mail.log.1")
    log.reopen()
    log("ID2", "received", "")
    assert "ID1" in (tmp_path / "mail.log.1").read_text()
    assert "ID2" in (tmp_path / "mail.log").read_text()


def test_a_closed_log_has_all_that_was_said_and_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log = MailLog(tmp_path / "mail.log", lambda flush: None)
    log("ID1", "received", "")
    log.close()
    log("ID2", "received", "")
    log.flush()
    assert len(os.listdir("/proc/self/fd")) == before
    assert "ID1" in (tmp_path / "mail.log").read_text()
    assert "ID2" not in (tmp_path / "mail.log").read_text()


def test_the_extension_is_built_from_this_source() -> None:
    source = Path(native.__file__).with_name("_lines.pyx")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == native.SOURCE_HASH, "stale: run `make build`"


def test_the_stub_names_what_the_module_has() -> None:
    stub = Path(native.__file__).with_name("_lines.pyi").read_text()
    names = {n for n in [*dir(native), *dir(native.Lines)] if not n.startswith("__")}
    assert {n for n in names if n not in stub} == set()


def lines() -> native.Lines:
    return native.Lines(printable, lambda second: b"2026-11-23T12:00:00")


def behind_the_stamp(line: bytes) -> str:
    """A line without its time, which the clock of this machine says."""
    assert re.match(rb"2026-11-23T12:00:00\.\d{3}Z ", line)
    return line[25:].decode()


WORDS = st.text(st.characters(exclude_categories=["Cs"]))


@given(WORDS, st.binary(), st.binary(), st.binary(), st.integers(0, 2**62), st.integers(0, 2**62), st.text())
def test_a_received_line_is_what_the_plain_words_are(
    client: str, helo: bytes, sender: bytes, recipient: bytes, recipients: int, octets: int, more: str
) -> None:
    made = lines()
    made.received("ID1", client, helo, sender, recipient, recipients, octets, more)
    plain = (
        f"ID1 received client={client} helo={printable(helo)} from=<{printable(sender)}>"
        f" to=<{printable(recipient)}> recipients={recipients} size={octets}{more}\n"
    )
    assert behind_the_stamp(made.take()) == plain.encode("utf-8", "backslashreplace").decode()


@given(st.integers(0, 2**60 - 1), st.binary(), WORDS, st.floats(-1e9, 1e9), st.text())
def test_a_delivered_line_is_what_the_plain_words_are(
    message_id: int, recipient: bytes, hop: str, delay: float, status: str
) -> None:
    made = lines()
    made.delivered(message_id, recipient, hop, delay, status)
    seconds = delay if delay > 0 else 0.0
    assert behind_the_stamp(made.take()) == (
        f"{id_text(message_id)} delivered to=<{printable(recipient)}> relay={hop or 'none'} delay={seconds:.1f}"
        f" status={quoted(status)}\n"
    )


@given(st.lists(st.tuples(WORDS, WORDS, st.text())))
def test_lines_are_taken_in_their_order(steps: list[tuple[str, str, str]]) -> None:
    made = lines()
    for step in steps:
        made.step(*step)
    plain = [f"{name} {event} {fields}\n".encode("utf-8", "backslashreplace") for name, event, fields in steps]
    assert made.size == sum(map(len, plain)) + 25 * len(plain)
    taken = made.take()
    assert made.size == 0
    assert made.take() == b""
    for line in plain:
        assert taken[25 : 25 + len(line)] == line
        taken = taken[25 + len(line) :]
    assert taken == b""


def test_a_line_that_cannot_be_finished_is_not_there() -> None:
    def fails(text: str | bytes) -> str:
        raise KeyError(text)

    made = native.Lines(fails, lambda second: b"2026-11-23T12:00:00")
    with pytest.raises(KeyError):
        made.received("ID1", "client", b"helo\xff", b"", b"", 1, 1, "")
    assert made.take() == b""
    with pytest.raises(ValueError, match="below zero"):
        made.received("ID1", "client", b"helo", b"", b"", 1, -1, "")
    assert made.take() == b""
