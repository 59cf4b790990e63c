"""A receiver's connections over real sockets, with a store whose commits the test decides."""

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import trustme
import uvloop

from mta.config.settings import Domain, Limits, Listener, NextHop, Octets, Rate, Tls
from mta.model import (
    NOTIFY_NEVER,
    Arrival,
    Arrivals,
    Body,
    Draft,
    IdSource,
    LinkRecord,
    MessageId,
    Options,
    Position,
    Recipient,
    StoreError,
    id_text,
)
from mta.net._wire import Outbox
from mta.net.certificates import CertificateStore, listener_policy
from mta.observe.counters import INDEX, Table
from mta.observe.maillog import MailLog
from mta.policy.admission import Admission
from mta.policy.relay import RelayControl
from mta.policy.tally import TallyTable
from mta.receive.connection import Connection
from mta.receive.intake import MessageIntake
from mta.receive.listener import READ_SIZE, Clock, Endpoint
from mta.receive.refusals import Refusals
from mta.receive.tls import CIPHERTEXT, TlsSide

TEXT = b"Subject: x\r\n\r\nhello\r\n"
ENVELOPE = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@own.example>\r\nDATA\r\n"

NOWHERE = MailLog(Path("/dev/null"))  # one for all tests: a log is open as long as its process


class FakeBody:
    def __init__(self, store: "FakeStore") -> None:
        self.store = store
        self.chunks: list[bytes] = []
        self.discarded = False

    @property
    def size(self) -> int:
        return sum(map(len, self.chunks))

    def write(self, chunk: bytes) -> None:
        if self.store.body_fails:
            raise StoreError("no room", full=True)
        self.chunks.append(chunk)

    def discard(self) -> None:
        self.discarded = True


class FakeStore:
    """An Intake whose batches end when the test says so."""

    def __init__(self) -> None:
        self.puts: list[tuple[Draft, object]] = []
        self.bodies: list[FakeBody] = []
        self.body_fails = False
        self.put_fails: StoreError | None = None
        self.refusing: StoreError | None = None
        self.arrived = asyncio.Event()

    def put(self, draft: Draft, token: object) -> None:
        if self.put_fails is not None:
            raise self.put_fails
        self.puts.append((draft, token))
        self.arrived.set()

    def commit(self) -> None:
        pass  # a batch ends when the test says so

    @property
    def committing(self) -> bool:
        return bool(self.puts)

    def body(self, message_id: MessageId) -> Body:
        self.bodies.append(FakeBody(self))
        return self.bodies[-1]

    async def next_put(self) -> Draft:
        await asyncio.wait_for(self.arrived.wait(), 5)
        return self.puts[-1][0]


