"""The words of notices: files of other languages, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mta.config.wording import ENGLISH, SHIPPED
from tests.unit.config.test_load import GOOD, loaded, problems

GERMAN = (SHIPPED / "de.toml").read_text("utf-8")


def test_english_is_built_in(tmp_path: Path) -> None:
    assert loaded(tmp_path, GOOD).notices.wording == ENGLISH


def test_a_language_that_comes_with_the_program(tmp_path: Path) -> None:
    found = loaded(tmp_path, GOOD + '[notices]\nlanguage = "de"\n').notices.wording
    assert found.delayed.subject == "Ihre Nachricht verspätet sich"
    assert found.relayed.then == ""


def test_a_folder_of_ones_own_goes_first(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words/de.toml").write_text(GERMAN.replace("verspätet sich", "kommt später"), "utf-8")
    found = loaded(tmp_path, GOOD + '[notices]\nlanguage = "de"\ntemplates = "words"\n').notices.wording
    assert found.delayed.subject == "Ihre Nachricht kommt später"
    assert loaded(tmp_path, GOOD + '[notices]\ntemplates = "words"\n').notices.wording == ENGLISH


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{hostname}.", "{host}.", "3: server: {host} is not known here; {hostname} may stand in braces"),
        (
            "{until} weiter",
            "{unti} weiter",
            "18: delayed.then: {unti} is not known here; {hostname}, {until} may",
        ),
        (
            "nicht noch einmal versucht",
            "bis {until} versucht",
            "13: failed.then: {until} is not known here; {hostname}",
        ),
        ("{count} weitere", "{count:0x} weitere", "6: more: {count} is not known here; {count} may stand in braces"),
        ("{hostname}.", "{hostname.x}.", "3: server: {hostname.x} is not known here; {hostname} may stand in braces"),
        ("der Grund", "der {} Grund", "5: reason: {} is not known here; nothing may stand in braces"),
        (
            "der Grund",
            "der { Grund",
            "5: reason: expected '}' before end of string; a brace of its own",
        ),
        ('"Ihre Nachricht verspätet sich"', '"a\\nb"', "16: delayed.subject: must be one line"),
        ("der Grund", "der\\u202eGrund", "5: reason: has characters that are not printable"),
        ("whole =", "hole =", '7: hole: unknown key; did you mean "whole"?'),
        ("[double]", "[dubble]", '28: dubble: unknown key; did you mean "double"?'),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GERMAN
    (tmp_path / "words").mkdir()
    (tmp_path / "words/de.toml").write_text(GERMAN.replace(old, new, 1), "utf-8")
    found = problems(tmp_path, GOOD + '[notices]\nlanguage = "de"\ntemplates = "words"\n')
    assert any(line.startswith(f"words/de.toml:{told}") for line in found), found


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('language = "xx"', "6: notices.language: there is no xx.toml in "),
        ('language = "../de"', "6: notices.language: '../de' is no language; write"),
        ('templates = "nowhere"', "6: notices.templates: nowhere is no folder"),
        ('postmaster = "me"', "6: notices.postmaster: 'me' is no address"),
        ('double_bounces = ["content"]', "6: notices.double_bounces: means nothing without `postmaster`"),
    ],
)
def test_what_is_wrong_with_the_section(tmp_path: Path, keys: str, told: str) -> None:
    (line,) = problems(tmp_path, f"{GOOD}[notices]\n{keys}\n")
    assert line.startswith(f"mta.toml:{told}")


def test_a_file_that_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words/de.toml").write_bytes(GERMAN.encode("latin-1"))
    (line,) = problems(tmp_path, GOOD + '[notices]\nlanguage = "de"\ntemplates = "words"\n')
    assert line.startswith("words/de.toml: is not UTF-8")
