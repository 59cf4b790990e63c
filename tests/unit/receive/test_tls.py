"""The shell of TLS over real sockets: how handshakes end, what is told of them, and that octets arrive."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import uvloop

from mta.config.settings import KeyPair, Listener, Tls
from mta.mail.trace import Tracer
from mta.net.certificates import read_file
from mta.observe.counters import INDEX
from mta.receive.connection import Connection
from tests.kit.authority import Authority
from tests.unit.receive.test_connection import ENVELOPE, TEXT, World

AUTHORITY = Authority()
Scenario = Callable[[World, int], Awaitable[None]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return AUTHORITY.issue(tmp_path_factory.mktemp("tls"), "mx", ["mx.test"])


def play(scenario: Scenario, pair: KeyPair, *, asking: str = "off", client_ca: Path | None = None) -> None:
    listener = Listener(address=(), tls="implicit", client_certificates=asking)  # type: ignore[arg-type]

    async def main() -> None:
        settings = Tls(certificate=pair.certificate, key=pair.key, client_ca=client_ca)
        world = World(listener, settings, 65536)
        server = await asyncio.get_running_loop().create_server(partial(Connection, world.endpoint), "127.0.0.1", 0)
        try:
            await asyncio.wait_for(scenario(world, server.sockets[0].getsockname()[1]), 20)
        finally:
            server.close()
            for connection in list(world.connections):
                connection.transport.abort()
            await world.gone()

    uvloop.run(main())


class Client:
    """A client of which every octet is ours."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, name: str | None = None) -> None:
        self.port = port
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or trusting()).wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def shake(self, step: int = 1 << 20) -> None:
        """The handshake, sent in portions of this size."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.push(step)
                await self.pull()
                continue
            await self.push(step)
            return

    async def push(self, step: int = 1 << 20) -> None:
        data = self.outgoing.read()
        for start in range(0, len(data), step):
            self.writer.write(data[start : start + step])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def pull(self) -> None:
        data = await asyncio.wait_for(self.reader.read(65536), 5)
        if not data:
            raise EOFError
        self.incoming.write(data)

    async def line(self) -> bytes:
        """The last line of a reply."""
        got = b""
        while True:
            try:
                octet = self.tls.read(1)
                if not octet:
                    return got
                got += octet
            except ssl.SSLWantReadError:
                await self.pull()
            if got.endswith(b"\r\n"):
                if got[3:4] != b"-":
                    return got
                got = b""

    async def say(self, data: bytes, step: int = 1 << 20) -> bytes:
        self.tls.write(data)
        await self.push(step)
        return await self.line()


def trusting(newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, alpn: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context


async def failure(world: World) -> str:
    """What the log says of the one handshake that failed."""
    await world.gone()
    assert [event for event, _ in world.notes] == ["tls-failed"]
    assert world.counters[INDEX["tls_failures"]] == 1
    return world.notes[0][1]


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_handshake_and_commands_in_any_portions(pair: KeyPair, version: ssl.TLSVersion, step: int) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port, trusting(version), "mx.test") as client:
            await client.shake(step)
            assert (await client.line()).startswith(b"220 ")
            assert (await client.say(b"EHLO c.example\r\n", step)).startswith(b"250 ")
            assert (await client.say(b"NOOP\r\nNOOP\r\n", step)).startswith(b"250 ")
        await world.gone()
        assert world.counters[INDEX["tls_handshakes"]] == 1
        assert world.notes == []

    play(scenario, pair)


@pytest.mark.parametrize("size", [100, 16_384, 16_385, 300_000])
def test_texts_arrive_whole(pair: KeyPair, size: int) -> None:
    async def scenario(world: World, port: int) -> None:
        text = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * (size // 78)
        async with Client(port, name="mx.test") as client:
            await client.shake()
            await client.line()
            await client.say(b"EHLO c.example\r\n")
            for command in ENVELOPE.splitlines(keepends=True):
                assert (await client.say(command))[:1] in b"23"
            client.tls.write(text + b".\r\n")
            await client.push()
            draft = await world.store.next_put()
            body = draft.body if isinstance(draft.body, bytes) else b"".join(world.store.bodies[0].chunks)
            assert body == text
            assert b"\r\n\ttls TLS_AES_256_GCM_SHA384 (TLSv1.3 sni=mx.test);\r\n" in draft.head
            world.commit()
            assert (await client.line()).startswith(b"250 ")

    play(scenario, pair)


@pytest.mark.parametrize("alpn", [None, ["smtp"], ["h2", "smtp"]])
def test_alpn_that_is_ours(pair: KeyPair, alpn: list[str] | None) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port, trusting(alpn=alpn)) as client:
            await client.shake()
            assert client.tls.selected_alpn_protocol() == ("smtp" if alpn else None)

    play(scenario, pair)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_alpn_of_others_is_refused(pair: KeyPair, version: ssl.TLSVersion) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port, trusting(version, ["h2", "http/1.1"]), "mx.test") as client:
            with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
                await client.shake()
        told = await failure(world)
        offered = "TLSv1.2" if version == ssl.TLSVersion.TLSv1_2 else "TLSv1.3"
        assert told == (
            f"client=127.0.0.1 offered={offered} sni=mx.test reason='application protocols without smtp: h2 http/1.1'"
        )

    play(scenario, pair)


def test_other_protocols_are_told_as_such(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"EHLO c.example\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert "EHLO c.example" in await failure(world)
        assert "not TLS" in world.notes[0][1]

    play(scenario, pair)


def test_a_broken_hello_gets_an_alert(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01\x00\x04\x02\0\0\0")
        assert await asyncio.wait_for(reader.read(), 5) == b"\x15\x03\x03\x00\x02\x02\x32"
        writer.close()
        assert "handshake message 2" in await failure(world)

    play(scenario, pair)


def test_who_comes_and_goes_without_a_word_is_not_told(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        await world.gone()
        assert world.notes == []
        assert world.counters[INDEX["tls_failures"]] == 0

    play(scenario, pair)


def test_who_goes_in_the_middle_is(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port) as client:
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.do_handshake()
            await client.push(30)
            await client.pull()
            client.writer.write_eof()
            assert "closed by the client" in await failure(world)

    play(scenario, pair)


def test_old_versions_are_refused(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
            old = trusting(ssl.TLSVersion.TLSv1_1)
            old.minimum_version = ssl.TLSVersion.TLSv1
        old.set_ciphers("ALL:@SECLEVEL=0")
        async with Client(port, old) as client:
            with pytest.raises(ssl.SSLError, match=r"(?i)protocol_version"):
                await client.shake()
        assert await failure(world) == "client=127.0.0.1 offered=TLSv1.1 sni=- reason='unsupported protocol'"

    play(scenario, pair)


def test_suites_that_do_not_meet(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        weak = trusting(ssl.TLSVersion.TLSv1_2)
        weak.set_ciphers("AES256-SHA:ECDHE-ECDSA-AES128-SHA256")
        async with Client(port, weak) as client:
            with pytest.raises(ssl.SSLError, match=r"(?i)handshake_failure"):
                await client.shake()
        assert "reason='no shared cipher'" in await failure(world)

    play(scenario, pair)


def test_a_client_that_trusts_somebody_else(pair: KeyPair, tmp_path: Path) -> None:
    async def scenario(world: World, port: int) -> None:
        strict = ssl.create_default_context(cafile=str(Authority(tmp_path, "other").path))
        async with Client(port, strict, "mx.test") as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.shake()
            await client.push()
            assert "reason='tlsv1 alert unknown ca'" in await failure(world)

    play(scenario, pair)


def test_a_handshake_has_its_time(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01")
        while not any(connection.tls and connection.tls.heard for connection in world.connections):  # noqa: ASYNC110
            await asyncio.sleep(0)
        (connection,) = world.connections
        assert connection.shakes_hands
        connection.hang_up(b"421 never sent\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert "reason='not done in time'" in await failure(world)

    play(scenario, pair)


def test_a_record_that_was_touched_ends_the_session(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port) as client:
            await client.shake()
            await client.line()
            client.tls.write(b"NOOP\r\n")
            data = bytearray(client.outgoing.read())
            data[-1] ^= 1
            client.writer.write(data)
            assert "decryption failed or bad record mac" in await failure(world)

    play(scenario, pair)


def test_both_sides_say_goodbye(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port) as client:
            await client.shake()
            await client.line()
            assert (await client.say(b"QUIT\r\n")).startswith(b"221 ")
            assert await client.line() == b""  # its close_notify
        async with Client(port) as client:
            await client.shake()
            await client.line()
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.unwrap()
            await client.push()
            await world.gone()

    play(scenario, pair)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bindings_are_those_of_the_client(pair: KeyPair, version: ssl.TLSVersion) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port, trusting(version)) as client:
            await client.shake()
            await client.line()
            (connection,) = world.connections
            assert connection.tls is not None
            expected = {"tls-server-end-point": read_file(pair.certificate).binding}
            if version == ssl.TLSVersion.TLSv1_2:  # and OpenSSL always offers the extended master secret
                expected["tls-unique"] = client.tls.get_channel_binding("tls-unique")
            assert connection.tls.bindings() == expected
            assert connection.tls.peer() is None

    play(scenario, pair)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(pair: KeyPair, version: ssl.TLSVersion) -> None:
    async def scenario(world: World, port: int) -> None:
        context = trusting(version)
        session = None
        for _ in range(3):
            async with Client(port, context) as client:
                client.tls = context.wrap_bio(client.incoming, client.outgoing, session=session)
                await client.shake()
                await client.line()
                await client.say(b"EHLO c.example\r\n")
                session = client.tls.session
                assert client.tls.session_reused == (world.counters[INDEX["tls_handshakes"]] > 1)
        assert world.counters[INDEX["tls_resumed"]] == 2

    play(scenario, pair)


@pytest.mark.parametrize("gives", ["good", "foreign", "none"])
def test_client_certificates(pair: KeyPair, tmp_path: Path, gives: str) -> None:
    authority = Authority(tmp_path)
    signer = Authority(name="other") if gives == "foreign" else authority
    own = signer.issue(tmp_path, "alice", [], mail=["alice@home.test", "a@home.test"])

    async def scenario(world: World, port: int) -> None:
        context = trusting()
        if gives != "none":
            context.load_cert_chain(own.certificate, own.key)
        async with Client(port, context) as client:
            if gives == "foreign":
                await client.shake()  # the server's verdict comes behind it (RFC 8446 §4.4.3)
                with pytest.raises(ssl.SSLError, match=r"(?i)unknown.?ca"):
                    await client.line()
                assert "reason='client certificate: " in await failure(world)
                return
            await client.shake()
            await client.line()
            (connection,) = world.connections
            assert connection.tls is not None
            peer = connection.tls.peer()
            if gives == "none":
                assert peer is None
                return
            assert peer is not None
            assert peer.names == ("alice@home.test", "a@home.test")
            assert peer.fingerprint == read_file(own.certificate).digest.hex()

    play(scenario, pair, asking="ask", client_ca=authority.path)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_the_certificate_that_is_required(pair: KeyPair, tmp_path: Path, version: ssl.TLSVersion) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port, trusting(version)) as client:
            with pytest.raises((ssl.SSLError, EOFError)):
                await greeted(client)
        assert "reason='peer did not return a certificate'" in await failure(world)

    play(scenario, pair, asking="require", client_ca=Authority(tmp_path).path)


async def greeted(client: Client) -> None:
    await client.shake()
    await client.line()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_knows_the_certificate(pair: KeyPair, tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    own = authority.issue(tmp_path, "alice", [], mail=["alice@home.test"])

    async def scenario(world: World, port: int) -> None:
        context = trusting(version)
        context.load_cert_chain(own.certificate, own.key)
        session = None
        for resumed in (False, True):
            async with Client(port, context) as client:
                client.tls = context.wrap_bio(client.incoming, client.outgoing, session=session)
                await greeted(client)
                await client.say(b"EHLO c.example\r\n")
                session = client.tls.session
                assert client.tls.session_reused == resumed
                (connection,) = world.connections
                assert connection.tls is not None
                peer = connection.tls.peer()
                assert peer is not None
                assert peer.names == ("alice@home.test",)
            await world.gone()

    play(scenario, pair, asking="require", client_ca=authority.path)


def test_a_reply_longer_than_a_record(pair: KeyPair) -> None:
    async def scenario(world: World, port: int) -> None:
        async with Client(port) as client:
            await client.shake()
            await client.line()
            (connection,) = world.connections
            connection.transport.write(b"250-" + b"x" * 50_000 + b"\r\n250 end\r\n")
            assert await client.line() == b"250 end\r\n"

    play(scenario, pair)


def test_one_connection_that_cannot_be_answered_harms_no_other(pair: KeyPair) -> None:
    class Broken:
        def write(self, data: bytes) -> int:
            error = ssl.SSLError(1, "it is broken")
            error.reason = "INTERNAL_ERROR"
            raise error

    async def scenario(world: World, port: int) -> None:
        async with Client(port) as client:
            await greeted(client)
            (connection,) = world.connections
            assert connection.tls is not None
            connection.tls._tls = Broken()  # type: ignore[assignment]
            connection.transport.write(b"250 x\r\n")
            assert "internal error" in await failure(world)

    play(scenario, pair)


def test_a_text_that_is_answered_after_the_client_has_closed(pair: KeyPair) -> None:
    """It closed its sending side by close_notify and still reads."""

    async def scenario(world: World, port: int) -> None:
        async with Client(port) as client:
            await client.shake()
            await client.line()
            await client.say(b"EHLO c.example\r\n")
            for command in ENVELOPE.splitlines(keepends=True):
                await client.say(command)
            client.tls.write(TEXT + b".\r\n")
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.unwrap()
            await client.push()
            await world.store.next_put()
            world.commit()
            await client.pull()
            assert client.incoming.pending > 20
            await world.gone()

    play(scenario, pair)


def test_a_trace_header_in_plain_has_no_clause() -> None:
    tracer = Tracer("mx.test")
    assert b"tls" not in tracer.received(tracer.origin(b"c", "192.0.2.1", b"ESMTP"), "1", b"", 0)
