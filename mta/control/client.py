"""A synchronous client of the control socket, for the command line and for other programs.

with Client(Path("/run/mta")) as mta:
    print(mta.call("queue.count", filter=["all"])["messages"])
    for row in mta.rows("queue.list", filter=["state=deferred"]):
        print(row["id"])
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from mta.control.protocol import SOCKET_NAME, VERSION, Json, ProtocolError, decode, encode, socket_name


class NoServer(Exception):
    """Nobody answers on the socket."""


class Refused(Exception):
    """The server's own words: the request is wrong, or not allowed."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Client:
    """One connection. `timeout` seconds without an octet mean that nobody answers."""

    def __init__(self, runtime_dir: Path, timeout: float = 60.0) -> None:
        path = runtime_dir / SOCKET_NAME
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            with socket_name(path) as name:
                self._socket.connect(name)
        except OSError as error:
            self._socket.close()
            raise NoServer(
                f"no server answers on {path} ({error.strerror or error});"
                " is it running, with this configuration, and are you its user or root?"
            ) from error
        self._file = self._socket.makefile("rb")
        self._number = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def call(self, verb: str, **arguments: object) -> Json:
        """The end of an answer; its rows, if any, are passed over."""
        end: Json = {}
        for frame in self._frames(verb, arguments):
            if "end" in frame:
                end = _object(frame["end"])
        return end

    def rows(self, verb: str, **arguments: object) -> Iterator[Json]:
        """The rows of an answer, as they come."""
        for frame in self._frames(verb, arguments):
            if "row" in frame:
                yield _object(frame["row"])

    def _frames(self, verb: str, arguments: Json) -> Iterator[Json]:
        self._number += 1
        try:
            with contextlib.suppress(BrokenPipeError):  # a server that hangs up on us may have said why
                self._socket.sendall(encode({"v": VERSION, "id": self._number, "verb": verb, "args": arguments}))
            while line := self._file.readline():
                frame = decode(line)
                if "error" in frame:
                    error = _object(frame["error"])
                    raise Refused(str(error.get("code")), str(error.get("text")))
                yield frame
                if "end" in frame:
                    return
        except OSError as error:
            raise NoServer(f"the server stopped answering: {error}") from error
        except ProtocolError as error:
            raise NoServer(f"the server's answer is not understood ({error}); is it of another version?") from error
        raise NoServer("the server closed the connection before its answer was whole")


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise NoServer("the server's answer is not understood; is it of another version?")
    return value
