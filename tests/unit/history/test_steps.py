"""Lines of the mail log are understood, by the quick reader and by the one that reads all, alike."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mta.history._scan as native
from mta.history.steps import BOUNCED, DELETED, DELIVERED, EXPIRED, Digest, Ending, digest, read_lines
from tests.kit.maillog import Log, id_at

ID = id_at(1_800_000_000.0)
STAMP = "2027-01-15T08:00:00.250Z"
AT = 1_800_000_000_250


def test_the_extension_is_built_from_this_source() -> None:
    source = Path(native.__file__).with_name("_scan.pyx")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == native.SOURCE_HASH, "stale: run `make build`"


def slowly(text: str) -> Digest:
    """By the reader that reads all lines."""
    found = Digest()
    read_lines(found, text.split("\n"))
    found.settle()
    return found


def both(*lines: str) -> Digest:
    """What some lines say, the same by both readers."""
    text = "".join(f"{line}\n" for line in lines)
    quick, slow = digest(text.encode()), slowly(text)
    assert sorted(map(repr, map(tuple, quick.endings))) == sorted(map(repr, map(tuple, slow.endings)))
    assert (quick.arrivals, quick.steps, quick.refusals) == (slow.arrivals, slow.steps, slow.refusals)
    assert (quick.first, quick.last) == (slow.first, slow.last)
    return quick


def received(more: str = "", to: str = "b@y.test", sender: str = "a@x.test", recipients: int = 1) -> str:
    return (
        f"{STAMP} {ID} received client=192.0.2.1 helo=c.test from=<{sender}> to=<{to}> recipients={recipients}"
        f" size=4200{more}"
    )


def step(event: str, to: str = "<b@y.test>", hop: str = "mx.y[192.0.2.9]:25", status: str = "250 2.0.0 ok") -> str:
    return f'{STAMP} {ID} {event} to={to} relay={hop} delay=0.1 status="{status}"'


def test_a_delivery() -> None:
    found = both(received(" tls=TLSv1.3 cipher=X"), step("delivered"))
    whole = Ending(
        ID,
        AT,
        DELIVERED,
        "b@y.test",
        "mx.y[192.0.2.9]:25",
        "250 2.0.0 ok",
        "a@x.test",
        "192.0.2.1",
        4200,
        "tls=TLSv1.3 cipher=X",
    )
    assert [tuple(row) for row in found.endings] == [tuple(whole)]
    assert not found.arrivals


def test_what_comes_first_does_not_matter() -> None:
    assert [Ending(*row).sender for row in both(step("delivered"), received()).endings] == ["a@x.test"]
    assert [Ending(*row).sender for row in both(step("delivered")).endings] == [None]


def test_one_of_several_recipients() -> None:
    found = both(received(recipients=3), step("delivered"), step("delivered", "<c@y.test>"))
    assert [Ending(*row).recipient for row in found.endings] == ["b@y.test", "c@y.test"]
    assert [Ending(*row).sender for row in found.endings] == ["a@x.test"] * 2
    assert found.arrivals[ID].recipients == 3, "one has not ended"


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        ("550 5.1.1 no such user", BOUNCED),
        ("5.4.7 not delivered in the time allowed; the last answer was: 451", EXPIRED),
    ],
)
def test_failures(reply: str, state: int) -> None:
    notice = id_at(1_800_000_001.0)
    line = f'{STAMP} {ID} bounced to=<b@y.test> notice={notice} reason="{reply}"'
    found = both(received(), step("failed", status="550 no"), line)
    (ending,) = [Ending(*row) for row in found.endings]
    assert (ending.state, ending.hop, ending.reply, ending.sender) == (state, "mx.y[192.0.2.9]:25", reply, "a@x.test")
    assert [(each.event, each.text) for each in found.steps] == [
        ("failed", "550 no"),
        ("notified", f"failed, notice {notice}"),
    ]
    assert found.arrivals[notice].notes == f"notice about {ID}"


def test_a_failure_that_nobody_is_told_of() -> None:
    found = both(f'{STAMP} {ID} bounced to=<b@y.test> notice=none (null reverse-path) reason="550 no"')
    assert [Ending(*row).state for row in found.endings] == [BOUNCED]
    assert [each.text for each in found.steps] == ["failed, notice none (null reverse-path)"]


def test_deferrals_and_the_rest_are_steps() -> None:
    found = both(step("deferred", "?", "none", "no route"), f"{STAMP} {ID} held by=operator")
    assert [(each.event, each.recipient, each.hop, each.text) for each in found.steps] == [
        ("deferred", None, "", "no route"),
        ("held", None, None, "by=operator"),
    ]


def test_deleted_mail_has_its_recipients() -> None:
    found = both(received(recipients=3), f"{STAMP} {ID} deleted by=operator")
    assert [(Ending(*row).state, Ending(*row).recipient) for row in found.endings] == [(DELETED, "b@y.test and 2 more")]


@pytest.mark.parametrize(
    "address",
    [
        '"a> relay=evil delay=1.0 status=\'250"@y.test',
        '"a\\"> to=<x"@y.test',
        "ünïcode@y.test",
        "b@y.test> relay=x",
        "",
    ],
)
def test_addresses_that_look_like_other_fields(address: str) -> None:
    found = both(received(), step("delivered", f"<{address}>"))
    assert [Ending(*row).recipient for row in found.endings] == [address]


def test_a_sender_cannot_name_another_recipient() -> None:
    sender = '"x> to=<victim@y.test> recipients=1 size=1"@evil.test'
    (arrival,) = both(received(sender=sender)).arrivals.values()
    assert (arrival.sender, arrival.recipient) == (sender, "b@y.test")


def test_refusals() -> None:
    rest = 'client=192.0.2.7 helo=h verb=RCPT from=<a@x> path="TO:<\'q\'@y> NOTIFY=NEVER" reply="550 5.1.1 no [S]"'
    (refusal,) = both(f"{STAMP} S{ID} refused {rest}").refusals
    assert refusal[:8] == (f"S{ID}", AT, "192.0.2.7", "h", "RCPT", "a@x", "'q'@y", "550 5.1.1 no [S]")
    (refusal,) = both(f'{STAMP} S{ID} refused client=- verb=MAIL path="FROM:<z@y>" reply="501 no"').refusals
    assert (refusal.sender, refusal.recipient, refusal.helo) == ("z@y", None, None)


BROKEN = [
    "",
    " ",
    "x" * 60,
    f"{STAMP}",
    f"{STAMP} {ID}",
    f"{STAMP} {ID} received",
    f"{STAMP} {ID} received ",
    f"{STAMP} {ID} delivered to=<",
    f'{STAMP} {ID} delivered to=<a> relay= delay= status=""',
    f'{STAMP} {ID} delivered to=<a> relay=x delay=1 delay=2 status="y"',
    f'{STAMP} {ID} delivered to=<a<b> relay=none delay=1.5 status="y"',
    f'{STAMP} {ID} delivered to=<a> relay=x> relay=z delay=1 status="y"',
    f'{STAMP} {ID} delivered to=<a> relay=x tls=y z delay=1 status=""',
    f'{STAMP} {ID} delivered to=<a> relay=x status="taken"',
    f'{STAMP} {ID} delivered to=<a> relay=x tls=TLSv1.3 cipher=y delay=1 class=none status="taken"',
    f'2027-02-30T08:00:00.250Z {ID} delivered to=<a> relay=x delay=1 status="y"',
    f'2028-02-29T23:59:59.999Z {ID} delivered to=<a> relay=x delay=1 status="y"',
    f'0000-01-01T00:00:00.000Z {ID} delivered to=<a> relay=x delay=1 status="y"',
    received().replace("size=4200", "size=42x"),
    received().replace(ID, "1CNGABG0040U"),
    step("delivered").replace(ID, "some-program"),
    step("deferred").replace(ID, "lower-case-x"),
    received().replace("size=4200", "size="),
    received().replace("recipients=1", "recipients=01"),
    received().replace("client=192.0.2.1", "client="),
    received(' user="q"'),
]


@pytest.mark.parametrize("line", BROKEN)
def test_broken_lines_are_passed_over_alike(line: str) -> None:
    both(line)
    both(received(), line)


pieces = st.sampled_from(
    [
        received(),
        step("delivered"),
        STAMP,
        " ",
        ID,
        "delivered",
        "to=<",
        "> relay=",
        ' status="',
        '"',
        "é",
        "\\",
        "\x00",
        "\n",
    ]
)


@given(st.lists(st.tuples(st.integers(0, 300), pieces), max_size=4), st.booleans())
def test_mangled_lines_are_read_alike(edits: list[tuple[int, str]], arrived: bool) -> None:
    text = step("delivered") if arrived else f"{received()}\n{step('delivered')}"
    for at, piece in edits:
        text = text[: at % (len(text) + 1)] + piece + text[at % (len(text) + 1) :]
    names = [line.split(" ")[1:3] for line in text.split("\n")]
    if names.count([ID, "received"]) < 2:  # the same id twice is no line of ours, and they differ in which one counts
        both(*text.split("\n"))


def test_what_the_kit_writes_is_what_the_server_writes(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.bounced(log.mail("a@x", "b@y"), "c@z", "550 no")
    found = both(*log.path.read_text().split("\n"))
    assert (len(found.endings), len(found.steps)) == (2, 2)
