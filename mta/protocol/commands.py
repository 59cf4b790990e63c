"""The commands of the SMTP server session: rows of verb and handler.

A handler gets the session and the octets behind the verb, without blanks at the end. It says one reply, or refuses
with one, which counts against the limit of errors. Order, syntax and replies are those of RFC 5321 §4.1 and §4.3.2;
enhanced codes those of RFC 3463; parameters are in `mta.protocol.parameters`; AUTH is that of RFC 4954, BDAT that of
RFC 3030, LHLO that of RFC 2033.

Invariant: a refused command changes nothing.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mta.protocol.extensions import Extension, hello_lines, help_text
from mta.protocol.parameters import MailOptions, RcptParameters, mail_parameters, rcpt_parameters
from mta.protocol.paths import UTF8, has_unwanted, parse_path

if TYPE_CHECKING:
    from mta.protocol.server import ServerSession

Handler = Callable[["ServerSession", bytes], None]

BLANKS: Final = b" \t"
MAX_HELO: Final = 255

_HELO_NAME = re.compile(rb"[!-;=?-~]+")  # printable, no blank, no angle bracket: clients say stranger things than names
_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}")  # RFC 4422 §3.1
_CHUNK = re.compile(rb"([0-9]{1,20})( LAST)?", re.IGNORECASE)  # RFC 3030 §2
_UTF8_TEXT = re.compile(rb"(?:[\x00-\x7f]|%b)*" % UTF8)
_NEEDS_SMTPUTF8: Final = b"553 5.6.7 An address with non-ASCII characters needs SMTPUTF8 behind MAIL"
_LARGEST_CHUNK: Final = (1 << 63) - 1

UNKNOWN: Final = b"500 5.5.2 Command not recognized"
TOO_LARGE: Final = b"552 5.3.4 The message is larger than this server takes"

HTTP_VERBS: Final = frozenset(b"CONNECT DELETE GET HEAD OPTIONS PATCH POST PRI PUT TRACE".split())


def on_rare(s: ServerSession, verb: bytes, argument: bytes) -> bool:
    """What no row of the table is for; False: it means nothing."""
    if verb in s.config.commands:
        reply = s.config.commands[verb](s.owner, argument).removesuffix(b"\r\n")
        if reply.startswith(b"5"):
            s.refuse(reply)
        else:
            s.say(reply)
    elif argument and verb in HTTP_VERBS:
        s.end_with(b"421 4.7.0 This server takes mail and speaks no HTTP, closing the connection")
    else:
        return False
    return True


def _on_unwanted(s: ServerSession, argument: bytes) -> None:
    s.refuse(b"502 5.5.1 Command not implemented")


def _without_argument(handler: Callable[[ServerSession], None]) -> Handler:
    def handle(s: ServerSession, argument: bytes) -> None:
        if argument:
            s.refuse(b"501 5.5.4 This command takes no argument")
        else:
            handler(s)

    return handle


def _on_ehlo(s: ServerSession, argument: bytes) -> None:
    _hello(s, argument, esmtp=True)


def _on_helo(s: ServerSession, argument: bytes) -> None:
    _hello(s, argument, esmtp=False)


def _hello(s: ServerSession, argument: bytes, *, esmtp: bool) -> None:
    name = argument.strip(BLANKS)
    if not name:
        s.refuse(b"501 5.5.4 Say your host name behind HELO or EHLO")
    elif len(name) > MAX_HELO or not _HELO_NAME.fullmatch(name):
        s.refuse(b"501 5.5.2 This is no host name or address literal")
    else:
        s.reset()
        s.helo = name
        s.esmtp = esmtp
        *head, last = hello_lines(s.config, tls=s.tls) if esmtp else [s.config.hostname]
        s.idle(b"".join(b"250-%b\r\n" % line for line in head) + b"250 " + last)


def _on_mail(s: ServerSession, argument: bytes) -> None:
    path = _path_argument(argument, b"FROM:")
    s.mails += 1
    if 0 < s.config.mails < s.mails:
        s.end_with(b"421 4.7.0 Too many messages in one session, connect again for more")
    elif not s.helo:
        s.refuse(b"503 5.5.1 Say LHLO first" if s.config.lmtp else b"503 5.5.1 Say EHLO or HELO first")
    elif s.in_transaction:
        s.refuse(b"503 5.5.1 A transaction is open already; RSET ends it")
    elif path is None:
        s.refuse(b"501 5.5.4 Write MAIL FROM:<address>")
    elif (parsed := _mailbox_and_rest(s, path)) is None or parsed[0] == b"postmaster":
        s.refuse(_non_ascii(s, path) or b"501 5.1.7 Bad sender address syntax")
    elif isinstance(parameters := mail_parameters(s, parsed[1]), bytes):
        s.refuse(parameters)
    elif parsed[2] and (parameters.options is None or not parameters.options.utf8):
        s.refuse(_NEEDS_SMTPUTF8)
    elif (sender := _with_ascii_domain(s, parsed[0])) is None:
        s.refuse(b"553 5.1.8 The domain of this address is none of IDNA2008")
    elif s.config.refuse_mail:
        s.put_off(s.config.refuse_mail.removesuffix(b"\r\n"))
    elif s.config.gate is not None and (refusal := s.config.gate(s.owner)):
        s.put_off(refusal.removesuffix(b"\r\n"))
    elif s.config.judge_sender is not None and (refusal := s.config.judge_sender(sender, s.user)):
        s.refuse(refusal.removesuffix(b"\r\n"))
    else:
        s.forget_refusal()
        s.in_transaction = True
        s.sender = sender
        s.eight_bit = parameters.eight_bit
        s.binary = parameters.binary
        s.options = parameters.options
        s.say(b"250 2.1.0 Sender ok")


def _on_rcpt(s: ServerSession, argument: bytes) -> None:
    path = _path_argument(argument, b"TO:")
    if not s.in_transaction:
        s.refuse(b"503 5.5.1 Say MAIL first")
    elif s.chunked:
        s.refuse(b"503 5.5.1 The text has begun; RSET ends the transaction")
    elif path is None:
        s.refuse(b"501 5.5.4 Write RCPT TO:<address>")
    elif (parsed := _mailbox_and_rest(s, path)) is None or not parsed[0]:
        s.refuse(_non_ascii(s, path) or b"501 5.1.3 Bad recipient address syntax")
    elif isinstance(parameters := rcpt_parameters(s, parsed[1]), bytes):
        s.refuse(parameters)
    elif parsed[2] and (s.options is None or not s.options.utf8):
        s.refuse(_NEEDS_SMTPUTF8)
    elif (address := _with_ascii_domain(s, parsed[0])) is None:
        s.refuse(b"553 5.1.2 The domain of this address is none of IDNA2008")
    elif len(s.recipients) >= s.config.recipients:
        s.put_off(b"452 4.5.3 Too many recipients, send the others another copy")
    else:
        _judged(s, address, parameters)


def _judged(s: ServerSession, address: bytes, parameters: RcptParameters) -> None:
    refusal = s.judge(address).removesuffix(b"\r\n")
    if not refusal:
        _note(s, parameters)
        s.recipients.append(address)
        s.say(b"250 2.1.5 Recipient ok")
    elif refusal.startswith(b"5"):
        s.refuse(refusal)
    else:
        s.put_off(refusal)


def _note(s: ServerSession, parameters: RcptParameters) -> None:
    """Keep what this recipient came with; those before it came with nothing."""
    wish = (parameters.notify, parameters.orcpt)
    if wish != (0, b"") and s.options is None:
        s.options = MailOptions()
    if s.options is None:
        return
    if wish != (0, b"") and s.options.notices is None:
        s.options.notices = [(0, b"")] * len(s.recipients)
    if s.options.notices is not None:
        s.options.notices.append(wish)


def _on_data(s: ServerSession) -> None:
    if not s.in_transaction:
        s.refuse(b"503 5.5.1 Say MAIL first")
    elif s.chunked:
        s.refuse(b"503 5.5.1 This transaction has begun with BDAT; RSET ends it")
    elif not s.recipients:
        s.refuse(_no_recipients(s))
    elif s.binary:
        s.refuse(b"503 5.5.1 A binary text comes by BDAT")  # RFC 3030 §3
    else:
        s.begin_text()
        s.say(b"354 Send the text and end it with <CR><LF>.<CR><LF>")


def _no_recipients(s: ServerSession) -> bytes:
    """RFC 2033 §4.2 wants 503 where RFC 5321 §3.3 has 554."""
    return b"503 5.5.1 No valid recipients" if s.config.lmtp else b"554 5.5.1 No valid recipients"


def _on_bdat(s: ServerSession, argument: bytes) -> None:
    chunk = _CHUNK.fullmatch(argument)
    if chunk is None or int(chunk[1]) > _LARGEST_CHUNK:
        s.lose_track(b"501 5.5.4 Write BDAT, a size, and LAST with the last chunk")
    else:
        size = int(chunk[1])
        s.begin_chunk(size, last=chunk[2] is not None, refusal=_why_no_chunk(s, size))


def _why_no_chunk(s: ServerSession, size: int) -> bytes:
    """The reply to a chunk that is not taken; b"" when it is."""
    if not s.config.chunking:
        return b"502 5.5.1 Command not implemented"
    if not s.esmtp:
        return b"503 5.5.1 Say LHLO first" if s.config.lmtp else b"503 5.5.1 Say EHLO first"
    if not s.in_transaction:
        return b"503 5.5.1 Say MAIL first"
    if not s.recipients:
        return _no_recipients(s)
    if s.body_size + size > s.config.message_size:
        return TOO_LARGE
    return b""


def _on_rset(s: ServerSession) -> None:
    s.reset()
    s.idle(b"250 2.0.0 Ok")


def _on_quit(s: ServerSession) -> None:
    s.end(b"221 2.0.0 Bye\r\n")


def _on_starttls(s: ServerSession) -> None:
    if s.tls:
        s.refuse(b"503 5.5.1 TLS is active already")
    elif not s.config.starttls:
        s.refuse(b"502 5.5.1 Command not implemented")
    else:
        s.begin_handshake()
        s.say(b"220 2.0.0 Ready to start TLS")


def _on_auth(s: ServerSession, argument: bytes) -> None:
    s.about = s.about[:4]  # what stands behind it is secret
    mechanism, *more = argument.split(b" ")
    if not s.config.offered_mechanisms(s.tls):
        s.refuse(_why_no_auth(s))
    elif not s.esmtp:
        s.refuse(b"503 5.5.1 Say EHLO first")
    elif s.user:
        s.refuse(b"503 5.5.1 You are logged in already")
    elif s.in_transaction:
        s.refuse(b"503 5.5.1 A transaction is open; RSET ends it")
    elif not _MECHANISM.fullmatch(mechanism) or len(more) > 1:
        s.refuse(b"501 5.5.4 Write AUTH and a mechanism, and perhaps a first response in base64")
    elif not more:
        s.begin_auth(mechanism.upper(), None)
    elif (response := b"" if more[0] == b"=" else decoded(more[0])) is None:
        s.refuse(b"501 5.5.2 The response is not base64")
    else:
        s.begin_auth(mechanism.upper(), response)


def _why_no_auth(s: ServerSession) -> bytes:
    if s.config.mechanisms_tls and not s.tls:
        return b"538 5.7.11 Logins are taken under TLS only, say STARTTLS first"
    return b"502 5.5.1 Command not implemented"


def decoded(text: bytes) -> bytes | None:
    """The octets behind base64; None when it is none."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None


