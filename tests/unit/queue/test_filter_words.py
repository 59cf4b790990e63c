"""The filter language: places of errors, patterns, and trees written back as words."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config.values import octets, seconds
from mta.model import MessageId
from mta.queue.filter import (
    COMPARISONS,
    QUEUE,
    Both,
    Compares,
    Either,
    Everything,
    Filter,
    FilterError,
    Is,
    Matches,
    Not,
    parse_filter,
    written,
)
from mta.queue.patterns import expression, glob

NUMBERS = {
    "attempts": st.integers(0, 10**9 - 1).map(float),
    "priority": st.integers(-9, 9).map(float),
    "hold": st.integers(0, 10**6).map(float),
    "age": st.sampled_from(["1ms", "90s", "1h30m", "0.1s", "2.345678m", "5d"]).map(seconds),
    "next": st.integers(0, 10**9).map(float),
    "size": st.sampled_from(["64K", "1.5M", "3"]).map(octets).map(float),
}
SAFE = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")) | st.sampled_from('"\\() *?'), max_size=12)


def _regex(text: str) -> bool:
    try:
        expression(text)
    except ValueError:
        return False
    return True


LEAVES: st.SearchStrategy[Filter] = (
    st.builds(Is, st.just("id"), st.integers(0, 2**60 - 1).map(MessageId))
    | st.builds(Is, st.just("state"), st.sampled_from(QUEUE.states))
    | st.builds(Matches, st.sampled_from(QUEUE.texts), SAFE.map(glob))
    | st.builds(Matches, st.sampled_from(("reply", *QUEUE.texts)), SAFE.filter(_regex).map(expression))
    | st.sampled_from(sorted(NUMBERS)).flatmap(
        lambda key: st.builds(Compares, st.just(key), st.sampled_from(list(COMPARISONS)), NUMBERS[key])
    )
)
TREES: st.SearchStrategy[Filter] = st.recursive(
    LEAVES | st.just(Everything()),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Both, st.lists(inner.filter(lambda f: f != Everything()), min_size=2, max_size=4).map(tuple))
        | st.builds(Either, st.lists(inner, min_size=2, max_size=4).map(tuple))
    ),
    max_leaves=12,
)


@given(TREES)
def test_what_is_written_is_read_again(tree: Filter) -> None:
    assert parse_filter([written(tree)]) == tree


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("state=held and  age>1h", "state=held age>3600"),
        ("(state=held or state=active) (domain=a.b)", "(state=held or state=active) domain=a.b"),
        ("not reply~busy", "reply!~busy"),
        ("not (state=held size>1M)", "not (state=held size>1048576)"),
        ('reply~"too \\"many\\""', 'reply~"too \\"many\\""'),
        ("age<250ms", "age<0.25s"),
        ("sender=", "sender="),
        ("not not all", "not not all"),
    ],
)
def test_words(typed: str, words: str) -> None:
    assert written(parse_filter([typed])) == words


@pytest.mark.parametrize(
    ("words", "marked"),
    [
        (["state=held", "age>long"], "age>long"),
        (["state=held and colour=blue or size>1M"], "colour=blue"),
        (["(state=held", "size>1M"], "("),
        (["state=held)"], ")"),
        (["sender~[a", "state=held"], "sender~[a"),
        (["size>1M", 'reply~"x'], '"x'),
        (["size>1M", "or", "or", "state=held"], "or"),
    ],
)
def test_a_mark_stands_under_what_is_wrong(words: list[str], marked: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(words)
    text, line, mark = str(caught.value).split("\n")
    assert text
    assert line == "  " + " ".join(words)
    start, end = mark.index("^"), len(mark)
    assert line[start:end] == marked
    assert set(mark.strip()) == {"^"}


def test_what_is_missing_at_the_end_is_marked_there() -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(["state=held", "and"])
    assert str(caught.value).endswith("\n  state=held and\n                 ^")


@given(st.lists(st.text(alphabet='aeinot=~<>!()" \\1hK*[].@', max_size=12), max_size=4))
def test_errors_point_into_the_filter(words: list[str]) -> None:
    with contextlib.suppress(FilterError):
        parse_filter(words)
        return
    with pytest.raises(FilterError) as caught:
        parse_filter(words)
    assert 0 <= caught.value.start <= caught.value.end <= len(" ".join(words)) + 2


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("ann@x.test", "ANN@x.test", "ann@x.test.org"),
        ("*@x.test", "a@X.TEST", "a@y.test"),
        ("news*", "News-1@x", "old-news@x"),
        ("*bounce*", "a-BOUNCE-b", "bunce"),
        ("", "", "x"),
        ("*", "", None),
        ("**", "anything", None),
        ("a?c", "abc", "abbc"),
        ("a[0-9]*@*.test", "a7x@b.test", "ax@b.test"),
        ("a*b*c", "aXbYc", "acb"),
    ],
)
def test_globs(pattern: str, yes: str, no: str | None) -> None:
    assert glob(pattern).search(yes)
    assert no is None or glob(pattern).search(no) is None


@given(st.text("ab*?.", max_size=8), st.text("abAB.", max_size=8))
def test_globs_are_those_of_fnmatch(pattern: str, text: str) -> None:
    import fnmatch

    assert bool(glob(pattern).search(text)) == fnmatch.fnmatchcase(text.lower(), pattern.lower())


@pytest.mark.parametrize("evil", ["(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*a){20}", "([a-zA-Z]+)*$"])
def test_no_expression_is_slow(evil: str) -> None:
    """With a matcher that goes back these take longer than anybody lives."""
    began = time.perf_counter()
    assert expression(evil).search("a" * 50_000 + "!") in (True, None)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("wrong", ["(?=x)", r"(a)\1", "[", "(((a{100}){100}){100})", "a" * 1001])
def test_what_could_be_slow_is_no_expression(wrong: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        expression(wrong)


def test_a_long_glob_is_none() -> None:
    with pytest.raises(ValueError, match="longer than"):
        glob("a*" * 501)
