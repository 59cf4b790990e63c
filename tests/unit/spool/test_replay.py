"""What a start does a million times: the native table and the quick look at envelopes, beside plain references."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mta.spool._replay as native
from mta.model import Change, Envelope, Options, Recipient, lane_of, part_domains, wants_of
from mta.spool.format import LARGE, MESSAGE, MESSAGE_HEAD, RECORD, STATE
from mta.spool.state import pack_changes, unpack_changes

KINDS = ("finished", "waiting", "held")


def test_the_extension_is_built_from_this_source() -> None:
    source = Path(native.__file__).with_name("_replay.pyx")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == native.SOURCE_HASH, "stale: run `make build`"


def test_the_stub_names_what_the_module_has() -> None:
    stub = Path(native.__file__).with_name("_replay.pyi").read_text()
    names = {n for n in (*dir(native), *dir(native.Newest)) if not n.startswith("__")}
    assert {n for n in names if n not in stub} == set()


changes = st.builds(
    Change,
    ref=st.integers(0, 3).map(lambda segment: segment << 24),
    id=st.integers(1, 2**60) | st.integers(1, 4),
    part=st.integers(0, 2**16),
    kind=st.sampled_from(KINDS),
    attempts=st.integers(0, 65535),
    due=st.integers(0, 2**40),
    done=st.lists(st.integers(0, 50_000), max_size=3).map(tuple),
    why=st.text(max_size=20),
    told=st.integers(0, 3),
)


@given(st.lists(changes, max_size=60))
def test_the_newest_change_is_given_as_a_dictionary_would(fed: list[Change]) -> None:
    newest = native.Newest()
    expected: dict[tuple[int, int], Change] = {}
    for _, payload in pack_changes(fed):
        assert newest.feed(payload, {1, 2}) == sum(1 for _ in unpack_changes(payload))
    for change in fed:
        place = change.id, change.part
        if change.ref >> 24 in {1, 2} and (
            change.kind == "finished" or place not in expected or expected[place].kind != "finished"
        ):
            expected[place] = change
    assert len(newest) == len(expected)
    for (message_id, part), change in expected.items():
        taken = newest.take(message_id, part)
        assert taken is not None
        kind, attempts, due, told, tail = taken
        assert (KINDS[kind], attempts, due, told) == (change.kind, change.attempts, change.due, change.told)
        done, why = msgspec.msgpack.decode(tail) if tail else ([], "")
        assert (tuple(done), why) == (change.done, change.why)
        assert newest.take(message_id, part) is None


def test_a_table_grows_and_keeps_its_tails() -> None:
    newest = native.Newest()
    for first in range(0, 20_000, 500):
        batch = [Change(ref=0, id=n, part=0, kind="held", why=f"reason {n}") for n in range(first + 1, first + 501)]
        for _, payload in pack_changes(batch):
            newest.feed(payload, {0})
    assert len(newest) == 20_000
    for n in range(1, 20_001):
        taken = newest.take(n, 0)
        assert taken is not None
        assert msgspec.msgpack.decode(taken[4])[1] == f"reason {n}"


def test_a_record_that_is_cut_off_is_refused() -> None:
    ((_, payload),) = pack_changes([Change(ref=0, id=1, part=0, kind="held", why="why")])
    for length in range(1, len(payload)):
        with pytest.raises(ValueError, match="cut off"):
            native.Newest().feed(payload[:length], {0})


addresses = st.binary(max_size=300) | st.sampled_from([b"", b"user", b"a@B.Example", b'"@"@X.test', b"a@" + b"d" * 253])


def looked_at(data: bytes, records: list[tuple[int, int, int, int, int]]) -> list[Any]:
    return native.heads(data, records, 0)


options = st.none() | st.builds(
    Options,
    user=st.text(max_size=300),
    utf8=st.booleans(),
    ret=st.sampled_from(["", "FULL", "HDRS"]),
    envid=st.binary(max_size=100),
    hold_until=st.just(0) | st.integers(0, 2**45),
    deliver_by=st.just(0) | st.integers(0, 2**45),
    by_return=st.booleans(),
    priority=st.just(0) | st.integers(-9, 9),
    auth=st.none() | st.binary(max_size=300),
    tenant=st.just("") | st.text(max_size=64),
    pool=st.just("") | st.text(max_size=64),
    rank=st.just(0) | st.integers(-9, 9),
)


@given(
    addresses,
    st.lists(st.builds(Recipient, addresses, st.integers(0, 15), st.binary(max_size=300)), max_size=3),
    st.binary(max_size=50),
    st.integers(0, 2**40),
    options,
)
def test_the_only_domain_is_that_of_the_model(
    sender: bytes, to: list[Recipient], text: bytes, large: int, options: Options | None
) -> None:
    envelope = Envelope(sender=sender, recipients=tuple(to), client="192.0.2.1", helo=b"h" * 40, options=options)
    encoded = msgspec.msgpack.encode(envelope)
    payload = MESSAGE_HEAD.pack(len(encoded), 0, large) + encoded + text
    flags = LARGE if large else 0
    records = [(MESSAGE, flags, 0, len(payload), 1), (STATE, 0, 0, len(payload), 0)]
    one = len(to) == 1 and not (
        options is not None and max(len(options.tenant.encode()), len(options.pool.encode())) > 255
    )
    asked = (part_domains(to)[0], wants_of(envelope), lane_of(envelope)) if one else (None, 0, None)
    assert looked_at(bytes(RECORD.size) + payload, records) == [(len(text) + large, large, *asked), None]


def test_where_the_options_are_that_the_quick_look_heeds() -> None:
    """HOLD_UNTIL to RANK in the .pyx."""
    fields = Options.__struct_fields__
    assert [fields[n] for n in (6, 7, 10)] == ["hold_until", "deliver_by", "priority"]
    assert fields[13:16] == ("tenant", "pool", "rank")
    assert (Envelope.__struct_fields__[5], Recipient.__struct_fields__[0]) == ("options", "address")


@pytest.mark.parametrize("fields", [2, 5])
def test_envelopes_of_earlier_versions_are_read_quickly_too(fields: int) -> None:
    encoded = msgspec.msgpack.encode([b"s@x", [[b"a@Y.test"]], False, "192.0.2.1", b"h"][:fields])
    payload = MESSAGE_HEAD.pack(len(encoded), 0, 0) + encoded
    assert looked_at(bytes(RECORD.size) + payload, [(MESSAGE, 0, 0, len(payload), 1)]) == [(0, 0, b"y.test", 0, None)]


@pytest.mark.parametrize("tenant", ["", "acme", "x" * 64])
def test_options_of_later_versions_are_read_quickly_too(tenant: str) -> None:
    options = [*msgspec.msgpack.decode(msgspec.msgpack.encode(Options(user="u", tenant=tenant))), "more", 7, None]
    encoded = msgspec.msgpack.encode([b"s@x", [[b"a@Y.test"]], False, "192.0.2.1", b"h", options])
    payload = MESSAGE_HEAD.pack(len(encoded), 0, 0) + encoded
    assert looked_at(bytes(RECORD.size) + payload, [(MESSAGE, 0, 0, len(payload), 1)]) == [
        (0, 0, b"y.test", 0, (tenant, "") if tenant else None)
    ]


@given(st.binary(max_size=120))
def test_what_is_no_envelope_has_no_domain_and_does_no_harm(payload: bytes) -> None:
    (head,) = looked_at(bytes(RECORD.size) + payload, [(MESSAGE, 0, 0, len(payload), 1)])
    assert head is None or head[0] >= 0


def test_a_record_outside_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the data"):
        looked_at(bytes(RECORD.size + 10), [(MESSAGE, 0, 0, 11, 1)])