class World:
    """One endpoint on a free port, and what it said to the queue manager."""

    def __init__(self, listener: Listener, tls: Tls | None, chunk: int, limits: Limits | None = None) -> None:
        self.store = FakeStore()
        self.said: list[LinkRecord] = []
        self.notes: list[tuple[str, str]] = []
        self.link_full = False
        self.counters = Table(1).row(0)
        domains = [Domain(name="own.example", deliver=NextHop(kind="discard"))]
        self.connections: set[Connection] = set()
        self.intake = MessageIntake(
            log=1,
            hostname="mx.own.example",
            domains=domains,
            counters=self.counters,
            maillog=NOWHERE,
            announce=self.announce,
            position=lambda: 77,
        )
        self.intake.attach(self.store, IdSource(1))
        limits = limits or Limits(message_size=Octets(1 << 20))
        self.endpoint = Endpoint(
            listener,
            limits,
            admission=Admission(
                "test", limits, TallyTable(1).born(0), trusts=lambda client: False, now=lambda: int(time.monotonic())
            ),
            refusals=Refusals(IdSource(1), NOWHERE, Rate(100, 60), self.intake.count),
            hostname="mx.own.example",
            chunk=chunk,
            relay=RelayControl([ipaddress.ip_network("192.0.2.0/24")], domains),
            tls=self.side(listener, tls) if tls is not None else None,
            intake=self.intake,
            connections=self.connections,
            clock=Clock(),
            buffer=memoryview(bytearray(READ_SIZE)),
            outbox=Outbox(asyncio.get_running_loop()),
        )

    def side(self, listener: Listener, tls: Tls) -> TlsSide:
        policy = listener_policy(listener)
        return TlsSide(
            CertificateStore(tls, [policy], 0.0),
            policy,
            memoryview(bytearray(CIPHERTEXT)),
            note=lambda event, fields: self.notes.append((event, fields)),
            count=self.intake.count,
        )

    async def gone(self) -> None:
        """The client's connection is known to be lost."""
        async with asyncio.timeout(5):
            while self.connections:  # noqa: ASYNC110  there is no event to wait for in the server itself
                await asyncio.sleep(0)

    def announce(self, record: LinkRecord) -> bool:
        if not self.link_full:
            self.said.append(record)
        return not self.link_full

    def commit(self, error: StoreError | None = None) -> None:
        batch, self.store.puts = self.store.puts, []
        self.store.arrived.clear()
        arrivals: Sequence[Arrival] = ()
        if error is None:
            arrivals = [Arrival(d.id, 8, 64, len(d.head), (b"own.example",)) for d, _ in batch]
        self.intake.committed([token for _, token in batch], arrivals, error)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> bytes:
        """One whole reply, its lines joined as they came."""
        lines = b""
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 5)
            lines += line
            if line[3:4] != b"-":
                return lines

    async def say(self, data: bytes) -> bytes:
        self.send(data)
        return await self.reply()


Scenario = Callable[[World, Client], Awaitable[None]]


def play(
    scenario: Scenario,
    *,
    listener: Listener | None = None,
    tls: Tls | None = None,
    chunk: int = 65536,
    limits: Limits | None = None,
) -> None:
    async def main() -> None:
        listener_ = listener or Listener(address=())
        world = World(listener_, tls, chunk, limits)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            partial(Connection, world.endpoint),
            "127.0.0.1",
            0,
        )
        port = server.sockets[0].getsockname()[1]
        trust = None
        if listener_.tls == "implicit":
            trust = ssl.create_default_context()
            trust.check_hostname = False
            trust.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        client = Client(reader, writer)
        assert (await client.reply()).startswith(b"220 mx.own.example ESMTP")
        try:
            await asyncio.wait_for(scenario(world, client), 20)
        finally:
            writer.transport.abort()
            server.close()
            for connection in list(world.connections):
                connection.transport.abort()
            await world.gone()

    uvloop.run(main())


async def begin(client: Client, text: bytes = TEXT) -> None:
    await client.say(b"EHLO c.example\r\n")
    for command in ENVELOPE.splitlines(keepends=True):
        assert (await client.say(command))[:1] in b"23"
    client.send(text + b".\r\n")


def test_the_250_comes_after_the_commit_and_names_the_message() -> None:
    async def scenario(world: World, client: Client) -> None:
        await begin(client)
        draft = await world.store.next_put()
        assert draft.body == TEXT
        assert draft.head.startswith(b"Received: from c.example ([127.0.0.1])\r\n")
        assert draft.envelope.sender == b"a@x.example"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readline(), 0.05)
        world.commit()
        assert await client.reply() == f"250 2.0.0 queued as {id_text(draft.id)}\r\n".encode()
        world.intake.tell()
        assert isinstance(world.said[-1], Arrivals)
        assert world.said[-1].messages[0].id == draft.id
        assert world.counters[INDEX["messages_accepted"]] == 1

    play(scenario)


@pytest.mark.parametrize(
    ("error", "code"), [(StoreError("EIO"), b"451 4.3.0 "), (StoreError("ENOSPC", full=True), b"452 4.3.1 ")]
)
def test_a_failed_commit_is_never_a_250(error: StoreError, code: bytes) -> None:
    async def scenario(world: World, client: Client) -> None:
        await begin(client)
        await world.store.next_put()
        world.commit(error)
        assert (await client.reply()).startswith(code)
        assert world.said == []
        assert (await client.say(b"NOOP\r\n")).startswith(b"250 ")

    play(scenario)


