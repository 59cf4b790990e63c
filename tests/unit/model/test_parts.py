"""Parts: the numbering of deliveries follows from the envelope alone."""

from hypothesis import given
from hypothesis import strategies as st

from mta.model import Recipient, all_part_members, domain_of, part_domains, part_members

ADDRESSES = st.lists(
    st.sampled_from([b"a@X.example", b"b@x.EXAMPLE", b"c@y.example", b'"q@z"@y.example', b"d@[127.0.0.1]"]),
    min_size=1,
    max_size=30,
)


@given(ADDRESSES)
def test_every_recipient_is_in_exactly_one_part(addresses: list[bytes]) -> None:
    recipients = tuple(map(Recipient, addresses))
    parts = [part_members(recipients, n) for n in range(len(part_domains(recipients)))]
    assert all_part_members(recipients) == tuple(map(tuple, parts))
    assert sorted(i for part in parts for i in part) == list(range(len(addresses)))
    assert all(
        {domain_of(addresses[i]) for i in part} == {domain}
        for part, domain in zip(parts, part_domains(recipients), strict=True)
    )


def test_parts_are_in_order_of_first_appearance() -> None:
    recipients = tuple(map(Recipient, [b"1@b", b"2@a", b"3@B", b"4@c"]))
    assert part_domains(recipients) == [b"b", b"a", b"c"]
    assert part_members(recipients, 0) == [0, 2]


def test_the_domain_is_behind_the_last_at_sign() -> None:
    assert domain_of(b'"a@b.example"@Own.Example') == b"own.example"
    assert domain_of(b"postmaster") == b""
