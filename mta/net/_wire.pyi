"""The way of octets between a socket of uvloop and a sans-IO session, both of receivers and of couriers."""

from asyncio import AbstractEventLoop, Transport
from typing import Any, Final, Protocol

SOURCE_HASH: Final[str]  # sha256 of the .pyx this was built from, in hex; "" when the build did not say

class Ticking(Protocol):
    """A coarse clock."""

    tick: int

class Outbox:
    """What the connections of one process have to send at the end of this turn of its loop.

    `batches`: many in one system call, if the system allows that; None: while single writes are seen to cost the
    processor.
    """

    def __init__(self, loop: AbstractEventLoop, *, batches: bool | None = None) -> None: ...
    @property
    def batches(self) -> bool:
        """Whether the system allows that, and it is wanted."""

    @property
    def gathers(self) -> bool:
        """Whether what is sent now waits for the end of the turn."""

    def flush(self) -> None:
        """Write all that waits."""

class Wire:
    """A `BufferedProtocol` around a session with `receive(buffer, size) -> flags` and `take_output() -> bytes`.

    `active` is a tick of the clock: the one in which it was made, then what the subclass says.
    """

    transport: Transport
    session: Any  # the subclass knows
    active: int
    def __init__(self, buffer: memoryview, clock: Ticking, outbox: Outbox) -> None: ...
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...
    def direct(self, fd: int) -> None:
        """The transport is this plain socket, and nothing waits in it."""

    def indirect(self) -> None:
        """From now on all goes through the transport."""

    def lose(self) -> None:
        """The connection is lost: nothing more is sent."""

    def send(self, data: bytes) -> None:
        """Octets for the peer, in order; they leave at once, or at the end of this turn of the loop."""

    def flush(self) -> None:
        """Send now what waits for the end of the turn."""

    def act(self, flags: int) -> None:
        """For the subclass: the session has raised these; 0 when it had nothing to say."""

    def cut_off(self) -> None:
        """For the subclass: the socket takes nothing any more."""

    def held_back(self) -> None:
        """For the subclass: some octets wait in the transport."""

class ListeningWire(Wire):
    """Of a client: `active` is the tick in which it last sent something."""
