"""What of an envelope goes to a host, and what a host that lacks an extension gets instead. Pure, then over sockets."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from mta.deliver.fitting import fit
from mta.deliver.handover import ANY_SIZE, Offer, Words, asks, needs, read_offer, words
from mta.mail.downgrade import Need
from mta.model import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Envelope,
    Options,
    Outcome,
    Recipient,
    Reply,
    Result,
    Status,
)
from tests.kit.certificates import authority_file, server_context
from tests.kit.courier import Rig, run, smtp_site, until
from tests.kit.peer import Answer, Peer
from tests.unit.deliver.test_pool import rig

ALL = Offer(
    eight_bit=True, utf8=True, dsn=True, require_tls=True, priority=True, chunking=True, binary=True, deliver_by=0
)
NOTHING = Offer()
NOW = 1_800_000_000_000


def say(offer: Offer, *, notify: int = 0, orcpt: bytes = b"", now: int = NOW, **options: Any) -> Words | Reply:
    envelope = Envelope(sender=b"a@x", recipients=(Recipient(b"b@y", notify, orcpt),), options=Options(**options))
    return words(
        envelope,
        envelope.recipients,
        offer,
        now,
        binary=options.get("binary", False),
        utf8=options.get("utf8", False),
    )


# ---- the words


@pytest.mark.parametrize(
    ("given", "mail", "rcpt"),
    [
        ({}, b"", ()),
        ({"user": "alice", "auth": b"alice"}, b"", ()),
        ({"ret": "HDRS", "envid": b"q+2Bx"}, b" RET=HDRS ENVID=q+2Bx", ()),
        ({"notify": NOTIFY_NEVER}, b"", (b" NOTIFY=NEVER",)),
        (
            {"notify": NOTIFY_DELAY | NOTIFY_SUCCESS | NOTIFY_FAILURE, "orcpt": b"rfc822;b@z"},
            b"",
            (b" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;b@z",),
        ),
        ({"orcpt": b"rfc822;b@z"}, b"", (b" ORCPT=rfc822;b@z",)),
        ({"utf8": True}, b" SMTPUTF8", ()),
        ({"require_tls": True}, b" REQUIRETLS", ()),
        ({"priority": -3}, b" MT-PRIORITY=-3", ()),
        ({"deliver_by": NOW + 90_999, "by_return": True}, b" BY=90;R", ()),
        ({"deliver_by": NOW - 1, "by_trace": True}, b" BY=-1;NT", ()),
        ({"deliver_by": NOW + 10**16}, b" BY=999999999;N", ()),
        ({"binary": True}, b" BODY=BINARYMIME", ()),
    ],
)
def test_all_is_handed_on_where_all_is_offered(given: dict[str, Any], mail: bytes, rcpt: tuple[bytes, ...]) -> None:
    said = say(ALL, **given)
    assert said == Words(mail, rcpt, "binary" in given)


@pytest.mark.parametrize(
    "given",
    [
        {"ret": "FULL", "envid": b"x"},
        {"notify": NOTIFY_SUCCESS, "orcpt": b"rfc822;b@z"},
        {"utf8": True},
        {"priority": 5},
        {"deliver_by": NOW + 9000},
        {"deliver_by": NOW - 9000},
    ],
)
def test_nothing_is_said_where_nothing_is_offered(given: dict[str, Any]) -> None:
    assert say(NOTHING, **given) == Words()


@pytest.mark.parametrize(
    ("offer", "given", "enhanced"),
    [
        (Offer(), {"require_tls": True}, "5.7.30"),
        (Offer(), {"deliver_by": NOW + 9000, "by_return": True}, "5.3.3"),
        (Offer(deliver_by=0), {"deliver_by": NOW + 999, "by_return": True}, "5.4.7"),
        (Offer(deliver_by=60), {"deliver_by": NOW + 59_999, "by_return": True}, "5.4.7"),
    ],
)
def test_what_cannot_be_kept_goes_back(offer: Offer, given: dict[str, Any], enhanced: str) -> None:
    said = say(offer, **given)
    assert isinstance(said, Reply)
    assert said.enhanced == enhanced


@pytest.mark.parametrize(("sender", "recipient"), [("\u00e4@x".encode(), b"b@y"), (b"a@x", "b@\u00fc".encode())])
def test_addresses_that_are_not_ascii_need_smtputf8(sender: bytes, recipient: bytes) -> None:
    envelope = Envelope(sender=sender, recipients=(Recipient(recipient),), options=Options(utf8=True))
    said = words(envelope, envelope.recipients, NOTHING, NOW, binary=False, utf8=True)
    assert isinstance(said, Reply)
    assert said.enhanced == "5.6.7"
    assert words(envelope, envelope.recipients, Offer(utf8=True), NOW, binary=False, utf8=True) == Words(b" SMTPUTF8")


@pytest.mark.parametrize(
    ("notify", "said"),
    [
        (0, b" NOTIFY=FAILURE,DELAY"),
        (NOTIFY_SUCCESS, b" NOTIFY=SUCCESS,DELAY"),
        (NOTIFY_DELAY, b" NOTIFY=DELAY"),
        (NOTIFY_NEVER, b" NOTIFY=NEVER"),
    ],
)
def test_who_knows_nothing_of_a_time_is_asked_to_tell_of_delays(notify: int, said: bytes) -> None:
    """RFC 2852 §4.1.4.2."""
    assert say(Offer(dsn=True), notify=notify, deliver_by=NOW + 9000) == Words(b"", (said,))
    knows = say(Offer(dsn=True, deliver_by=0), notify=notify, deliver_by=NOW + 9000)
    assert isinstance(knows, Words)
    assert knows.rcpt == ((b" NOTIFY=" + said[8:].replace(b",DELAY", b""),) if notify else ())


def test_final_delivery_is_no_relaying() -> None:
    options = Options(require_tls=True, deliver_by=NOW + 9000, by_return=True)
    envelope = Envelope(sender=b"a@x", recipients=(Recipient(b"b@y"),), options=options)
    assert words(envelope, envelope.recipients, NOTHING, NOW, binary=False, utf8=False, final=True) == Words()


def test_offers_are_read_from_what_ehlo_said() -> None:
    said = {"SIZE": "1000", "8BITMIME": "", "CHUNKING": "", "BINARYMIME": "", "DELIVERBY": "240", "DSN": ""}
    offer = read_offer(said, pipelining=True)
    assert offer == Offer(size=1000, eight_bit=True, dsn=True, chunking=True, binary=True, deliver_by=240)
    assert not read_offer(said, pipelining=False).binary
    for nonsense in ("", "0", "many", "-5", "9" * 30):
        assert read_offer({"SIZE": nonsense}, pipelining=True).size == ANY_SIZE
    assert read_offer({"DELIVERBY": ""}, pipelining=True).deliver_by == 0
    assert read_offer({"DELIVERBY": "240,FAST"}, pipelining=True).deliver_by == 240  # RFC 2852 §2


def test_who_was_logged_in_does_not_concern_the_next_host() -> None:
    assert not asks(None)
    assert not asks(Options(user="alice", auth=b"alice", hold_until=5))
    for odd in (
        {"utf8": True},
        {"ret": "FULL"},
        {"envid": b"x"},
        {"deliver_by": 5},
        {"priority": -1},
        {"binary": True},
    ):
        assert asks(Options(**odd))  # type: ignore[arg-type]


def test_needs() -> None:
    plain = Envelope(sender=b"", recipients=())
    odd = Envelope(sender=b"", recipients=(), options=Options(binary=True, utf8=True))
    assert needs(plain, ALL) == needs(odd, ALL) == Need.NOTHING
    assert needs(plain, NOTHING) == Need.SEVEN_BIT
    assert needs(odd, NOTHING) == Need.SEVEN_BIT | Need.LINES | Need.ASCII_HEADER


# ---- over sockets

TEXT = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nenough plain words \xc3\xa4\r\n"


def ehlo(*keywords: str) -> bytes:
    lines = ["peer.example", *keywords, "PIPELINING"]
    return "".join(f"250{'-' if i < len(lines) - 1 else ' '}{line}\r\n" for i, line in enumerate(lines)).encode()


def send(
    tmp_path: Path, peer: Peer, text: bytes = TEXT, *, settings: dict[str, Any] | None = None, **mail: Any
) -> tuple[Result, Rig]:
    kept: list[Any] = []

    async def main() -> None:
        async with rig(tmp_path, peer, **settings or {}) as (r, pool):
            sender, recipients = mail.pop("sender", b"a@x"), mail.pop("recipients", [b"b@y"])
            pool.add([r.job(r.reader.put(sender, recipients, text, **mail))])
            await r.settled(1)
            kept.append(r)

    run(main())
    return kept[0].results[0], kept[0]


def failed(result: Result) -> str:
    (outcome,) = result.outcomes
    assert outcome.status is Status.FAILED
    return outcome.reply.enhanced


def test_a_text_that_is_too_large_is_not_sent(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("SIZE 20", "8BITMIME")})
    result, r = send(tmp_path, peer)
    assert failed(result) == "5.3.4"
    assert not any(line.startswith("MAIL") for line in peer.heard)
    assert "20 at most" in r.lines()[0]


def test_parameters_arrive(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("DSN", "SMTPUTF8", "8BITMIME", "MT-PRIORITY")})
    options = Options(ret="HDRS", envid=b"id", utf8=True, priority=2)
    result, _ = send(tmp_path, peer, options=options, notify=NOTIFY_SUCCESS, orcpt=b"rfc822;b@z")
    assert "MAIL FROM:<a@x> SMTPUTF8 RET=HDRS ENVID=id MT-PRIORITY=2" in peer.heard
    assert "RCPT TO:<b@y> NOTIFY=SUCCESS ORCPT=rfc822;b@z" in peer.heard
    assert result.outcomes == ()  # the host reports its success itself


def test_success_that_is_not_handed_on_is_told(tmp_path: Path) -> None:
    result, _ = send(tmp_path, Peer(), notify=NOTIFY_SUCCESS)
    (outcome,) = result.outcomes
    assert (outcome.status, outcome.reply, outcome.dsn_handed_on) == (
        Status.DELIVERED,
        Reply(250, "2.0.0", "taken"),
        False,
    )


@pytest.mark.parametrize("dsn", [True, False])
def test_each_outcome_says_whether_it_was_handed_on(tmp_path: Path, dsn: bool) -> None:
    peer = Peer(
        {
            "EHLO": ehlo("DSN") if dsn else ehlo(),
            "RCPT": lambda line: b"550 5.1.1 no\r\n" if "b@y" in line else b"250 ok\r\n",
        }
    )
    result, _ = send(tmp_path, peer, b"x\r\n", notify=NOTIFY_SUCCESS, recipients=[b"b@y", b"c@y"])
    found = {o.status: o.dsn_handed_on for o in result.outcomes}
    assert found == {Status.FAILED: False, Status.DELIVERED: dsn}


def test_eight_bits_become_seven_where_need_be(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("SIZE")})
    result, _ = send(tmp_path, peer, eight_bit=True)
    assert result.outcomes == ()
    (message,) = peer.messages
    assert message.text.endswith(b"Content-Transfer-Encoding: quoted-printable\r\n\r\nenough plain words =C3=A4\r\n")
    assert message.sender == f"MAIL FROM:<a@x> SIZE={len(message.text)}"


def test_a_declaration_alone_changes_nothing(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo()})
    text = b"Content-Transfer-Encoding: 8bit\r\n\r\nplain\r\n"
    result, _ = send(tmp_path, peer, text, eight_bit=True)
    assert result.outcomes == ()
    assert peer.messages[0].text == text


def test_what_cannot_be_converted_goes_back(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo()})
    result, r = send(tmp_path, peer, b"Subject: \xe4\r\n\r\nx\r\n")
    assert failed(result) == "5.6.3"
    assert "does not offer 8BITMIME" in r.lines()[0]
    assert peer.messages == []


@pytest.mark.parametrize("high", [True, False])
def test_large_texts_are_converted_in_a_file(tmp_path: Path, high: bool) -> None:
    peer = Peer({"EHLO": ehlo("SIZE")})
    head = b"Received: from x\r\n"
    line = b"enough plain words to be quoted " + (b"\xc3\xa4" if high else b"") + b"\r\n"
    body = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + line * 20_000
    file = tmp_path / "body"
    file.write_bytes(body)
    result, _ = send(tmp_path, peer, head, file=file, size=len(head) + len(body), eight_bit=True)
    assert result.outcomes == ()
    (message,) = peer.messages
    if high:
        label = b"Content-Transfer-Encoding: quoted-printable\r\n"
        quoted = line.replace(b"\xc3\xa4", b"=C3=A4")
        assert message.text == head + body.partition(b"\r\n\r\n")[0] + b"\r\n" + label + b"\r\n" + quoted * 20_000
    else:
        assert message.text == head + body
    assert f"SIZE={len(message.text)}" in message.sender


def test_conversions_do_not_block_what_waits_behind(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo()})

    async def main() -> None:
        async with rig(tmp_path, peer) as (r, pool):
            texts = [TEXT if n % 2 else b"plain\r\n" for n in range(60)]
            pool.add([r.job(r.reader.put(b"a@x", [b"b%d@y" % n], text)) for n, text in enumerate(texts)])
            results = await r.settled(60)
            assert all(result.outcomes == () for result in results)
            assert len({result.id for result in results}) == 60
        assert len(peer.messages) == 60

    run(main())


def test_stopping_gives_back_what_is_being_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer({"EHLO": ehlo()})
    go_on = threading.Event()

    def slow(*arguments: Any) -> Any:
        go_on.wait(10)
        return fit(*arguments)

    monkeypatch.setattr("mta.deliver.pool.fit", slow)

    async def main() -> None:
        async with rig(tmp_path, peer) as (r, pool):
            pool.add([r.job(r.reader.put(b"a@x", [b"b@y"], TEXT)) for _ in range(3)])
            await until(lambda: bool(pool._fitting))
            assert len(list(pool.busy())) == 3
            pool.stop()
            results = await r.settled(3)
            assert {o.status for result in results for o in result.outcomes} == {Status.UNTRIED}
            go_on.set()

    run(main())


def test_a_bug_in_the_conversion_defers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mta.deliver.pool.fit", broken)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        send(tmp_path, Peer({"EHLO": ehlo()}))


# ---- SMTPUTF8


def test_utf8_mail_without_anything_utf8_goes_without(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("8BITMIME")})
    result, _ = send(tmp_path, peer, options=Options(utf8=True), eight_bit=True)
    assert result.outcomes == ()
    assert peer.messages[0].text == TEXT
    assert "SMTPUTF8" not in peer.messages[0].sender
    assert "BODY=8BITMIME" in peer.messages[0].sender


@pytest.mark.parametrize(
    ("sender", "text"), [(b"a@x", "Subject: \u00e4\r\n\r\nx\r\n".encode()), ("\u00e4@x".encode(), b"x\r\n")]
)
def test_utf8_mail_that_needs_it_goes_back(tmp_path: Path, sender: bytes, text: bytes) -> None:
    peer = Peer({"EHLO": ehlo("8BITMIME")})
    result, _ = send(tmp_path, peer, text, sender=sender, options=Options(utf8=True))
    assert failed(result) == "5.6.7"
    assert peer.messages == []


def test_only_the_recipients_that_need_it_go_back(tmp_path: Path) -> None:
    peer = Peer(
        {"EHLO": ehlo("8BITMIME"), "RCPT": lambda line: b"450 4.2.1 busy\r\n" if "<c@" in line else b"250 ok\r\n"}
    )
    recipients = [b"b@y", "\u00e4@y".encode(), b"c@y", "\u00f6@y".encode()]
    result, r = send(tmp_path, peer, b"x\r\n", recipients=recipients, options=Options(utf8=True))
    assert [(o.status, o.recipients, o.reply.enhanced) for o in result.outcomes] == [
        (Status.FAILED, (1, 3), "5.6.7"),
        (Status.DELIVERED, (0,), "2.0.0"),
        (Status.DEFERRED, (2,), "4.2.1"),
    ]
    (message,) = peer.messages
    assert message.recipients == ["b@y"]
    assert sum("to=<" in line for line in r.lines()) == 4


def test_where_the_others_are_all_taken_each_is_told(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("8BITMIME")})
    recipients = [b"b@y", "\u00e4@y".encode(), b"c@y"]
    result, _ = send(tmp_path, peer, b"x\r\n", recipients=recipients, options=Options(utf8=True))
    assert [(o.status, o.recipients) for o in result.outcomes] == [
        (Status.FAILED, (1,)),
        (Status.DELIVERED, (0, 2)),
    ]


def test_another_connection_may_take_those_that_were_left_out(tmp_path: Path) -> None:
    """The first one ends before anything is said to it about the mail; the host has learnt SMTPUTF8 meanwhile."""
    greeted: list[str] = []

    def hello(line: str) -> bytes:
        greeted.append(line)
        return ehlo("8BITMIME") if len(greeted) == 1 else ehlo("8BITMIME", "SMTPUTF8")

    def mail(line: str) -> bytes:
        return b"421 4.3.2 bye\r\n" if "<gone@x>" in line and len(greeted) == 1 else b"250 ok\r\n"

    peer = Peer({"EHLO": hello, "MAIL": mail})

    async def main() -> None:
        async with rig(tmp_path, peer) as (r, pool):
            pool.add(r.mail(1))
            await r.settled(1)
            recipients = [b"b@y", "\u00e4@y".encode()]
            pool.add([r.job(r.reader.put(b"gone@x", recipients, b"x\r\n", options=Options(utf8=True)))])
            await r.settled(2)
            assert r.results[1].outcomes == ()

    run(main())
    assert len(peer.messages[-1].recipients) == 2


# ---- DELIVERBY


@pytest.mark.parametrize(
    ("offered", "options", "untimed"),
    [
        ((), {"deliver_by": 4_000_000_000_000}, True),
        (("DSN",), {"deliver_by": 4_000_000_000_000}, True),
        (("DELIVERBY",), {"deliver_by": 4_000_000_000_000}, False),
        ((), {"deliver_by": 1_000_000_000_000}, False),  # the time was past already
        ((), {"priority": 1}, False),
    ],
)
def test_the_sender_hears_that_the_next_host_knows_of_no_time(
    tmp_path: Path, offered: tuple[str, ...], options: dict[str, Any], untimed: bool
) -> None:
    result, _ = send(tmp_path, Peer({"EHLO": ehlo(*offered)}), b"x\r\n", options=Options(**options))
    assert [o.untimed for o in result.outcomes] == [True] * untimed
    partly = Peer({"EHLO": ehlo(*offered), "RCPT": lambda line: b"550 no\r\n" if "<b@" in line else b"250 ok\r\n"})
    result, _ = send(tmp_path, partly, b"x\r\n", options=Options(**options), recipients=[b"b@y", b"c@y"])
    assert {o.status: o.untimed for o in result.outcomes} == {Status.FAILED: False, Status.DELIVERED: untimed}


@pytest.mark.parametrize(
    ("second", "enhanced"), [(("DELIVERBY 60",), ""), ((), "5.3.3"), (("DELIVERBY 9000000000",), "5.4.7")]
)
def test_another_host_may_promise_what_the_first_cannot(tmp_path: Path, second: tuple[str, ...], enhanced: str) -> None:
    """RFC 2852 §4.1.4.1: by-mode R goes to no host without DELIVERBY, but the other MX hosts are tried."""
    first, other = Peer({"EHLO": ehlo()}), Peer({"EHLO": ehlo(*second)})
    urgent = Options(deliver_by=4_000_000_000_000, by_return=True)
    results: list[Result] = []

    async def main() -> None:
        for peer, name in ((first, "first"), (other, "other")):
            await peer.start(str(tmp_path / name))
        hops = (0, str(tmp_path / "first")), (10, str(tmp_path / "other"))
        async with rig(tmp_path, site=smtp_site(*hops, port=0), idle_timeout=0.05) as (r, pool):
            pool.add([*r.mail(1), r.job(r.reader.put(b"a@x", [b"b@y"], b"x\r\n", options=urgent))])
            await r.settled(2)
            await until(lambda: pool.unused)
            results.extend(r.results)
        for peer in (first, other):
            await peer.stop()

    run(main())
    assert len(first.messages) == 1  # the ordinary one
    timed = next(result for result in results if result.outcomes or enhanced == "")
    if enhanced:
        assert failed(timed) == enhanced
        assert other.messages == []
    else:
        assert all(result.outcomes == () for result in results)
        (message,) = other.messages
        assert message.sender.startswith("MAIL FROM:<a@x> BY=")
        assert message.sender.endswith(";R")


def test_where_there_is_one_host_it_goes_back_at_once(tmp_path: Path) -> None:
    peer = Peer()
    result, _ = send(tmp_path, peer, b"x\r\n", options=Options(deliver_by=4_000_000_000_000, by_return=True))
    assert failed(result) == "5.3.3"
    assert peer.connections == 1


# ---- BDAT and BINARYMIME

BINARY = (
    b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n--b\r\n"
    b"Content-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\xff\r\n.\r\n\n\r\n--b--\r\n"
)


def test_binary_goes_by_bdat(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("CHUNKING", "BINARYMIME", "8BITMIME")})
    result, _ = send(tmp_path, peer, BINARY, options=Options(binary=True), eight_bit=True)
    assert result.outcomes == ()
    assert peer.messages[0].text == BINARY
    assert "MAIL FROM:<a@x> BODY=BINARYMIME" in peer.heard
    assert f"BDAT {len(BINARY)} LAST" in peer.heard


def test_binary_of_smtputf8_stays_binary_where_only_that_is_offered(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("CHUNKING", "BINARYMIME", "8BITMIME")})
    result, _ = send(tmp_path, peer, BINARY, options=Options(binary=True, utf8=True), eight_bit=True)
    assert result.outcomes == ()
    assert peer.messages[0].text == BINARY
    assert peer.messages[0].sender == "MAIL FROM:<a@x> BODY=BINARYMIME"


@pytest.mark.parametrize("offered", [("8BITMIME",), (), ("CHUNKING", "8BITMIME")])
def test_binary_becomes_base64_elsewhere(tmp_path: Path, offered: tuple[str, ...]) -> None:
    peer = Peer({"EHLO": ehlo(*offered)})
    result, _ = send(tmp_path, peer, BINARY, options=Options(binary=True), eight_bit=True)
    assert result.outcomes == ()
    assert b"Content-Transfer-Encoding: base64\r\n\r\nAP8NCi4NCgo=\r\n--b--\r\n" in peer.messages[0].text
    assert "BDAT" not in " ".join(peer.heard)
    assert "BINARYMIME" not in peer.messages[0].sender


def test_large_binary_goes_in_chunks(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("CHUNKING", "BINARYMIME", "8BITMIME")})
    head, body = b"Received: from x\r\n", BINARY + bytes(range(256)) * 4000
    file = tmp_path / "body"
    file.write_bytes(body)
    result, _ = send(tmp_path, peer, head, file=file, size=len(head) + len(body), options=Options(binary=True))
    assert result.outcomes == ()
    assert peer.messages[0].text == head + body
    assert sum(line.startswith("BDAT") for line in peer.heard) > 3


def test_chunking_for_all_where_it_is_wanted(tmp_path: Path) -> None:
    script: dict[str, Answer] = {"EHLO": ehlo("CHUNKING", "8BITMIME")}

    async def main(peer: Peer, chunking: bool) -> None:
        async with rig(tmp_path, peer, chunking=chunking) as (r, pool):
            pool.add(r.mail(30, text=b".\r\n..\r\n"))
            results = await r.settled(30)
            assert all(result.outcomes == () for result in results)
        assert [m.text for m in peer.messages] == [b".\r\n..\r\n"] * 30
        assert sum(line == "BDAT 7 LAST" for line in peer.heard) == (30 if chunking else 0)

    for chunking in (True, False):
        run(main(Peer(script), chunking))


# ---- REQUIRETLS

SAFE = Options(require_tls=True)
TLS_EHLO = ehlo("STARTTLS", "8BITMIME")
AFTER = ehlo("REQUIRETLS", "8BITMIME")


def require(
    tmp_path: Path, peer: Peer, host: str = "mx.example.net", sender: bytes = b"a@x", **settings: Any
) -> tuple[Result, Rig]:
    kept: list[Any] = []

    async def main() -> None:
        await peer.start()
        async with rig(tmp_path, site=smtp_site((0, host), port=peer.port), idle_timeout=0.05, **settings) as (r, pool):
            r.resolver.table[host] = ("127.0.0.1",)
            pool.add([*r.mail(1), r.job(r.reader.put(sender, [b"b@y"], TEXT, options=SAFE, eight_bit=True))])
            await r.settled(2)
            await until(lambda: pool.unused)
            kept.append(r)
        await peer.stop()

    run(main())
    r = kept[0]
    return next(result for result in r.results if result.id == r.reader.id(1)), r


def test_required_tls_is_verified_and_handed_on(tmp_path: Path) -> None:
    peer = Peer({"EHLO": TLS_EHLO, "EHLO TLS": AFTER}, tls=server_context("mx.example.net"))
    result, _ = require(tmp_path, peer, tls_authorities=authority_file(tmp_path))
    assert result.outcomes == ()
    assert "MAIL FROM:<a@x> BODY=8BITMIME REQUIRETLS" in peer.heard
    assert all(m.tls for m in peer.messages)
    assert peer.connections == 2  # what may go to anybody has a connection of its own


@pytest.mark.parametrize(
    ("script", "name", "trusted", "enhanced"),
    [
        ({"EHLO": TLS_EHLO, "EHLO TLS": TLS_EHLO}, "mx.example.net", True, "5.7.30"),
        ({"EHLO": TLS_EHLO, "EHLO TLS": AFTER}, "other.example.net", True, "5.7.10"),
        ({"EHLO": TLS_EHLO, "EHLO TLS": AFTER}, "mx.example.net", False, "5.7.10"),
        ({"EHLO": ehlo("8BITMIME", "REQUIRETLS")}, "mx.example.net", True, "5.7.10"),
        ({"EHLO": TLS_EHLO, "STARTTLS": b"454 4.7.0 no\r\n"}, "mx.example.net", True, "5.7.10"),
    ],
)
def test_without_safety_it_goes_back(
    tmp_path: Path, script: dict[str, Answer], name: str, trusted: bool, enhanced: str
) -> None:
    peer = Peer(script, tls=server_context(name))
    settings = {"tls_authorities": authority_file(tmp_path)} if trusted else {}
    result, r = require(tmp_path, peer, **settings)
    assert failed(result) == enhanced
    assert len(peer.messages) == 1  # the other one went nevertheless
    assert not any("REQUIRETLS" in line for line in peer.heard)
    assert not any(" fallback " in line for line in r.lines())


@pytest.mark.parametrize("script", [{"EHLO": TLS_EHLO, "EHLO TLS": TLS_EHLO}, {"EHLO": ehlo("8BITMIME", "REQUIRETLS")}])
def test_a_notice_is_not_lost_for_want_of_safety(tmp_path: Path, script: dict[str, Answer]) -> None:
    """RFC 8689 §5: with the null reverse-path it goes, where it must, without, and says nothing of REQUIRETLS."""
    peer = Peer(script, tls=server_context("mx.example.net"))
    result, _ = require(tmp_path, peer, sender=b"", tls_authorities=authority_file(tmp_path))
    assert result.outcomes == ()
    assert "MAIL FROM:<> BODY=8BITMIME" in [message.sender for message in peer.messages]
    assert not any("REQUIRETLS" in line for line in peer.heard)


def test_a_notice_goes_in_safety_where_it_can(tmp_path: Path) -> None:
    peer = Peer({"EHLO": TLS_EHLO, "EHLO TLS": AFTER}, tls=server_context("mx.example.net"))
    result, _ = require(tmp_path, peer, sender=b"", tls_authorities=authority_file(tmp_path))
    assert result.outcomes == ()
    assert "MAIL FROM:<> BODY=8BITMIME REQUIRETLS" in peer.heard


def test_required_tls_waits_for_a_host_that_is_away(tmp_path: Path) -> None:
    peer = Peer({"greeting": b"421 4.3.2 busy\r\n"})
    result, _ = require(tmp_path, peer)
    assert [o.status for o in result.outcomes] == [Status.DEFERRED]


def test_outcomes_default_to_not_handed_on() -> None:
    assert not Outcome(Status.DELIVERED, Reply(250, "", "")).dsn_handed_on
