"""Message ids: unique over processes and restarts, sorted by time, readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.model import ID_LENGTH, IdSource, id_text, id_time_ms, parse_id

NOW = 1_795_000_000_000


def test_ids_sort_by_time_and_carry_it() -> None:
    source = IdSource(1)
    ids = [source.next(NOW + t) for t in (0, 0, 1, 5, 5)]
    assert ids == sorted(set(ids))
    assert [id_time_ms(i) - NOW for i in ids] == [0, 0, 1, 5, 5]
    assert sorted(map(id_text, ids)) == [id_text(i) for i in ids]


def test_two_workers_never_make_the_same_id() -> None:
    a, b = IdSource(1), IdSource(2)
    assert not {a.next(NOW) for _ in range(5000)} & {b.next(NOW) for _ in range(5000)}


def test_more_than_a_millisecond_holds_borrow_from_the_next() -> None:
    source = IdSource(0)
    ids = [source.next(NOW) for _ in range(10_000)]
    assert len(set(ids)) == 10_000
    assert ids == sorted(ids)


def test_a_clock_set_back_makes_no_id_twice() -> None:
    before = IdSource(3)
    newest = max(before.next(NOW + 1000) for _ in range(5000))
    after = IdSource(3, floor=newest)
    assert after.next(NOW) > newest


@given(st.integers(0, (1 << 60) - 1))
def test_text_and_back(value: int) -> None:
    text = id_text(value)
    assert len(text) == ID_LENGTH
    assert parse_id(text) == parse_id(text.lower()) == value


def test_letters_that_are_misheard_are_forgiven() -> None:
    assert parse_id("1OIL00000000") == parse_id("101100000000")


@pytest.mark.parametrize("text", ["", "ABC", "1AHHN4AQ0C0U", "1AHHN4AQ0C00 ", "1AHHN4AQ0C\n0"])
def test_what_is_no_id_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a message id"):
        parse_id(text)


def test_a_worker_number_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="worker 128"):
        IdSource(128)
