"""The wire against sockets and a transport that only notes: order, ends, and what does not fit."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mta.net._wire as native
from mta import _fastparse
from mta.net._wire import ListeningWire, Outbox, Wire


class Clock:
    tick = 7


class Session:
    """Says what it heard, in capitals."""

    flags = _fastparse.OUTPUT

    def __init__(self) -> None:
        self.heard = b""

    def receive(self, buffer: memoryview, size: int) -> int:
        self.heard = bytes(buffer[:size])
        return self.flags

    def take_output(self) -> bytes:
        return self.heard.upper()


class Transport:
    """Takes everything, and sends nothing."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: bytes) -> None:
        self.taken += data

    def get_write_buffer_size(self) -> int:
        return len(self.taken)


class Ear(ListeningWire):
    """`events` is what it was told."""

    def __init__(self, buffer: memoryview, clock: Clock, outbox: Outbox) -> None:
        super().__init__(buffer, clock, outbox)
        self.events: list[Any] = []
        self.session = Session()
        self.transport: Any = Transport()

    def act(self, flags: int) -> None:
        self.events.append(flags)

    def cut_off(self) -> None:
        self.events.append("cut off")

    def held_back(self) -> None:
        self.events.append("held back")


class Bench:
    """Some wires to sockets whose other ends are here; `soon` is what the loop was asked to call."""

    def __init__(self, count: int, *, batches: bool | None) -> None:
        self.soon: list[Any] = []
        self.buffer = memoryview(bytearray(100_000))
        self.outbox = Outbox(self, batches=batches)  # type: ignore[arg-type]
        pairs = [socket.socketpair() for _ in range(count)]
        self.peers = [peer for _, peer in pairs]
        self.sockets = [own for own, _ in pairs]
        self.wires = [Ear(self.buffer, Clock(), self.outbox) for _ in pairs]
        for wire, own, peer in zip(self.wires, self.sockets, self.peers, strict=True):
            own.setblocking(False)
            peer.setblocking(False)
            wire.direct(own.fileno())

    def call_soon(self, call: Any) -> None:
        self.soon.append(call)

    def turn(self) -> None:
        """The end of a turn of the loop."""
        calls, self.soon = self.soon, []
        for call in calls:
            call()

    def close(self) -> None:
        for sock in (*self.sockets, *self.peers):
            sock.close()


