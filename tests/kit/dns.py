"""An authoritative name server on a loopback port, UDP and TCP, with the faults that real ones have.

with Zone({"a.test": ["MX 10 mx.a.test."], "mx.a.test": ["A 127.0.0.1"]}, {"b.test": "SERVFAIL"}) as zone:
    ... zone.address, zone.asked
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tests.kit.background import Background

Fault = Literal["SERVFAIL", "REFUSED", "silent", "truncated"]
_BINDS = 20


class Zone(Background):
    """`records`: rdata in master file form by name; a name without any does not exist. `faults` come first.

    "silent" never answers, "truncated" answers over UDP that TCP must be asked.
    """

    def __init__(self, records: Mapping[str, Sequence[str]], faults: Mapping[str, Fault] | None = None) -> None:
        self.port = 0
        self.asked: list[tuple[str, str, str]] = []  # name, type, "udp" or "tcp"
        self._lock = threading.Lock()
        self._records = {_name(name): list(rdata) for name, rdata in records.items()}
        self._faults: dict[dns.name.Name, Fault] = {_name(name): fault for name, fault in (faults or {}).items()}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def set(self, name: str, rdata: Sequence[str], fault: Fault | None = None) -> None:
        """Change what a name answers from now on."""
        with self._lock:
            self._records[_name(name)] = list(rdata)
            self._faults.pop(_name(name), None)
            if fault is not None:
                self._faults[_name(name)] = fault

    async def opened(self) -> None:
        loop = asyncio.get_running_loop()
        for attempt in range(_BINDS):  # the same port for both, and it must be free for both
            self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
            self.port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
                )
            except OSError:
                self._tcp.close()
                if attempt == _BINDS - 1:
                    raise
            else:
                return

    async def closing(self) -> None:
        self._udp.close()
        self._tcp.close()

    def answer(self, wire: bytes, way: str) -> bytes | None:
        """The reply to a query; None: stay silent."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        question = query.question[0]
        with self._lock:
            self.asked.append((question.name.to_text(omit_final_dot=True), _type(question.rdtype), way))
            fault = self._faults.get(question.name)
            response = self._response(query, fault, way)
        return None if fault == "silent" else response.to_wire()

    def _response(self, query: dns.message.Message, fault: Fault | None, way: str) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA | dns.flags.RA
        if fault in ("SERVFAIL", "REFUSED"):
            response.set_rcode(dns.rcode.from_text(fault))
        elif fault == "truncated" and way == "udp":
            response.flags |= dns.flags.TC
        else:
            self._fill(response, query.question[0].name, query.question[0].rdtype)
        return response

    def _fill(self, response: dns.message.Message, name: dns.name.Name, wanted: dns.rdatatype.RdataType) -> None:
        if name not in self._records:
            response.set_rcode(dns.rcode.NXDOMAIN)
            return
        by_type: dict[str, list[str]] = {}
        for line in self._records[name]:
            kind, _, rest = line.partition(" ")
            by_type.setdefault(kind, []).append(rest)
        kind = "CNAME" if "CNAME" in by_type else _type(wanted)
        if kind in by_type:
            rrset = dns.rrset.from_text_list(name, 60, dns.rdataclass.IN, kind, by_type[kind])
            response.answer.append(rrset)
            if kind == "CNAME":
                self._fill(response, _name(by_type[kind][0]), wanted)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                response = self.answer(await reader.readexactly(size), "tcp")
                if response is not None:
                    writer.write(len(response).to_bytes(2, "big") + response)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._zone.answer(data, "udp")
        if response is not None:
            self._transport.sendto(response, addr)


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


def _type(kind: dns.rdatatype.RdataType) -> str:
    return dns.rdatatype.to_text(kind)