def _on_noop(s: ServerSession, argument: bytes) -> None:
    s.idle(b"250 2.0.0 Ok")


def _on_help(s: ServerSession, argument: bytes) -> None:
    s.idle(help_text(s.config, tls=s.tls))


def _on_vrfy(s: ServerSession, argument: bytes) -> None:
    if not argument:
        s.refuse(b"501 5.5.4 Say a user name behind VRFY")
    elif refusal := b"" if argument.isascii() or not _offers_utf8(s) else _why_not_verify(argument):
        s.refuse(refusal)
    else:
        s.idle(b"252 2.1.5 Cannot verify the user, but mail for it can be tried")


def _why_not_verify(argument: bytes) -> bytes:
    """RFC 6531 §3.7.4.2."""
    if not argument.upper().endswith(b" SMTPUTF8"):
        return b"553 5.6.7 A name with non-ASCII characters needs SMTPUTF8 behind it"
    return b"" if _UTF8_TEXT.fullmatch(argument) and not has_unwanted(argument) else b"501 5.5.4 This name is not UTF-8"


COMMANDS: Final[dict[bytes, Handler]] = {
    b"EHLO": _on_ehlo,
    b"HELO": _on_helo,
    b"MAIL": _on_mail,
    b"RCPT": _on_rcpt,
    b"DATA": _without_argument(_on_data),
    b"BDAT": _on_bdat,
    b"RSET": _without_argument(_on_rset),
    b"QUIT": _without_argument(_on_quit),
    b"STARTTLS": _without_argument(_on_starttls),
    b"AUTH": _on_auth,
    b"NOOP": _on_noop,
    b"HELP": _on_help,
    b"VRFY": _on_vrfy,
    b"EXPN": _on_unwanted,
    b"ETRN": _on_unwanted,
    b"TURN": _on_unwanted,
}
LMTP_COMMANDS: Final[dict[bytes, Handler]] = {b"LHLO": _on_ehlo} | {
    verb: handler for verb, handler in COMMANDS.items() if verb not in (b"EHLO", b"HELO")
}


