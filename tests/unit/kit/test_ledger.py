"""The ledger sees what is missing, altered and doubled."""

from __future__ import annotations

from tests.kit.ledger import Ledger, Load
from tests.kit.sink import Sink

TRACE = b"Received: from x\r\n by y\r\n"


def entered(*keys: str) -> tuple[Ledger, list[bytes]]:
    ledger = Ledger()
    texts = [TRACE + ledger.enter(key, b"\r\nbody of " + key.encode() + b"\r\n") for key in keys]
    ledger.acknowledged.update({key: f"ID{key}" for key in keys})
    return ledger, texts


def test_all_there() -> None:
    ledger, texts = entered("1", "2")
    account = ledger.audit(texts)
    assert account.sound
    assert (account.doubled, account.open) == (0, 0)


def test_line_ends_do_not_matter() -> None:
    ledger, texts = entered("1")
    assert ledger.audit([texts[0].replace(b"\r\n", b"\n")]).sound


def test_one_is_missing() -> None:
    ledger, texts = entered("1", "2")
    assert ledger.audit(texts[:1]).missing == ["2 (id ID2)"]


def test_one_is_altered() -> None:
    ledger, texts = entered("1", "2")
    assert ledger.audit([texts[0], texts[1][:-3] + b"\r\n"]).altered == ["2"]
    assert not ledger.audit([*texts, b"Subject: of unknown origin\r\n\r\n"]).sound


def test_copies_and_unacknowledged_ones_are_counted() -> None:
    ledger, texts = entered("1", "2")
    del ledger.acknowledged["2"]
    account = ledger.audit([texts[0], texts[0], texts[0], texts[1]])
    assert account.sound
    assert (account.doubled, account.open) == (2, 1)


def test_load_against_a_real_server() -> None:
    refused = {"bob@far.test": ["", "451 4.3.0 not now", ""]}
    with Sink(texts=refused) as sink:
        with Load(sink.port, "ann@here.test", "bob@far.test", sessions=3, pause=0.0) as load:
            load.wait(30)
            ledger = load.stop()
        account = ledger.audit(got.content for got in sink.got)
        assert account.sound, account
        assert len(ledger.acknowledged) == len(sink.got) >= 30
        assert len(ledger.digests) == len(sink.got) + 1
