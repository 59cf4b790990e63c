"""`mta send`: one message from standard input to a server, and the server's words.

It is sent to all recipients or to none: the first refusal ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import smtplib
import sys

from mta.cli.common import TEMPORARY, UNAVAILABLE, USAGE, fail
from mta.observe.maillog import printable

_SECONDS = 60.0


def run(arguments: argparse.Namespace) -> int:
    host, port = _address(arguments.server)
    for address in (arguments.sender, *arguments.recipients):
        if not (address.isascii() and address.isprintable()):  # smtplib would drop or cut it
            fail(USAGE, f"mta: {printable(address)} is no address: write it in printable ASCII")
    # Any line end of the terminal becomes CRLF, the only one that SMTP knows.
    text = re.sub(rb"\r?\n", b"\r\n", sys.stdin.buffer.read())
    try:
        code, reply = _send(host, port, arguments, text)
    except smtplib.SMTPResponseException as error:
        code, reply = error.smtp_code, error.smtp_error
    except (OSError, smtplib.SMTPException) as error:
        fail(UNAVAILABLE, f"mta: no answer from {arguments.server}: {printable(str(error))}")
    print(f"{code} {printable(reply)}", file=sys.stdout if code == 250 else sys.stderr)
    if code == 250:
        return 0
    return TEMPORARY if 400 <= code < 500 else UNAVAILABLE


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        fail(USAGE, f"mta: --server {text}: write HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _send(host: str, port: int, arguments: argparse.Namespace, text: bytes) -> tuple[int, str | bytes]:
    """The last reply: of the first command that was refused, or to the text."""
    # A name of its own is given to smtplib, which would otherwise ask the DNS for one.
    server = smtplib.SMTP(host, port, local_hostname="localhost", timeout=_SECONDS)
    try:
        return _converse(server, arguments.sender, arguments.recipients, text)
    finally:
        with contextlib.suppress(OSError, smtplib.SMTPException):  # the reply to the text is what counts
            server.quit()
        server.close()


def _converse(server: smtplib.SMTP, sender: str, recipients: list[str], text: bytes) -> tuple[int, bytes]:
    server.ehlo_or_helo_if_needed()
    code, reply = server.mail(sender)
    for recipient in recipients:
        if code != 250:
            return code, reply
        code, reply = server.rcpt(recipient)
        code = 250 if code == 251 else code
    return server.data(text) if code == 250 else (code, reply)
