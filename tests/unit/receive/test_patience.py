"""How long a client may take, with the ticks given."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mta.config.settings import Limits, Octets, Seconds
from mta.receive.connection import Connection
from mta.receive.patience import LONG, SILENT, SLOW, Patience

LIMITS = Limits(
    greeting_timeout=Seconds(5),
    command_timeout=Seconds(10),
    data_timeout=Seconds(20),
    stress_timeout=Seconds(3),
    handshake_timeout=Seconds(4),
    session_timeout=Seconds(100),
    data_rate=Octets(10),
    data_window=Seconds(30),
)


def connection(**session: Any) -> Any:
    """What the sweep looks at; the session is real elsewhere (tests/unit/receive/test_connection.py)."""
    state = {"parked": False, "in_data": False, "in_transaction": False, "spoke": True, "lines": 0, "body_size": 0}
    return SimpleNamespace(
        session=SimpleNamespace(**(state | session)),
        active=0,
        began=0,
        since=0,
        progress=-1,
        choked=0,
        shakes_hands=False,
    )


@pytest.fixture
def patience() -> Patience:
    return Patience(LIMITS)


def ended(patience: Patience, client: Any, until: int = 200) -> tuple[int, bytes]:
    """When, and with what words."""
    for tick in range(1, until):
        if farewell := patience.exhausted(cast(Connection, client), tick):
            return tick, farewell
    return 0, b""


def test_silence(patience: Patience) -> None:
    assert ended(patience, connection(spoke=False)) == (6, SILENT)
    assert ended(patience, connection()) == (11, SILENT)
    assert ended(patience, connection(parked=True)) == (0, b"")


def test_under_stress_all_waits_are_short(patience: Patience) -> None:
    patience.sweep(stressed=True)
    assert ended(patience, connection()) == (4, SILENT)
    assert ended(patience, connection(in_data=True)) == (4, SILENT)
    patience.sweep(stressed=False)
    assert ended(patience, connection()) == (11, SILENT)


def test_a_command_that_trickles_in_has_no_more_time(patience: Patience) -> None:
    client = connection(lines=3)
    for tick in range(1, 11):
        client.active = tick
        assert not patience.exhausted(client, tick)
    client.session.lines = 4  # whole at last
    assert not patience.exhausted(client, 11)
    assert not patience.exhausted(client, 21)
    assert patience.exhausted(client, 22) == SILENT


def test_the_time_after_an_answer_begins_with_it(patience: Patience) -> None:
    client = connection(parked=True)
    for tick in range(50):
        assert not patience.exhausted(client, tick)
    client.session.parked = False
    assert not patience.exhausted(client, 59)
    assert patience.exhausted(client, 60) == SILENT


def test_a_text_that_pauses(patience: Patience) -> None:
    client = connection(in_data=True, body_size=1000)
    client.active = 7
    assert ended(patience, client) == (28, SILENT)


@pytest.mark.parametrize(("rate", "end"), [(1, 31), (9, 31), (10, 0), (1000, 0)])
def test_a_text_that_comes_too_slowly(patience: Patience, rate: int, end: int) -> None:
    client = connection(in_data=True, in_transaction=True)
    for tick in range(1, 200):
        client.active, client.session.body_size = tick, rate * tick
        farewell = patience.exhausted(client, tick)
        if farewell:
            assert (tick, farewell) == (end, SLOW)
            return
    assert not end


def test_each_text_has_a_window_of_its_own(patience: Patience) -> None:
    client = connection(in_data=True)
    for tick in range(1, 100):
        client.active = tick
        client.session.body_size = tick % 25
        client.session.in_data = tick % 25 > 0  # the next text begins before the window is over
        client.session.lines += not client.session.in_data
        assert not patience.exhausted(client, tick)


def test_who_does_not_read_his_replies(patience: Patience) -> None:
    client = connection(parked=True)
    client.choked = 5
    assert ended(patience, client) == (26, SILENT)


def test_a_session_ends_between_messages(patience: Patience) -> None:
    client = connection(in_transaction=True)
    for tick in range(1, 150):
        client.session.lines = tick
        assert not patience.exhausted(client, tick)
    client.session.in_transaction = False
    assert patience.exhausted(client, 150) == LONG


def test_no_session_lasts_for_ever_by_small_steps(patience: Patience) -> None:
    """NOOPs in a transaction, chunks of an octet: each is in time, all together are not."""
    for in_data in (False, True):
        client = connection(in_transaction=True, in_data=in_data)
        for tick in range(1, 201):
            client.session.lines = client.active = tick
            client.session.body_size = 1000 * tick
            assert not patience.exhausted(client, tick)
        assert patience.exhausted(client, 201) == LONG


def test_a_session_may_last_for_ever_if_the_operator_says_so() -> None:
    patience = Patience(replace(LIMITS, session_timeout=Seconds(0)))
    client = connection(in_transaction=True)
    for tick in range(1, 1000):
        client.session.lines = tick
        assert not patience.exhausted(client, tick)


def test_a_handshake(patience: Patience) -> None:
    client = connection()
    client.shakes_hands = True
    assert ended(patience, client) == (5, SILENT)