# ---- paths -----------------------------------------------------------------------------------------------------


def _path_argument(argument: bytes, word: bytes) -> bytes | None:
    """What stands behind "FROM:" or "TO:"; blanks before the path are common and harmless."""
    if argument[: len(word)].upper() != word:
        return None
    return argument[len(word) :].lstrip(BLANKS)


def _offers_utf8(s: ServerSession) -> bool:
    return s.esmtp and Extension.SMTPUTF8 in Extension(s.config.offers)


def _mailbox_and_rest(s: ServerSession, path: bytes) -> tuple[bytes, bytes, bool] | None:
    """Also whether it is a path by SMTPUTF8 alone."""
    parsed, wide = parse_path(path), False
    if parsed is None and _offers_utf8(s):
        parsed, wide = parse_path(path, utf8=True), True
    if parsed is None:
        return None
    mailbox, end = parsed
    rest = path[end:]
    return (mailbox, rest, wide) if not rest or rest.startswith(b" ") else None


def _with_ascii_domain(s: ServerSession, mailbox: bytes) -> bytes | None:
    """The mailbox with the A-labels of its domain; None where there are none (RFC 6531 §3.2, RFC 5891 §4)."""
    if s.config.ascii_mailbox is None or mailbox.rpartition(b"@")[2].isascii():
        return mailbox
    return s.config.ascii_mailbox(mailbox) or None


def _non_ascii(s: ServerSession, path: bytes) -> bytes:
    """The reply that says why, where non-ASCII spoils an address (RFC 6531 §3.5 without the extension)."""
    if path.isascii() or _offers_utf8(s):
        return b""
    return b"553 5.6.7 An address with non-ASCII characters cannot be taken here"
