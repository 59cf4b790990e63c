"""TLS under one connection: the protocol of its TCP transport, and the transport of the connection.

The handshake and the records are OpenSSL's, through `ssl.SSLObject` and two memory buffers; this is the shell between
them, uvloop and `Connection`. A shell of our own and not the event loop's, because only so the ClientHello is seen
before TLS sees it (mta.protocol.clienthello), and because it costs less: no task, no timer and no buffer of its own for
each connection, one system call for each reply. Measured: docs/decisions/tls.md.

Invariants
- All TLS connections of a process read into one buffer, and decrypt into the one that the connections read from.
- What came before, in plain, never reaches the session behind it (RFC 3207 §4.2): the session drops its input
  from its own 220 on, and the first octet that comes here must begin a TLS record.
- OpenSSL gets ciphertext in slices, so that the memory it keeps for a connection does not grow with what once came.
- An offer of application protocols without ours ends the handshake (RFC 7301 §3.2): who was led here by an attacker
  believes to talk to another kind of server.
- Octets leave in order: by `os.write` while nothing waits in the TCP transport.

Failure: every handshake that fails is counted and, if the client said anything, logged with its reason, once; a record
that cannot be read ends the connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from mta.mail.trace import tls_clause
from mta.net.certificates import ALPN, CertificateStore, Choice, Policy
from mta.observe.maillog import printable
from mta.protocol.clienthello import ClientHello, HelloError, HelloReader, NotTls
from mta.protocol.x509 import ClientCertificate

if TYPE_CHECKING:
    from mta.receive.connection import Connection

CIPHERTEXT: Final = 256 << 10  # octets of one read
_SLICE: Final = 12 << 10  # OpenSSL's buffer grows by thirds: to 16 KiB
_RECORD: Final = 16 << 10  # the most that one record decrypts to
_NO_APPLICATION_PROTOCOL: Final = b"\x15\x03\x03\x00\x02\x02\x78"  # fatal alerts, in plain
_DECODE_ERROR: Final = b"\x15\x03\x03\x00\x02\x02\x32"
_SUITES: Final = {  # OpenSSL's names of TLS 1.2's suites: IANA's; those of TLS 1.3 are the same
    f"ECDHE-{key}-{name}": f"TLS_ECDHE_{key}_WITH_{suite}"
    for key in ("ECDSA", "RSA")
    for name, suite in (
        ("AES128-GCM-SHA256", "AES_128_GCM_SHA256"),
        ("AES256-GCM-SHA384", "AES_256_GCM_SHA384"),
        ("CHACHA20-POLY1305", "CHACHA20_POLY1305_SHA256"),
    )
}


class TlsSide:
    """What the TLS connections of one listener share. `note` writes (event, fields) to the mail log."""

    def __init__(
        self,
        store: CertificateStore,
        policy: Policy,
        ciphertext: memoryview,
        *,
        note: Callable[[str, str], None],
        count: Callable[[str], None],
    ) -> None:
        self.asks = policy.asking != "off"
        self.ciphertext = ciphertext
        self._store = store
        self._policy = policy
        self._note = note
        self.count = count

    def choose(self, hello: ClientHello) -> Choice:
        return self._store.choose(hello, self._policy)

    def tell_failure(self, client: str, reason: str, hello: ClientHello | None) -> None:
        """`reason` may hold octets of the client."""
        self.count("tls_failures")
        offered = "" if hello is None else f" offered={hello.newest} sni={hello.server_name or '-'}"
        self._note("tls-failed", f"client={client}{offered} reason={printable(reason)!r}")


class TlsShell(asyncio.Transport, asyncio.BufferedProtocol):
    """One connection's TLS. `established` is when the handshake is done."""

    __slots__ = (
        "_buffer",
        "_choice",
        "_closing",
        "_connection",
        "_fd",
        "_hello",
        "_incoming",
        "_outgoing",
        "_read",
        "_reader",
        "_side",
        "_summary",
        "_tcp",
        "_tls",
        "established",
        "version",
    )

    def __init__(self, connection: Connection, tcp: asyncio.Transport, side: TlsSide, buffer: memoryview) -> None:
        self._connection = connection
        self._tcp = tcp
        self._fd: int = tcp.get_extra_info("socket").fileno()
        self._side = side
        self._buffer = buffer
        self._reader: HelloReader | None = HelloReader()
        self._hello: ClientHello | None = None
        self._choice: Choice | None = None
        self._tls: ssl.SSLObject | None = None
        self._summary = ""
        self._closing = False
        self.established = False
        self.version = ""

    # ---- what the connection may know

    @property
    def server_name(self) -> str:
        """What the client asked for by SNI; "" when it did not."""
        return self._hello.server_name if self._hello is not None else ""

    @property
    def cipher(self) -> str:
        """The suite, as IANA calls it."""
        cipher = self._tls.cipher() if self._tls is not None else None
        return _SUITES.get(cipher[0], cipher[0]) if cipher is not None else ""

    @property
    def heard(self) -> bool:
        """Whether the client has said anything."""
        return self._reader is None or bool(self._reader.octets)

    @property
    def clause(self) -> bytes:
        """For the trace header."""
        return tls_clause(self.version, self.cipher, self.server_name)

    @property
    def summary(self) -> str:
        """For the mail log."""
        if not self._summary:
            name = self.server_name
            self._summary = f"tls={self.version} cipher={self.cipher}" + (f" sni={name}" if name else "")
        return self._summary

    @property
    def can_bind(self) -> bool:
        """Whether `bindings` gives any."""
        return bool(self.bindings())

    def bindings(self) -> dict[str, bytes]:
        """What a login can be bound to: the certificate that this client was shown (RFC 5929 §4.1); with TLS 1.2 the
        handshake (§3.1), if its master secret is bound to it too (RFC 7627 §5.4), and with TLS 1.3 an exported key
        (RFC 9266), if the interpreter can give one.
        """
        assert self._tls is not None
        assert self._choice is not None
        assert self._hello is not None
        found: dict[str, bytes | None] = {"tls-server-end-point": self._choice.certificate.binding}
        if self.version == "TLSv1.2" and self._hello.extended_master_secret:
            found["tls-unique"] = self._tls.get_channel_binding("tls-unique")
        if self.version == "TLSv1.3" and "tls-exporter" in ssl.CHANNEL_BINDING_TYPES:
            found["tls-exporter"] = self._tls.get_channel_binding("tls-exporter")
        return {kind: value for kind, value in found.items() if value}

    def peer(self) -> ClientCertificate | None:
        """The client's certificate; it gave none when the listener does not ask."""
        if self._tls is None or not self._side.asks:
            return None
        der = self._tls.getpeercert(binary_form=True)
        if der is None:
            return None
        try:
            facts: dict[str, Any] = self._tls.getpeercert() or {}
        except ValueError:
            facts = {}  # a certificate that nobody can read names nobody; its fingerprint may still be known
        names = tuple(name for kind, name in facts.get("subjectAltName", ()) if kind == "email")
        return ClientCertificate(names, hashlib.sha256(der).hexdigest())

    # ---- called by the event loop

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._side.ciphertext

    def buffer_updated(self, nbytes: int) -> None:
        came = self._side.ciphertext
        if not self.established or nbytes > _SLICE:
            self._take(came[:nbytes])
            return
        self._incoming.write(came[:nbytes])
        try:
            size = self._read(_RECORD, self._buffer)
        except ssl.SSLError as error:
            self._stopped(error)
            return
        if size and not self._incoming.pending:  # nearly always: one record
            self._connection.buffer_updated(size)
        elif size:
            self._deliver(self._decrypt(size))
        else:
            self._ended(0)

    def eof_received(self) -> bool:
        if self.established:
            return self._connection.eof_received()
        self._fail("closed by the client")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.established:
            self._fail(f"the connection was lost: {exc}" if exc is not None else "closed")
        self._closing = True
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def _take(self, came: memoryview) -> None:
        """Octets of the handshake, or many at once."""
        if self._tls is None:
            self._hear(came)
            return
        filled = 0
        for start in range(0, len(came), _SLICE):
            self._incoming.write(came[start : start + _SLICE])
            if self.established:
                filled = self._decrypt(filled)
            else:
                self._shake()
            if self._closing:
                return
        self._deliver(filled)

    # ---- the handshake

    def _hear(self, came: memoryview) -> None:
        """Octets of the ClientHello."""
        assert self._reader is not None
        try:
            self._hello = self._reader.feed(came)
        except HelloError as error:
            if not isinstance(error, NotTls):
                self._send(_DECODE_ERROR)
            self._fail(str(error))
            return
        if self._hello is not None:
            self._begin(self._hello, self._reader.octets)

    def _begin(self, hello: ClientHello, octets: bytes) -> None:
        if hello.alpn is not None and ALPN.encode("ascii") not in hello.alpn:
            self._send(_NO_APPLICATION_PROTOCOL)
            self._fail(f"application protocols without {ALPN}: {b' '.join(hello.alpn).decode('latin-1')}")
            return
        self._choice = self._side.choose(hello)
        self._hello = replace(hello, ciphers=(), signatures=(), groups=())  # these lists would be 3 kB of a session
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._choice.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(octets)
        self._reader = None
        self._read = cast("Callable[[int, memoryview], int]", self._tls.read)
        self._shake()

    def _shake(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._fail(_reason(error))
            return
        self.established = True
        self.version = self._tls.version() or ""
        if self.version != "TLSv1.3":
            self._flush()  # else only tickets are left, which go with the first reply
        self._side.count("tls_handshakes")
        if self._tls.session_reused:
            self._side.count("tls_resumed")
        self._connection.secured()
        if not self._closing and self._incoming.pending:
            self._deliver(self._decrypt(0))

    def _fail(self, reason: str) -> None:
        """The handshake is over; a client that came and went without a word is not worth a line."""
        if self._closing:
            return
        if self.heard:
            self._side.tell_failure(self._connection.client, reason, self._hello)
        self._closing = True
        self._tcp.close()

    def give_up(self) -> None:
        """The handshake takes too long, or the server stops."""
        self._fail("not done in time")

    # ---- the records

    def _decrypt(self, filled: int) -> int:
        """Decrypt what is here behind the `filled` octets of the buffer; how much is there then."""
        buffer = self._buffer
        try:
            while True:
                if len(buffer) - filled < _RECORD:
                    self._deliver(filled)
                    filled = 0
                    if self._closing:
                        return 0
                size = self._read(_RECORD, buffer[filled:])
                filled += size
                if not size:
                    self._ended(filled)
                    return 0
                if not self._incoming.pending:
                    return filled
        except ssl.SSLError as error:
            self._stopped(error)
            return filled

    def _stopped(self, error: ssl.SSLError) -> None:
        """There is no more to decrypt now, or ever."""
        if isinstance(error, ssl.SSLWantReadError):
            self._flush()  # what it may have to say: that there is no renegotiation
            return
        self._side.tell_failure(self._connection.client, _reason(error), self._hello)
        self._flush()
        self.abort()

    def _deliver(self, size: int) -> None:
        if size and not self._closing:
            self._connection.buffer_updated(size)

    def _ended(self, filled: int) -> None:
        """The client's close_notify (RFC 8446 §6.1)."""
        self._deliver(filled)
        if not self._closing and not self._connection.eof_received():
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._send(self._outgoing.read())

    def _send(self, data: bytes) -> None:
        if self._tcp.get_write_buffer_size() == 0:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._tcp.write(data)

    # ---- the transport of the connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        assert self._tls is not None
        try:
            sent = self._tls.write(data)
            while sent < len(data):  # a record at a time
                sent += self._tls.write(memoryview(data)[sent:])
        except ssl.SSLError as error:  # the caller has other connections to answer
            self._stopped(error)
            self.abort()
            return
        self._send(self._outgoing.read())

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._tls is not None and self.established:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # it wants the client's close_notify, for which nobody has to wait
            self._flush()
        self._tcp.close()

    def abort(self) -> None:
        self._closing = True
        self._tcp.abort()

    def is_closing(self) -> bool:
        return self._closing or self._tcp.is_closing()

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        if not self._closing:
            self._tcp.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tcp.get_extra_info(name, default)


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's reason, or the alert that the client sent, in small letters: "no shared cipher"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"client certificate: {error.verify_message}"
    return (error.reason or str(error)).lower().replace("_", " ")
