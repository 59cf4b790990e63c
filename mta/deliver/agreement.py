"""Whether a host may have a mail, and in what words: asked only where one of them is out of the ordinary.

Either the work is (`Work.special`), or the host: it takes smaller texts, or no eight-bit octets.
"""

from __future__ import annotations

from mta.deliver.fitting import is_fit
from mta.deliver.handover import NO_UTF8, Offer, needs, words
from mta.deliver.work import Work
from mta.mail.downgrade import Need
from mta.model import Envelope, Reply


def agree(work: Work, offer: Offer, now_ms: int, *, hop: str = "", chunking: bool, final: bool) -> Need | Reply | None:
    """None: it may go, `work.words` says how. A Need: its text is to be made fit first. A Reply: never to this host.

    Recipients that alone cannot go to this host are left out of the work.
    """
    work.restore()
    stored = work.stored
    assert stored is not None
    envelope = stored.envelope
    if stored.size > offer.size:
        text = f"the message has {stored.size} octets, and the next host takes {offer.size} at most"
        return Reply(0, "5.3.4", text)
    need = needs(envelope, offer)
    fitted = work.fitted
    if fitted is not None and need & ~fitted.need:
        need |= fitted.need
    if (fitted is None or need & ~fitted.need) and need and not is_fit(stored, need):
        return need
    options = envelope.options
    if not offer.utf8 and options is not None and options.utf8:
        _leave_out_utf8(work, envelope, hop)
    binary = options is not None and options.binary and not (fitted is not None and fitted.need & Need.LINES)
    said = words(
        envelope,
        [envelope.recipients[i] for i in work.members],
        offer,
        now_ms,
        binary=binary,
        eight_bit=not binary and (envelope.eight_bit if fitted is None else fitted.eight_bit),
        utf8=options is not None and options.utf8,
        chunking=chunking,
        final=final,
        guarded=not work.unguarded,
    )
    if isinstance(said, Reply):
        return said
    work.words = said
    return None


def _leave_out_utf8(work: Work, envelope: Envelope, hop: str) -> None:
    """Recipients whose addresses the host cannot take; where all are such, or the sender is, none of them can go."""
    unfit = [i for i in work.members if not envelope.recipients[i].address.isascii()]
    if unfit and len(unfit) < len(work.members) and envelope.sender.isascii():
        work.leave_out(unfit, NO_UTF8, hop)


def why(need: Need) -> str:
    """What the host lacks."""
    lacking = [word for flag, word in _WORDS if need & flag]
    return f"the next host does not offer {' or '.join(lacking)}"


_WORDS = ((Need.SEVEN_BIT, "8BITMIME"), (Need.LINES, "BINARYMIME"), (Need.ASCII_HEADER, "SMTPUTF8"))