def test_a_store_that_refuses_is_heard_at_once_even_by_a_thousand_pipelined_messages() -> None:
    async def scenario(world: World, client: Client) -> None:
        world.store.put_fails = StoreError("full", full=True)
        await client.say(b"EHLO c.example\r\n")
        client.send((ENVELOPE + b".\r\n") * 1500)
        for _ in range(1500):
            replies = [(await client.reply())[:3] for _ in range(4)]
            assert replies == [b"250", b"250", b"354", b"452"]

    play(scenario)


def test_what_is_pipelined_behind_a_text_waits_for_its_answer() -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.say(b"EHLO c.example\r\n")
        client.send(ENVELOPE)
        assert [(await client.reply())[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        client.send(TEXT + b".\r\nNOOP\r\n")
        await world.store.next_put()
        client.send(b"RSET\r\nQUIT\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readline(), 0.05)
        world.commit()
        assert [(await client.reply())[:3] for _ in range(4)] == [b"250", b"250", b"250", b"221"]
        assert await asyncio.wait_for(client.reader.read(), 5) == b""

    play(scenario)


def test_a_client_that_leaves_before_the_commit_hurts_nothing() -> None:
    async def scenario(world: World, client: Client) -> None:
        await begin(client)
        await world.store.next_put()
        client.writer.transport.abort()
        world.commit()
        await world.gone()
        world.intake.tell()
        assert isinstance(world.said[-1], Arrivals)

    play(scenario)


def test_a_client_that_closed_its_sending_side_still_gets_the_answer() -> None:
    async def scenario(world: World, client: Client) -> None:
        await begin(client)
        client.writer.write_eof()
        await world.store.next_put()
        world.commit()
        assert (await client.reply()).startswith(b"250 2.0.0 queued")

    play(scenario)


def test_a_large_text_goes_to_a_body_piece_by_piece() -> None:
    text = b"x" * 76 + b"\r\n"

    async def scenario(world: World, client: Client) -> None:
        await begin(client, text * 4000)
        draft = await world.store.next_put()
        (body,) = world.store.bodies
        assert draft.body is body
        assert b"".join(body.chunks) == text * 4000
        assert len(body.chunks) > 2
        world.commit()
        assert (await client.reply()).startswith(b"250 ")
        assert not body.discarded

    play(scenario, chunk=8192)


def test_a_large_text_that_is_refused_or_given_up_is_discarded() -> None:
    async def scenario(world: World, client: Client) -> None:
        await begin(client, b"x" * 50_000 + b"\r\nbare \n here\r\n")
        assert (await client.reply()).startswith(b"550 5.6.0 ")
        await begin(client, b"y" * 50_000)
        client.writer.transport.abort()
        await world.gone()
        assert [body.discarded for body in world.store.bodies] in ([True, True], [True])

    play(scenario, chunk=8192)


def test_a_disk_that_fills_during_a_large_text_is_told_at_its_end() -> None:
    async def scenario(world: World, client: Client) -> None:
        world.store.body_fails = True
        await begin(client, b"x" * 300_000 + b"\r\n")
        assert (await client.reply()).startswith(b"452 4.3.1 ")
        world.store.body_fails = False
        await begin(client)
        await world.store.next_put()
        world.commit()
        assert (await client.reply()).startswith(b"250 ")

    play(scenario, chunk=8192)


def test_while_the_store_refuses_mail_is_told_at_once() -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.say(b"EHLO c.example\r\n")
        world.endpoint.refuse_mail(StoreError("full", full=True))
        assert (await client.say(b"MAIL FROM:<a@x.example>\r\n")).startswith(b"452 4.3.1 ")
        world.endpoint.refuse_mail(None)
        assert (await client.say(b"MAIL FROM:<a@x.example>\r\n")).startswith(b"250 ")

    play(scenario)


def test_news_that_finds_the_link_full_is_made_good_by_a_position() -> None:
    async def scenario(world: World, client: Client) -> None:
        world.link_full = True
        await begin(client)
        await world.store.next_put()
        world.commit()
        assert (await client.reply()).startswith(b"250 ")
        world.intake.tell()
        world.intake.settle()
        assert world.said == []
        world.link_full = False
        world.intake.settle()
        world.intake.settle()
        assert world.said == [Position(1, 77)]

    play(scenario)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    certificate = trustme.CA().issue_cert("mx.own.example")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    return Tls(certificate=folder / "cert.pem", key=folder / "key.pem")


def test_starttls_drops_what_came_in_plain_behind_it(tls: Tls) -> None:
    async def scenario(world: World, client: Client) -> None:
        assert b"250-STARTTLS" in (answer := await client.say(b"EHLO c.example\r\n")) or b"250 STARTTLS" in answer
        assert (await client.say(b"STARTTLS\r\nMAIL FROM:<injected@x.example>\r\n")).startswith(b"220 2.0.0 ")
        trust = ssl.create_default_context()
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
        await client.writer.start_tls(trust)
        assert (await client.say(b"RCPT TO:<b@own.example>\r\n")).startswith(b"503 5.5.1 ")
        assert b"STARTTLS" not in await client.say(b"EHLO c.example\r\n")
        await begin(client)
        draft = await world.store.next_put()
        assert b" with ESMTPS id " in draft.head
        assert draft.envelope.sender == b"a@x.example"
        world.commit()
        assert (await client.reply()).startswith(b"250 ")

    play(scenario, listener=Listener(address=(), tls="starttls"), tls=tls)


def test_implicit_tls(tls: Tls) -> None:
    async def scenario(world: World, client: Client) -> None:
        assert b"STARTTLS" not in await client.say(b"EHLO c.example\r\n")
        await begin(client)
        draft = await world.store.next_put()
        assert b" with ESMTPS id " in draft.head
        world.commit()
        assert (await client.reply()).startswith(b"250 ")

    play(scenario, listener=Listener(address=(), tls="implicit"), tls=tls)


def test_what_a_transaction_asks_for_is_stored_with_it() -> None:
    async def scenario(world: World, client: Client) -> None:
        assert b"250-DSN\r\n" in await client.say(b"EHLO c.example\r\n")
        client.send(b"MAIL FROM:<a@x.example> RET=HDRS ENVID=q1\r\n")
        client.send(b"RCPT TO:<b@own.example> NOTIFY=NEVER\r\nRCPT TO:<c@own.example>\r\nDATA\r\n" + TEXT + b".\r\n")
        for _ in range(4):
            await client.reply()
        envelope = (await world.store.next_put()).envelope
        assert envelope.options == Options(ret="HDRS", envid=b"q1")
        assert envelope.recipients == (Recipient(b"b@own.example", NOTIFY_NEVER), Recipient(b"c@own.example"))
        world.commit()
        assert (await client.reply()).startswith(b"250 2.0.0 queued as ")
        client.send(ENVELOPE + TEXT + b".\r\n")
        for _ in range(3):
            await client.reply()
        assert (await world.store.next_put()).envelope.options is None
        world.commit()

    play(scenario)


def test_what_is_taken_away_is_not_known() -> None:
    async def scenario(world: World, client: Client) -> None:
        assert b"DSN" not in await client.say(b"EHLO c.example\r\n")
        assert (await client.say(b"MAIL FROM:<a@x.example> RET=HDRS\r\n")).startswith(b"555 5.5.4 ")

    play(scenario, listener=Listener(address=(), without=("DSN",)))


def test_the_trace_header_tells_of_smtputf8() -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.say(b"EHLO c.example\r\n")
        for parameters, keyword in ((b" SMTPUTF8", b" with UTF8SMTP id "), (b"", b" with ESMTP id ")):
            client.send(ENVELOPE.replace(b"a@x.example>", b"a@x.example>" + parameters) + TEXT + b".\r\n")
            for _ in range(3):
                assert (await client.reply())[:1] in (b"2", b"3")
            assert keyword in (await world.store.next_put()).head
            world.commit()
            await client.reply()

    play(scenario)
