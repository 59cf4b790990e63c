"""What a host says by LIMITS (RFC 9422) is kept: transactions and sessions are no longer than it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mta.deliver.handover import read_offer
from mta.model import NOTIFY_SUCCESS, Options, Status
from tests.kit.courier import run, smtp_site
from tests.kit.peer import Peer
from tests.unit.deliver.test_handover import ehlo, send
from tests.unit.deliver.test_pool import deliver, rig


@pytest.mark.parametrize(
    ("said", "mails", "recipients"),
    [
        ("RCPTMAX=100", 0, 100),
        ("MAILMAX=3 RCPTMAX=100 RCPTDOMAINMAX=5", 3, 100),
        ("rcptmax=7", 0, 7),
        ("", 0, 0),
        ("RCPTMAX=0 MAILMAX=-1", 0, 0),
        ("RCPTMAX MAILMAX=many", 0, 0),
    ],
)
def test_limits_are_read(said: str, mails: int, recipients: int) -> None:
    offer = read_offer({"LIMITS": said}, pipelining=True)
    assert (offer.mails, offer.recipients) == (mails, recipients)


def test_more_recipients_go_in_several_transactions(tmp_path: Path) -> None:
    peer = Peer(
        {
            "EHLO": ehlo("LIMITS RCPTMAX=2", "DSN"),
            "RCPT": lambda line: b"550 5.1.1 no\r\n" if "<d@" in line else b"250 ok\r\n",
        }
    )
    recipients = [b"%c@y" % letter for letter in b"abcde"]
    result, _ = send(tmp_path, peer, b"x\r\n", recipients=recipients, notify=NOTIFY_SUCCESS)
    assert [len(message.recipients) for message in peer.messages] == [2, 1, 1]
    fates = {member: outcome for outcome in result.outcomes for member in outcome.recipients}
    assert {member: o.status is Status.DELIVERED for member, o in fates.items()} == {
        **dict.fromkeys((0, 1, 2, 4), True),
        3: False,
    }
    assert all(o.dsn_handed_on for o in fates.values() if o.status is Status.DELIVERED)


def test_those_that_are_left_out_count_within_their_transaction(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("LIMITS RCPTMAX=2", "8BITMIME")})
    recipients = [b"a@y", "\u00e4@y".encode(), b"b@y", b"c@y", "\u00f6@y".encode()]
    result, _ = send(tmp_path, peer, b"x\r\n", recipients=recipients, options=Options(utf8=True))
    assert sorted(r for message in peer.messages for r in message.recipients) == ["a@y", "b@y", "c@y"]
    fates = {member: outcome.status for outcome in result.outcomes for member in outcome.recipients}
    assert sorted(fates) == [0, 1, 2, 3, 4]
    assert [n for n, status in fates.items() if status is Status.FAILED] == [1, 4]


@pytest.mark.parametrize("ours", [0, 2])
def test_a_session_carries_no_more_mail_than_the_host_wants(tmp_path: Path, ours: int) -> None:
    peer = Peer({"EHLO": ehlo("LIMITS MAILMAX=3")})
    seen: list[Any] = []

    async def main() -> None:
        async with rig(tmp_path, peer) as (r, pool):
            site = smtp_site((0, "127.0.0.1"), port=peer.port, connections=1)
            pool.update(msgspec.structs.replace(site, messages_per_connection=ours) if ours else site)
            pool.add(r.mail(7))
            await r.settled(7)
            seen.extend(r.results)

    run(main())
    assert all(result.outcomes == () for result in seen)
    assert peer.connections == (4 if ours else 3)


def test_no_limit_no_end(tmp_path: Path) -> None:
    peer = Peer({"EHLO": ehlo("LIMITS RCPTMAX=1000")})
    results, _ = deliver(tmp_path, peer, 40)
    assert all(result.outcomes == () for result in results)
    assert peer.connections < 10
