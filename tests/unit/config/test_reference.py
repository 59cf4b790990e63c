"""The reference in the documents is the one that the declarations give."""

import dataclasses
import typing
from pathlib import Path

from mta.config.reference import reference
from mta.config.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "run: python -m mta.config.reference > docs/configuration.md"


def test_every_key_is_on_it() -> None:
    page = reference()
    for name, hint in typing.get_type_hints(Settings).items():
        section = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
        assert f"[{name}]" in page
        for field in dataclasses.fields(section):
            assert {"place", "made"} & field.metadata.keys() or f"| `{field.name}` |" in page
