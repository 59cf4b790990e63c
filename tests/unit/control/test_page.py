"""The page about the control socket names every verb, and no other."""

import re
from pathlib import Path

import pytest

from mta.control.client import Client, Refused
from tests.kit.operator import Control, FakeOperator

PAGE = Path(__file__).parents[3] / "docs" / "control.md"


def test_every_verb_is_on_the_page(tmp_path: Path) -> None:
    with Control(tmp_path, FakeOperator()), Client(tmp_path) as client, pytest.raises(Refused) as caught:
        client.call("help")
    verbs = str(caught.value).partition("known are ")[2].split(", ")
    named = re.findall(r"`(hello|status|trace|top|\w+\.[a-z]\w+)`(?= [|,]|,)", PAGE.read_text())
    assert sorted(verbs) == sorted(set(named))
