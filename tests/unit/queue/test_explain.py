"""One sentence for each place where a delivery can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mta.queue.explain import Facts, explain, span

FACTS = Facts(
    id="1AHHN4AQ0C00",
    state="deferred",
    domain="b.test",
    site="mx.b.test:25",
    kind="smtp",
    attempts=3,
    reason="450 4.2.0 mailbox busy",
    wait=754.0,
    expiry=86400.0 * 4,
    ready_here=0,
    in_hand=0,
    window=64,
    couriers=1,
    recovered=True,
    trouble="",
)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            FACTS,
            "The 3rd attempt at mx.b.test:25 ended with: 450 4.2.0 mailbox busy; the next attempt is in 12m 34s,"
            " and `mta queue retry id=1AHHN4AQ0C00` makes it now.",
        ),
        (
            replace(FACTS, attempts=11, site="", reason="4.4.3 no name server answers."),
            "The 11th attempt at finding a host for b.test ended with: 4.4.3 no name server answers; the next attempt"
            " is in 12m 34s, and `mta queue retry id=1AHHN4AQ0C00` makes it now.",
        ),
        (
            replace(FACTS, expiry=300.0),
            "The 3rd attempt at mx.b.test:25 ended with: 450 4.2.0 mailbox busy; it goes back to its sender in 5m,"
            " as then its time is over.",
        ),
        (
            replace(FACTS, reason="held until Thu, 19 Nov 2026 00:00:00 +0000, as its sender asked", embargo=True),
            "It is held until Thu, 19 Nov 2026 00:00:00 +0000, as its sender asked: in 12m 34s;"
            " `mta queue retry id=1AHHN4AQ0C00` sends it now.",
        ),
        (
            replace(FACTS, state="held", reason="held by an operator"),
            "It is held by an operator; `mta queue release id=1AHHN4AQ0C00` lets it go.",
        ),
        (
            replace(FACTS, state="ambiguous"),
            "Its last attempt was cut short after the text was sent, so that it may have been delivered; it is sent"
            " again in 12m 34s, so that it is not lost.",
        ),
        (
            replace(FACTS, state="active"),
            "A courier has it in hand for mx.b.test:25, in attempt 4.",
        ),
        (
            replace(FACTS, state="resolving"),
            "The name servers are being asked where mail for b.test goes.",
        ),
        (
            replace(FACTS, state="ready", ready_here=2, in_hand=64),
            "It waits for its turn at mx.b.test:25: 64 are on their way there, and 1 more is ready for it.",
        ),
        (
            replace(FACTS, state="ready", ready_here=1),
            "It is about to be sent to mx.b.test:25: it is next.",
        ),
        (
            replace(FACTS, state="ready", couriers=0),
            "It is ready, but no courier process is up to send it; `mta status` and the log of the server say why.",
        ),
        (
            replace(FACTS, state="ready", trouble="the disk is full"),
            "It is ready, but nothing is sent while the spool cannot note that it is: the disk is full.",
        ),
        (
            replace(FACTS, state="ready", recovered=False),
            "The queue manager started a moment ago and still reads the spool; it is sent after that.",
        ),
    ],
)
def test_sentences(facts: Facts, sentence: str) -> None:
    assert explain(facts) == sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "a moment"), (1, "1s"), (60, "1m"), (3605, "1h"), (90000, "1d 1h"), (86400 * 5, "5d"), (-4, "a moment")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
