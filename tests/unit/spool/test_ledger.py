"""Which messages are live: the bits say what plain sets would say."""

from hypothesis import given
from hypothesis import strategies as st

from mta.spool.format import FIRST_OFFSET, MESSAGE_HEAD, RECORD, make_ref, ref_segment
from mta.spool.ledger import Ledger

PLACES = st.tuples(st.integers(1, 3), st.integers(0, 400))


def ref(place: tuple[int, int]) -> int:
    """Records of 72 octets in some segments, the shortest there are."""
    return make_ref(1, place[0], FIRST_OFFSET + 72 * place[1])


def test_no_record_of_a_message_is_as_short_as_a_granule() -> None:
    least_envelope = len(b"\x95\xc4\x00\x91\x91\xc4\x01x\xc2\xa0\xc4\x00")
    assert RECORD.size + MESSAGE_HEAD.size + least_envelope > 64


@given(st.lists(st.tuples(st.booleans(), PLACES)))
def test_it_is_a_set(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    ledger, live = Ledger(), set()
    for adds, place in steps:
        if adds:
            assert ledger.add(ref(place), 1) is (ref(place) not in live)
            live.add(ref(place))
        else:
            assert ledger.finish(ref(place), 0) is (ref(place) in live)
            live.discard(ref(place))
    assert ledger.total == len(live)
    for segment in range(1, 4):
        assert ledger.live(1 << 32 | segment) == sum(ref_segment(r) == (1 << 32 | segment) for r in live)
    left = ledger.references()
    assert all(r in ledger for r in live)
    candidates = [list(c) for c in left]
    assert len(candidates) == len(live)
    assert all(any(r in c for c in candidates) for r in live)
    for r in live:
        left.discard(r)
    assert list(left) == []


@given(st.integers(2, 9), st.data())
def test_a_message_lives_until_its_last_part_is_finished(parts: int, data: st.DataObject) -> None:
    ledger = Ledger()
    before = data.draw(st.sets(st.integers(0, parts - 1), max_size=parts - 1))
    ledger.add(ref((1, 1)), parts, before)
    assert ledger.finished_parts(ref((1, 1)), parts) == sorted(before)
    rest = data.draw(st.permutations([p for p in range(parts) if p not in before]))
    for part in rest[:-1]:
        assert not ledger.finish(ref((1, 1)), part)
        assert not ledger.finish(ref((1, 1)), part), "twice is once"
    assert ledger.finish(ref((1, 1)), rest[-1])
    assert not ledger.finish(ref((1, 1)), rest[-1])
    assert ledger.total == 0
