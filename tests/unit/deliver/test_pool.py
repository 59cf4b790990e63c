"""One SMTP or LMTP site against servers that behave, and servers that do not."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mta.deliver.pool import Pool
from mta.model import Hop, Result, Site, Status
from tests.kit.courier import Rig, run, smtp_site, until, verdicts
from tests.kit.peer import CLOSE, HANG, PLAIN_EHLO, Peer


@asynccontextmanager
async def rig(
    tmp_path: Path, peer: Peer | None = None, *, site: Site | None = None, **settings: Any
) -> AsyncIterator[tuple[Rig, Pool]]:
    """A rig with one pool, by default to `peer`."""
    if peer is not None:
        await peer.start()
    rig = Rig(tmp_path, **settings)
    pool = Pool(rig.desk, site or smtp_site((0, "127.0.0.1"), port=peer.port if peer else 0))
    rig.sinks.append(pool)
    try:
        yield rig, pool
    finally:
        pool.stop()
        pool.abandon()
        if peer is not None:
            await peer.stop()
        await asyncio.sleep(0)


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def deliver(tmp_path: Path, peer: Peer, count: int = 1, **settings: Any) -> tuple[list[Result], Rig]:
    """So many messages to a peer, one recipient each."""
    kept: list[Any] = []

    async def main() -> None:
        async with rig(tmp_path, peer, **settings) as (r, pool):
            pool.add(r.mail(count))
            await r.settled(count)
            kept.append(r)

    run(main())
    return kept[0].results, kept[0]


# ---- good servers


def test_one_message(tmp_path: Path) -> None:
    peer = Peer()

    async def main() -> None:
        async with rig(tmp_path, peer) as (r, pool):
            text = b"Subject: x\r\n\r\n.dot\r\n..\r\n\xff\r\n"
            ref = r.reader.put(b"a@example.org", [b"b@example.net"], text, eight_bit=True)
            pool.add([r.job(ref)])
            (result,) = await r.settled(1)
            assert result == Result(ref + 100, r.reader.id(ref), 0, ())
            assert [m.text for m in peer.messages] == [text]
            assert peer.messages[0].sender == f"MAIL FROM:<a@example.org> SIZE={len(text)} BODY=8BITMIME"
            assert peer.heard[0] == "EHLO me.example"
            assert r.counter("deliveries_done") == 1
            assert r.counter("connections_opened") == 1
            (line,) = r.lines()
            assert re.search(
                r" delivered to=<b@example.net> relay=127\.0\.0\.1\[127\.0\.0\.1\]:\d+ delay=[\d.]+"
                r' status="250 2\.0\.0 taken"$',
                line,
            )

    run(main())


def test_many_messages_share_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta.deliver.pool._PATIENCE", 60.0)  # the machine may be busy
    peer = Peer()
    results, _ = deliver(tmp_path, peer, 50)
    assert all(r.outcomes == () for r in results)
    assert len({r.id for r in results}) == 50
    assert peer.connections == 1


def test_without_pipelining(tmp_path: Path) -> None:
    peer = Peer({"EHLO": PLAIN_EHLO})
    results, _ = deliver(tmp_path, peer, 5)
    assert all(r.outcomes == () for r in results)
    assert peer.messages[0].sender == "MAIL FROM:<a@example.org>"


def test_helo_only(tmp_path: Path) -> None:
    results, _ = deliver(tmp_path, Peer({"EHLO": b"502 5.5.1 no\r\n"}), 2)
    assert all(r.outcomes == () for r in results)


def test_grows_when_jobs_wait_and_no_further_than_allowed(tmp_path: Path) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        peer = Peer()
        original = peer._say

        async def slow(writer: asyncio.StreamWriter, what: str, line: str) -> bytes:
            if what == ".":
                await gate.wait()
            return await original(writer, what, line)

        peer._say = slow  # type: ignore[method-assign]
        await peer.start()
        site = smtp_site((0, "127.0.0.1"), port=peer.port, connections=4)
        async with rig(tmp_path, site=site) as (r, pool):
            pool.add(r.mail(30))
            await until(lambda: peer.open == 4)
            gate.set()
            await r.settled(30)
            assert peer.most == 4
        await peer.stop()

    run(main())


def test_idle_connections_say_quit(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        async with rig(tmp_path, peer, idle_timeout=0.1) as (r, pool):
            pool.add(r.mail())
            await until(lambda: pool.unused)
            assert peer.heard[-1] == "QUIT"
            pool.add(r.mail())
            await r.settled(2)
            assert peer.connections == 2

    run(main())


def test_site_that_changes_is_used_as_it_is_now(tmp_path: Path) -> None:
    async def main() -> None:
        old, new = Peer(), await Peer().start()
        async with rig(tmp_path, old, idle_timeout=0.1) as (r, pool):
            pool.add(r.mail())
            await until(lambda: pool.unused)
            pool.update(smtp_site((0, "127.0.0.1"), port=new.port))
            pool.add(r.mail())
            await r.settled(2)
            assert (len(old.messages), len(new.messages)) == (1, 1)
        await new.stop()

    run(main())


def test_lmtp_over_a_unix_socket(tmp_path: Path) -> None:
    answers = {"b": b"250 2.0.0 fine\r\n", "c": b"452 4.2.2 full\r\n", "d": b"550 5.2.1 gone\r\n"}
    peer = Peer({".": lambda who: answers[who[0]]}, lmtp=True)
    path = str(tmp_path / "lmtp.sock")

    async def main() -> None:
        await peer.start(path)
        site = Site(name="l", kind="lmtp", hops=(Hop(0, path),), port=0)
        async with rig(tmp_path, site=site) as (r, pool):
            ref = r.reader.put(b"a@x", [b"b@y", b"c@y", b"d@y", b"e@z"], b"hi\r\n")
            pool.add([r.job(ref)])
            (result,) = await r.settled(1)
            assert verdicts(result) == [
                (Status.DELIVERED, 250, "2.0.0", (0,)),
                (Status.DEFERRED, 452, "4.2.2", (1,)),
                (Status.FAILED, 550, "5.2.1", (2,)),
            ]
            assert result.outcomes[0].hop == f"unix:{path}"
            assert r.counter("deliveries_failed") == 1
        await peer.stop()

    run(main())


# ---- refusals


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"MAIL": b"550 5.7.1 not you\r\n"}, (Status.FAILED, 550, "5.7.1", ())),
        ({"MAIL": b"451 4.7.1 greylisted\r\n"}, (Status.DEFERRED, 451, "4.7.1", ())),
        ({"RCPT": b"550 5.1.1 no such user\r\n"}, (Status.FAILED, 550, "5.1.1", ())),
        ({"RCPT": b"450 later\r\n"}, (Status.DEFERRED, 450, "", ())),
        ({"DATA": b"554 5.3.0 no\r\n"}, (Status.FAILED, 554, "5.3.0", ())),
        ({".": b"552 5.2.3 too big\r\n"}, (Status.FAILED, 552, "5.2.3", ())),
        ({".": b"452 4.3.1 full\r\n"}, (Status.DEFERRED, 452, "4.3.1", ())),
        ({"MAIL": b"421 4.3.2 closing\r\n"}, (Status.DEFERRED, 421, "4.3.2", ())),
        ({".": b"421 4.3.2 closing\r\n"}, (Status.DEFERRED, 421, "4.3.2", ())),
        ({"MAIL": CLOSE}, (Status.DEFERRED, 0, "4.4.2", ())),
        ({"DATA": CLOSE}, (Status.DEFERRED, 0, "4.4.2", ())),
        ({".": CLOSE}, (Status.UNKNOWN, 0, "4.4.2", ())),
        ({"MAIL": b"hello\r\n"}, (Status.DEFERRED, 0, "4.5.0", ())),
        ({"greeting": b"554 5.7.1 not you\r\n"}, (Status.DEFERRED, 554, "5.7.1", ())),
        ({"greeting": b"421 busy\r\n"}, (Status.DEFERRED, 421, "", ())),
        ({"greeting": CLOSE}, (Status.DEFERRED, 0, "4.4.2", ())),
        ({"greeting": b"SSH-2.0-x\r\n"}, (Status.DEFERRED, 0, "4.5.0", ())),
        ({"EHLO": b"450 4.0.0 no\r\n"}, (Status.DEFERRED, 450, "4.0.0", ())),
    ],
)
@pytest.mark.parametrize("ehlo", [None, PLAIN_EHLO], ids=["pipelining", "lock-step"])
def test_refusals(
    tmp_path: Path, script: dict[str, Any], expected: tuple[Status, int, str, tuple[int, ...]], ehlo: bytes | None
) -> None:
    (result,), _ = deliver(tmp_path, Peer(({"EHLO": ehlo} if ehlo else {}) | script))
    assert verdicts(result) == [expected]


def test_some_recipients_refused(tmp_path: Path) -> None:
    replies = {"c@y": b"550 5.1.1 no\r\n", "d@y": b"450 4.2.1 later\r\n", "e@y": b"550 5.1.1 no\r\n"}
    peer = Peer({"RCPT": lambda line: replies.get(line[9:-1], b"250 2.1.5 ok\r\n")})

    async def main() -> None:
        async with rig(tmp_path, peer) as (r, pool):
            ref = r.reader.put(b"a@x", [b"b@y", b"z@other", b"c@y", b"d@y", b"e@y"], b"hi\r\n")
            pool.add([r.job(ref)])
            (result,) = await r.settled(1)
            assert verdicts(result) == [
                (Status.DELIVERED, 250, "2.0.0", (0,)),
                (Status.FAILED, 550, "5.1.1", (2, 4)),
                (Status.DEFERRED, 450, "4.2.1", (3,)),
            ]
            assert peer.messages[0].recipients == ["b@y"]
            events = [line.split()[2:4] for line in r.lines()]
            assert sorted(events) == [
                ["deferred", "to=<d@y>"],
                ["delivered", "to=<b@y>"],
                ["failed", "to=<c@y>"],
                ["failed", "to=<e@y>"],
            ]

    run(main())


def test_only_pending_recipients_are_tried(tmp_path: Path) -> None:
    peer = Peer()

    async def main() -> None:
        async with rig(tmp_path, peer) as (r, pool):
            ref = r.reader.put(b"a@x", [b"b@y", b"z@other", b"c@y"], b"hi\r\n")
            pool.add([r.job(ref, pending=(2,))])
            await r.settled(1)
            assert peer.messages[0].recipients == ["c@y"]
            pool.add([r.job(ref, part=1)])
            await r.settled(2)
            assert peer.messages[1].recipients == ["z@other"]

    run(main())


def test_refused_transactions_do_not_disturb_the_next(tmp_path: Path) -> None:
    peer = Peer({"RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"], "DATA": [b"554 5.5.1 nobody\r\n", b"354 go\r\n"]})
    results, _ = deliver(tmp_path, peer, 3)
    assert sorted(len(r.outcomes) for r in results) == [0, 0, 1]
    assert peer.heard.count("RSET") == 1
    assert peer.connections == 1


# ---- connections that end


def test_lost_after_the_dot_is_ambiguous(tmp_path: Path) -> None:
    (result,), _ = deliver(tmp_path, Peer({".": CLOSE}))
    assert "result unknown" in result.outcomes[0].reply.text
    assert verdicts(result) == [(Status.UNKNOWN, 0, "4.4.2", ())]


def test_lost_before_the_dot_is_not(tmp_path: Path) -> None:
    (result,), _ = deliver(tmp_path, Peer({"DATA": CLOSE}))
    assert "closed the connection" in result.outcomes[0].reply.text
    assert verdicts(result) == [(Status.DEFERRED, 0, "4.4.2", ())]


@pytest.mark.parametrize("end", [CLOSE, b"421 4.3.2 one a connection\r\n"])
@pytest.mark.parametrize("ehlo", [b"250-x\r\n250 PIPELINING\r\n", PLAIN_EHLO], ids=["pipelining", "lock-step"])
def test_server_that_takes_one_message_a_connection(tmp_path: Path, end: bytes, ehlo: bytes) -> None:
    """What rode on the dot before, or followed it, was not tried: it goes over another connection."""
    peer = Peer({"EHLO": ehlo, "MAIL": [b"250 ok\r\n", end] * 4 + [b"250 ok\r\n", end]})
    results, _ = deliver(tmp_path, peer, 4)
    assert [r.outcomes for r in results] == [()] * 4
    assert len(peer.messages) == 4
    assert peer.connections == 4


def test_second_time_counts_as_an_attempt(tmp_path: Path) -> None:
    """A server that closes at every MAIL gets each message twice at most."""
    results, _ = deliver(tmp_path, Peer({"MAIL": [b"250 ok\r\n", CLOSE]}), 3)
    assert results[0].outcomes == ()
    assert [verdicts(r) for r in results[1:]] == [[(Status.DEFERRED, 0, "4.4.2", ())]] * 2


@pytest.mark.parametrize("at", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."])
def test_silent_server(tmp_path: Path, at: str) -> None:
    (result,), _ = deliver(tmp_path, Peer({at: HANG}), connect_timeout=0.2, command_timeout=0.2, data_timeout=0.2)
    assert verdicts(result) == [(Status.UNKNOWN if at == "." else Status.DEFERRED, 0, "4.4.2", ())]
    assert "within 0.2 s" in result.outcomes[0].reply.text


# ---- hosts


def test_next_host_when_the_first_refuses(tmp_path: Path) -> None:
    peer = Peer()

    async def main() -> None:
        await peer.start()
        site = smtp_site((20, "mx2"), (10, "mx1"), (5, "nowhere"), port=peer.port)
        async with rig(tmp_path, site=site) as (r, pool):
            # Nothing listens on 127.0.0.2 at this port.
            r.resolver.table = {"mx1": ("127.0.0.2",), "mx2": ("127.0.0.3", "127.0.0.1")}
            pool.add(r.mail(3))
            await r.settled(3)
            assert [x.outcomes for x in r.results] == [()] * 3
            assert "relay=mx2[127.0.0.1]:" in r.lines()[0]
            assert r.counter("connections_failed") == 2
        await peer.stop()

    run(main())


@pytest.mark.parametrize("script", [{"greeting": b"554 no\r\n"}, {"greeting": CLOSE}, {"EHLO": b"421 no\r\n"}])
def test_next_host_when_the_first_is_unfriendly(tmp_path: Path, script: dict[str, Any]) -> None:
    async def main() -> None:
        bad, good = await Peer(script).start(str(tmp_path / "bad")), await Peer().start(str(tmp_path / "good"))
        hops = (Hop(1, str(tmp_path / "bad")), Hop(2, str(tmp_path / "good")))
        async with rig(tmp_path, site=Site(name="s", kind="smtp", hops=hops, port=0)) as (r, pool):
            pool.add(r.mail(3))
            await r.settled(3)
            assert len(good.messages) == 3
            assert bad.connections == 1
        await bad.stop()
        await good.stop()

    run(main())


def test_equal_preferences_are_shuffled(tmp_path: Path) -> None:
    async def main() -> None:
        site = smtp_site((1, "a"), (1, "b"), (1, "c"), (0, "first"), (9, "last"), port=25)
        async with rig(tmp_path, site=site) as (_, pool):
            orders = {tuple(h.host for h in pool._opener._ordered(pool.site)) for _ in range(200)}
            assert len(orders) == 6
            assert all(o[0] == "first" and o[-1] == "last" for o in orders)

    run(main())


def test_dead_site_defers_everything_after_one_attempt(tmp_path: Path) -> None:
    async def main() -> None:
        site = smtp_site((0, "127.0.0.1"), port=closed_port())
        async with rig(tmp_path, site=site) as (r, pool):
            pool.add(r.mail(500))
            await r.settled(500)
            assert {tuple(verdicts(x)) for x in r.results} == {((Status.DEFERRED, 0, "4.4.1", ()),)}
            assert r.results[0].outcomes[0].reply.text.endswith("Connection refused")
            assert r.counter("connections_failed") == 1
            assert len(r.lines()) == r.counter("deliveries_deferred") == 500

    run(main())


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, (Status.FAILED, 0, "5.4.4", ())),
        ({"mx1": None}, (Status.DEFERRED, 0, "4.4.3", ())),
        ({"mx2": None}, (Status.DEFERRED, 0, "4.4.3", ())),
        ({"mx1": ("127.0.0.1",)}, (Status.DEFERRED, 0, "4.4.1", ())),
    ],
)
def test_names_that_lead_nowhere(tmp_path: Path, table: dict[str, Any], expected: Any) -> None:
    async def main() -> None:
        async with rig(tmp_path, site=smtp_site((1, "mx1"), (2, "mx2"), port=closed_port())) as (r, pool):
            r.resolver.table = table
            pool.add(r.mail(2))
            for result in await r.settled(2):
                assert verdicts(result) == [expected]

    run(main())


def test_host_that_allows_few_connections_is_not_hammered(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer({"greeting": [b"220 hi\r\n", b"421 4.7.0 too many\r\n"]})
        async with rig(tmp_path, peer) as (r, pool):
            pool.add(r.mail(300))
            await r.settled(300)
            assert all(x.outcomes == () for x in r.results)
            assert peer.connections <= 3

    run(main())


# ---- the spool, large texts


def test_unreadable_message_is_deferred(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        async with rig(tmp_path, peer) as (r, pool):
            jobs = r.mail(3)
            r.reader.damaged.add(1)
            pool.add(jobs)
            results = {x.slot: x for x in await r.settled(3)}
            assert verdicts(results[101]) == [(Status.DEFERRED, 0, "4.3.0", ())]
            assert results[100].outcomes == results[102].outcomes == ()
            assert any("to=?" in line and "record damaged" in line for line in r.lines())

    run(main())


@pytest.mark.parametrize("ehlo", [b"250-x\r\n250 PIPELINING\r\n", PLAIN_EHLO], ids=["pipelining", "lock-step"])
def test_large_text_is_streamed(tmp_path: Path, ehlo: bytes) -> None:
    text = b".line with dots\r\n..\r\n" * 400_000
    file = tmp_path / "body"
    file.write_bytes(b"skipped" + text)

    async def main() -> None:
        peer = Peer({"EHLO": ehlo})
        async with rig(tmp_path, peer) as (r, pool):
            refs = [
                r.reader.put(b"a@x", [b"b@y"], b"Head: x\r\n", file=file, offset=7, size=9 + len(text))
                for _ in range(2)
            ]
            pool.add([*(r.job(ref) for ref in refs), *r.mail(1)])
            await r.settled(3)
            assert [x.outcomes for x in r.results] == [()] * 3
            assert sorted(m.text == b"Head: x\r\n" + text for m in peer.messages) == [False, True, True]

    run(main())


@pytest.mark.parametrize("missing", [True, False])
def test_text_that_is_shorter_than_its_record_gets_no_final_dot(tmp_path: Path, missing: bool) -> None:
    file = tmp_path / "body"
    if not missing:
        file.write_bytes(b"short")

    async def main() -> None:
        peer = Peer()
        async with rig(tmp_path, peer) as (r, pool):
            ref = r.reader.put(b"a@x", [b"b@y"], b"Head: x\r\n", file=file, size=100)
            pool.add([r.job(ref)])
            (result,) = await r.settled(1)
            assert verdicts(result) == [(Status.DEFERRED, 0, "4.3.0", ())]
            assert not peer.messages

    run(main())


def test_large_text_to_a_server_that_stops_reading(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"x" * 78 + b"\r\n" * 20_000_000)

    async def main() -> None:
        gate = asyncio.Event()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 x\r\n250 x\r\n250 ok\r\n250 ok\r\n354 go\r\n"[:7])
            for reply in (b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
                await reader.readline()
                writer.write(reply)
            await gate.wait()
            writer.close()

        server = await asyncio.start_server(deaf, "127.0.0.1", 0)
        site = smtp_site((0, "127.0.0.1"), port=server.sockets[0].getsockname()[1])
        async with rig(tmp_path, site=site, data_timeout=0.3) as (r, pool):
            pool.add([r.job(r.reader.put(b"a@x", [b"b@y"], b"", file=file, size=file.stat().st_size))])
            (result,) = await r.settled(1)
            assert verdicts(result) == [(Status.DEFERRED, 0, "4.4.2", ())]
        gate.set()
        server.close()

    run(main())


# ---- stopping


def test_stop_gives_back_what_waits_and_finishes_what_is_on_the_wire(tmp_path: Path) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        peer = Peer({"EHLO": PLAIN_EHLO})
        original = peer._say

        async def slow(writer: asyncio.StreamWriter, what: str, line: str) -> bytes:
            if what == ".":
                await gate.wait()
            return await original(writer, what, line)

        peer._say = slow  # type: ignore[method-assign]
        async with rig(tmp_path, peer) as (r, pool):
            pool.add(r.mail(3)[:1])
            await until(lambda: len(peer.messages) == 1)
            pool.add(r.mail(3))
            pool.stop()
            await r.settled(3)
            assert [verdicts(x) for x in r.results] == [[(Status.UNTRIED, 0, "", ())]] * 3
            assert len(list(pool.busy())) == 1
            gate.set()
            await r.settled(4)
            assert r.results[-1].outcomes == ()
            await until(lambda: pool.unused)

    run(main())


def test_abandon_reports_what_is_on_the_wire(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, Peer({".": HANG})) as (r, pool):
            pool.add(r.mail(3))
            await until(lambda: any(c.session.awaits_final for c in pool._connections))
            pool.stop()
            pool.abandon()
            await r.settled(3)
            statuses = sorted(x.outcomes[0].status for x in r.results)
            assert statuses == [Status.UNTRIED, Status.UNTRIED, Status.UNKNOWN]

    run(main())