@pytest.fixture(
    params=[(1, True), (3, True), (200, True), (20, False), (20, None)], ids=["one", "three", "many", "each", "either"]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    count, batches = request.param
    made = Bench(count, batches=batches)
    assert made.outbox.batches or batches is not True
    yield made
    made.close()


def received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""


def choke(sock: socket.socket) -> None:
    """Fill a socket until it takes no more."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    try:
        while sock.send(b"x" * 65536):
            pass
    except BlockingIOError:
        return


def test_the_extension_is_built_from_this_source() -> None:
    source = Path(native.__file__).with_name("_wire.pyx")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == native.SOURCE_HASH, "stale: run `make build`"


def test_the_stub_names_what_the_module_has() -> None:
    stub = Path(native.__file__).with_name("_wire.pyi").read_text()
    names = {n for n in [*dir(native), *dir(Wire), *dir(Outbox)] if not n.startswith("__")}
    assert {n for n in names if n not in stub} == set()


def test_replies_leave_each_on_its_own_socket(bench: Bench) -> None:
    for number, wire in enumerate(bench.wires):
        words = b"hello %d" % number
        wire.get_buffer(-1)[: len(words)] = words
        wire.buffer_updated(len(words))
    if bench.outbox.gathers:
        assert len(bench.soon) == 1
        assert [received(peer) for peer in bench.peers] == [b""] * len(bench.peers)
    bench.turn()
    assert [received(peer) for peer in bench.peers] == [b"HELLO %d" % n for n in range(len(bench.peers))]
    assert bench.soon == []


def test_what_is_sent_twice_in_a_turn_keeps_its_order(bench: Bench) -> None:
    for wire in bench.wires:
        wire.send(b"one ")
    for wire in reversed(bench.wires):
        wire.send(b"two")
    bench.turn()
    assert {received(peer) for peer in bench.peers} == {b"one two"}


def test_a_socket_that_takes_no_more_leaves_the_rest_to_the_transport(bench: Bench) -> None:
    choke(bench.sockets[0])
    for wire in bench.wires:
        wire.send(b"late")
    bench.turn()
    wire = bench.wires[0]
    assert wire.transport.taken == b"late"
    assert wire.events == ["held back"]
    wire.send(b"r")
    bench.turn()
    assert wire.transport.taken == b"later"
    assert all(received(peer) == b"late" for peer in bench.peers[1:])


def test_it_is_direct_again_when_the_transport_is_empty(bench: Bench) -> None:
    wire, peer = bench.wires[0], bench.peers[0]
    choke(bench.sockets[0])
    wire.send(b"slow")
    bench.turn()
    while received(peer):
        pass
    wire.transport.taken = b""
    wire.send(b"quick")
    bench.turn()
    assert received(peer) == b"quick"


def test_a_partial_write_is_continued_where_it_stopped(bench: Bench) -> None:
    sock, wire, peer = bench.sockets[0], bench.wires[0], bench.peers[0]
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    words = os.urandom(60_000)
    for other in bench.wires[1:]:
        other.send(b"other")
    wire.send(words)
    bench.turn()
    got = b""
    while more := received(peer):
        got += more
    assert 0 < len(got) < len(words)
    assert got + wire.transport.taken == words


def test_a_peer_that_is_gone_breaks_only_its_own_wire(bench: Bench) -> None:
    bench.peers[0].close()
    for wire in bench.wires:
        wire.send(b"words")
    bench.turn()
    assert bench.wires[0].events == ["cut off"]
    assert all(received(peer) == b"words" for peer in bench.peers[1:])


def test_nothing_is_written_for_a_lost_connection(bench: Bench) -> None:
    for wire in bench.wires:
        wire.send(b"words")
    bench.wires[0].lose()
    bench.turn()
    assert received(bench.peers[0]) == (b"" if bench.outbox.gathers else b"words")
    assert bench.wires[0].events == []
    assert all(received(peer) == b"words" for peer in bench.peers[1:])


def test_the_last_words_can_go_at_once(bench: Bench) -> None:
    bench.wires[0].send(b"bye")
    bench.wires[0].flush()
    assert received(bench.peers[0]) == b"bye"
    bench.turn()
    assert received(bench.peers[0]) == b""


def test_what_waits_goes_before_all_goes_through_the_transport(bench: Bench) -> None:
    wire = bench.wires[0]
    wire.send(b"220 go")
    wire.indirect()
    assert received(bench.peers[0]) == b"220 go"
    wire.send(b"secret")
    bench.turn()
    assert wire.transport.taken == b"secret"
    assert received(bench.peers[0]) == b""


def test_much_does_not_wait_for_the_end_of_the_turn(bench: Bench) -> None:
    words = b"y" * 70_000
    bench.wires[0].send(b"a")
    bench.wires[0].send(words)
    got = received(bench.peers[0])
    assert got + bench.wires[0].transport.taken == b"a" + words
    assert got


def test_single_writes_that_cost_nothing_stay_single() -> None:
    bench = Bench(2, batches=None)
    for _ in range(2_000):
        for wire, peer in zip(bench.wires, bench.peers, strict=True):
            wire.send(b"words")
            assert received(peer) == b"words" or bench.outbox.gathers
        bench.turn()
    bench.close()


def test_other_flags_are_for_the_subclass(bench: Bench) -> None:
    wire = bench.wires[0]
    wire.session.flags = 0
    wire.buffer_updated(1)
    wire.session.flags = _fastparse.OUTPUT | _fastparse.CLOSE
    wire.buffer_updated(1)
    assert wire.events == [0, _fastparse.OUTPUT | _fastparse.CLOSE]
    assert bench.soon == []


def test_the_tick_in_which_a_client_spoke_is_noted(bench: Bench) -> None:
    wire = bench.wires[0]
    wire.active = 0
    wire.buffer_updated(1)
    assert wire.active == 7


def test_the_loop_of_the_process_flushes() -> None:
    async def run() -> None:
        outbox = Outbox(asyncio.get_running_loop())
        own, peer = socket.socketpair()
        with own, peer:
            own.setblocking(False)
            wire = Ear(memoryview(bytearray(10)), Clock(), outbox)
            wire.direct(own.fileno())
            wire.send(b"hi")
            await asyncio.sleep(0)
            assert peer.recv(10) == b"hi"

    asyncio.run(run())
