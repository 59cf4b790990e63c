"""What the tests of the queue share."""

import pytest

from tests.kit.queue import NOW


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the queue manager; change the item to move it."""
    now = [NOW]
    monkeypatch.setattr("mta.queue.manager.time.time", lambda: now[0])
    return now
