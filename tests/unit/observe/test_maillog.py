"""The mail log: whole lines, nothing from outside can forge one."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
