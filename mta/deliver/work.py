"""A job in the courier's hands: what the queue manager asked for, and what the spool says about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from mta.deliver.fitting import Fitted
from mta.deliver.handover import Words, asks
from mta.model import Envelope, Job, Outcome, Reader, Ref, Reply, Status, Stored, part_members

if TYPE_CHECKING:
    from mta.deliver.pieces import Pieces


class Work:
    """One delivery to try.

    `since` is when it began to wait for a connection. `fresh` tells that it is the first transaction of its
    connection, `again` that a connection ended under it once before anything had been said about it.
    `notify` are the bits NOTIFY_... of all recipients together, `traced` is by-trace of RFC 2852, `timed` the end of
    its time in milliseconds, where its sender is told when that is past (by-mode N). `special` tells that the envelope
    says more than addresses and size, so that a host must be looked at first (`mta.deliver.agreement`); `words` is what
    is said to it then, `fitted` the text made fit for one, `left_out` what became of recipients whom the host cannot
    serve: they are not among `members` then. `unguarded` tells that a notice of what required TLS goes without, since
    no host that takes it offers REQUIRETLS (RFC 8689 §5). `several` tells that there is more than one member; `pieces`
    is set where a site or host does not take all at once: `members` are those of one transaction then.
    """

    __slots__ = (
        "_everybody",
        "addresses",
        "again",
        "fitted",
        "fresh",
        "job",
        "left_out",
        "members",
        "notify",
        "pieces",
        "sender",
        "several",
        "since",
        "special",
        "stored",
        "timed",
        "traced",
        "unguarded",
        "words",
    )

    def __init__(self, job: Job, since: float) -> None:
        self.job = job
        self.since = since
        self.fresh = True
        self.again = False
        self.sender = b""
        self.notify = 0
        self.traced = False
        self.timed = 0
        self.unguarded = False
        self.left_out: tuple[Outcome, ...] = ()
        self._everybody: tuple[tuple[int, ...], tuple[bytes, ...]] = ((), ())
        self.members: tuple[int, ...] = ()  # indexes into the envelope's recipients
        self.addresses: tuple[bytes, ...] = ()  # of the members, in the same order
        self.stored: Stored | None = None
        self.special = False
        self.several = False
        self.words: Words | None = None
        self.fitted: Fitted | None = None
        self.pieces: Pieces | None = None

    def open(self, reader: Reader) -> Stored:
        """Read envelope and text; StoreError when they are gone or damaged."""
        if self.fitted is not None:
            self.stored = self.fitted.stored
            return self.stored
        stored = reader.read(Ref(self.job.ref))
        if stored.path:
            reader.verify(stored)  # before its first octet is on the wire: later there is no way back
        self.stored = stored
        self._know(stored.envelope, stored.parts)
        return stored

    def address(self, reader: Reader) -> None:
        """Learn who the recipients are, for the log; StoreError when the message is gone."""
        if not self.members:
            stored = reader.read(Ref(self.job.ref))
            self._know(stored.envelope, stored.parts)

    def leave_out(self, unfit: Sequence[int], reply: Reply, hop: str) -> None:
        """These members cannot go to the host; the others can."""
        self._everybody = self.members, self.addresses
        kept = [(i, a) for i, a in zip(self.members, self.addresses, strict=True) if i not in unfit]
        self.members, self.addresses = tuple(i for i, _ in kept), tuple(a for _, a in kept)
        self.left_out = (Outcome(Status.FAILED, reply, hop, tuple(unfit)),)

    def restore(self) -> None:
        """All members are to be tried again, or have been."""
        if self.left_out:
            self.members, self.addresses = self._everybody
            self.left_out = ()

    def whole(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """What became of all members, those that were left out included; `outcomes` are those of the others."""
        if not self.left_out:
            return outcomes
        others = [o if o.recipients else structs.replace(o, recipients=self.members) for o in outcomes]
        every = (*self.left_out, *others)
        self.restore()
        return every

    def _know(self, envelope: Envelope, parts: tuple[tuple[int, ...], ...]) -> None:
        recipients = envelope.recipients
        self.sender = envelope.sender
        if envelope.options is not None:
            self.traced = envelope.options.by_trace
            self.timed = 0 if envelope.options.by_return else envelope.options.deliver_by
        if len(recipients) == 1:
            self.members = (0,)
            self.addresses = (recipients[0].address,)
            self.notify = recipients[0].notify
            self.special = bool(asks(envelope.options) or self.notify or recipients[0].orcpt)
        else:
            part = self.job.part
            self.members = self.job.pending or (parts[part] if parts else tuple(part_members(recipients, part)))
            self.addresses = tuple([recipients[i].address for i in self.members])
            self.several = len(self.members) > 1
            orcpt = False
            for i in self.members:
                self.notify |= recipients[i].notify
                orcpt |= bool(recipients[i].orcpt)
            self.special = bool(asks(envelope.options) or self.notify or orcpt)
