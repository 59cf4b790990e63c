"""What of an envelope is said to the next host, by what that host offers. PURE.

SIZE         a host that takes less than the text has is not bothered with it (RFC 1870 §6.1)
DSN          NOTIFY, ORCPT, RET and ENVID as they came (RFC 3461 §5.2.1); where it is not offered, they are not
             handed on, and whoever asked to hear of success hears "relayed" from us (RFC 3461 §5.2.2)
SMTPUTF8     said wherever the sender said it and the host offers it; without it only what is all ASCII may go
             (RFC 6531 §3.5), addresses here, header fields where the text is read
REQUIRETLS   handed on, or the mail goes back (RFC 8689 §4.2.1); a notice goes without, where it cannot (§5)
DELIVERBY    what is left of the time; mode R needs a host that offers it and has not less than its minimum
             (RFC 2852 §4); of mode N a host without it is asked to tell of delays (§4.1.4.2)
MT-PRIORITY  as it is (RFC 6710 §4.3)
LIMITS       transactions and sessions are no longer than the host takes (RFC 9422 §4)
BINARYMIME   said for what is binary still, in BDAT; CHUNKING without PIPELINING is not used, for each chunk would
             cost a round trip
AUTH=        never: we are nobody's trusted submitter (RFC 4954 §5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mta.mail.downgrade import Need
from mta.model import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS, Envelope, Options, Recipient, Reply

ANY_SIZE = 1 << 62
NO_UTF8 = Reply(0, "5.6.7", "an address with non-ASCII characters, and the next host does not offer SMTPUTF8")
NO_DELIVERBY = Reply(0, "5.3.3", "it must be delivered in time or go back, and the next host cannot promise that")
_LONGEST_BY = 999_999_999  # seconds: RFC 2852 §4 has nine digits


@dataclass(frozen=True, slots=True)
class Offer:
    """What a host offers, read once a connection. `size` is the largest text it takes."""

    size: int = ANY_SIZE
    eight_bit: bool = False
    utf8: bool = False
    dsn: bool = False
    require_tls: bool = False
    priority: bool = False
    chunking: bool = False
    binary: bool = False
    deliver_by: int | None = None  # the least time it takes mail for; None: not offered
    mails: int = 0  # MAIL commands that a session may have (MAILMAX of LIMITS); 0: it does not say
    recipients: int = 0  # RCPT commands that a transaction may have (RCPTMAX); 0 likewise


def read_offer(extensions: Mapping[str, str], *, pipelining: bool) -> Offer:
    chunking = "CHUNKING" in extensions and pipelining
    by = extensions.get("DELIVERBY")
    limits = _limits(extensions.get("LIMITS", ""))
    return Offer(
        size=_number(extensions.get("SIZE", "")) or ANY_SIZE,
        eight_bit="8BITMIME" in extensions,
        utf8="SMTPUTF8" in extensions,
        dsn="DSN" in extensions,
        require_tls="REQUIRETLS" in extensions,
        priority="MT-PRIORITY" in extensions,
        chunking=chunking,
        binary=chunking and "BINARYMIME" in extensions,
        deliver_by=None if by is None else _number(by.partition(",")[0]),  # RFC 2852 §2: further options may follow
        mails=limits.get("MAILMAX", 0),
        recipients=limits.get("RCPTMAX", 0),
    )


@dataclass(frozen=True, slots=True)
class Words:
    """The parameters of MAIL and of each RCPT, a blank before each, but SIZE and BODY=8BITMIME, which the session says.

    `chunked`: the text goes by BDAT; `eight_bit`: it is one of 8BITMIME.
    """

    mail: bytes = b""
    rcpt: tuple[bytes, ...] = ()
    chunked: bool = False
    eight_bit: bool = False


def asks(options: Options | None) -> bool:
    """Whether anything of the options concerns the next host; who was logged in does not."""
    if options is None:
        return False
    kind = options.utf8 or options.binary or options.require_tls
    return bool(kind or options.ret or options.envid or options.deliver_by or options.priority)


def needs(envelope: Envelope, offer: Offer) -> Need:
    """What the text must be; whether it is that already is not looked at here."""
    options = envelope.options or Options()
    found = Need.NOTHING
    if not offer.eight_bit:
        found |= Need.SEVEN_BIT
    if options.binary and not offer.binary:
        found |= Need.LINES
    if options.utf8 and not offer.utf8:
        found |= Need.ASCII_HEADER
    return found


def words(
    envelope: Envelope,
    recipients: Sequence[Recipient],
    offer: Offer,
    now_ms: int,
    *,
    binary: bool,
    utf8: bool,
    eight_bit: bool = False,
    chunking: bool = False,
    final: bool = False,
    guarded: bool = True,
) -> Words | Reply:
    """What is said beside the addresses, or why this host cannot have the mail, ever.

    `binary`, `utf8`, `eight_bit`: the text, as it is to be sent, is that; `chunking`: send by BDAT wherever it is
    offered; `final`: the next host is where mail is delivered (LMTP), so that nothing is relayed on from there;
    `guarded`: the connection is one on which REQUIRETLS may be said, and must be where the mail asks for it.
    """
    options = envelope.options or Options()
    refusal = _refusal(envelope, recipients, options, offer, now_ms, final=final, guarded=guarded)
    if refusal is not None:
        return refusal
    mail = [b" BODY=BINARYMIME"] if binary else []
    if utf8 and offer.utf8:
        mail.append(b" SMTPUTF8")
    if offer.dsn:
        if options.ret:
            mail.append(b" RET=" + options.ret.encode("ascii"))
        if options.envid:
            mail.append(b" ENVID=" + options.envid)
    if options.require_tls and offer.require_tls and guarded:
        mail.append(b" REQUIRETLS")
    if options.priority and offer.priority:
        mail.append(b" MT-PRIORITY=%d" % options.priority)
    if options.deliver_by and offer.deliver_by is not None:
        mail.append(_by(options, now_ms))
    # RFC 2852 §4.1.4.2: who knows nothing of the time is asked to tell of delays.
    delays = bool(options.deliver_by) and not options.by_return and offer.deliver_by is None
    rcpt = tuple(_rcpt_words(recipient, delays) for recipient in recipients) if offer.dsn else ()
    return Words(b"".join(mail), rcpt if any(rcpt) else (), binary or (chunking and offer.chunking), eight_bit)


def _refusal(
    envelope: Envelope,
    recipients: Sequence[Recipient],
    options: Options,
    offer: Offer,
    now_ms: int,
    *,
    final: bool,
    guarded: bool,
) -> Reply | None:
    if options.require_tls and guarded and not offer.require_tls and not final:
        return Reply(0, "5.7.30", "TLS is required on the whole way, and the next host does not offer REQUIRETLS")
    if not offer.utf8 and not _ascii(envelope.sender, *(r.address for r in recipients)):
        return NO_UTF8
    if options.deliver_by and options.by_return:
        left = _seconds_left(options, now_ms)
        if left <= 0:
            return Reply(0, "5.4.7", "not delivered within the time that was set for it")
        if offer.deliver_by is None and not final:
            return NO_DELIVERBY
        if left < (offer.deliver_by or 0):
            return Reply(0, "5.4.7", f"{left} s are left, and the next host asks for {offer.deliver_by} s")
    return None


_NOTIFY = ((NOTIFY_SUCCESS, b"SUCCESS"), (NOTIFY_FAILURE, b"FAILURE"), (NOTIFY_DELAY, b"DELAY"))


def _rcpt_words(recipient: Recipient, delays: bool) -> bytes:
    """`delays`: who wants to hear of anything is to hear of delays, too."""
    said, notify = b"", recipient.notify
    if notify & NOTIFY_NEVER:
        said = b" NOTIFY=NEVER"
    elif notify or delays:
        notify = (notify or NOTIFY_FAILURE) | (NOTIFY_DELAY if delays else 0)
        said = b" NOTIFY=" + b",".join(word for bit, word in _NOTIFY if notify & bit)
    return said + (b" ORCPT=" + recipient.orcpt if recipient.orcpt else b"")


def _by(options: Options, now_ms: int) -> bytes:
    left = max(-_LONGEST_BY, min(_LONGEST_BY, _seconds_left(options, now_ms)))
    return b" BY=%d;%s%s" % (left, b"R" if options.by_return else b"N", b"T" if options.by_trace else b"")


def _seconds_left(options: Options, now_ms: int) -> int:
    """Rounded down: a hop must not give time away that it does not have."""
    return (options.deliver_by - now_ms) // 1000


def _ascii(*addresses: bytes) -> bool:
    return all(map(bytes.isascii, addresses))


def _limits(text: str) -> dict[str, int]:
    """RFC 9422 §4: a list of NAME=NUMBER, in any order; what is none of that is no limit."""
    pairs = (word.partition("=") for word in text.split(" "))
    return {name.upper(): _number(value) for name, _, value in pairs}


def _number(text: str) -> int:
    """The number that a parameter begins with, 0 where it has none."""
    digits = text.strip(" ")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 20 else 0
