"""The front of a listener: what happens to a client before there is a connection.

Behind proxies the PROXY header is read here, because it comes in clear before the ClientHello of implicit TLS, and must
not be read any further than to its end: what it left in the socket is the connection's. A peer that is listed must
begin with a header, in time; whoever is not is let in as he is, and a header from him is only an unknown command.

Clients wait here for their greeting, where that is wanted, and are caught speaking before it: nothing is read, the
kernel is asked whether there is anything.

INVARIANT: bounded: `_MOST_WAITING` clients may be at their header, each with what `mta.protocol.proxy` allows, and as
many may wait for their greeting; the others are turned away, or greeted at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from mta.model import LOCAL_CLIENT
from mta.observe.maillog import printable, quoted
from mta.policy.relay import within
from mta.protocol.proxy import MOST, Header, ProxyError, parse
from mta.receive.connection import Connection, Presented

if TYPE_CHECKING:
    from mta.receive.listener import Endpoint

_PATIENCE: Final = 5.0  # seconds for a header
_MOST_WAITING: Final = 4096
_EARLY_DELAY: Final = 10.0  # seconds that an early talker waits more
_AT_ONCE: Final = 100  # connections accepted in a turn of the loop
_OUT_OF_FILES: Final = 0.1  # seconds to wait when there are no descriptors left


class Front:
    """Stands in for the server of one listening socket. `note` writes (event, fields) to the mail log."""

    def __init__(
        self,
        endpoint: Endpoint,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        note: Callable[[str, str], None],
    ) -> None:
        self._endpoint = endpoint
        self._sock = sock
        self._loop = loop
        self._note = note
        self._waiting: set[_Waiting] = set()
        self._held: dict[socket.socket, asyncio.TimerHandle] = {}  # until they are greeted
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False

    def open(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for waiting in list(self._waiting):
            waiting.give_up("the server stops")
        for sock, timer in self._held.items():
            timer.cancel()
            sock.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                return
            except OSError:
                self._loop.remove_reader(self._sock)
                self._loop.call_later(_OUT_OF_FILES, self.open)
                return
            sock.setblocking(False)
            client = LOCAL_CLIENT if self._endpoint.local else peer[0]
            if not within(self._endpoint.proxies, client):
                self.hold(sock, Presented(client))
            elif len(self._waiting) < _MOST_WAITING:
                self._waiting.add(_Waiting(self, sock, client))
            else:
                self.turn_away(sock, client, "too many connections are at their header")

    def hold(self, sock: socket.socket, presented: Presented) -> None:
        """Until it is time for the greeting."""
        delay = self._endpoint.greeting_delay
        if delay and len(self._held) < _MOST_WAITING:
            self._held[sock] = self._loop.call_later(delay, self._judge, sock, presented)
        else:
            self._judge(sock, presented)

    def _judge(self, sock: socket.socket, presented: Presented) -> None:
        self._held.pop(sock, None)
        talk = self._endpoint.early_talk
        early = talk != "ignore" and _octets_waiting(sock) > 0
        presented = replace(presented, early=early)
        if early and talk == "delay" and len(self._held) < _MOST_WAITING:
            self._held[sock] = self._loop.call_later(_EARLY_DELAY, self._adopt, sock, presented)
        else:
            self._adopt(sock, presented)

    def _adopt(self, sock: socket.socket, presented: Presented) -> None:
        """The socket becomes a connection."""
        self._held.pop(sock, None)
        factory = partial(Connection, self._endpoint, presented)
        task: asyncio.Task[object] = self._loop.create_task(self._loop.connect_accepted_socket(factory, sock))
        self._tasks.add(task)
        task.add_done_callback(self._adopted)

    def _adopted(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, OSError):
            raise error  # our own bug: the loop reports it

    def done(self, waiting: _Waiting) -> None:
        self._waiting.discard(waiting)

    def turn_away(self, sock: socket.socket, peer: str, reason: str) -> None:
        self._note("proxy-refused", f"client={peer} reason={quoted(reason)}")
        self._endpoint.turned_away()
        sock.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop


class _Waiting:
    """One connection at its header."""

    def __init__(self, front: Front, sock: socket.socket, peer: str) -> None:
        self._front = front
        self._sock = sock
        self._peer = peer
        self._octets = b""
        self._timer = front.loop.call_later(_PATIENCE, self.give_up, "no header in time")
        front.loop.add_reader(sock, self._read)

    def _read(self) -> None:
        try:
            came = self._sock.recv(MOST - len(self._octets), socket.MSG_PEEK)
            if not came:
                self.give_up("closed before its header was whole")
                return
            header = parse(self._octets + came)
            # All that came belongs to a header that is not whole yet; of a whole one only what it is.
            self._octets += self._sock.recv(len(came) if header is None else header.size - len(self._octets))
        except BlockingIOError:
            return
        except ProxyError as error:
            self.give_up(str(error))
            return
        except OSError as error:
            self.give_up(error.strerror or "lost")
            return
        if header is not None:
            self._leave()
            self._front.hold(self._sock, self._presented(header))

    def _presented(self, header: Header) -> Presented:
        tls = f" proxied-tls={printable(header.tls)}" if header.tls else ""
        if header.own:
            return Presented(self._peer, tls)
        return Presented(header.client, f" proxy={self._peer}{tls}")

    def give_up(self, reason: str) -> None:
        self._leave()
        self._front.turn_away(self._sock, self._peer, reason)

    def _leave(self) -> None:
        self._timer.cancel()
        self._front.loop.remove_reader(self._sock)
        self._front.done(self)


def _octets_waiting(sock: socket.socket) -> int:
    """How many can be read now."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))[0])
