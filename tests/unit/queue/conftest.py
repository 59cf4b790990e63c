"""What the tests of the queue share."""

from collections.abc import Iterator

import pytest

from tests.kit.queue import NOW, TIME


@pytest.fixture(autouse=True)
def clock() -> Iterator[list[float]]:
    """The time of the queue manager; change the item to move it."""
    TIME[0] = NOW
    yield TIME
    TIME[0] = NOW
