"""Refusals are tagged at the right place, and a flood of them leaves few lines."""

import pytest

from mta.config.settings import Rate
from mta.receive.refusals import Throttle, tagged


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"550 5.7.1 no\r\n", b"550 5.7.1 no [S1]\r\n"),
        (b"550-5.7.1 no\r\n550 5.7.1 at all\r\n", b"550-5.7.1 no\r\n550 5.7.1 at all [S1]\r\n"),
        (b"452 4.3.1 a\r\n452 4.3.1 b\r\n", b"452 4.3.1 a [S1]\r\n452 4.3.1 b [S1]\r\n"),
    ],
)
def test_where_the_id_stands(reply: bytes, said: bytes) -> None:
    assert tagged(reply, "S1") == said


def test_lines_beyond_the_rate_are_counted_and_told_once() -> None:
    throttle = Throttle(Rate(3, 60))
    assert [throttle.allows(120 + n) for n in range(5)] == [True] * 3 + [False] * 2
    assert throttle.take_omitted(150) == 0
    assert throttle.take_omitted(180) == 2
    assert throttle.take_omitted(180) == 0
    assert throttle.allows(180)


def test_without_a_rate_all_is_written() -> None:
    throttle = Throttle(Rate(0, 60))
    assert all(throttle.allows(0) for _ in range(10_000))
