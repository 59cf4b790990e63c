"""`mta check`: the configuration, and what it needs of this machine, a line each.

ok    is as it should be
warn  will work, but look at it
FAIL  will not work
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mta.cli.common import CONFIG, config_path, settings
from mta.config.settings import Address, Dns, KeyPair, Server, Settings
from mta.control.client import Client, NoServer, Refused
from mta.local_sockets import answers
from mta.net.binding import bind_to
from mta.net.certificates import CertificateError, listener_policy, make_context, read_file
from mta.protocol.x509 import Certificate

Finding = tuple[str, str]
_FEW_DAYS = 14


def run(arguments: argparse.Namespace) -> int:
    path = config_path(arguments.config)
    found = settings(str(path))
    failed = False
    for verdict, text in findings(path, found):
        print(f"{verdict:4}  {text}", flush=True)
        failed |= verdict == "FAIL"
    return CONFIG if failed else 0


def findings(path: Path, found: Settings) -> Iterator[Finding]:
    yield "ok", f"{path} is understood"
    running = _is_running(found)
    for directory in (found.server.state_dir, found.server.runtime_dir):
        yield _directory(directory)
    yield ("warn", found.spool.risk) if found.spool.risk else ("ok", "a message is answered 250 when it is on disk")
    for listener in found.listener:
        for address in listener.address:
            yield _local(address, found.server, running=running) if address.path else _port(address, running=running)
    if any(listener.tls != "off" for listener in found.listener):
        yield from _certificates(found)
    for auth in found.auth:
        if auth.type == "file" and auth.path is not None:
            yield _users_file(auth.path)
    yield _hostname(found.server.hostname)
    for source in found.source:
        for own in filter(None, (source.ipv4, source.ipv6)):
            yield _source(source.name, own)
    yield from _nameservers(found.dns)


def _is_running(found: Settings) -> bool:
    try:
        with Client(found.server.runtime_dir, timeout=5.0) as client, contextlib.suppress(Refused):
            client.call("status")  # it runs, whatever it thinks of us
    except NoServer:
        return False
    return True


def _directory(path: Path) -> Finding:
    if path.is_dir():
        good = os.access(path, os.W_OK | os.X_OK)
        return ("ok", f"{path} can be written") if good else ("FAIL", f"{path} cannot be written by this user")
    if path.exists():
        return "FAIL", f"{path} is not a directory"
    parent = next((p for p in path.parents if p.exists()), Path("/"))
    if not parent.is_dir():
        return "FAIL", f"{parent} is not a directory"
    if os.access(parent, os.W_OK | os.X_OK):
        return "ok", f"{path} will be made"
    return "FAIL", f"{path} is missing and {parent} cannot be written by this user"


def _port(address: Address, *, running: bool) -> Finding:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind((address.host, address.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and running:
                return "ok", f"{address} is served by this server, which runs"
            if error.errno == errno.EACCES:
                return "warn", f"{address} needs root, or systemd to open it"
            return "FAIL", f"{address}: {error.strerror}"
    return "ok", f"{address} is free"


def _local(address: Address, server: Server, *, running: bool) -> Finding:
    path = Path(address.path)
    if not os.path.lexists(path):
        return _place_for(address, path.parent, server)
    if not path.is_socket():
        return "FAIL", f"{address}: there is a file that is no socket"
    try:
        answered = answers(address.path)
    except OSError as error:
        return "warn", f"{address}: whether anybody listens there cannot be told: {error.strerror}"
    if not answered:
        return "ok", f"{address} was left behind and will be replaced: nobody listens there"
    if running:
        return "ok", f"{address} is served by this server, which runs"
    return "FAIL", f"{address}: another program listens there"


def _place_for(address: Address, directory: Path, server: Server) -> Finding:
    if not directory.exists() and directory not in (server.state_dir, server.runtime_dir):
        return "FAIL", f"{address}: there is no directory {directory}"
    if directory.exists() and not os.access(directory, os.W_OK | os.X_OK):
        return "warn", f"{address} needs root, or systemd to open it: {directory} cannot be written by this user"
    return "ok", f"{address} is free"


def _certificates(found: Settings) -> Iterator[Finding]:
    """Each certificate: names, key and expiry; and that it can be used as the listeners use it."""
    tls = found.tls
    policies = [listener_policy(listener) for listener in found.listener if listener.tls != "off"]
    known: list[str] = []
    first = [KeyPair(certificate=tls.certificate, key=tls.key)] if tls.certificate and tls.key else []
    for pair in (*first, *tls.certificates):
        try:
            for policy in policies:
                make_context(pair, policy.asking, tls.client_ca)
            certificate = read_file(pair.certificate)
        except CertificateError as error:
            yield "FAIL", str(error)
            continue
        known += certificate.names
        yield _expiry(pair, certificate, time.time())
    host = found.server.hostname
    if known and host not in known and "*." + host.partition(".")[2] not in known:
        yield "warn", f"no certificate is for server.hostname {host}; servers that verify this one's will not send"


def _expiry(pair: KeyPair, certificate: Certificate, now: float) -> Finding:
    names = ", ".join(certificate.names) or "no name"
    day = datetime.fromtimestamp(certificate.not_after, UTC).strftime("%Y-%m-%d")
    what = f"{pair.certificate} and its key belong together: {names}; {certificate.key}"
    if certificate.not_after < now:
        return "FAIL", f"{what}; expired on {day}"
    if certificate.not_before > now:
        return "FAIL", f"{what}; not good yet"
    days = int((certificate.not_after - now) / 86400)
    return "warn" if days < _FEW_DAYS else "ok", f"{what}; until {day}, {days} days"


def _users_file(path: Path) -> Finding:
    from mta.policy.users.userfile import UserFileError, load_users

    if not path.exists():
        return "warn", f"{path} is missing, so nobody in it can log in; mta user add makes it"
    try:
        users, problems = load_users(path)
    except UserFileError as error:
        return "FAIL", str(error)
    if problems:
        return "warn", f"{path}: {problems[0]}" + (f", and {len(problems) - 1} more" if problems[1:] else "")
    if path.stat().st_mode & 0o007:
        return "warn", f"{path} can be read by everybody, who may then guess passwords; chmod o= {path}"
    return "ok", f"{path} has {len(users)} users"


def _hostname(name: str) -> Finding:
    try:
        found = {info[4][0] for info in socket.getaddrinfo(name, 25, type=socket.SOCK_STREAM)}
    except OSError as error:
        return "warn", f"server.hostname {name} does not resolve ({error}); other servers may refuse its mail"
    return "ok", f"server.hostname {name} is {', '.join(sorted(map(str, found)))}"


def _source(name: str, address: str) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as sock:
        why = bind_to(sock, address)
    if why:
        return "FAIL", f"source {name}: {why}; its mail would wait"
    return "ok", f"source {name} can send from {address}"


def _nameservers(settings: Dns) -> Iterator[Finding]:
    import dns.exception
    import dns.message
    import dns.query

    query = dns.message.make_query("example.com", "MX")
    for server in settings.nameservers:
        try:
            dns.query.udp(query, server.host, timeout=2.0, port=server.port)
        except (dns.exception.DNSException, OSError) as error:
            yield "warn", f"name server {server} does not answer: {type(error).__name__}"
        else:
            yield "ok", f"name server {server} answers"
