"""Whose a mail is, and how urgent: who says so, and who is believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config.settings import Address, Egress, Listener, Server, Settings, Tenant, Tenants
from mta.model import Envelope, Options, Recipient, lane_of, wants_of
from mta.policy.tenancy import Facts, Tenancy

ACME = Tenant(name="acme", weight=3, users=("anna", "@acme.test"), senders=("acme.example", "*.acme.example"))
BULK = Tenant(name="Bulk", priority=-4, senders=("news.test", "*"))


def rules(
    *tenants: Tenant,
    header: str = "X-Tenant",
    undeclared: bool = False,
    egress: tuple[Egress, ...] = (),
    **listener: object,
) -> Tenancy | None:
    made = Listener(address=(Address("127.0.0.1", 25),), **listener)
    server = Server(hostname="mx.test", state_dir=Path("/x"), runtime_dir=Path("/y"))
    tenancy = Tenants(header=header, undeclared=undeclared)
    given = Settings(server=server, listener=(made,), tenant=tenants, tenants=tenancy, egress=egress)
    return Tenancy.of(given, made)


def placed(tenancy: Tenancy | None, options: Options | None = None, **facts: object) -> Options | None:
    assert tenancy is not None
    return tenancy.place(options, Facts(**{"sender": b"x@y.test", **facts}))


def tenant(tenancy: Tenancy | None, **facts: object) -> str:
    found = placed(tenancy, **facts)
    return "" if found is None else found.tenant


def test_without_anything_configured_there_is_nothing_to_do() -> None:
    assert rules(header="") is None
    assert rules(header="", priority=1) is not None
    assert placed(rules(ACME)) is None
    asked = Options(user="x")
    assert placed(rules(ACME), asked) is asked


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({}, "door"),
        ({"sender": b"a@acme.example"}, "door"),  # anybody may write that
        ({"sender": b"a@acme.example", "trusted": True}, "acme"),
        ({"sender": b"a@b.Acme.Example", "trusted": True}, "acme"),
        ({"sender": b"a@other.test", "trusted": True}, "Bulk"),
        ({"sender": b"", "trusted": True}, "Bulk"),
        ({"sender": b"a@news.test", "user": "zoe"}, "Bulk"),
        ({"sender": b"a@news.test", "user": "Anna"}, "acme"),
        ({"sender": b"a@news.test", "user": "bob@ACME.test"}, "acme"),
        ({"sender": b"a@news.test", "user": "anna", "user_tenant": "bulk"}, "Bulk"),
        ({"sender": b"a@news.test", "user": "anna", "user_tenant": "nobody-knows"}, "acme"),
        ({"sender": b"a@news.test", "user": "anna", "named": "door"}, "door"),
    ],
)
def test_who_says_whose_it_is(facts: dict[str, object], name: str) -> None:
    assert tenant(rules(ACME, BULK, Tenant(name="door"), tenant="door"), **facts) == name


@pytest.mark.parametrize(
    ("text", "name", "left"),
    [
        (b"Subject: x\r\n\r\nX-Tenant: acme\r\n", "", b"Subject: x\r\n\r\nX-Tenant: acme\r\n"),
        (b"X-Tenant: acme\r\nSubject: x\r\n\r\nhi\r\n", "acme", b"Subject: x\r\n\r\nhi\r\n"),
        (b"Subject: x\r\nx-tenant : ACME\r\n\r\nhi\r\n", "acme", b"Subject: x\r\n\r\nhi\r\n"),
        (b"X-Tenant:\r\n acme\r\nA: b\r\nX-TENANT: Bulk\r\n\r\n", "acme", b"A: b\r\n\r\n"),
        (b"X-Tenant: who\r\nA: b\r\n\r\n", "", b"A: b\r\n\r\n"),
        (b"X-Tenant-Id: acme\r\n\r\n", "", b"X-Tenant-Id: acme\r\n\r\n"),
        (b"Subject: a long\r\n X-Tenant: acme\r\n\r\n", "", b"Subject: a long\r\n X-Tenant: acme\r\n\r\n"),
        (b"X-Tenant: acme\r\nSubject: cut off", "acme", b"Subject: cut off"),
        (b"", "", b""),
    ],
)
def test_a_header_names_it_and_is_taken_out(text: bytes, name: str, left: bytes) -> None:
    tenancy = rules(ACME, BULK)
    assert tenancy is not None
    assert tenancy.read_header(text) == (name, left)
    plain = rules(ACME, header="")
    assert plain is not None
    assert plain.read_header(text) == ("", text)


lines = st.sampled_from(
    [b"X-Tenant: acme", b"x-tenant:", b" folded", b"Subject: x", b"no field", b"", b"\xff:", b"X-Tenant : a"]
)


@given(
    st.lists(st.tuples(lines, st.sampled_from([b"\r\n", b"\r\n", b"\n"])), max_size=8) | st.just([]),
    st.binary(max_size=20),
)
def test_only_fields_of_that_name_leave_a_text(parts: list[tuple[bytes, bytes]], rest: bytes) -> None:
    text = b"".join(line + end for line, end in parts) + rest
    tenancy = rules(ACME)
    assert tenancy is not None
    name, left = tenancy.read_header(text)
    assert name in ("", "acme")
    assert len(left) <= len(text)
    assert tenancy.read_header(left) == ("", left), "they are all gone"
    end = text.find(b"\r\n\r\n")
    assert left.endswith(text[end + 4 :] if end >= 0 else b"")


def test_names_that_nobody_declared() -> None:
    tenancy = rules(ACME, undeclared=True)
    assert tenancy is not None
    assert tenancy.read_header(b"X-Tenant: shop-17\r\n\r\n")[0] == "shop-17"
    for odd in (b"a b", b"\xe9", b"x" * 65, b"-x", b"a\x00b"):
        assert tenancy.read_header(b"X-Tenant: " + odd + b"\r\n\r\n") == ("", b"\r\n")


@pytest.mark.parametrize(
    ("asked", "listener", "name", "rank", "wants"),
    [
        (0, 0, "acme", 0, 0),
        (0, -3, "acme", -3, 4),
        (0, -3, "Bulk", -4, 4),
        (0, 3, "", 3, 2),
        (2, -3, "Bulk", 0, 2),
        (-1, 5, "acme", 0, 4),
    ],
)
def test_priorities(asked: int, listener: int, name: str, rank: int, wants: int) -> None:
    tenancy = rules(ACME, BULK, priority=listener)
    found = placed(tenancy, Options(user="u", priority=asked), named=name)
    assert found is not None
    assert (found.user, found.tenant, found.rank, found.priority) == ("u", name, rank, asked)
    envelope = Envelope(sender=b"", recipients=(Recipient(b"a@b"),), options=found)
    assert wants_of(envelope) == wants
    assert lane_of(envelope) == ((name, "") if name else None)


RULES = (
    Egress(pool="vip", tenant="acme", priority="urgent"),
    Egress(pool="acme", tenant="acme"),
    Egress(pool="slow", priority="bulk"),
    Egress(pool="news", sender="*.news.test"),
    Egress(pool="exact", sender="exact.test", priority="normal"),
)


@pytest.mark.parametrize(
    ("sender", "tenant", "priority", "pool"),
    [
        (b"a@b.test", "acme", 3, "vip"),
        (b"a@x.news.test", "acme", -3, "acme"),
        (b"a@x.news.test", "", -3, "slow"),
        (b"a@x.News.test", "", 0, "news"),
        (b"a@news.test", "", 0, ""),
        (b"a@exact.test", "", 0, "exact"),
        (b"a@exact.test", "", 2, ""),
        (b"", "", 0, ""),
    ],
)
def test_the_first_rule_says_by_which_pool_it_leaves(sender: bytes, tenant: str, priority: int, pool: str) -> None:
    tenancy = rules(ACME, egress=RULES)
    options = Options(user="u", priority=priority)
    found = placed(tenancy, options, sender=sender, named=tenant)
    assert found is not None
    assert (found.tenant, found.pool, found.priority) == (tenant, pool, priority)
    envelope = Envelope(sender=sender, recipients=(Recipient(b"a@b"),), options=found)
    assert lane_of(envelope) == ((tenant, pool) if tenant or pool else None)


def test_what_let_a_user_in_says_how_urgent_his_mail_is() -> None:
    tenancy = rules(BULK, Tenant(name="acme"), priority=5)
    found = placed(tenancy, user="u", user_tenant="bulk", user_priority=2)
    assert found == Options(tenant="Bulk", rank=2)
    assert placed(tenancy, Options(priority=-1), user="u", user_priority=2) == Options(priority=-1, tenant="Bulk")


def test_a_rule_for_all_makes_options_where_there_were_none() -> None:
    found = placed(rules(egress=(Egress(pool="out"),), header=""))
    assert found == Options(pool="out")
