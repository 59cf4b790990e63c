"""STARTTLS out: where it is offered, where it fails, and where it is required."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from mta.model import Hop, Site, Status
from mta.net.dial import Target
from tests.kit.certificates import server_context
from tests.kit.courier import run, smtp_site, until, verdicts
from tests.kit.peer import CLOSE, HANG, Answer, Peer
from tests.unit.deliver.test_pool import deliver, rig

OFFERED = b"250-peer.example\r\n250-STARTTLS\r\n250-SIZE\r\n250 PIPELINING\r\n"
UNDER_TLS = b"250-peer.example\r\n250-STARTTLS\r\n250-8BITMIME\r\n250 PIPELINING\r\n"


def peer(script: dict[str, Answer] | None = None, **limits: Any) -> Peer:
    """One that offers TLS, with a certificate that nobody trusts."""
    offers: dict[str, Answer] = {"EHLO": OFFERED, "EHLO TLS": UNDER_TLS}
    return Peer(offers | (script or {}), tls=server_context("elsewhere.example", **limits))


def test_mail_goes_under_tls_where_it_is_offered(tmp_path: Path) -> None:
    server = peer()
    results, r = deliver(tmp_path, server, 20)
    assert all(result.outcomes == () for result in results)
    # A busy machine may make more than one connection of it: what each says is in this order.
    said = dict.fromkeys(line for line in server.heard if not line.startswith(("RCPT", "DATA", "QUIT")))
    assert list(said) == ["EHLO me.example", "STARTTLS", "MAIL FROM:<a@example.org>"]  # no SIZE: TLS does not offer it
    assert server.heard.count("EHLO me.example") == 2 * server.heard.count("STARTTLS") == 2 * server.connections
    assert all(m.tls for m in server.messages)
    assert len(server.messages) == 20
    for line in r.lines():
        assert " tls=TLSv1.3 cipher=TLS_" in line
        assert " relay=127.0.0.1[127.0.0.1]:" in line


def test_log_says_what_a_refusal_came_over(tmp_path: Path) -> None:
    _, r = deliver(tmp_path, peer({"RCPT": b"550 5.1.1 no\r\n"}))
    (line,) = r.lines()
    assert " tls=TLSv1.3 cipher=" in line
    assert ' status="550 5.1.1 no"' in line


def test_the_host_is_asked_for_by_name(tmp_path: Path) -> None:
    server = peer()
    assert server.tls is not None
    server.tls.sni_callback = lambda _, name, __: server.names.append(name)

    async def main() -> None:
        await server.start()
        async with rig(tmp_path, site=smtp_site((0, "mx.example.net."), port=server.port)) as (r, pool):
            r.resolver.table["mx.example.net."] = ("127.0.0.1",)
            pool.add(r.mail())
            await r.settled(1)
        await server.stop()

    run(main())
    assert server.names == ["mx.example.net"]


def test_lmtp_too(tmp_path: Path) -> None:
    server = Peer({"LHLO": OFFERED, "LHLO TLS": UNDER_TLS}, lmtp=True, tls=server_context("elsewhere.example"))

    async def main() -> None:
        await server.start()
        site = Site(name="l", kind="lmtp", hops=(Hop(0, "127.0.0.1"),), port=server.port)
        async with rig(tmp_path, site=site) as (r, pool):
            pool.add(r.mail())
            (result,) = await r.settled(1)
            assert result.outcomes == ()
        await server.stop()

    run(main())
    assert server.messages[0].tls


@pytest.mark.parametrize("setting", ["off", "may"])
def test_a_server_without_tls_gets_plaintext(tmp_path: Path, setting: str) -> None:
    server = Peer() if setting == "may" else peer()
    results, r = deliver(tmp_path, server, tls=setting)
    assert results[0].outcomes == ()
    assert "STARTTLS" not in server.heard
    assert "tls=" not in r.lines()[0]


FAILURES: dict[str, tuple[dict[str, Answer], dict[str, Any]]] = {
    "refused": ({"STARTTLS": b"454 4.7.0 TLS not available\r\n"}, {}),
    "unknown": ({"STARTTLS": b"502 5.5.1 what?\r\n"}, {}),
    "closes": ({"STARTTLS": CLOSE}, {}),
    "no-handshake": ({"STARTTLS": [b"220 go\r\n", CLOSE]}, {"server_without_tls": True}),
    "plaintext-behind": ({"STARTTLS": b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n"}, {}),
    "too-old": ({}, {"maximum_version": ssl.TLSVersion.TLSv1_1, "minimum_version": ssl.TLSVersion.TLSv1}),
    "closes-behind-the-handshake": ({"EHLO TLS": CLOSE}, {}),
}


def faulty(name: str) -> Peer:
    script, limits = FAILURES[name]
    limits = dict(limits)
    without = limits.pop("server_without_tls", False)
    server = peer(script, **limits)
    if without:
        server.tls = None  # what it gets behind its 220 is a ClientHello, to which it says 500
    return server


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("name", FAILURES)
def test_tls_that_fails_is_done_without(tmp_path: Path, name: str) -> None:
    server = faulty(name)

    async def main() -> None:
        async with rig(tmp_path, server, idle_timeout=0.05) as (r, pool):
            pool.add(r.mail())
            (result,) = await r.settled(1)
            assert result.outcomes == ()
            await until(lambda: pool.unused)
            connections = server.connections
            assert connections == (1 if name in ("refused", "unknown") else 2)
            pool.add(r.mail())
            await r.settled(2)
            # The host is known by now: one connection, without another try.
            assert server.connections == connections + 1
            noted = [line for line in r.lines() if " - fallback " in line]
            assert len(noted) == connections - 1
            assert all(" without=TLS seconds=600 reason=" in line for line in noted)
            assert r.counter("fallbacks") == connections - 1

    run(main())
    assert [m.tls for m in server.messages] == [False, False]
    assert not any("AUTH" in line for line in server.heard)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("name", [*FAILURES, "not-offered"])
def test_where_tls_is_required_the_mail_waits(tmp_path: Path, name: str) -> None:
    server = Peer() if name == "not-offered" else faulty(name)
    results, r = deliver(tmp_path, server, tls="require")
    ((status, code, enhanced, _),) = verdicts(results[0])
    assert (status, code) == (Status.DEFERRED, 0)
    assert enhanced in ("4.7.4", "4.7.5", "4.5.0", "4.4.2")
    assert server.messages == []
    assert not any(line.startswith("MAIL") for line in server.heard)
    assert not any("fallback" in line for line in r.lines())


def test_a_refusal_under_tls_is_no_failure_of_tls(tmp_path: Path) -> None:
    server = peer({"EHLO TLS": b"450 4.7.1 not now\r\n"})
    results, r = deliver(tmp_path, server)
    assert verdicts(results[0]) == [(Status.DEFERRED, 450, "4.7.1", ())]
    assert server.connections == 1
    assert not any("fallback" in line for line in r.lines())


def test_required_and_there(tmp_path: Path) -> None:
    server = peer()
    results, _ = deliver(tmp_path, server, tls="require")
    assert results[0].outcomes == ()
    assert server.messages[0].tls


def test_the_next_host_where_one_has_no_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without, having = Peer(), peer()

    async def found(host: str, port: int, resolver: object) -> list[Target]:
        return [Target(host, "127.0.0.1", {"one": without, "two": having}[host].port)]

    monkeypatch.setattr("mta.deliver.opener.targets", found)

    async def main() -> None:
        await having.start()
        await without.start()
        async with rig(tmp_path, site=smtp_site((0, "one"), (5, "two"), port=1), tls="require") as (r, pool):
            pool.add(r.mail())
            (result,) = await r.settled(1)
            assert result.outcomes == ()
        await having.stop()
        await without.stop()

    run(main())
    assert [m.tls for m in having.messages] == [True]
    assert without.messages == []


class Deaf(Peer):
    """Says 220 to STARTTLS, and nothing to a ClientHello."""

    def _answer(self, what: str, line: str) -> bytes:
        return super()._answer(what, line) if what == "." or what.isalpha() else HANG


def test_a_handshake_that_never_ends(tmp_path: Path) -> None:
    server = Deaf({"EHLO": OFFERED})
    results, _ = deliver(tmp_path, server, connect_timeout=0.3)
    assert results[0].outcomes == ()
    assert server.connections == 2


def test_large_text_under_tls_to_a_server_that_reads_slowly(tmp_path: Path) -> None:
    server = peer()
    text = b"x" * 78 + b"\r\n"

    async def main() -> None:
        async with rig(tmp_path, server) as (r, pool):
            file = tmp_path / "large"
            file.write_bytes(text * 50_000)
            ref = r.reader.put(b"a@x", [b"b@y"], b"Subject: x\r\n\r\n", file=file, size=14 + 80 * 50_000)
            pool.add([r.job(ref)])
            (result,) = await r.settled(1)
            assert result.outcomes == ()

    run(main())
    assert server.messages[0].text == b"Subject: x\r\n\r\n" + text * 50_000
