"""Connections that shake hands, hear the greeting and go: what TLS itself costs a server.

    python -m bench.handshakes --port P --messages N --sessions S [--resume]

TLS from the start; each handshake is a full one unless they are to be resumed. The last line of the output is a JSON
object like that of bench.load; latency runs from the first octet to the greeting.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
import threading
import time
from dataclasses import asdict

from bench.load import Tally


class Shaker(threading.Thread):
    """One connection after the other; several threads, as OpenSSL works without the interpreter's lock."""

    def __init__(self, port: int, count: int, resume: bool) -> None:
        super().__init__()
        self._port = port
        self._count = count
        self._resume = resume
        self.latencies: list[float] = []
        self.error = ""

    def run(self) -> None:
        context = client_context()
        session: ssl.SSLSession | None = None
        for _ in range(self._count):
            began = time.perf_counter()
            try:
                session = self._shake(context, session if self._resume else None)
            except OSError as error:  # ssl.SSLError is one
                self.error = str(error)
                return
            self.latencies.append(time.perf_counter() - began)

    def _shake(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with socket.create_connection(("127.0.0.1", self._port), 20) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(plain, session=session) as secure:
                greeting = secure.recv(500)
                if not greeting.startswith(b"220"):
                    raise OSError(f"greeted by {greeting!r}")
                return secure.session


def client_context() -> ssl.SSLContext:
    """Trusts anybody: checking the server's certificate is the client's work, which is not measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def drive(port: int, messages: int, sessions: int, resume: bool) -> Tally:
    shakers = [Shaker(port, messages // sessions + (n < messages % sessions), resume) for n in range(sessions)]
    tally = Tally(began=time.perf_counter())
    for shaker in shakers:
        shaker.start()
    for shaker in shakers:
        shaker.join()
    tally.seconds = time.perf_counter() - tally.began
    times = sorted(latency for shaker in shakers for latency in shaker.latencies)
    tally.accepted = len(times)
    tally.errors = [shaker.error for shaker in shakers if shaker.error][:5]
    if times:
        tally.p50_ms = times[len(times) // 2] * 1e3
        tally.p99_ms = times[min(len(times) - 1, len(times) * 99 // 100)] * 1e3
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.handshakes")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    tally = drive(options.port, options.messages, options.sessions, options.resume)
    print(json.dumps(asdict(tally)))
    return 1 if tally.errors else 0


if __name__ == "__main__":
    sys.exit(main())
